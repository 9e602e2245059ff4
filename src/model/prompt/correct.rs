// SPDX-License-Identifier: MPL-2.0

//! Corrections of a mask by clicks.

use tch::{Kind, Tensor};

use super::input::{MARGIN, Placement};
use super::select::crop_around;
use super::{Embedding, Point, Prompt, PromptNetwork, Rect, mask_prompt};
use crate::image::{FrameSource, Picture, Region, neighbours};
use crate::{Error, Result};

/// Parts of a change that are narrower than this share of the close-up's shorter side, and that lead away from the click,
/// are not made: they belong to other places of the contour.
const NARROW: f64 = 1.0 / 100.0;

/// Minimum and maximum share of the mask that a click removes as an object.
const MIN_REMOVED: f64 = 0.01;
const MAX_REMOVED: f64 = 0.7;

/// Longer side of a close-up in the network's input, in pixels. Larger ones hardly improve corrections.
const CLOSE_UP_SIDE: i64 = 384;

/// The same of the whole picture.
const WHOLE_SIDE: i64 = 512;

/// Minimum intersection over union of a rough mask and the refined mask of the same object.
const MIN_REFINED: f64 = 0.7;

impl PromptNetwork {
    /// Returns `alpha`, the mask of an object in `picture` at its size (0 to 255), corrected at `points`. The network may
    /// draw the whole object in another way; only the changed areas at the points are taken. It sees the surroundings of the
    /// mask and of the points, and the whole picture if the change is larger.
    ///
    /// # Errors
    /// [`Error::Config`] if the points, the mask or the picture are invalid, see [`Prompt::check`].
    pub fn correct(&self, picture: &Picture, alpha: &[u8], points: &[Point]) -> Result<Vec<u8>> {
        let _guard = tch::no_grad_guard();
        let size = (picture.width, picture.height);
        if alpha.len() != size.0 * size.1 {
            return Err(Error::Config("the mask has another size than the picture".into()));
        }
        let prompt = Prompt { points: points.to_vec(), ..Prompt::default() };
        prompt.check_points(size)?;
        if points.is_empty() {
            return Err(Error::Config("a correction needs a point".into()));
        }
        let region = surroundings(alpha, points, size);
        let (corrected, is_complete) = self.correct_in(picture, alpha, &prompt, region)?;
        if is_complete {
            Ok(corrected)
        } else {
            Ok(self.correct_in(picture, alpha, &prompt, Region::whole(size))?.0)
        }
    }

    /// As [`correct`](Self::correct), in a part of the picture. Also returns whether all of the change is inside of it.
    fn correct_in(
        &self,
        picture: &Picture,
        alpha: &[u8],
        prompt: &Prompt,
        region: Region,
    ) -> Result<(Vec<u8>, bool)> {
        let size = (picture.width, picture.height);
        let (first, last) = (region.x, region.x + region.width);
        let rows = alpha.chunks(size.0).skip(region.y).take(region.height);
        let before: Vec<u8> = rows.flat_map(|row| &row[first..last]).copied().collect();
        let side = if region == Region::whole(size) { WHOLE_SIDE } else { CLOSE_UP_SIDE };
        let mut source = *picture;
        let close_up = source.crop(region, (region.width, region.height))?;
        let after = self.correct_close_up(&close_up, side, &before, &prompt.moved_into(region))?;
        // Whether a pixel is at a border of the region inside of the picture.
        let is_cut = |x: usize, y: usize| {
            (x == 0 && first > 0)
                || (x + 1 == region.width && last < size.0)
                || (y == 0 && region.y > 0)
                || (y + 1 == region.height && region.y + region.height < size.1)
        };
        let reaches_border = before.iter().zip(&after).enumerate().any(|(at, (before, after))| {
            is_cut(at % region.width, at / region.width) && (*before > 127) != (*after > 127)
        });
        let mut corrected = alpha.to_vec();
        let rows = corrected.chunks_mut(size.0).skip(region.y);
        for (row, after) in rows.zip(after.chunks(region.width)) {
            row[first..last].copy_from_slice(after);
        }
        Ok((corrected, !reaches_border))
    }

    fn correct_close_up(
        &self,
        picture: &Picture,
        side: i64,
        alpha: &[u8],
        prompt: &Prompt,
    ) -> Result<Vec<u8>> {
        let embedding = self.encode_with(picture, side, MARGIN)?;
        if let [point] = prompt.points[..]
            && !point.positive
            && let Some(corrected) = self.without_object_at(&embedding, alpha, point)?
        {
            return Ok(corrected);
        }
        let mask = Some(mask_prompt(alpha, embedding.placement)?);
        let wanted =
            self.decode_points(&embedding, &Prompt { mask, points: prompt.points.clone(), rect: None })?;
        let wanted = wanted.alpha()?;
        let mut corrected = alpha.to_vec();
        for point in &prompt.points {
            apply_at(&mut corrected, &wanted, (picture.width, picture.height), point)?;
        }
        Ok(corrected)
    }

