// SPDX-License-Identifier: MPL-2.0

//! Moving object in one frame, composed over a picture.

use tch::Tensor;

use super::Size;
use super::colour::Colour;
use super::drift::exposed_motion;
use super::geometry::{blur, motion_blur};
use super::moving_object::MovingObject;
use crate::Result;

/// Standard deviation in pixels of the blur that softens an object's edge.
const SOFT_EDGE: f64 = 0.8;

/// Rendered object in a frame.
pub struct Layer {
    /// (1, 3, H, W), premultiplied by alpha.
    picture: Tensor,
    /// (1, 1, H, W).
    pub alpha: Tensor,
    /// (1, 1, H, W), the outline.
    pub mask: Tensor,
}

impl Layer {
    /// Renders the object with its own colours and its mask as alpha, or with changed colours and a soft edge. `shutter` is the
    /// exposure time as a fraction of the frame interval.
    pub fn new(
        object: &MovingObject,
        colour: Option<&Colour>,
        frame: usize,
        size: Size,
        shutter: f64,
    ) -> Result<Self> {
        let (picture, mask) = object.at(frame, size)?;
        let (picture, alpha) = match colour {
            Some(colour) => (colour.apply(&picture)?, blur(&mask, SOFT_EDGE)?),
            None => (picture, mask.shallow_clone()),
        };
        let motion = exposed_motion(&object.drift, frame, size, shutter);
        let layers = motion_blur(&Tensor::f_cat(&[&picture.f_mul(&alpha)?, &alpha, &mask], 1)?, motion)?;
        let part = |from: i64, planes: i64| layers.f_narrow(1, from, planes);
        Ok(Self { picture: part(0, 3)?, alpha: part(3, 1)?, mask: part(4, 1)? })
    }

    /// Composes the layer over a picture (1, 3, H, W).
    pub fn over(&self, below: &Tensor) -> Result<Tensor> {
        compose(&self.picture, &self.alpha, below)
    }

    /// Composes the layer over a picture (1, 3, H, W), but behind the object at `mask` (1, 1, H, W).
    pub fn over_all_but(&self, mask: &Tensor, below: &Tensor) -> Result<Tensor> {
        let visible = complement(mask)?;
        compose(&self.picture.f_mul(&visible)?, &self.alpha.f_mul(&visible)?, below)
    }

    /// Returns `below` (1, C, H, W) times the transparency of the layer.
    pub fn hide(&self, below: &Tensor) -> Result<Tensor> {
        Ok(below.f_mul(&complement(&self.alpha)?)?)
    }
}

/// Composes `picture`, premultiplied by `alpha`, over `below`.
fn compose(picture: &Tensor, alpha: &Tensor, below: &Tensor) -> Result<Tensor> {
    Ok(below.f_mul(&complement(alpha)?)?.f_add_(picture)?)
}

/// Returns 1 - `share`.
pub fn complement(share: &Tensor) -> Result<Tensor> {
    Ok(share.f_neg()?.f_add_scalar(1.0)?)
}
