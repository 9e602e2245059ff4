//! What the regressor's masks are judged by.

use tch::{Kind, Reduction, Tensor};

use super::config::{CrossEntropy, Loss};
use crate::Result;

/// Bounds of the share of background that balances the cross-entropy (β of equation 2).
const SHARE: (f64, f64) = (0.05, 0.95);
/// Pixels that steady the region similarity of small objects.
const STEADY: f64 = 20.0;

/// The loss of one frame, and the mean soft region similarity.
pub fn frame_loss(logits: &Tensor, truth: &Tensor, loss: &Loss) -> Result<(Tensor, f64)> {
    let weight = match loss.cross_entropy {
        CrossEntropy::Balanced => balance(truth)?.f_mul_scalar(2.0)?,
        CrossEntropy::Edge => edge(truth)?.f_mul_scalar(2.0)?.f_add_scalar(1.0)?,
    };
    let cross_entropy =
        logits.f_binary_cross_entropy_with_logits(truth, Some(&weight), None::<&Tensor>, Reduction::Mean)?;
    let region = region_similarity(&logits.f_sigmoid()?, truth)?.f_mean(Kind::Float)?;
    let similarity = region.double_value(&[]);
    let total = cross_entropy
        .f_mul_scalar(loss.cross_entropy_weight)?
        .f_add(&region.f_neg()?.f_add_scalar(1.0)?.f_mul_scalar(loss.region_weight)?)?;
    Ok((total, similarity))
}

/// Equation 2's weights: the share of background on the object, the rest on the background; one half
/// each where a frame has no object, so that false objects still cost.
fn balance(truth: &Tensor) -> Result<Tensor> {
    let object = truth.f_mean_dim([1i64, 2, 3].as_slice(), true, None::<Kind>)?;
    let empty = object.f_eq(0.0)?;
    let share = object.f_neg()?.f_add_scalar(1.0)?.f_clamp(SHARE.0, SHARE.1)?.f_masked_fill(&empty, 0.5)?;
    let rest = share.f_neg()?.f_add_scalar(1.0)?;
    Ok(rest.f_add(&truth.f_mul(&share.f_sub(&rest)?)?)?)
}

/// 1 within three pixels of a contour.
fn edge(truth: &Tensor) -> Result<Tensor> {
    let pool = |x: &Tensor| x.f_max_pool2d([7, 7], [1, 1], [3, 3], [1, 1], false);
    Ok(pool(truth)?.f_add(&pool(&truth.f_neg()?)?)?.f_clamp(0.0, 1.0)?)
}

/// Soft intersection over union a clip.
fn region_similarity(mask: &Tensor, truth: &Tensor) -> Result<Tensor> {
    let sum = |x: &Tensor| x.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>);
    let both = mask.f_mul(truth)?;
    let either = mask.f_add(truth)?.f_sub(&both)?;
    Ok(sum(&both)?.f_add_scalar(STEADY)?.f_div(&sum(&either)?.f_add_scalar(STEADY)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn square() -> Tensor {
        let truth = Tensor::zeros([1, 1, 32, 32], (Kind::Float, Device::Cpu));
        let _ = truth.narrow(2, 8, 16).narrow(3, 8, 16).fill_(1.0);
        truth
    }

    #[test]
    fn a_perfect_mask_costs_next_to_nothing() {
        let truth = square();
        let logits = (&truth - 0.5) * 40.0;
        for cross_entropy in [CrossEntropy::Balanced, CrossEntropy::Edge] {
            let loss = Loss { cross_entropy, cross_entropy_weight: 1.0, region_weight: 1.0 };
            let (value, similarity) = frame_loss(&logits, &truth, &loss).unwrap();
            assert!(value.double_value(&[]) < 1e-4 && similarity > 0.999);
        }
    }

    #[test]
    fn object_and_background_weigh_the_same_when_balanced() {
        let truth = square();
        let weight = balance(&truth).unwrap();
        let object = (&weight * &truth).sum(Kind::Float).double_value(&[]);
        let background = (&weight * (truth.ones_like() - &truth)).sum(Kind::Float).double_value(&[]);
        assert!((object - background).abs() / object < 1e-5, "{object} {background}");
    }

    #[test]
    fn a_false_object_in_an_empty_frame_costs() {
        let truth = Tensor::zeros([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert_eq!(balance(&truth).unwrap().double_value(&[0, 0, 0, 0]), 0.5);
    }

    #[test]
    fn edges_are_three_pixels_wide_on_both_sides() {
        let band = edge(&square()).unwrap();
        let row: Vec<f64> = (0..32).map(|x| band.double_value(&[0, 0, 16, x])).collect();
        assert_eq!(row.iter().filter(|&&v| v > 0.5).count(), 12);
    }
}
