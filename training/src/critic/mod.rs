// SPDX-License-Identifier: MPL-2.0

//! Critics of FaSTGAN, used in training only. D_S takes single frames, D_T all K frames of a window at once. Both
//! distinguish pictures masked by true masks from pictures masked by the regressor's.

mod network;
pub mod penalty;

pub use network::{Critic, Shape};
pub use penalty::{Reduce, gradient_penalty};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// Kind of a critic, by its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CriticKind {
    /// Single frames.
    Spatial,
    /// All frames of a window.
    Temporal,
}

impl CriticKind {
    /// The name in curves and checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spatial => "spatial",
            Self::Temporal => "temporal",
        }
    }

    /// Shape of one random number per sample of a clip of `frames` predicted frames, (K, 1) or (1, 1).
    pub fn samples(self, frames: i64) -> [i64; 2] {
        match self {
            Self::Spatial => [frames, 1],
            Self::Temporal => [1, 1],
        }
    }

    /// Returns the input from `images` (K, B, 3, H, W) in [0, 1] and `masks` (K, B, 1, H, W): single frames
    /// (K·B, 3, H, W), or the stacked frames of a window (B, 3·K, H, W).
    ///
    /// The picture is scaled to [−1, 1] before it is masked; in [0, 1], a mask over black pixels would have no
    /// gradient.
    pub fn input(self, images: &Tensor, masks: &Tensor) -> Result<Tensor> {
        let masked = images.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_mul(masks)?;
        Ok(match self {
            Self::Spatial => masked.f_flatten(0, 1)?,
            Self::Temporal => masked.f_transpose(0, 1)?.f_flatten(1, 2)?,
        })
    }
}

/// Noise added to the true masks. A true mask is 0 or 1, the regressor's is soft; noise prevents the critics from using
/// this difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Gaussian noise with the mean and variance of the regressor's error Ŷ − Y.
    #[default]
    Residual,
    /// Gaussian noise with the mean and variance of the regressor's mask Ŷ, as the paper states it literally.
    Literal,
    /// No noise.
    Off,
}

impl Noise {
    /// Returns the real masks Y' for the true masks Y and the regressor's masks Ŷ, all (K, B, 1, H, W) in [0, 1],
    /// without gradient. Where |Y − Ŷ| is below `overwrite`, they take the regressor's values; the other pixels have
    /// noise with the statistics of each frame. `normal` returns standard normal numbers of the same shape.
    pub fn real_masks(
        self,
        overwrite: f64,
        truth: &Tensor,
        predicted: &Tensor,
        normal: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let noisy = match self {
            Self::Residual => {
                truth.f_add(&noise_like(&predicted.f_sub(truth)?, &normal()?)?)?.f_clamp(0.0, 1.0)?
            }
            Self::Literal => truth.f_add(&noise_like(predicted, &normal()?)?)?.f_clamp(0.0, 1.0)?,
            Self::Off => truth.shallow_clone(),
        };
        let close = truth.f_sub(predicted)?.f_abs()?.f_lt(overwrite)?;
        Ok(predicted.f_where_self(&close, &noisy)?.f_detach()?)
    }
}

