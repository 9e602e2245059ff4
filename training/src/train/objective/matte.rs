// SPDX-License-Identifier: MPL-2.0

//! Losses of the matting literature on soft masks: the absolute difference, a Laplacian pyramid, and the change from frame to
//! frame, similar to Robust High-Resolution Video Matting (Lin et al., WACV 2022). Squares would make edges softer.

use tch::{Kind, Tensor};

use super::mean_over_valid;
use crate::Result;

/// Levels of the Laplacian pyramid.
const LEVELS: u32 = 3;

/// Mean over frames of the absolute difference, plus that of the Laplacian pyramid, plus the absolute difference of the
/// changes from frame to frame. `masks`, `truth` and `valid` are (K, B, 1, H, W); masks in [0, 1].
pub fn matte_loss(masks: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let difference = masks.f_sub(truth)?;
    let mut loss = mean(&difference, valid)?.f_add(&laplacian(&difference, valid)?)?;
    let frames = masks.size()[0];
    if frames > 1 {
        let later = |x: &Tensor| x.f_narrow(0, 1, frames - 1);
        let earlier = |x: &Tensor| x.f_narrow(0, 0, frames - 1);
        let change = later(&difference)?.f_sub(&earlier(&difference)?)?;
        loss = loss.f_add(&mean(&change, &later(valid)?.f_mul(&earlier(valid)?)?)?)?;
    }
    Ok(loss)
}

/// Mean absolute value of the valid pixels of each frame, averaged over frames, (K, B, 1, H, W).
fn mean(x: &Tensor, valid: &Tensor) -> Result<Tensor> {
    Ok(mean_over_valid(&x.f_abs()?.f_flatten(0, 1)?, &valid.f_flatten(0, 1)?)?.f_mean(Kind::Float)?)
}

/// Mean over frames and levels of the absolute Laplacian pyramid of `difference` (K, B, 1, H, W). The pyramid is linear, so
/// that of a difference is the difference of two. Level i has the weight 2ⁱ. Invalid pixels count as equal.
fn laplacian(difference: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let mut x = difference.f_mul(valid)?.f_flatten(0, 1)?;
    let mut loss = Tensor::f_zeros([], (Kind::Float, difference.device()))?;
    for level in 0..LEVELS {
        let (_, _, height, width) = x.size4()?;
        let small = x.f_avg_pool2d([2, 2], [2, 2], [0, 0], true, false, None)?;
        let detail = x.f_sub(&small.f_upsample_bilinear2d([height, width], false, None, None)?)?;
        let weight = f64::from(1 << level) / f64::from(LEVELS);
        loss = loss.f_add(&detail.f_abs()?.f_mean(Kind::Float)?.f_mul_scalar(weight)?)?;
        x = small;
    }
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Two frames (2, 1, 1, 32, 32) with a square each.
    fn squares() -> Tensor {
        let truth = Tensor::zeros([2, 1, 1, 32, 32], FLOAT);
        for frame in 0..2 {
            let _ = truth.select(0, frame).narrow(2, 8, 16).narrow(3, 8 + frame, 16).fill_(1.0);
        }
        truth
    }

    fn value(masks: &Tensor, truth: &Tensor, valid: &Tensor) -> f64 {
        matte_loss(masks, truth, valid).unwrap().double_value(&[])
    }

    #[test]
    fn a_perfect_matte_has_no_loss() {
        let truth = squares();
        assert_eq!(value(&truth, &truth, &truth.ones_like()), 0.0);
    }

    #[test]
    fn an_even_difference_has_its_value_and_no_detail() {
        let truth = squares();
        let found = value(&(&truth * 0.8 + 0.1), &truth, &truth.ones_like());
        let even = value(&(&truth + 0.1), &truth, &truth.ones_like());
        assert!((even - 0.1).abs() < 1e-6, "{even}");
        assert!(found > even, "the difference changes at the edge: {found}");
    }

    #[test]
    fn flicker_costs_more_than_a_constant_error() {
        let truth = squares();
        let (up, down) = (&truth + 0.1, &truth - 0.1);
        let flickering = Tensor::cat(&[up.narrow(0, 0, 1), down.narrow(0, 1, 1)], 0);
        let difference =
            value(&flickering, &truth, &truth.ones_like()) - value(&up, &truth, &truth.ones_like());
        assert!((difference - 0.2).abs() < 1e-6, "{difference}");
    }

    #[test]
    fn invalid_pixels_and_single_frames_are_accepted() {
        let truth = squares();
        let valid = truth.ones_like();
        let _ = valid.narrow(4, 0, 16).fill_(0.0);
        let masks = (&truth * 0.5).set_requires_grad(true);
        matte_loss(&masks, &truth, &valid).unwrap().backward();
        let gradient = masks.grad().abs();
        assert!(gradient.isfinite().all().int64_value(&[]) == 1);
        assert_eq!(gradient.narrow(4, 0, 8).max().double_value(&[]), 0.0);
        assert!(gradient.max().double_value(&[]) > 0.0);
        let first = truth.narrow(0, 0, 1);
        assert!((value(&(&first + 0.25), &first, &first.ones_like()) - 0.25).abs() < 1e-6);
    }
}
