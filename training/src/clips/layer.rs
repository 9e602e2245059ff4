//! A cut-out of one frame, to be laid over a picture.

use tch::Tensor;

use super::Size;
use super::colour::Colour;
use super::geometry::blur;
use super::motion_blur::motion_blur;
use super::moving_object::MovingObject;
use crate::Result;

/// Pixels over which a cut-out's edge is softened.
const SOFT_EDGE: f64 = 0.8;

/// An object in a frame.
pub struct Layer {
    /// (1, 3, H, W), times alpha.
    picture: Tensor,
    /// (1, 1, H, W).
    alpha: Tensor,
    /// (1, 1, H, W), the truth.
    pub mask: Tensor,
}

impl Layer {
    /// With the edge of its mask. `shutter` is the time that it is open, in parts of the time between frames.
    pub fn sharp(object: &MovingObject, frame: usize, size: Size, shutter: f64) -> Result<Self> {
        let (picture, mask) = object.at(frame, size)?;
        Self::moved(&picture, &mask, &mask, object, frame, size, shutter)
    }

    /// With a soft edge, in other colours.
    pub fn soft(
        object: &MovingObject,
        colour: &Colour,
        frame: usize,
        size: Size,
        shutter: f64,
    ) -> Result<Self> {
        let (picture, mask) = object.at(frame, size)?;
        let alpha = blur(&mask, SOFT_EDGE)?;
        Self::moved(&colour.apply(&picture)?, &alpha, &mask, object, frame, size, shutter)
    }

    fn moved(
        picture: &Tensor,
        alpha: &Tensor,
        mask: &Tensor,
        object: &MovingObject,
        frame: usize,
        size: Size,
        shutter: f64,
    ) -> Result<Self> {
        let velocity = object.velocity(frame, size);
        let way = (velocity.0 * shutter, velocity.1 * shutter);
        let layers = motion_blur(&Tensor::f_cat(&[&picture.f_mul(alpha)?, alpha, mask], 1)?, way)?;
        let part = |from: i64, planes: i64| layers.f_narrow(1, from, planes);
        Ok(Self { picture: part(0, 3)?, alpha: part(3, 1)?, mask: part(4, 1)? })
    }

    /// Over a picture (1, 3, H, W).
    pub fn over(&self, below: &Tensor) -> Result<Tensor> {
        lay(&self.picture, &self.alpha, below)
    }

    /// Over a picture (1, 3, H, W) but for what is in it at `mask` (1, 1, H, W).
    pub fn over_all_but(&self, mask: &Tensor, below: &Tensor) -> Result<Tensor> {
        let left = rest(mask)?;
        lay(&self.picture.f_mul(&left)?, &self.alpha.f_mul(&left)?, below)
    }

    /// What is left of something (1, C, H, W) below it.
    pub fn hide(&self, below: &Tensor) -> Result<Tensor> {
        Ok(below.f_mul(&rest(&self.alpha)?)?)
    }
}

/// `picture`, times alpha, over another.
fn lay(picture: &Tensor, alpha: &Tensor, below: &Tensor) -> Result<Tensor> {
    Ok(below.f_mul(&rest(alpha)?)?.f_add_(picture)?)
}

fn rest(share: &Tensor) -> Result<Tensor> {
    Ok(share.f_neg()?.f_add_scalar(1.0)?)
}
