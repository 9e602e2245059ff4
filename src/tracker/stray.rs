//! Parts of a mask that have come from nowhere: not next to where the object was, and not like it. They are
//! taken out before they can be followed.

use tch::Tensor;

use super::report::Report;
use super::{Gaze, Region};
use crate::Result;

/// Pixels at network size a side of the places that parts are made of.
pub const PLACE: i64 = 8;
/// Places that an object moves at the most from frame to frame; what appears farther away must look like it.
const REACH: f64 = 3.0;
/// As much more like the object than like its surroundings is like it, come what may.
const CLEARLY: f64 = 0.05;
/// How much less like the reference than the object was of late a part may look that is far from the object,
const BESIDE: f64 = 0.03;
/// and one that is near it, or where there is no other.
const SLACK: f64 = 0.08;
/// How much less still after the object has been gone for long: better something like it than nothing.
const MORE_SLACK: f64 = 0.1;
/// Frames without the object from which on the slack grows, and at which it has grown.
const LONG: (f64, f64) = (60.0, 210.0);
/// Share of its size of late below which what is left of an object is no longer taken for it on trust.
const SPECK: f64 = 0.03;
/// Frames that what was found anew has to go on looking like the object.
const PROBATION: u32 = 5;
/// Frames in a row that have to look like the object in an unrelated scene.
const VERIFICATION: u32 = 10;
/// Frames without the object after which an unrelated scene is treated as any other.
const RESIGNATION: u32 = 300;
/// How much of its size an object that shrinks keeps at least from frame to frame, for [`SPECK`].
const FADING: f64 = 0.98;
/// Share of what a new frame adds to what is known of the object's look.
const RATE: f64 = 0.3;

/// What is known of one object.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Likeness to the reference, of late.
    likeness: Option<f64>,
    /// Share of the frame that it had, of late.
    size: Option<f64>,
    /// Frames since it was last seen.
    gone: u32,
    /// Frames that it is still on probation.
    probation: u32,
    /// Frames in which it has still to be verified because the scene is unrelated to its own.
    unverified: u32,
    /// Middles of the places that it had in the frame before, in parts of the frame.
    places: Vec<(f64, f64)>,
}

/// Watches over parts of masks.
#[derive(Clone, Debug, Default)]
pub struct Stray {
    objects: Vec<Known>,
}

/// One connected part of a mask.
#[derive(Debug, Default)]
struct Part {
    places: Vec<usize>,
    /// Their middles, in parts of the frame.
    middles: Vec<(f64, f64)>,
    /// It is next to where the object was.
    near: bool,
    /// Sums over its places: mask, and mask times likeness.
    weight: f64,
    likeness: f64,
}

impl Stray {
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![Known::default(); objects] }
    }

    /// Being where the object was no longer counts: the next frames may be of another scene. In a scene that is
    /// `unrelated`, what is found must look as much like the reference as the object did of late, for some frames.
    pub fn distrust(&mut self, unrelated: bool) {
        for known in &mut self.objects {
            known.probation = PROBATION;
            known.unverified = if unrelated { VERIFICATION } else { 0 };
        }
    }

    /// What was found in a frame after [`distrust`](Self::distrust) is the object.
    pub fn trust(&mut self) {
        for known in &mut self.objects {
            if known.unverified == 0 {
                known.probation = 0;
            }
        }
    }

    /// Share of the frame that each object had of late.
    pub fn sizes(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.objects.iter().map(|known| known.size)
    }

    /// What the masks of the report are to be multiplied with at each place of each object, or nothing if all
    /// of them stays.
    pub fn sift(&mut self, report: &Report, gaze: Gaze) -> Option<Vec<f32>> {
        let (rows, columns) = report.places();
        let mut keep = vec![1.0f32; self.objects.len() * rows * columns];
        let places = keep.chunks_exact_mut(rows * columns);
        for (index, (known, keep)) in self.objects.iter_mut().zip(places).enumerate() {
            known.sift(report.mask(index), &report.likeness(index), (rows, columns), gaze, keep);
        }
        keep.iter().any(|&keep| keep != 1.0).then_some(keep)
    }

    /// The masks (N, 1, H, W) without what is not kept.
    pub fn strip(masks: &Tensor, keep: &[f32]) -> Result<Tensor> {
        let size = masks.size();
        let keep = Tensor::f_from_slice(keep)?.f_reshape([size[0], 1, size[2] / PLACE, size[3] / PLACE])?;
        let keep = keep.f_to_device(masks.device())?;
        Ok(masks.f_mul(&keep.f_upsample_nearest2d([size[2], size[3]], None, None)?)?)
    }
}

