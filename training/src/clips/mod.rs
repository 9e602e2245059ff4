// SPDX-License-Identifier: MPL-2.0

//! Training clips: short sequences of frames with their masks, taken from real video or rendered from still
//! pictures.

mod broken;
mod colour;
mod distractor;
mod drift;
mod geometry;
mod lighting;
mod loader;
mod moving_object;
mod open;
mod perturb;
mod picture;
mod preview;
mod random;
mod settings;
mod spline;
mod stills;
mod synthetic;
mod transform;
mod video;
mod window;

pub use loader::{Batch, Loader, Mix};
pub(crate) use open::Sources;
pub use preview::preview;
pub(crate) use random::Random;
pub use settings::{
    Augment, Border, Data, Fit, Kind, Layout, MultiObject, Objects, Perturbation, ReferenceTransform, Source,
    Synthetic,
};
pub(crate) use video::Reading;

use tch::Tensor;

use crate::Result;

/// Height and width in pixels.
type Size = (i64, i64);

/// Maximum number of draws for one clip.
pub(crate) const TRIES: usize = 1000;

/// Minimum shares of the pixels that an object covers in the reference and in the next frame.
const MIN_COVERAGE: [f64; 2] = [0.004, 0.002];

/// F frames with their masks: reference, previous frame and K predicted frames, or some of these 2 + K.
#[derive(Debug)]
struct Clip {
    /// (F, 3, H, W), RGB in [0, 1].
    images: Tensor,
    /// (F, 1, H, W) in [0, 1].
    masks: Tensor,
    /// (F, 1, H, W), 1 where the ground truth is known, else 0.
    valid: Tensor,
}

impl Clip {
    /// Joins frames.
    fn join(parts: &[Self]) -> Result<Self> {
        let join = |part: fn(&Self) -> &Tensor| -> Result<Tensor> {
            Ok(Tensor::f_cat(&parts.iter().map(part).collect::<Vec<_>>(), 0)?)
        };
        Ok(Self {
            images: join(|part| &part.images)?,
            masks: join(|part| &part.masks)?,
            valid: join(|part| &part.valid)?,
        })
    }

    /// Returns the `count` frames from `first` on.
    fn frames(&self, first: i64, count: i64) -> Result<Self> {
        let part = |x: &Tensor| x.f_narrow(0, first, count);
        Ok(Self { images: part(&self.images)?, masks: part(&self.masks)?, valid: part(&self.valid)? })
    }
}

/// Returns whether the object is large enough in the masks of the reference and of the next frame.
fn is_visible(reference: &Tensor, next: &Tensor) -> Result<bool> {
    Ok(coverage(reference)? >= MIN_COVERAGE[0] && coverage(next)? >= MIN_COVERAGE[1])
}

/// Returns the share of the pixels of a mask (…, H, W) that belong to the object.
fn coverage(mask: &Tensor) -> Result<f64> {
    Ok(mask.f_gt(0.5)?.f_to_kind(tch::Kind::Float)?.f_mean(tch::Kind::Float)?.double_value(&[]))
}
