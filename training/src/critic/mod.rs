// SPDX-License-Identifier: MPL-2.0

//! Critics of FaSTGAN, used in training only. D_S takes single frames, D_T all K frames of a window at once. Both
//! distinguish pictures masked by true masks from pictures masked by the regressor's.

mod network;
pub mod penalty;
mod real;

pub use network::{Critic, Shape};
pub use penalty::{Reduce, gradient_penalty};
pub use real::Noise;

use tch::Tensor;

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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn frames_are_scaled_masked_and_stacked() {
        let float = (Kind::Float, Device::Cpu);
        // K = 2 frames of B = 3 clips; red encodes the frame and the clip.
        let images = Tensor::zeros([2, 3, 3, 4, 4], float);
        for (frame, clip) in (0..2).flat_map(|frame| (0..3).map(move |clip| (frame, clip))) {
            let red = images.get(frame).get(clip).get(0);
            let _ = red.shallow_clone().fill_(0.1 * (3 * frame + clip) as f64);
        }
        let masks = Tensor::full([2, 3, 1, 4, 4], 0.5, float);
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
}
