// SPDX-License-Identifier: MPL-2.0

//! Selection of one mask for a prompt.

use std::ops::ControlFlow;

use tch::{Kind, Tensor};

use super::candidate::{Candidate, bounds, to_alpha};
use super::{Embedding, Point, Prompt, PromptNetwork, Rect};
use crate::image::{FrameSource, Picture, Region};
use crate::model::layers::zeros;
use crate::{Error, Result};

/// Width and height of the crop by those of the box.
const CROP: f64 = 2.0;
/// A crop of more than this share of the picture adds nothing to the whole picture.
const MAX_CROP: f64 = 0.8;
/// Logits are limited to this magnitude before they are averaged.
const LIMIT: f64 = 10.0;
/// Candidate of the largest extent.
const WHOLE: usize = 3;
/// A largest candidate that covers more than this share of the picture is its background.
const MAX_OBJECT: f64 = 0.7;
/// So is one that reaches this number of borders.
const MAX_BORDERS: i64 = 3;
/// A largest candidate whose stability is below this share of the highest one of the others has no border of its own.
const MIN_STABILITY: f64 = 0.6;

/// The mask of the selected object.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Soft alpha at the size of the picture, 0 to 255, row by row.
    pub alpha: Vec<u8>,
    /// IoU with the object as the network predicts it, about 0 to 1.
    pub iou: f64,
}

impl PromptNetwork {
    /// Returns the mask of the object that the prompt selects.
    ///
    /// The whole picture is encoded and decoded, then a crop of twice the box, or without a box, twice the bounds of
    /// the first mask. That mask is part of the prompt for the crop. The logits of both are averaged. With a box, masks
    /// that fill it are preferred, because others are often a part of the object. With a single point, masks of the crop that
    /// agree with the first mask are.
    ///
    /// # Errors
    /// [`Error::Config`] if the prompt or the picture is invalid: see [`Prompt::check`] and
    /// [`encode`](Self::encode).
    pub fn select(&self, picture: &Picture, prompt: &Prompt) -> Result<Selection> {
        self.select_in_steps(picture, prompt, |_| ControlFlow::Continue(()))
    }

    /// As [`select`](Self::select). If a crop is encoded as well, calls `preliminary` with the mask of the whole picture,
    /// after about half the time; its mask is returned if that breaks.
    ///
    /// # Errors
    /// Those of [`select`](Self::select).
    pub fn select_in_steps(
        &self,
        picture: &Picture,
        prompt: &Prompt,
        preliminary: impl FnOnce(&Selection) -> ControlFlow<()>,
    ) -> Result<Selection> {
        prompt.check((picture.width, picture.height))?;
        self.select_encoded(picture, &self.encode(picture)?, prompt, preliminary)
    }

    /// As [`select_in_steps`](Self::select_in_steps), with the picture already encoded, for another prompt on the same
    /// picture.
    ///
    /// # Errors
    /// Those of [`select`](Self::select).
    pub fn select_encoded(
        &self,
        picture: &Picture,
        embedding: &Embedding,
        prompt: &Prompt,
        preliminary: impl FnOnce(&Selection) -> ControlFlow<()>,
    ) -> Result<Selection> {
        let _guard = tch::no_grad_guard();
        let size = (picture.width, picture.height);
        prompt.check(size)?;
        if embedding.placement.picture() != size {
            return Err(Error::Config("the encoded picture has another size than the picture".into()));
        }
        let first = match prompt.rect {
            Some(_) => best(self.decode(embedding, prompt)?, prompt.rect, None)?,
            None => self.decode_points(embedding, prompt)?,
        };
        let logits = first.placement.to_picture(&first.logits)?;
        let selection = Selection { alpha: to_alpha(&logits)?, iou: first.iou };
        let rect = match prompt.rect {
            Some(rect) => Some(rect),
            None => bounds(&logits)?,
        };
        let region = rect.map(|rect| crop_around(rect, &prompt.points, size));
        let area = |region: Region| (region.width * region.height) as f64;
        let Some(region) = region.filter(|region| area(*region) <= MAX_CROP * area(Region::whole(size)))
        else {
            return Ok(selection);
        };
        if preliminary(&selection).is_break() {
            return Ok(selection);
        }

        let mut source = *picture;
        let embedding = self.encode(&source.crop(region, (region.width, region.height))?)?;
        let mut moved = prompt.moved_into(region);
        moved.mask = Some(embedding.placement.to_logits(&part(&logits, region)?)?);
        // Close to a single point, a part of the object looks like a whole.
        let is_ambiguous = prompt.points.len() == 1 && prompt.rect.is_none() && prompt.mask.is_none();
        let before = moved.mask.as_ref().filter(|_| is_ambiguous);
        let second = best(self.decode(&embedding, &moved)?, moved.rect, before)?;
        let close = second.placement.to_picture(&second.logits)?;
        let mean = zeros(&logits.size(), &logits)?.f_sub_scalar(LIMIT)?;
        part(&mean, region)?.f_copy_(&close.f_clamp(-LIMIT, LIMIT)?)?;
        let mean = logits.f_clamp(-LIMIT, LIMIT)?.f_add(&mean)?.f_mul_scalar(0.5)?;
        Ok(Selection { alpha: to_alpha(&mean)?, iou: 0.5 * (first.iou + second.iou) })
    }

