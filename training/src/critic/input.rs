// SPDX-License-Identifier: MPL-2.0

//! Inputs of the critics: pictures multiplied by masks, X·Y.

use tch::Tensor;

use crate::Result;

/// Returns the single frames for D_S, (K·B, 3, H, W), from `images` (K, B, 3, H, W) in [0, 1] and `masks`
/// (K, B, 1, H, W).
///
/// The picture is scaled to [−1, 1] before it is masked; in [0, 1], a mask over black pixels would have no
/// gradient.
///
/// # Errors
/// If the shapes do not match.
pub fn spatial(images: &Tensor, masks: &Tensor) -> Result<Tensor> {
    Ok(masked(images, masks)?.f_flatten(0, 1)?)
}

/// Returns the stacked frames of a window for D_T, (B, 3·K, H, W), from the same tensors as [`spatial`].
///
/// # Errors
/// If the shapes do not match.
pub fn temporal(images: &Tensor, masks: &Tensor) -> Result<Tensor> {
    Ok(masked(images, masks)?.f_transpose(0, 1)?.f_flatten(1, 2)?)
}

fn masked(images: &Tensor, masks: &Tensor) -> Result<Tensor> {
    Ok(images.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_mul(masks)?)
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

        let single = spatial(&images, &masks).unwrap();
        assert_eq!(single.size(), [6, 3, 4, 4]);
        close(value(&single, 4, 0), 0.5 * (2.0 * 0.4 - 1.0));
        close(value(&single, 4, 1), -0.5);

        let stacked = temporal(&images, &masks).unwrap();
        assert_eq!(stacked.size(), [3, 6, 4, 4]);
        close(value(&stacked, 1, 0), 0.5 * (2.0 * 0.1 - 1.0));
        close(value(&stacked, 1, 3), 0.5 * (2.0 * 0.4 - 1.0));
        close(value(&stacked, 1, 5), -0.5);
    }
}