impl Known {
    fn sift(&mut self, mask: &[f32], likeness: &[f32], size: (usize, usize), gaze: Gaze, keep: &mut [f32]) {
        let mut parts = parts(mask, likeness, size);
        for part in &mut parts {
            part.middles = part.places.iter().map(|&place| middle(place, size, gaze)).collect();
            part.near = self.is_near(&part.middles, size, gaze);
        }
        let share = share_of_frame(size, gaze);
        let strict = self.unverified > 0;
        let main = if self.probation == 0 && !strict { main(&parts) } else { None };
        let main =
            main.filter(|&index| self.size.is_none_or(|size| parts[index].weight * share >= SPECK * size));
        let (mut weight, mut like) = (0.0, 0.0);
        let mut places = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let look = part.likeness / part.weight;
            let slack = match main {
                _ if strict => 0.0,
                Some(_) if part.near => SLACK,
                Some(_) => BESIDE,
                None => self.slack(),
            };
            let alike =
                (look >= CLEARLY && !strict) || self.likeness.is_none_or(|known| look >= known - slack);
            if alike || main == Some(index) {
                places.extend(part.middles);
                weight += part.weight;
                like += part.likeness;
            } else {
                part.places.iter().for_each(|&place| keep[place] = 0.0);
            }
        }
        if strict {
            let found = !places.is_empty();
            let resigned = self.gone >= RESIGNATION;
            self.unverified = match (found, resigned) {
                (true, _) => self.unverified - 1,
                (false, true) => 0,
                (false, false) => VERIFICATION,
            };
        }
        if places.is_empty() {
            self.gone = self.gone.saturating_add(1);
            self.probation = if self.likeness.is_some() { PROBATION } else { 0 };
        } else {
            self.gone = 0;
            self.probation = self.probation.saturating_sub(1);
        }
        self.places = places;
        if weight > 0.0 && self.probation == 0 {
            let follow =
                |known: Option<f64>, now: f64| known.map_or(now, |known| known + RATE * (now - known));
            self.likeness = Some(follow(self.likeness, like / weight));
            // An object that leaves is remembered as large as it was.
            let size = follow(self.size, weight * share);
            self.size = Some(self.size.map_or(size, |known| size.max(known * FADING)));
        }
    }

    fn slack(&self) -> f64 {
        let grown = (f64::from(self.gone) - LONG.0) / (LONG.1 - LONG.0);
        SLACK + MORE_SLACK * grown.clamp(0.0, 1.0)
    }

    fn is_near(&self, middles: &[(f64, f64)], (rows, columns): (usize, usize), gaze: Gaze) -> bool {
        let Region { width, height, .. } = gaze.region;
        let reach = (
            REACH * width as f64 / columns as f64 / gaze.frame.0 as f64,
            REACH * height as f64 / rows as f64 / gaze.frame.1 as f64,
        );
        middles.iter().any(|here| {
            self.places
                .iter()
                .any(|there| (here.0 - there.0).abs() <= reach.0 && (here.1 - there.1).abs() <= reach.1)
        })
    }
}

/// The largest of the parts that are near.
fn main(parts: &[Part]) -> Option<usize> {
    let near = parts.iter().enumerate().filter(|(_, part)| part.near);
    let (index, _) =
        near.max_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight).then(b.places.cmp(&a.places)))?;
    Some(index)
}

/// How much of the frame one place is.
fn share_of_frame((rows, columns): (usize, usize), gaze: Gaze) -> f64 {
    let area = |width: usize, height: usize| width as f64 * height as f64;
    area(gaze.region.width, gaze.region.height) / area(gaze.frame.0, gaze.frame.1) / area(columns, rows)
}

/// Where in the frame the middle of a place is, in parts of its width and height.
fn middle(place: usize, (rows, columns): (usize, usize), gaze: Gaze) -> (f64, f64) {
    let Region { x, y, width, height } = gaze.region;
    let part = |index: usize, of: usize| (index as f64 + 0.5) / of as f64;
    (
        (x as f64 + part(place % columns, columns) * width as f64) / gaze.frame.0 as f64,
        (y as f64 + part(place / columns, rows) * height as f64) / gaze.frame.1 as f64,
    )
}