    /// Decodes points one after the other, as a user gives them, each with the mask of those before. Begins with the
    /// first positive point.
    pub(super) fn decode_points(&self, embedding: &Embedding, prompt: &Prompt) -> Result<Candidate> {
        let mut points = prompt.points.clone();
        if let Some(first) = points.iter().position(|point| point.positive) {
            points[..=first].rotate_right(1);
        }
        let decode = |count: usize, mask: Option<Tensor>| {
            self.decode(embedding, &Prompt { points: points[..count].to_vec(), rect: None, mask })
        };
        let mut candidate = match &prompt.mask {
            Some(mask) => best(decode(1, Some(mask.shallow_clone()))?, None, None)?,
            None => whole(decode(1, None)?)?,
        };
        for count in 2..=points.len() {
            candidate = best(decode(count, Some(candidate.logits))?, None, None)?;
        }
        Ok(candidate)
    }
}

/// Returns the candidate of the highest product of predicted IoU, stability, IoU of its bounds with the box, and IoU with the
/// mask `before`, logits of the same shape.
fn best(mut candidates: Vec<Candidate>, rect: Option<Rect>, before: Option<&Tensor>) -> Result<Candidate> {
    let scores = candidates.iter().map(|candidate| {
        let fill = rect.map_or(Ok(1.0), |rect| candidate.fill(rect))?;
        let agreement = before.map_or(Ok(1.0), |before| candidate.overlap(before))?;
        Ok(candidate.iou * candidate.stability()? * fill * agreement)
    });
    let scores = scores.collect::<Result<Vec<f64>>>()?;
    let index = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    Ok(candidates.swap_remove(index.unwrap_or_default()))
}

/// Returns the candidate of the largest extent, or if it is the background or unstable, the [`best`] of the others.
fn whole(mut candidates: Vec<Candidate>) -> Result<Candidate> {
    let largest = candidates.swap_remove(WHOLE);
    let others = candidates.iter().map(Candidate::stability).collect::<Result<Vec<_>>>()?;
    let limit = MIN_STABILITY * others.into_iter().fold(0.0, f64::max);
    if largest.stability()? < limit || is_background(&largest.placement.valid(&largest.logits)?)? {
        best(candidates, None, None)
    } else {
        Ok(largest)
    }
}

/// Returns whether positive logits (H, W) cover most of the picture or reach three of its borders.
fn is_background(logits: &Tensor) -> Result<bool> {
    let positive = logits.f_gt(0.0)?;
    let share = positive.f_mean(Kind::Float)?.f_double_value(&[])?;
    let mut borders = 0;
    for dim in 0..2 {
        for index in [0, -1] {
            borders += positive.f_select(dim, index)?.f_any()?.f_int64_value(&[])?;
        }
    }
    Ok(share > MAX_OBJECT || borders >= MAX_BORDERS)
}

/// Returns a region of [`CROP`] times the width and height of `rect` that has the points, clipped to the picture.
pub fn crop_around(rect: Rect, points: &[Point], (width, height): (usize, usize)) -> Region {
    let axis = |start: f64, length: f64, side: usize, points: &mut dyn Iterator<Item = f64>| {
        let margin = 0.5 * (CROP - 1.0) * length;
        let range = (start - margin, start + length + margin);
        let (first, last) = points.fold(range, |(first, last), at| (first.min(at), last.max(at)));
        let first = (first.max(0.0).floor() as usize).min(side - 1);
        (first, (last.ceil() as usize).clamp(first + 1, side) - first)
    };
    let (x, width) = axis(rect.x, rect.width, width, &mut points.iter().map(|point| point.x));
    let (y, height) = axis(rect.y, rect.height, height, &mut points.iter().map(|point| point.y));
    Region { x, y, width, height }
}

