// SPDX-License-Identifier: MPL-2.0

//! Masks that the decoder proposes.

use tch::{Kind, Tensor};

use super::Rect;
use super::input::Placement;
use crate::Result;
use crate::model::layers::to_bytes;

/// Distance of the two thresholds of the stability score from that of the mask, in logits.
const STABILITY_OFFSET: f64 = 1.0;

/// One mask of the decoder.
#[derive(Debug)]
pub struct Candidate {
    /// Logits at a quarter of the network's input, (256, 256) float32 on the CPU. Positive values are the object; the
    /// padding at the right or bottom is included.
    pub logits: Tensor,
    /// IoU with the object as the network predicts it, about 0 to 1.
    pub iou: f64,
    pub(super) placement: Placement,
}

impl Candidate {
    /// Returns the IoU of the masks at two thresholds around zero, 0 to 1: high for clear borders.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn stability(&self) -> Result<f64> {
        let logits = self.placement.valid(&self.logits)?;
        let count = |threshold: f64| -> Result<f64> {
            Ok(logits.f_gt(threshold)?.f_sum(Kind::Float)?.f_double_value(&[])?)
        };
        let larger = count(-STABILITY_OFFSET)?;
        Ok(if larger > 0.0 { count(STABILITY_OFFSET)? / larger } else { 0.0 })
    }

    /// Returns the IoU of the bounds of the mask with a box, in pixels of the encoded picture.
    pub(super) fn fill(&self, rect: Rect) -> Result<f64> {
        let bounds = bounds(&self.placement.to_picture(&self.logits)?)?;
        Ok(bounds.map_or(0.0, |bounds| bounds.iou(&rect)))
    }

    /// Returns the IoU with the mask of other logits of the same shape.
    ///
    /// # Errors
    /// [`Error::Torch`] for another shape.
    pub(super) fn overlap(&self, logits: &Tensor) -> Result<f64> {
        let mask = |logits: &Tensor| -> Result<Tensor> { Ok(self.placement.valid(logits)?.f_gt(0.0)?) };
        let (a, b) = (mask(&self.logits)?, mask(logits)?);
        let count = |mask: Tensor| -> Result<f64> { Ok(mask.f_sum(Kind::Float)?.f_double_value(&[])?) };
        let union = count(a.f_logical_or(&b)?)?;
        Ok(if union > 0.0 { count(a.f_logical_and(&b)?)? / union } else { 0.0 })
    }

    /// Returns soft alpha at the size of the encoded picture, 0 to 255, row by row.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn alpha(&self) -> Result<Vec<u8>> {
        to_alpha(&self.placement.to_picture(&self.logits)?)
    }
}

/// Converts logits to bytes; positive logits become at least 128.
pub fn to_alpha(logits: &Tensor) -> Result<Vec<u8>> {
    to_bytes(&logits.f_sigmoid()?)
}

/// Returns the bounding box of the positive values (H, W).
pub fn bounds(logits: &Tensor) -> Result<Option<Rect>> {
    let range = |over: i64| -> Result<Option<(f64, f64)>> {
        let positive: Vec<bool> = Vec::try_from(logits.f_amax([over], false)?.f_gt(0.0)?)?;
        let first = positive.iter().position(|&positive| positive);
        let last = positive.iter().rposition(|&positive| positive);
        Ok(first.zip(last).map(|(first, last)| (first as f64, (last + 1 - first) as f64)))
    };
    let axes = range(0)?.zip(range(1)?);
    Ok(axes.map(|((x, width), (y, height))| Rect { x, y, width, height }))
}
