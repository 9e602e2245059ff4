// SPDX-License-Identifier: MPL-2.0

//! Presence detector: decides for each object whether it is in the picture, and suppresses the masks of lost
//! objects.

use super::ObjectStats;

/// Whether the objects are in the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// At least one object is in the picture.
    #[default]
    Seen,
    /// All objects are hidden or have left the picture.
    Lost,
}

/// Minimum area of a mask as a fraction of the crop window.
const MIN_AREA: f64 = 0.0005;
/// Minimum certainty of a mask that counts as one of a lost object.
const MIN_CERTAINTY: f64 = 0.7;
/// Consecutive frames without a mask until an object is lost.
const FRAMES_TO_LOST: u32 = 3;
/// Consecutive frames with a mask until a lost object is found.
const FRAMES_TO_FOUND: u32 = 2;

#[derive(Clone, Debug, Default)]
pub struct PresenceDetector {
    objects: Vec<Object>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Object {
    lost: bool,
    /// Consecutive frames that contradict `lost`.
    contradictions: u32,
}

impl Object {
    fn update(&mut self, stats: &ObjectStats) {
        let has_mask = stats.area >= MIN_AREA && (!self.lost || stats.certainty >= MIN_CERTAINTY);
        let limit = if self.lost { FRAMES_TO_FOUND } else { FRAMES_TO_LOST };
        self.contradictions = if has_mask == self.lost { self.contradictions + 1 } else { 0 };
        if self.contradictions >= limit {
            *self = Self { lost: !self.lost, contradictions: 0 };
        }
    }
}

impl PresenceDetector {
    /// All objects start as present.
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![Object::default(); objects] }
    }

    pub fn presence(&self) -> Presence {
        let lost = !self.objects.is_empty() && self.objects.iter().all(|object| object.lost);
        if lost { Presence::Lost } else { Presence::Seen }
    }

    /// Returns for each object whether it is in the picture.
    pub fn present(&self) -> impl Iterator<Item = bool> + '_ {
        self.objects.iter().map(|object| !object.lost)
    }

    pub fn any_lost(&self) -> bool {
        self.objects.iter().any(|object| object.lost)
    }

    /// Updates the presence of each object and clears the bounds of lost ones. Returns the factors of the masks, 0
    /// for a lost object and 1 for any other, or `None` if no object is lost.
    pub fn update(&mut self, stats: &mut [ObjectStats]) -> Option<Vec<f32>> {
        for (object, stats) in self.objects.iter_mut().zip(stats) {
            object.update(stats);
            if object.lost {
                stats.bounds = None;
            }
        }
        self.any_lost()
            .then(|| self.objects.iter().map(|object| if object.lost { 0.0 } else { 1.0 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(detector: &mut PresenceDetector, items: &[(f64, f64)]) -> Option<Vec<f32>> {
        let stats = |&(area, certainty): &_| ObjectStats { area, certainty, ..ObjectStats::default() };
        detector.update(&mut items.iter().map(stats).collect::<Vec<_>>())
    }

    #[test]
    fn two_empty_frames_are_not_a_loss() {
        let mut detector = PresenceDetector::new(1);
        for area in [0.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.1] {
            assert_eq!(update(&mut detector, &[(area, 0.9)]), None);
            assert_eq!(detector.presence(), Presence::Seen);
        }
    }

    #[test]
    fn lost_after_three_frames_and_found_after_two() {
        let mut detector = PresenceDetector::new(1);
        let frames = [(0.0, 0.0); 3].into_iter().chain([(0.1, 0.9); 2]);
        let states: Vec<_> = frames
            .map(|frame| {
                update(&mut detector, &[frame]);
                detector.presence()
            })
            .collect();
        use Presence::{Lost, Seen};
        assert_eq!(states, [Seen, Seen, Lost, Lost, Seen]);
    }

    #[test]
    fn a_lost_object_has_no_mask_until_it_is_found() {
        let mut detector = PresenceDetector::new(1);
        (0..3).for_each(|_| drop(update(&mut detector, &[(0.0, 0.0)])));
        assert_eq!(update(&mut detector, &[(0.1, 0.9)]), Some(vec![0.0]));
        assert_eq!(update(&mut detector, &[(0.1, 0.6)]), Some(vec![0.0]), "uncertain masks do not count");
        assert_eq!(update(&mut detector, &[(0.1, 0.9)]), Some(vec![0.0]));
        assert_eq!(update(&mut detector, &[(0.1, 0.9)]), None);
    }

    #[test]
    fn objects_are_lost_independently() {
        let mut detector = PresenceDetector::new(2);
        let frames = (0..3).map(|_| update(&mut detector, &[(0.1, 0.9), (0.0, 0.0)]));
        assert_eq!(frames.last().flatten(), Some(vec![1.0, 0.0]));
        assert_eq!(detector.presence(), Presence::Seen);
    }
}
