// SPDX-License-Identifier: MPL-2.0

//! Gradient penalty (Gulrajani et al., *Improved Training of Wasserstein GANs*, 2017).

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// Added under the square root of the norm, whose derivative at 0 is infinite.
const NORM_EPSILON: f64 = 1e-12;

/// Scalar of each sample whose gradient is penalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Sum of the sample's score map.
    #[default]
    Sum,
    /// Mean of the sample's score map.
    Mean,
}

/// Returns E (‖∇D(x̂)‖ − 1)² with x̂ = ε·real + (1 − ε)·fake, the second term of equations 3 and 4 without its
/// weight.
///
/// `map` returns the critic's score map (N, 1, h, w) of samples (N, C, H, W); `epsilon` is (N, 1, 1, 1) in [0, 1].
/// The result is differentiable with respect to the critic's weights only.
pub fn gradient_penalty(
    map: impl Fn(&Tensor) -> Result<Tensor>,
    real: &Tensor,
    fake: &Tensor,
    epsilon: &Tensor,
    reduce: Reduce,
) -> Result<Tensor> {
    let between = tch::no_grad(|| fake.f_lerp_tensor(real, epsilon))?.f_set_requires_grad(true)?;
    let scores = map(&between)?;
    // Samples are independent, so the gradient of the sum over the batch contains that of every sample.
    let samples = scores.size()[0];
    let total = scores.f_sum(scores.kind())?;
    let total = match reduce {
        Reduce::Sum => total,
        Reduce::Mean => total.f_mul_scalar(samples as f64 / scores.numel() as f64)?,
    };
    let gradient = Tensor::f_run_backward(&[&total], &[&between], true, true)?.remove(0);
    let squares =
        gradient.f_flatten(1, -1)?.f_square()?.f_sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)?;
    let norm = squares.f_add_scalar(NORM_EPSILON)?.f_sqrt()?;
    Ok(norm.f_sub_scalar(1.0)?.f_square()?.f_mean(scores.kind())?)
}

#[cfg(test)]
pub mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::critic::{Critic, Shape};

    pub const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

    pub fn sines(size: &[i64], step: f64, phase: f64) -> Tensor {
        let i = Tensor::arange(size.iter().product::<i64>(), DOUBLE);
        ((i * step + phase).sin()).reshape(size)
    }

    fn waves(size: [i64; 4], phase: f64) -> Tensor {
        sines(&size, 0.37, phase)
    }

    fn halves(n: i64) -> Tensor {
        Tensor::full([n, 1, 1, 1], 0.5, DOUBLE)
    }

    /// Critic in float64 with deterministic weights of up to `largest`.
    pub fn critic(inputs: i64, width: f64, largest: f64) -> (nn::VarStore, Critic) {
        let mut store = nn::VarStore::new(Device::Cpu);
        let critic = Critic::new(&store.root(), inputs, Shape { max_channels: 64, width });
        let names: std::collections::BTreeMap<_, _> = store.variables().into_iter().collect();
        store.double();
        for (n, (_, mut variable)) in names.into_iter().enumerate() {
            let value = sines(&variable.size(), 0.61, n as f64) * largest;
            tch::no_grad(|| variable.copy_(&value));
        }
        (store, critic)
    }

    #[test]
    fn a_critic_of_slope_one_is_not_penalised() {
        let (real, fake) = (waves([3, 2, 4, 4], 0.0), waves([3, 2, 4, 4], 2.0));
        let direction = waves([1, 2, 4, 4], 5.0);
        let direction = &direction / direction.norm();
        let penalty = |slope: f64| {
            let map = |x: &Tensor| {
                let product =
                    (x * &direction * slope).flatten(1, -1).sum_dim_intlist(-1, false, None::<Kind>);
                Ok(product.reshape([-1, 1, 1, 1]))
            };
            gradient_penalty(map, &real, &fake, &halves(3), Reduce::Sum).unwrap().double_value(&[])
        };
        assert!(penalty(1.0) < 1e-12, "{}", penalty(1.0));
        assert!((penalty(3.0) - 4.0).abs() < 1e-5, "(3 - 1)²");
        assert!((penalty(0.0) - 1.0).abs() < 1e-4, "slope 0 is as far from 1 as slope 2");
    }

    /// The expected norm follows from differences of scores.
    #[test]
    fn the_penalty_equals_finite_differences() {
        let (_store, critic) = critic(3, 0.05, 0.45);
        let (real, fake) = (waves([1, 3, 128, 64], 0.0), waves([1, 3, 128, 64], 2.0));
        let epsilon = Tensor::full([1, 1, 1, 1], 0.3, DOUBLE);
        let between = &real * 0.3 + &fake * 0.7;
        for (reduce, share) in [(Reduce::Sum, 1.0), (Reduce::Mean, 0.5)] {
            // The norm of the gradient is the slope along the gradient.
            let x = between.copy().set_requires_grad(true);
            let score = |x: &Tensor| critic.map(x).unwrap().sum(Kind::Double) * share;
            let gradient = Tensor::run_backward(&[score(&x)], &[&x], false, false).remove(0);
            let along = &gradient / gradient.norm();
            let step = 1e-6;
            let ahead = score(&(&between + &along * step)).double_value(&[]);
            let behind = score(&(&between - &along * step)).double_value(&[]);
            let norm = (ahead - behind) / (2.0 * step);
            let expected = (norm - 1.0).powi(2);
            let actual = gradient_penalty(|x| critic.map(x), &real, &fake, &epsilon, reduce).unwrap();
            let actual = actual.double_value(&[]);
            assert!((actual - expected).abs() < 1e-4 * expected, "{reduce:?}: {actual} {expected}");
        }
    }

    /// Compares the double backward pass with finite differences in every tensor.
    #[test]
    fn gradients_of_the_penalty_equal_finite_differences() {
        let (store, critic) = critic(3, 0.05, 0.45);
        let (real, fake) = (waves([2, 3, 64, 64], 1.0), waves([2, 3, 64, 64], 4.0));
        let penalty = || gradient_penalty(|x| critic.map(x), &real, &fake, &halves(2), Reduce::Sum).unwrap();
        penalty().backward();
        let mut nonzero = 0;
        for (name, variable) in store.variables() {
            let gradient = variable.grad();
            if name.ends_with("bias")
                && (!gradient.defined() || gradient.abs().max().double_value(&[]) == 0.0)
            {
                continue; // A bias changes the penalty only if a unit changes its sign.
            }
            assert!(gradient.defined(), "{name}");
            let index = gradient.abs().flatten(0, -1).argmax(0, false).int64_value(&[]);
            let mut value = variable.flatten(0, -1).narrow(0, index, 1);
            let step = 1e-6;
            let at = |value: &mut Tensor, by: f64| {
                tch::no_grad(|| {
                    let _ = value.g_add_scalar_(by);
                });
            };
            at(&mut value, step);
            let ahead = penalty().double_value(&[]);
            at(&mut value, -2.0 * step);
            let behind = penalty().double_value(&[]);
            at(&mut value, step);
            let expected = (ahead - behind) / (2.0 * step);
            let actual = gradient.flatten(0, -1).double_value(&[index]);
            assert!((actual - expected).abs() < 1e-4 * expected.abs() + 1e-9, "{name}: {actual} {expected}");
            nonzero += i32::from(expected.abs() > 1e-9);
        }
        assert!(nonzero >= 7, "all convolutions except inactive ones: {nonzero}");
    }
}