impl Prompt {
    /// The prompt without its mask, in pixels of the part of the picture at `region`.
    pub(super) fn moved_into(&self, region: Region) -> Self {
        let (x, y, width, height) =
            (region.x as f64, region.y as f64, region.width as f64, region.height as f64);
        let points = self.points.iter().map(|point| Point { x: point.x - x, y: point.y - y, ..*point });
        let rect = self.rect.map(|rect| {
            let (left, top) = (rect.x - x, rect.y - y);
            // Rounding must not move an edge out of the region.
            Rect {
                x: left,
                y: top,
                width: rect.width.min(width - left),
                height: rect.height.min(height - top),
            }
        });
        Self { points: points.collect(), rect, mask: None }
    }
}

/// Returns the part of `plane` (H, W) at `region`, which shares its memory.
fn part(plane: &Tensor, region: Region) -> Result<Tensor> {
    let rows = plane.f_narrow(0, region.y as i64, region.height as i64)?;
    Ok(rows.f_narrow(1, region.x as i64, region.width as i64)?)
}

#[cfg(test)]
mod tests {
    use super::super::input::Placement;
    use super::*;

    #[test]
    fn crops_are_twice_the_box_inside_the_picture() {
        let rect = Rect { x: 40.0, y: 10.0, width: 20.0, height: 20.0 };
        let size = (100, 80);
        assert_eq!(crop_around(rect, &[], size), Region { x: 30, y: 0, width: 40, height: 40 });
        let points = [Point { x: 99.5, y: 60.0, positive: false }];
        assert_eq!(crop_around(rect, &points, size), Region { x: 30, y: 0, width: 70, height: 60 });
        let corner = Rect { x: 99.5, y: 79.5, width: 0.5, height: 0.5 };
        assert_eq!(crop_around(corner, &[], size), Region { x: 99, y: 79, width: 1, height: 1 });
    }

    #[test]
    fn bounds_are_those_of_positive_logits() {
        let logits = Tensor::full([6, 9], -1.0, (Kind::Float, tch::Device::Cpu));
        assert_eq!(bounds(&logits).unwrap(), None);
        let _ = logits.narrow(0, 2, 3).narrow(1, 4, 2).fill_(3.0);
        assert_eq!(bounds(&logits).unwrap(), Some(Rect { x: 4.0, y: 2.0, width: 2.0, height: 3.0 }));
    }

    #[test]
    fn a_mask_that_covers_most_of_the_picture_or_reaches_three_borders_is_background() {
        let mask = |rows: std::ops::Range<i64>, columns: std::ops::Range<i64>| {
            let logits = Tensor::full([8, 8], -1.0, (Kind::Float, tch::Device::Cpu));
            let part = logits.narrow(0, rows.start, rows.end - rows.start);
            let _ = part.narrow(1, columns.start, columns.end - columns.start).fill_(2.0);
            is_background(&logits).unwrap()
        };
        assert!(mask(0..2, 0..8), "a sky");
        assert!(mask(1..8, 1..8), "most of the picture");
        assert!(!mask(2..8, 2..8), "a close-up at two borders");
        assert!(!mask(2..5, 2..5));
    }

    /// The surroundings of the object were selected together with it.
    #[test]
    fn a_whole_without_a_clear_border_is_not_taken() {
        let candidate = |share: i64, around: f64| {
            let logits = Tensor::full([256, 256], around, (Kind::Float, tch::Device::Cpu));
            let _ = logits.narrow(0, 80, share).narrow(1, 80, share).fill_(5.0);
            Candidate { logits, iou: 0.9, placement: Placement::new((256, 256)) }
        };
        let area = |around: f64| {
            let candidates = vec![candidate(30, -9.0), candidate(10, -9.0), candidate(20, -9.0)];
            let selected = whole(candidates.into_iter().chain([candidate(60, around)]).collect()).unwrap();
            selected.logits.gt(0.0).sum(Kind::Int64).int64_value(&[])
        };
        assert_eq!(area(-9.0), 60 * 60, "the largest one");
        assert!(area(-0.5) <= 30 * 30, "its border depends on the threshold");
    }

    #[test]
    fn prompts_move_with_the_crop() {
        let prompt = Prompt {
            points: vec![Point { x: 12.0, y: 9.5, positive: true }],
            rect: Some(Rect { x: 10.0, y: 5.0, width: 20.0, height: 10.0 }),
            mask: None,
        };
        let region = Region { x: 4, y: 2, width: 30, height: 20 };
        let moved = prompt.moved_into(region);
        assert_eq!(moved.points[0], Point { x: 8.0, y: 7.5, positive: true });
        assert_eq!(moved.rect, Some(Rect { x: 6.0, y: 3.0, width: 20.0, height: 10.0 }));
        moved.check((region.width, region.height)).unwrap();
    }
}