/// The connected parts of what is above a tenth, corners counting as connections.
fn parts(mask: &[f32], likeness: &[f32], (rows, columns): (usize, usize)) -> Vec<Part> {
    let mut seen = vec![false; mask.len()];
    let mut parts = Vec::new();
    for start in 0..mask.len() {
        if seen[start] || mask[start] < 0.1 {
            continue;
        }
        let mut part = Part::default();
        let mut open = vec![start];
        seen[start] = true;
        while let Some(place) = open.pop() {
            part.places.push(place);
            part.weight += f64::from(mask[place]);
            part.likeness += f64::from(mask[place] * likeness[place]);
            let (row, column) = (place / columns, place % columns);
            for row in row.saturating_sub(1)..(row + 2).min(rows) {
                for column in column.saturating_sub(1)..(column + 2).min(columns) {
                    let next = row * columns + column;
                    if !seen[next] && mask[next] >= 0.1 {
                        seen[next] = true;
                        open.push(next);
                    }
                }
            }
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::super::report;
    use super::*;

    const FRAME: (usize, usize) = (640, 320);

    /// A mask with squares of ones at the given columns, each with a likeness of its own.
    fn scene(squares: &[(i64, f64)]) -> (Tensor, Tensor) {
        let mask = Tensor::zeros([1, 1, 160, 320], (Kind::Float, Device::Cpu));
        let likeness = Tensor::full([1, 1, 10, 20], -0.5, (Kind::Float, Device::Cpu));
        for &(column, value) in squares {
            let _ = mask.narrow(2, 48, 48).narrow(3, column, 48).fill_(1.0);
            let _ = likeness.narrow(2, 3, 3).narrow(3, column / 16, 3).fill_(value);
        }
        (mask, likeness)
    }

    /// At which of the squares something is left.
    fn left(stray: &mut Stray, squares: &[(i64, f64)]) -> Vec<i64> {
        let (mask, likeness) = scene(squares);
        let gaze = Gaze { region: Region::whole(FRAME), frame: FRAME, size: (192, 336) };
        let report = report::write(&mask, &likeness).unwrap();
        let report = Report::read(&report, &mask, &likeness).unwrap();
        let mask = match stray.sift(&report, gaze) {
            Some(keep) => Stray::strip(&mask, &keep).unwrap(),
            None => mask,
        };
        let is_left = |column: i64| mask.double_value(&[0, 0, 70, column + 24]) > 0.5;
        squares.iter().map(|square| square.0).filter(|&column| is_left(column)).collect()
    }

    fn following(column: i64, likeness: f64) -> Stray {
        let mut stray = Stray::new(1);
        for _ in 0..10 {
            assert_eq!(left(&mut stray, &[(column, likeness)]), [column]);
        }
        stray
    }

    #[test]
    fn the_object_itself_may_change_its_look() {
        let mut stray = following(16, 0.02);
        assert_eq!(left(&mut stray, &[(16, -0.3)]), [16]);
        assert_eq!(left(&mut stray, &[(32, -0.4)]), [32]);
    }

    #[test]
    fn what_appears_far_away_must_look_like_it() {
        let mut stray = following(16, 0.02);
        assert_eq!(left(&mut stray, &[(16, 0.02), (240, -0.1)]), [16]);
        assert_eq!(left(&mut stray, &[(16, 0.02), (240, 0.03)]), [16, 240]);
    }

    #[test]
    fn nothing_else_takes_the_place_of_an_object_that_is_gone() {
        let mut stray = following(16, 0.02);
        for _ in 0..50 {
            assert_eq!(left(&mut stray, &[(240, -0.1)]), [0; 0]);
        }
        assert_eq!(left(&mut stray, &[(160, 0.0)]), [160], "it is back");
    }

    #[test]
    fn what_was_found_by_mistake_is_let_go() {
        let mut stray = following(16, 0.02);
        assert_eq!(left(&mut stray, &[]), [0; 0]);
        assert_eq!(left(&mut stray, &[(240, -0.05)]), [240]);
        assert_eq!(left(&mut stray, &[(240, -0.1)]), [0; 0]);
    }

    #[test]
    fn after_a_long_time_something_like_it_will_do() {
        let mut stray = following(16, 0.02);
        let found = (0..400).find(|_| !left(&mut stray, &[(240, -0.12)]).is_empty());
        assert!(found.is_some_and(|frame| frame > LONG.0 as usize), "{found:?}");
    }

    #[test]
    fn what_splits_off_and_looks_like_something_else_is_let_go() {
        let mut stray = following(64, 0.02);
        assert_eq!(left(&mut stray, &[(64, 0.02), (128, -0.2)]), [64]);
        assert_eq!(left(&mut stray, &[(64, 0.02), (128, -0.04)]), [64, 128]);
    }
}
