//! Parts of a mask that have come from nowhere: not next to where the object was, and not like it. They are
//! taken out before they can be followed.

use tch::Tensor;

use super::CropWindow;
use super::frame_stats::FrameStats;
use crate::Result;
use crate::image::Region;

/// Pixels at network size a side of the cells that parts are made of.
pub const CELL: i64 = 8;
/// Places that an object moves at the most from frame to frame; what appears farther away must look like it.
const MAX_MOTION: f64 = 3.0;
/// As much more like the object than like its surroundings is like it, come what may.
const ALWAYS_KEPT_SIMILARITY: f64 = 0.05;
/// How much less like the reference than the object was of late a part may look that is far from the object,
const FAR_SLACK: f64 = 0.03;
/// and one that is near it, or where there is no other.
const NEAR_SLACK: f64 = 0.08;
/// How much less still after the object has been gone for long: better something like it than nothing.
const LONG_GONE_SLACK: f64 = 0.1;
/// Frames without the object from which on the slack grows, and at which it has grown.
const GONE_RAMP: (f64, f64) = (60.0, 210.0);
/// Share of its size of late below which what is left of an object is no longer taken for it on trust.
const MIN_MAIN_SHARE: f64 = 0.03;
/// Frames that what was found anew has to go on looking like the object.
const PROBATION: u32 = 5;
/// Frames in a row that have to look like the object in an unrelated scene.
const VERIFICATION: u32 = 10;
/// Frames without the object after which an unrelated scene is treated as any other.
const MAX_UNVERIFIED: u32 = 300;
/// How much of its size an object that shrinks keeps at least from frame to frame, for [`MIN_MAIN_SHARE`].
const MIN_SIZE_KEPT: f64 = 0.98;
/// Share of what a new frame adds to what is known of the object's look.
const UPDATE_RATE: f64 = 0.3;

/// What is known of one object.
#[derive(Clone, Debug, Default)]
struct ObjectTrack {
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
    /// Middles of the cells that it had in the frame before, in parts of the frame.
    cells: Vec<(f64, f64)>,
}

/// Watches over parts of masks.
#[derive(Clone, Debug, Default)]
pub struct DistractorFilter {
    objects: Vec<ObjectTrack>,
}

/// One connected part of a mask.
#[derive(Debug, Default)]
struct Part {
    cells: Vec<usize>,
    /// Their middles, in parts of the frame.
    middles: Vec<(f64, f64)>,
    /// It is next to where the object was.
    near: bool,
    /// Sums over its cells: mask, and mask times likeness.
    weight: f64,
    likeness: f64,
}

impl DistractorFilter {
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![ObjectTrack::default(); objects] }
    }

    /// Being where the object was no longer counts: the next frames may be of another scene. In a scene that is
    /// `unrelated`, what is found must look as much like the reference as the object did of late, for some frames.
    pub fn distrust(&mut self, unrelated: bool) {
        for track in &mut self.objects {
            track.probation = PROBATION;
            track.unverified = if unrelated { VERIFICATION } else { 0 };
        }
    }

    /// What was found in a frame after [`distrust`](Self::distrust) is the object.
    pub fn trust(&mut self) {
        for track in &mut self.objects {
            if track.unverified == 0 {
                track.probation = 0;
            }
        }
    }

    /// Share of the frame that each object had of late.
    pub fn sizes(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        self.objects.iter().map(|track| track.size)
    }

    /// What the masks are to be multiplied with at each cell of each object, or nothing if all
    /// of them stays.
    pub fn filter_components(&mut self, stats: &FrameStats, crop: CropWindow) -> Option<Vec<f32>> {
        let (rows, columns) = stats.cells();
        let mut keep = vec![1.0f32; self.objects.len() * rows * columns];
        let cells = keep.chunks_exact_mut(rows * columns);
        for (index, (track, keep)) in self.objects.iter_mut().zip(cells).enumerate() {
            track.filter_components(stats.mask(index), &stats.likeness(index), (rows, columns), crop, keep);
        }
        keep.iter().any(|&keep| keep != 1.0).then_some(keep)
    }

    /// The masks (N, 1, H, W) without what is not kept.
    pub fn remove_components(masks: &Tensor, keep: &[f32]) -> Result<Tensor> {
        let size = masks.size();
        let keep = Tensor::f_from_slice(keep)?.f_reshape([size[0], 1, size[2] / CELL, size[3] / CELL])?;
        let keep = keep.f_to_device(masks.device())?;
        Ok(masks.f_mul(&keep.f_upsample_nearest2d([size[2], size[3]], None, None)?)?)
    }
}

