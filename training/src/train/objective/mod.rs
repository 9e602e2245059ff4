// SPDX-License-Identifier: MPL-2.0

//! The objective of the regressor, equation 5: L = λ_CE·L_CE + λ_S·L_S + λ_T·L_T, and further supervised terms that are not
//! in the paper.

mod adversarial;
mod cross_entropy;
mod matte;

pub use adversarial::{critic_loss, regressor_loss};
pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use matte::matte_loss;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// Pixels added to intersection and union, which stabilises the value for small objects.
const SMOOTHING: f64 = 20.0;

/// Settings of the supervised loss, `[loss]` in a training configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Kind of the cross-entropy.
    pub cross_entropy: CrossEntropy,
    /// Weight of the cross-entropy, λ_CE.
    pub cross_entropy_weight: f64,
    /// Weight of 1 − soft region similarity; 0 in the paper.
    pub region_weight: f64,
    /// Weight of the losses of mattes: absolute difference, Laplacian pyramid, and change from frame to frame; 0 in the paper.
    #[serde(default)]
    pub matte_weight: f64,
}

/// The supervised losses of a batch.
#[derive(Debug)]
pub struct Supervised {
    /// L_CE, without its weight.
    pub cross_entropy: Tensor,
    /// Mean soft region similarity, 0 to 1.
    pub region: Tensor,
    /// Loss of mattes, without its weight; `None` if that is 0.
    pub matte: Option<Tensor>,
}

impl Supervised {
    /// Computes the losses. `logits`, `truth` and `valid` are (K, B, 1, H, W).
    pub fn new(loss: &Loss, logits: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Self> {
        let masks = logits.f_sigmoid()?;
        let matte = match loss.matte_weight {
            0.0 => None,
            _ => Some(matte_loss(&masks, truth, valid)?),
        };
        let [logits, masks, truth, valid] = [logits, &masks, truth, valid].map(|x| x.f_flatten(0, 1));
        let (truth, valid) = (truth?, valid?);
        Ok(Self {
            cross_entropy: cross_entropy(loss.cross_entropy, &logits?, &truth, &valid)?,
            region: region_similarity(&masks?, &truth, &valid)?,
            matte,
        })
    }

    /// Returns the weighted sum of the losses.
    pub fn weighted(&self, loss: &Loss) -> Result<Tensor> {
        let region = self.region.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(loss.region_weight)?;
        let sum = self.cross_entropy.f_mul_scalar(loss.cross_entropy_weight)?.f_add(&region)?;
        match &self.matte {
            Some(matte) => Ok(sum.f_add(&matte.f_mul_scalar(loss.matte_weight)?)?),
            None => Ok(sum),
        }
    }
}

/// Mean over the valid pixels of each frame, (N, 1, 1, 1); 0 for a frame without any.
fn mean_over_valid(x: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let sum = |x: &Tensor| x.f_sum_dim_intlist([1i64, 2, 3].as_slice(), true, None::<Kind>);
    Ok(sum(&x.f_mul(valid)?)?.f_div(&sum(valid)?.f_clamp_min(1.0)?)?)
}

/// Soft intersection over union of the valid pixels, averaged over frames. `masks`, `truth` and `valid` are
/// (N, 1, H, W).
fn region_similarity(masks: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let sum = |x: &Tensor| x.f_mul(valid)?.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>);
    let both = masks.f_mul(truth)?;
    let either = masks.f_add(truth)?.f_sub(&both)?;
    let similarity = sum(&both)?.f_add_scalar(SMOOTHING)?.f_div(&sum(&either)?.f_add_scalar(SMOOTHING)?)?;
    Ok(similarity.f_mean(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn it_is_intersection_over_union_of_the_valid_pixels() {
        let mask = |from: i64, to: i64| {
            let mask = Tensor::zeros([1, 1, 100, 100], (Kind::Float, Device::Cpu));
            let _ = mask.narrow(3, from, to - from).fill_(1.0);
            mask
        };
        let (predicted, truth) = (mask(10, 50), mask(20, 60));
        let similarity =
            |valid: &Tensor| region_similarity(&predicted, &truth, valid).unwrap().double_value(&[]);
        let all = (3000.0 + SMOOTHING) / (5000.0 + SMOOTHING);
        assert!((similarity(&truth.ones_like()) - all).abs() < 1e-5);
        // Columns 10 to 20 are void.
        let valid = truth.ones_like() - mask(10, 20);
        let rest = (3000.0 + SMOOTHING) / (4000.0 + SMOOTHING);
        assert!((similarity(&valid) - rest).abs() < 1e-5);
    }
}
