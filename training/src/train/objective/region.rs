//! Soft region similarity.

use tch::{Kind, Tensor};

use crate::Result;

/// Pixels that steady the region similarity of small objects.
const STEADY: f64 = 20.0;

/// The mean over frames of soft intersection over union, among pixels whose truth is known. `masks`, `truth` and
/// `valid` are (N, 1, H, W).
///
/// # Errors
/// Other shapes.
pub fn region_similarity(masks: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let sum = |x: &Tensor| x.f_mul(valid)?.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>);
    let both = masks.f_mul(truth)?;
    let either = masks.f_add(truth)?.f_sub(&both)?;
    let similarity = sum(&both)?.f_add_scalar(STEADY)?.f_div(&sum(&either)?.f_add_scalar(STEADY)?)?;
    Ok(similarity.f_mean(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn it_is_intersection_over_union_of_what_is_known() {
        let mask = |from: i64, to: i64| {
            let mask = Tensor::zeros([1, 1, 100, 100], (Kind::Float, Device::Cpu));
            let _ = mask.narrow(3, from, to - from).fill_(1.0);
            mask
        };
        let (predicted, truth) = (mask(10, 50), mask(20, 60));
        let similarity =
            |valid: &Tensor| region_similarity(&predicted, &truth, valid).unwrap().double_value(&[]);
        let all = (3000.0 + STEADY) / (5000.0 + STEADY);
        assert!((similarity(&truth.ones_like()) - all).abs() < 1e-5);
        // Columns 10 to 20 are void.
        let known = truth.ones_like() - mask(10, 20);
        let rest = (3000.0 + STEADY) / (4000.0 + STEADY);
        assert!((similarity(&known) - rest).abs() < 1e-5);
    }
}
