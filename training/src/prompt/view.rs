// SPDX-License-Identifier: MPL-2.0

//! Pictures of objects as the prompt network sees them, and what a simulated user tells about the object.

use gstfastganseg::image::Picture;
use gstfastganseg::torch::model::prompt::{Point, Rect};
use tch::Tensor;

use super::PromptConfig;
use crate::Result;
use crate::clicks::{bounds, click, is_inside};
use crate::clips::{Random, Sources};
use crate::report::bytes;

/// Margin of a close-up on each side, relative to the size of the object.
const MARGIN: [f64; 2] = [0.1, 1.0];
/// An object of fewer pixels is not used.
pub const MIN_PIXELS: usize = 100;

/// Picture with the mask of an object. Void pixels count as background.
#[derive(Debug)]
pub struct View {
    rgb: Vec<u8>,
    width: usize,
    height: usize,
    /// Mask of the object, 0 to 1, (1, 1, H, W).
    pub mask: Tensor,
    object: Vec<bool>,
    bounds: Rect,
}

impl View {
    /// Draws a picture and one of its objects. Returns `None` if the object is too small.
    pub fn draw(sources: &Sources, config: &PromptConfig, random: &mut Random) -> Result<Option<Self>> {
        let still = sources.draw(random)?;
        let (mut image, mut mask) = (still.image()?, still.mask()?);
        if random.chance(0.5) {
            (image, mask) = (image.f_flip([3])?, mask.f_flip([3])?);
        }
        let (object, mut size) = binary(&mask)?;
        let Some(rect) = bounds(&object, size.0) else { return Ok(None) };
        let close_up = random.chance(config.close_ups);
        if close_up {
            let mut axis = |start: f64, length: f64, side: usize| {
                let mut margin = || random.uniform(MARGIN[0], MARGIN[1]) * length;
                let from = (start - margin()).max(0.0).floor() as i64;
                let to = ((start + length + margin()).ceil() as i64).min(side as i64);
                (from, to - from)
            };
            let (x, width) = axis(rect.x, rect.width, size.0);
            let (y, height) = axis(rect.y, rect.height, size.1);
            let part = |planes: Tensor| planes.f_narrow(2, y, height)?.f_narrow(3, x, width);
            (image, mask) = (part(image)?, part(mask)?.f_contiguous()?);
            size = (width as usize, height as usize);
        }
        let object = if close_up { binary(&mask)?.0 } else { object };
        let Some(bounds) = bounds(&object, size.0) else { return Ok(None) };
        if object.iter().filter(|&&inside| inside).count() < MIN_PIXELS {
            return Ok(None);
        }
        let rgb = bytes(&image.f_permute([0, 2, 3, 1])?)?;
        Ok(Some(Self { rgb, width: size.0, height: size.1, mask, object, bounds }))
    }

    pub fn picture(&self) -> Picture<'_> {
        Picture { data: &self.rgb, width: self.width, height: self.height, stride: 3 * self.width }
    }

    /// Draws a box around the object.
    pub fn draw_box(&self, noise: f64, random: &mut Random) -> Rect {
        let Rect { x, y, width, height } = self.bounds;
        let noise = if random.chance(0.5) { noise } else { 0.0 };
        let mut side = |at: f64, length: f64, limit: usize| {
            (at + noise * length * random.normal()).clamp(0.0, limit as f64)
        };
        let (left, right) = (side(x, width, self.width), side(x + width, width, self.width));
        let (top, bottom) = (side(y, height, self.height), side(y + height, height, self.height));
        if right - left < 1.0 || bottom - top < 1.0 {
            return self.bounds;
        }
        Rect { x: left, y: top, width: right - left, height: bottom - top }
    }

    /// Draws the first click: the centre of the object, or any point of it.
    pub fn first_click(&self, random: &mut Random) -> Option<Point> {
        if random.chance(0.5) {
            return click(&vec![false; self.object.len()], &self.object, self.width);
        }
        let inside: Vec<usize> = (0..self.object.len()).filter(|&at| self.object[at]).collect();
        let at = *random.pick(&inside);
        let centre = |at: usize| at as f64 + 0.5;
        Some(Point { x: centre(at % self.width), y: centre(at / self.width), positive: true })
    }

    /// Returns the click that corrects a mask of alpha best; `None` if it is right.
    pub fn next_click(&self, alpha: &[u8]) -> Option<Point> {
        click(&is_inside(alpha), &self.object, self.width)
    }
}

/// Returns where a mask (1, 1, H, W) is above one half, row by row, and its width and height.
fn binary(mask: &Tensor) -> Result<(Vec<bool>, (usize, usize))> {
    let (_, _, height, width) = mask.size4()?;
    let inside = Vec::try_from(&mask.f_gt(0.5)?.f_contiguous()?.f_reshape([-1])?)?;
    Ok((inside, (width as usize, height as usize)))
}
