// SPDX-License-Identifier: MPL-2.0

//! Cross-entropy of soft masks, equation 2.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::mean_over_valid;
use crate::Result;

/// Bounds of β in equation 2, the share of background.
const BETA_RANGE: (f64, f64) = (0.05, 0.95);

/// Weighting of the pixels in the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrossEntropy {
    /// As in the paper: object pixels are weighted by the share of background, background pixels by the share of
    /// object.
    Balanced,
    /// Pixels near the contour have three times the weight.
    Edge,
}

/// Cross-entropy, averaged over the valid pixels of each frame, then over frames. `logits`, `truth` and `valid`
/// are (N, 1, H, W), where N counts the frames of all clips.
pub fn cross_entropy(kind: CrossEntropy, logits: &Tensor, truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let weight = match kind {
        CrossEntropy::Balanced => balance(truth, valid)?,
        CrossEntropy::Edge => edge(truth)?.f_mul_scalar(2.0)?.f_add_scalar(1.0)?,
    };
    let none = None::<&Tensor>;
    let pixels = logits.f_binary_cross_entropy_with_logits(truth, Some(&weight), none, Reduction::None)?;
    Ok(mean_over_valid(&pixels, valid)?.f_mean(Kind::Float)?)
}

/// Pixel weights of equation 2: β for the object, 1 − β for the background. In a frame without an object both are
/// 0.5, so that false positives are penalised.
fn balance(truth: &Tensor, valid: &Tensor) -> Result<Tensor> {
    let object = mean_over_valid(truth, valid)?;
    let empty = object.f_eq(0.0)?;
    let background = object.f_neg()?.f_add_scalar(1.0)?;
    let beta = background.f_clamp(BETA_RANGE.0, BETA_RANGE.1)?.f_masked_fill(&empty, 0.5)?;
    let rest = beta.f_neg()?.f_add_scalar(1.0)?;
    Ok(rest.f_add(&truth.f_mul(&beta.f_sub(&rest)?)?)?)
}

/// Returns 1 within three pixels of a contour, else 0.
fn edge(truth: &Tensor) -> Result<Tensor> {
    let pool = |x: &Tensor| x.f_max_pool2d([7, 7], [1, 1], [3, 3], [1, 1], false);
    Ok(pool(truth)?.f_add(&pool(&truth.f_neg()?)?)?.f_clamp(0.0, 1.0)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn square() -> Tensor {
        let truth = Tensor::zeros([1, 1, 32, 32], FLOAT);
        let _ = truth.narrow(2, 8, 16).narrow(3, 8, 16).fill_(1.0);
        truth
    }

    /// Equation 2 in scalar arithmetic.
    fn equation_2(logits: &[f64], truth: &[f64], valid: &[f64]) -> f64 {
        let count: f64 = valid.iter().sum();
        let object: f64 = truth.iter().zip(valid).map(|(y, v)| y * v).sum::<f64>() / count;
        let beta = if object == 0.0 { 0.5 } else { (1.0 - object).clamp(0.05, 0.95) };
        let pixel = |x: f64, y: f64| {
            let p = 1.0 / (1.0 + (-x).exp());
            -beta * y * p.ln() - (1.0 - beta) * (1.0 - y) * (1.0 - p).ln()
        };
        logits.iter().zip(truth).zip(valid).map(|((x, y), v)| v * pixel(*x, *y)).sum::<f64>() / count
    }

    #[test]
    fn the_value_is_that_of_equation_2() {
        let logits = [[0.3, -1.2, 2.0, 0.1], [-0.4, 1.5, -2.2, 0.7], [1.0, -1.0, 0.5, 3.0]];
        let truth = [[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
        let valid = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]];
        let tensor = |rows: &[[f64; 4]; 3]| {
            Tensor::from_slice(&rows.concat()).reshape([3, 1, 2, 2]).to_kind(Kind::Float)
        };
        let found = cross_entropy(CrossEntropy::Balanced, &tensor(&logits), &tensor(&truth), &tensor(&valid))
            .unwrap();
        let expected: f64 = (0..3).map(|i| equation_2(&logits[i], &truth[i], &valid[i])).sum::<f64>() / 3.0;
        assert!((found.double_value(&[]) - expected).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn invalid_pixels_have_no_loss_and_no_gradient() {
        let truth = square();
        let valid = truth.ones_like();
        let _ = valid.narrow(3, 0, 12).fill_(0.0);
        for kind in [CrossEntropy::Balanced, CrossEntropy::Edge] {
            let logits = Tensor::zeros([1, 1, 32, 32], FLOAT).set_requires_grad(true);
            cross_entropy(kind, &logits, &truth, &valid).unwrap().backward();
            let gradient = logits.grad().abs();
            assert_eq!(gradient.narrow(3, 0, 12).max().double_value(&[]), 0.0);
            assert!(gradient.narrow(3, 12, 20).min().double_value(&[]) > 0.0);
            let none = cross_entropy(kind, &logits, &truth, &valid.zeros_like()).unwrap();
            assert_eq!(none.double_value(&[]), 0.0, "no valid pixel");
        }
    }

    #[test]
    fn balanced_object_and_background_have_equal_total_weight() {
        let truth = square();
        let weight = balance(&truth, &truth.ones_like()).unwrap();
        let object = (&weight * &truth).sum(Kind::Float).double_value(&[]);
        let background = (&weight * (truth.ones_like() - &truth)).sum(Kind::Float).double_value(&[]);
        assert!((object - background).abs() / object < 1e-5, "{object} {background}");
    }

    #[test]
    fn beta_is_bounded_and_one_half_without_an_object() {
        let truth = Tensor::zeros([1, 1, 32, 32], FLOAT);
        let weight = |at: i64| balance(&truth, &truth.ones_like()).unwrap().double_value(&[0, 0, at, at]);
        assert_eq!(weight(0), 0.5);
        let _ = truth.narrow(2, 0, 1).narrow(3, 0, 1).fill_(1.0);
        assert!((weight(0) - 0.95).abs() < 1e-6);
        assert!((weight(9) - 0.05).abs() < 1e-6);
    }

    #[test]
    fn edges_are_three_pixels_wide_on_both_sides() {
        let band = edge(&square()).unwrap();
        let row: Vec<f64> = (0..32).map(|x| band.double_value(&[0, 0, 16, x])).collect();
        assert_eq!(row.iter().filter(|&&v| v > 0.5).count(), 12);
    }

    #[test]
    fn a_perfect_mask_has_almost_no_loss() {
        let truth = square();
        let logits = (&truth - 0.5) * 40.0;
        for kind in [CrossEntropy::Balanced, CrossEntropy::Edge] {
            let value = cross_entropy(kind, &logits, &truth, &truth.ones_like()).unwrap();
            assert!(value.double_value(&[]) < 1e-4);
        }
    }
}