/// Returns standard normal numbers with the mean and variance of every frame of `x` (K, B, 1, H, W).
fn noise_like(x: &Tensor, normal: &Tensor) -> Result<Tensor> {
    let frame = [2i64, 3, 4];
    let mean = x.f_mean_dim(frame.as_slice(), true, None::<Kind>)?;
    let deviation = x.f_sub(&mean)?.f_square()?.f_mean_dim(frame.as_slice(), true, None::<Kind>)?.f_sqrt()?;
    Ok(normal.f_mul(&deviation)?.f_add(&mean)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn frames_are_scaled_masked_and_stacked() {
        // K = 2 frames of B = 3 clips; red encodes the frame and the clip.
        let images = Tensor::zeros([2, 3, 3, 4, 4], FLOAT);
        for (frame, clip) in (0..2).flat_map(|frame| (0..3).map(move |clip| (frame, clip))) {
            let red = images.get(frame).get(clip).get(0);
            let _ = red.shallow_clone().fill_(0.1 * (3 * frame + clip) as f64);
        }
        let masks = Tensor::full([2, 3, 1, 4, 4], 0.5, FLOAT);
        let value = |x: &Tensor, n: i64, c: i64| x.double_value(&[n, c, 1, 2]);
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-6, "{x} {y}");

        let single = CriticKind::Spatial.input(&images, &masks).unwrap();
        assert_eq!(single.size(), [6, 3, 4, 4]);
        close(value(&single, 4, 0), 0.5 * (2.0 * 0.4 - 1.0));
        close(value(&single, 4, 1), -0.5);

        let stacked = CriticKind::Temporal.input(&images, &masks).unwrap();
        assert_eq!(stacked.size(), [3, 6, 4, 4]);
        close(value(&stacked, 1, 0), 0.5 * (2.0 * 0.1 - 1.0));
        close(value(&stacked, 1, 3), 0.5 * (2.0 * 0.4 - 1.0));
        close(value(&stacked, 1, 5), -0.5);
    }

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).reshape([1, 1, 1, 1, -1])
    }

    #[test]
    fn pixels_with_a_small_error_are_overwritten() {
        let truth = row(&[1.0, 1.0, 0.0, 0.0, 1.0]);
        let predicted = row(&[0.9, 0.7, 0.2, 0.26, 0.76]).set_requires_grad(true);
        let unused = || unreachable!();
        let real = Noise::Off.real_masks(0.25, &truth, &predicted, unused).unwrap();
        assert!(real.equal(&row(&[0.9, 1.0, 0.2, 0.0, 0.76])), "{real}");
        assert!(!real.requires_grad(), "real masks have no gradient");
        assert!(Noise::Off.real_masks(0.0, &truth, &predicted, unused).unwrap().equal(&truth));
    }

    #[test]
    fn noise_has_the_statistics_of_each_frame() {
        tch::manual_seed(11);
        let spread = Tensor::from_slice(&[0.1f32, 0.4]).reshape([2, 1, 1, 1, 1]);
        let middle = Tensor::from_slice(&[0.3f32, -0.2]).reshape([2, 1, 1, 1, 1]);
        let x = (Tensor::rand([2, 1, 1, 200, 200], FLOAT) - 0.5) * &spread + &middle;
        let noise = noise_like(&x, &x.randn_like()).unwrap();
        for frame in 0..2 {
            let of = |x: &Tensor| {
                let x = x.get(frame);
                (x.mean(Kind::Float).double_value(&[]), x.std(false).double_value(&[]))
            };
            let ((mean, deviation), (expected_mean, expected)) = (of(&noise), of(&x));
            assert!((mean - expected_mean).abs() < 5.0 * expected / 200.0, "{mean} {expected_mean}");
            assert!((deviation / expected - 1.0).abs() < 0.02, "{deviation} {expected}");
        }
        // The noise is Gaussian although `x` is uniform: 4.6 % lie beyond two deviations.
        let beyond = (&noise - &middle).abs().gt_tensor(&(&spread * (2.0 / 12f64.sqrt())));
        let share = beyond.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((share - 0.0455).abs() < 0.005, "{share}");
    }

    #[test]
    fn residual_noise_follows_the_error_and_literal_noise_the_mask() {
        tch::manual_seed(12);
        // The regressor is 0.3 too low everywhere: the error has a mean and no variance.
        let truth = Tensor::full([1, 1, 1, 50, 50], 0.8, FLOAT);
        let predicted = &truth - 0.3;
        let normal = || Ok(truth.f_randn_like()?);
        let apply = |noise: Noise| noise.real_masks(0.0, &truth, &predicted, normal).unwrap();
        let mean = |x: Tensor| x.mean(Kind::Float).double_value(&[]);
        assert!((mean(apply(Noise::Residual)) - 0.5).abs() < 1e-5);
        assert!((mean(apply(Noise::Literal)) - 1.0).abs() < 1e-5, "0.8 + 0.5, clamped");
        assert!((mean(apply(Noise::Off)) - 0.8).abs() < 1e-5);
    }
}
