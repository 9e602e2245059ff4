// SPDX-License-Identifier: MPL-2.0

//! Soft region similarity.

use tch::{Kind, Tensor};

use crate::Result;

/// Pixels added to intersection and union, which stabilises the value for small objects.
const SMOOTHING: f64 = 20.0;

/// Soft intersection over union of the valid pixels, averaged over frames. `masks`, `truth` and `valid` are
/// (N, 1, H, W).
///
/// # Errors
/// If the shapes differ.
pub fn region_similarity(masks: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
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
