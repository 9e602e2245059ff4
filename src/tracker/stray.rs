//! Parts of a mask that have come from nowhere: not next to where the object was, and not like it. They are
//! taken out before they can be followed.

use tch::{Kind, Tensor};

use super::{Gaze, Region};
use crate::Result;
use crate::model::layers::average_pool;

/// Pixels at network size a side of the places that parts are made of.
pub const PLACE: i64 = 8;
/// Places that an object moves at the most from frame to frame; what appears farther away must look like it.
const REACH: f64 = 3.0;
/// As much more like the object than like its surroundings is like it, come what may.
const CLEARLY: f64 = 0.05;
/// How much less like the reference than the object was of late a part may look beside the object itself,
const BESIDE: f64 = 0.03;
/// and where there is no other.
const SLACK: f64 = 0.08;
/// How much less still after the object has been gone for long: better something like it than nothing.
const MORE_SLACK: f64 = 0.1;
/// Frames without the object from which on the slack grows, and at which it has grown.
const LONG: (f64, f64) = (60.0, 210.0);
/// Frames that what was found anew has to go on looking like the object.
const PROBATION: u32 = 5;
/// Share of what a new frame adds to what is known of the object's look.
const RATE: f64 = 0.3;

/// What is known of one object.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Likeness to the reference, of late.
    likeness: Option<f64>,
    /// Frames since it was last seen.
    gone: u32,
    /// Frames that it is still on probation.
    probation: u32,
    /// Middles of the places that it had in the frame before, in parts of the frame.
    places: Vec<(f64, f64)>,
}

/// Watches over parts of masks.
#[derive(Debug, Default)]
pub struct Stray {
    objects: Vec<Known>,
}

/// One connected part of a mask.
#[derive(Debug, Default)]
struct Part {
    places: Vec<usize>,
    /// Sums over its places: mask, and mask times likeness.
    weight: f64,
    likeness: f64,
}

impl Stray {
    pub fn new(objects: usize) -> Self {
        Self { objects: vec![Known::default(); objects] }
    }

    /// What `masks` (N, 1, H, W) are to be multiplied with, at their size, or nothing if all of them stays.
    /// `likeness` (N, 1, H/16, W/16) is the regressor's.
    pub fn sift(&mut self, masks: &Tensor, likeness: &Tensor, gaze: Gaze) -> Result<Option<Tensor>> {
        let pooled = average_pool(masks, PLACE)?;
        let size = pooled.size();
        let (rows, columns) = (size[2] as usize, size[3] as usize);
        let likeness =
            likeness.f_to_kind(Kind::Float)?.f_upsample_nearest2d([size[2], size[3]], None, None)?;
        let numbers = |x: &Tensor| -> Result<Vec<f32>> { Ok(Vec::<f32>::try_from(&x.f_reshape([-1])?)?) };
        let (mask, likeness) = (numbers(&pooled)?, numbers(&likeness)?);
        let mut keep = vec![1.0f32; mask.len()];
        for (index, known) in self.objects.iter_mut().enumerate() {
            let of = index * rows * columns..(index + 1) * rows * columns;
            let (mask, likeness, keep) = (&mask[of.clone()], &likeness[of.clone()], &mut keep[of]);
            known.sift(mask, likeness, (rows, columns), gaze, keep);
        }
        if keep.iter().all(|&keep| keep == 1.0) {
            return Ok(None);
        }
        let keep = Tensor::f_from_slice(&keep)?.f_reshape(&size)?.f_to_device(masks.device())?;
        let size = masks.size();
        Ok(Some(keep.f_upsample_nearest2d([size[2], size[3]], None, None)?))
    }
}

impl Known {
    fn sift(&mut self, mask: &[f32], likeness: &[f32], size: (usize, usize), gaze: Gaze, keep: &mut [f32]) {
        let parts: Vec<_> = parts(mask, likeness, size)
            .into_iter()
            .map(|part| {
                let middles: Vec<_> = part.places.iter().map(|&place| middle(place, size, gaze)).collect();
                let near = self.is_near(&middles, size, gaze);
                (part, middles, near)
            })
            .collect();
        let trusted = self.probation == 0 && parts.iter().any(|&(.., near)| near);
        let slack = if trusted { BESIDE } else { self.slack() };
        let (mut weight, mut like) = (0.0, 0.0);
        let mut places = Vec::new();
        for (part, middles, near) in parts {
            let look = part.likeness / part.weight;
            let alike = look >= CLEARLY || self.likeness.is_none_or(|known| look >= known - slack);
            if alike || (near && trusted) {
                places.extend(middles);
                weight += part.weight;
                like += part.likeness;
            } else {
                part.places.iter().for_each(|&place| keep[place] = 0.0);
            }
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
            let now = like / weight;
            self.likeness = Some(self.likeness.map_or(now, |known| known + RATE * (now - known)));
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