    /// Returns `alpha` without the object that the network finds at the point, or `None` if hardly anything of the mask
    /// would be left or removed.
    fn without_object_at(
        &self,
        embedding: &Embedding,
        alpha: &[u8],
        point: Point,
    ) -> Result<Option<Vec<u8>>> {
        let prompt = Prompt { points: vec![Point { positive: true, ..point }], ..Prompt::default() };
        let at = pixel_at(&point, embedding.placement.picture());
        let area = alpha.iter().filter(|&&value| value > 127).count() as f64;
        let mut best: Option<(f64, Vec<u8>)> = None;
        for candidate in self.decode(embedding, &prompt)? {
            let other = candidate.alpha()?;
            let removed = alpha.iter().zip(&other).filter(|&(&value, &other)| value > 127 && other > 127);
            let removed = removed.count() as f64;
            let score = candidate.iou * candidate.stability()?;
            let is_part = removed >= MIN_REMOVED * area && removed <= MAX_REMOVED * area && other[at] > 127;
            if is_part && best.as_ref().is_none_or(|(best, _)| score > *best) {
                best = Some((score, other));
            }
        }
        let rest = |(_, other): (f64, Vec<u8>)| {
            alpha.iter().zip(other).map(|(&value, other)| value.min(255 - other)).collect()
        };
        Ok(best.map(rest))
    }

    /// Returns `alpha`, a rough mask of an object in `picture` at its size (0 to 255) with its bounds, with better edges. If
    /// the network takes something else for the object, returns `alpha` itself.
    ///
    /// # Errors
    /// As [`correct`](Self::correct).
    pub fn refine(&self, picture: &Picture, alpha: &[u8], bounds: Region) -> Result<Vec<u8>> {
        let size = (picture.width, picture.height);
        let prompt = Prompt {
            points: Vec::new(),
            rect: Some(bounds.into()),
            mask: Some(mask_prompt(alpha, Placement::new(size))?),
        };
        let refined = self.select(picture, &prompt)?.alpha;
        let pairs = || alpha.iter().zip(&refined).map(|(before, after)| (*before > 127, *after > 127));
        let both = pairs().filter(|(before, after)| *before && *after).count();
        let either = pairs().filter(|(before, after)| *before || *after).count();
        let is_same = both as f64 >= MIN_REFINED * either as f64;
        Ok(if is_same { refined } else { alpha.to_vec() })
    }
}

/// Returns the region of a picture that is looked at for a correction of `alpha`.
fn surroundings(alpha: &[u8], points: &[Point], size: (usize, usize)) -> Region {
    let Some(bounds) = Region::bounding(alpha, size.0, |value| *value > 127) else {
        return Region::whole(size);
    };
    let Rect { x, y, width, height } = bounds.into();
    let axis = |start: f64, length: f64, at: fn(&Point) -> f64| {
        let range = (start, start + length);
        points.iter().map(at).fold(range, |(first, last), at| (first.min(at), last.max(at)))
    };
    let (left, right) = axis(x, width, |point| point.x);
    let (top, bottom) = axis(y, height, |point| point.y);
    crop_around(Rect { x: left, y: top, width: right - left, height: bottom - top }, &[], size)
}

/// Index of the pixel at a point, row by row.
fn pixel_at(point: &Point, (width, height): (usize, usize)) -> usize {
    let position = |at: f64, length: usize| (at.max(0.0) as usize).min(length - 1);
    position(point.y, height) * width + position(point.x, width)
}

/// Changes `mask` to `wanted` in the changed area at the point. If the mask has the point's label there already, all of
/// `wanted` is taken.
fn apply_at(mask: &mut [u8], wanted: &[u8], size: (usize, usize), point: &Point) -> Result<()> {
    let start = pixel_at(point, size);
    let is_inside = |value: u8| value > 127;
    if is_inside(mask[start]) == point.positive {
        mask.copy_from_slice(wanted);
        return Ok(());
    }
    let changed = |(before, after): (&u8, &u8)| {
        is_inside(*before) != point.positive && is_inside(*after) == point.positive
    };
    let changes: Vec<bool> = mask.iter().zip(wanted).map(changed).collect();
    let area = area_at(&changes, size, start)?;
    for ((value, wanted), changes) in mask.iter_mut().zip(wanted).zip(area) {
        if changes {
            *value = if point.positive { (*value).max(*wanted) } else { (*value).min(*wanted) };
        }
    }
    Ok(())
}