impl ObjectTrack {
    fn filter_components(
        &mut self,
        mask: &[f32],
        likeness: &[f32],
        size: (usize, usize),
        crop: CropWindow,
        keep: &mut [f32],
    ) {
        let mut parts = parts(mask, likeness, size);
        for part in &mut parts {
            part.middles = part.cells.iter().map(|&cell| middle(cell, size, crop)).collect();
            part.near = self.is_near(&part.middles, size, crop);
        }
        let share = share_of_frame(size, crop);
        let strict = self.unverified > 0;
        let main = if self.probation == 0 && !strict { main(&parts) } else { None };
        let main = main.filter(|&index| {
            self.size.is_none_or(|size| parts[index].weight * share >= MIN_MAIN_SHARE * size)
        });
        let (mut weight, mut like) = (0.0, 0.0);
        let mut cells = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let look = part.likeness / part.weight;
            let slack = match main {
                _ if strict => 0.0,
                Some(_) if part.near => NEAR_SLACK,
                Some(_) => FAR_SLACK,
                None => self.slack(),
            };
            let alike = (look >= ALWAYS_KEPT_SIMILARITY && !strict)
                || self.likeness.is_none_or(|track| look >= track - slack);
            if alike || main == Some(index) {
                cells.extend(part.middles);
                weight += part.weight;
                like += part.likeness;
            } else {
                part.cells.iter().for_each(|&cell| keep[cell] = 0.0);
            }
        }
        if strict {
            let found = !cells.is_empty();
            let resigned = self.gone >= MAX_UNVERIFIED;
            self.unverified = match (found, resigned) {
                (true, _) => self.unverified - 1,
                (false, true) => 0,
                (false, false) => VERIFICATION,
            };
        }
        if cells.is_empty() {
            self.gone = self.gone.saturating_add(1);
            self.probation = if self.likeness.is_some() { PROBATION } else { 0 };
        } else {
            self.gone = 0;
            self.probation = self.probation.saturating_sub(1);
        }
        self.cells = cells;
        if weight > 0.0 && self.probation == 0 {
            let follow =
                |track: Option<f64>, now: f64| track.map_or(now, |track| track + UPDATE_RATE * (now - track));
            self.likeness = Some(follow(self.likeness, like / weight));
            // An object that leaves is remembered as large as it was.
            let size = follow(self.size, weight * share);
            self.size = Some(self.size.map_or(size, |track| size.max(track * MIN_SIZE_KEPT)));
        }
    }

    fn slack(&self) -> f64 {
        let grown = (f64::from(self.gone) - GONE_RAMP.0) / (GONE_RAMP.1 - GONE_RAMP.0);
        NEAR_SLACK + LONG_GONE_SLACK * grown.clamp(0.0, 1.0)
    }

    fn is_near(&self, middles: &[(f64, f64)], (rows, columns): (usize, usize), crop: CropWindow) -> bool {
        let Region { width, height, .. } = crop.region;
        let reach = (
            MAX_MOTION * width as f64 / columns as f64 / crop.frame.0 as f64,
            MAX_MOTION * height as f64 / rows as f64 / crop.frame.1 as f64,
        );
        middles.iter().any(|here| {
            self.cells
                .iter()
                .any(|there| (here.0 - there.0).abs() <= reach.0 && (here.1 - there.1).abs() <= reach.1)
        })
    }
}

/// The largest of the parts that are near.
fn main(parts: &[Part]) -> Option<usize> {
    let near = parts.iter().enumerate().filter(|(_, part)| part.near);
    let (index, _) =
        near.max_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight).then(b.cells.cmp(&a.cells)))?;
    Some(index)
}

/// How much of the frame one cell is.
fn share_of_frame((rows, columns): (usize, usize), crop: CropWindow) -> f64 {
    let area = |width: usize, height: usize| width as f64 * height as f64;
    area(crop.region.width, crop.region.height) / area(crop.frame.0, crop.frame.1) / area(columns, rows)
}

/// Where in the frame the middle of a cell is, in parts of its width and height.
fn middle(cell: usize, (rows, columns): (usize, usize), crop: CropWindow) -> (f64, f64) {
    let Region { x, y, width, height } = crop.region;
    let part = |index: usize, of: usize| (index as f64 + 0.5) / of as f64;
    (
        (x as f64 + part(cell % columns, columns) * width as f64) / crop.frame.0 as f64,
        (y as f64 + part(cell / columns, rows) * height as f64) / crop.frame.1 as f64,
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
        while let Some(cell) = open.pop() {
            part.cells.push(cell);
            part.weight += f64::from(mask[cell]);
            part.likeness += f64::from(mask[cell] * likeness[cell]);
            let (row, column) = (cell / columns, cell % columns);
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

    use super::super::frame_stats;
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
    fn left(stray: &mut DistractorFilter, squares: &[(i64, f64)]) -> Vec<i64> {
        let (mask, likeness) = scene(squares);
        let crop = CropWindow { region: Region::whole(FRAME), frame: FRAME, size: (192, 336) };
        let stats = frame_stats::write(&mask, &likeness).unwrap();
        let stats = FrameStats::read(&stats, &mask, &likeness).unwrap();
        let mask = match stray.filter_components(&stats, crop) {
            Some(keep) => DistractorFilter::remove_components(&mask, &keep).unwrap(),
            None => mask,
        };
        let is_left = |column: i64| mask.double_value(&[0, 0, 70, column + 24]) > 0.5;
        squares.iter().map(|square| square.0).filter(|&column| is_left(column)).collect()
    }

    fn following(column: i64, likeness: f64) -> DistractorFilter {
        let mut stray = DistractorFilter::new(1);
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
        assert!(found.is_some_and(|frame| frame > GONE_RAMP.0 as usize), "{found:?}");
    }

    #[test]
    fn what_splits_off_and_looks_like_something_else_is_let_go() {
        let mut stray = following(64, 0.02);
        assert_eq!(left(&mut stray, &[(64, 0.02), (128, -0.2)]), [64]);
        assert_eq!(left(&mut stray, &[(64, 0.02), (128, -0.04)]), [64, 128]);
    }
}
