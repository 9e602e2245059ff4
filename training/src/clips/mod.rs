//! Training clips: short runs of frames with their masks, cut from real video or made from still
//! pictures.

mod colour;
mod footage;
mod geometry;
mod loader;
mod open;
mod perturb;
mod random;
mod real;
mod settings;
mod stills;
mod synthetic;

pub use footage::Footage;
pub use loader::{Batch, Loader, Mix};
pub use real::Shares;
pub use settings::{
    Augment, Border, Data, Fit, Kind, Layout, Objects, Perturbation, ReferenceTransform, Source, Synthetic,
};
pub use stills::Stills;

use tch::Tensor;

use crate::Result;

/// Height and width in pixels.
pub type Size = (i64, i64);

/// Draws until a clip is given up.
const TRIES: usize = 1000;

/// Frames with their masks: the reference, the frame before the predicted ones, the predicted ones.
#[derive(Debug)]
pub struct Clip {
    /// (2 + K, 3, H, W), RGB in [0, 1].
    pub images: Tensor,
    /// (2 + K, 1, H, W) in [0, 1].
    pub masks: Tensor,
    /// (2 + K, 1, H, W), 1 where the truth is known, else 0.
    pub valid: Tensor,
}

impl Clip {
    fn from_frames(frames: &[(Tensor, Tensor)]) -> Result<Self> {
        let images: Vec<&Tensor> = frames.iter().map(|(image, _)| image).collect();
        let masks: Vec<&Tensor> = frames.iter().map(|(_, mask)| mask).collect();
        let masks = Tensor::f_cat(&masks, 0)?;
        Ok(Self { images: Tensor::f_cat(&images, 0)?, valid: masks.f_ones_like()?, masks })
    }
}

/// The share of a mask (…, H, W) that is object.
fn coverage(mask: &Tensor) -> Result<f64> {
    Ok(mask.f_gt(0.5)?.f_to_kind(tch::Kind::Float)?.f_mean(tch::Kind::Float)?.double_value(&[]))
}