/// Returns the connected area of `changes` at the pixel `start`, without what only narrow parts connect with it.
fn area_at(changes: &[bool], (width, height): (usize, usize), start: usize) -> Result<Vec<bool>> {
    if !changes[start] {
        return Ok(vec![false; changes.len()]);
    }
    let radius = ((NARROW * width.min(height) as f64 / 2.0).round() as i64).max(1);
    let bytes: Vec<u8> = changes.iter().map(|&change| u8::from(change)).collect();
    let plane = Tensor::f_from_data_size(&bytes, &[1, 1, height as i64, width as i64], Kind::Uint8)?
        .f_to_kind(Kind::Float)?;
    let core = to_bools(&dilate(&plane.f_neg()?, radius)?.f_neg()?)?;
    if !core[start] {
        return Ok(connected(changes, (width, height), start));
    }
    let core: Vec<f32> =
        connected(&core, (width, height), start).into_iter().map(|core| f32::from(u8::from(core))).collect();
    let core = Tensor::f_from_slice(&core)?.f_reshape([1, 1, height as i64, width as i64])?;
    let grown = to_bools(&dilate(&core, radius + 1)?)?;
    Ok(grown.iter().zip(changes).map(|(&grown, &change)| grown && change).collect())
}

fn dilate(plane: &Tensor, radius: i64) -> Result<Tensor> {
    let side = 2 * radius + 1;
    let columns = plane.f_max_pool2d([1, side], [1, 1], [0, radius], [1, 1], false)?;
    Ok(columns.f_max_pool2d([side, 1], [1, 1], [radius, 0], [1, 1], false)?)
}

fn to_bools(plane: &Tensor) -> Result<Vec<bool>> {
    Ok(Vec::try_from(plane.f_gt(0.5)?.f_reshape([-1])?)?)
}

/// Returns the 4-connected pixels of `mask` that contain `start`.
fn connected(mask: &[bool], (width, height): (usize, usize), start: usize) -> Vec<bool> {
    let mut found = vec![false; mask.len()];
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        found[at] = true;
        let is_side = |next: &usize| next % width == at % width || next / width == at / width;
        let sides = neighbours(at, (height, width)).filter(is_side);
        open.extend(sides.filter(|&next| mask[next] && !found[next]));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (40, 20);

    fn mask(inside: impl Fn(usize, usize) -> bool) -> Vec<u8> {
        (0..SIZE.0 * SIZE.1).map(|i| if inside(i % SIZE.0, i / SIZE.0) { 255 } else { 0 }).collect()
    }

    fn corrected(before: &[u8], wanted: &[u8], x: f64, positive: bool) -> Vec<u8> {
        let mut corrected = before.to_vec();
        apply_at(&mut corrected, wanted, SIZE, &Point { x, y: 10.5, positive }).unwrap();
        corrected
    }

    #[test]
    fn a_correction_looks_at_the_mask_and_the_click() {
        let alpha = mask(|x, y| (10..14).contains(&x) && (6..10).contains(&y));
        let region = |x: f64| surroundings(&alpha, &[Point { x, y: 8.0, positive: true }], SIZE);
        assert_eq!(region(12.0), Region { x: 8, y: 4, width: 8, height: 8 });
        // Both are inside with a margin.
        assert_eq!(region(18.0), Region { x: 6, y: 4, width: 16, height: 8 });
        assert_eq!(region(30.0), Region { x: 0, y: 4, width: 40, height: 8 });
        let empty = mask(|_, _| false);
        assert_eq!(surroundings(&empty, &[], SIZE), Region::whole(SIZE));
    }

    #[test]
    fn only_the_area_at_the_click_changes() {
        let left = |x: usize, y: usize| (2..12).contains(&x) && (4..16).contains(&y);
        let right = |x: usize, y: usize| (20..30).contains(&x) && (4..16).contains(&y);
        // A line of one pixel connects the right area with a further one.
        let further = |x: usize, y: usize| (y == 10 && (30..34).contains(&x)) || x >= 34;
        let before = mask(left);
        let wanted = mask(|x, y| right(x, y) || further(x, y));
        let with_right = mask(|x, y| left(x, y) || right(x, y));
        let result = corrected(&before, &wanted, 25.5, true);
        let differences = result.iter().zip(&with_right).filter(|(a, b)| a != b).count();
        assert!(differences <= 2, "the left one stays, the further one is not added: {differences}");
        assert_eq!(corrected(&with_right, &before, 25.5, false), before, "removed");
        assert_eq!(corrected(&before, &before, 25.5, true), before, "the network does not agree");
        assert_eq!(corrected(&before, &wanted, 5.5, true), wanted, "it is inside already");
    }
}
