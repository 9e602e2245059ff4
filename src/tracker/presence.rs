//! Tells objects that are there from those that are hidden or gone, so that a stray mask is not followed.

use super::ObjectStats;

/// Whether the objects are in the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// At least one of them is.
    #[default]
    Seen,
    /// None is: they are hidden, or have left.
    Lost,
}

/// Share of the region looked at that a mask needs, to be one.
const MIN_AREA: f64 = 0.0005;
/// Its mean value where it is above one half, for an object that was lost to count as seen.
const MIN_CERTAINTY: f64 = 0.7;
/// Frames in a row without a mask until an object is lost.
const FRAMES_TO_LOST: u32 = 3;
/// Frames in a row with one until it is found again.
const FRAMES_TO_FOUND: u32 = 2;

/// Keeps an eye on every object.
#[derive(Clone, Debug, Default)]
pub struct PresenceDetector {
    objects: Vec<Object>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Object {
    lost: bool,
    /// Frames in a row that speak for the contrary.
    contrary: u32,
}

impl Object {
    fn update(&mut self, stats: &ObjectStats) {
        let there = stats.area >= MIN_AREA && (!self.lost || stats.certainty >= MIN_CERTAINTY);
        let limit = if self.lost { FRAMES_TO_FOUND } else { FRAMES_TO_LOST };
        self.contrary = if there == self.lost { self.contrary + 1 } else { 0 };
        if self.contrary >= limit {
            *self = Self { lost: !self.lost, contrary: 0 };
        }
    }
}

impl PresenceDetector {
    /// All of the objects are there: somebody has just shown them.
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![Object::default(); objects] }
    }

    pub fn presence(&self) -> Presence {
        let lost = !self.objects.is_empty() && self.objects.iter().all(|object| object.lost);
        if lost { Presence::Lost } else { Presence::Seen }
    }

    /// Whether each object is in the picture.
    pub fn present(&self) -> impl Iterator<Item = bool> + '_ {
        self.objects.iter().map(|object| !object.lost)
    }

    /// Whether an object is lost, whatever the others are.
    pub fn any_lost(&self) -> bool {
        self.objects.iter().any(|object| object.lost)
    }

    /// Decides for each object. Of one that is lost nothing is left: not its bounds, and not its mask. What
    /// masks are to be multiplied with, if that is not 1 for all.
    pub fn update(&mut self, stats: &mut [ObjectStats]) -> Option<Vec<f32>> {
        for (object, stats) in self.objects.iter_mut().zip(stats) {
            object.update(stats);
            if object.lost {
                stats.bounds = None;
            }
        }
        let any = self.objects.iter().any(|object| object.lost);
        any.then(|| self.objects.iter().map(|object| if object.lost { 0.0 } else { 1.0 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(area: f64, certainty: f64) -> ObjectStats {
        let bounds = Some(super::super::Bounds { left: 0.0, right: 1.0, top: 0.0, bottom: 1.0 });
        ObjectStats { area, certainty, confidence: certainty, likeness: 0.0, bounds }
    }

    fn update(watch: &mut PresenceDetector, items: &[(f64, f64)]) -> Option<Vec<f32>> {
        let mut stats: Vec<_> = items.iter().map(|&(area, certainty)| stats(area, certainty)).collect();
        watch.update(&mut stats)
    }

    #[test]
    fn a_single_empty_frame_is_no_loss() {
        let mut watch = PresenceDetector::new(1);
        for area in [0.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.1] {
            assert_eq!(update(&mut watch, &[(area, 0.9)]), None);
            assert_eq!(watch.presence(), Presence::Seen);
        }
    }

    #[test]
    fn lost_and_found() {
        let mut watch = PresenceDetector::new(1);
        let frames = [(0.0, 0.0); 3].into_iter().chain([(0.1, 0.9); 2]);
        let states: Vec<_> = frames
            .map(|frame| {
                update(&mut watch, &[frame]);
                watch.presence()
            })
            .collect();
        use Presence::{Lost, Seen};
        assert_eq!(states, [Seen, Seen, Lost, Lost, Seen]);
    }

    #[test]
    fn a_lost_object_has_no_mask_until_it_is_found() {
        let mut watch = PresenceDetector::new(1);
        (0..3).for_each(|_| drop(update(&mut watch, &[(0.0, 0.0)])));
        assert_eq!(update(&mut watch, &[(0.1, 0.9)]), Some(vec![0.0]));
        assert_eq!(update(&mut watch, &[(0.1, 0.6)]), Some(vec![0.0]), "unsure masks do not count");
        assert_eq!(update(&mut watch, &[(0.1, 0.9)]), Some(vec![0.0]));
        assert_eq!(update(&mut watch, &[(0.1, 0.9)]), None);
    }

    #[test]
    fn one_of_two_objects_is_lost_alone() {
        let mut watch = PresenceDetector::new(2);
        let frames = (0..3).map(|_| update(&mut watch, &[(0.1, 0.9), (0.0, 0.0)]));
        assert_eq!(frames.last().flatten(), Some(vec![1.0, 0.0]));
        assert_eq!(watch.presence(), Presence::Seen);
    }
}
