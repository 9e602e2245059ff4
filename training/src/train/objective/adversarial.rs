// SPDX-License-Identifier: MPL-2.0

//! Adversarial losses of critics and regressor, equations 3 and 4.
//!
//! A critic minimises −(E D(real) − E D(fake)) + λ_gp·GP. The regressor minimises −E D(fake), the only term that
//! depends on its masks.

use tch::Tensor;

use crate::Result;
use crate::critic::{Critic, Reduce, gradient_penalty};

/// The loss of a critic and its terms.
#[derive(Debug)]
pub struct CriticLoss {
    /// −`wasserstein` + λ_gp·`penalty`.
    pub total: Tensor,
    /// E D(real) − E D(fake), a trained critic's estimate of the Wasserstein distance.
    pub wasserstein: Tensor,
    /// The gradient penalty GP, without its weight.
    pub penalty: Tensor,
}

/// Computes the loss of a critic. `real` and `fake` are masked images (N, C, H, W); no gradient reaches them.
/// `epsilon` (N, 1, 1, 1) in [0, 1] is that of the penalty.
pub fn critic_loss(
    critic: &Critic,
    real: &Tensor,
    fake: &Tensor,
    epsilon: &Tensor,
    penalty_weight: f64,
    reduce: Reduce,
) -> Result<CriticLoss> {
    let (real, fake) = (real.f_detach()?, fake.f_detach()?);
    let samples = real.size()[0];
    let scores = critic.score(&Tensor::f_cat(&[&real, &fake], 0)?)?;
    let mean = |start: i64| scores.f_narrow(0, start, samples)?.f_mean(scores.kind());
    let wasserstein = mean(0)?.f_sub(&mean(samples)?)?;
    let penalty = gradient_penalty(|x| critic.map(x), &real, &fake, epsilon, reduce)?;
    let total = penalty.f_mul_scalar(penalty_weight)?.f_sub(&wasserstein)?;
    Ok(CriticLoss { total, wasserstein, penalty })
}

/// Computes −E D(fake), the regressor's term of L_S or L_T.
pub fn regressor_loss(critic: &Critic, fake: &Tensor) -> Result<Tensor> {
    Ok(critic.score(fake)?.f_mean(fake.kind())?.f_neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::CriticKind;
    use crate::critic::penalty::tests::{DOUBLE, critic, sines};
    use crate::train::adam::{Adam, Betas, RATES, Rates};

    fn waves(size: &[i64], phase: f64) -> Tensor {
        sines(size, 0.013, phase)
    }

    fn epsilon(samples: i64) -> Tensor {
        Tensor::rand([samples, 1, 1, 1], DOUBLE)
    }

    #[test]
    fn the_critic_loss_combines_its_terms() {
        let (_store, critic) = critic(3, 0.1, 0.3);
        let (real, fake) = (waves(&[2, 3, 64, 128], 0.0), waves(&[2, 3, 64, 128], 2.0));
        let loss = critic_loss(&critic, &real, &fake, &epsilon(2), 10.0, Reduce::Sum).unwrap();
        // Each sample by itself, averaged over positions.
        let mean = |x: &Tensor| {
            let maps = (0..2).map(|n| critic.map(&x.narrow(0, n, 1)).unwrap().flatten(0, -1));
            let all: Vec<f64> = maps
                .flat_map(|map| (0..2).map(move |i| map.double_value(&[i])).collect::<Vec<_>>())
                .collect();
            all.iter().sum::<f64>() / all.len() as f64
        };
        let expected = mean(&real) - mean(&fake);
        let value = |x: &Tensor| x.double_value(&[]);
        assert!((value(&loss.wasserstein) - expected).abs() < 1e-5 * expected.abs() + 1e-7);
        let total = 10.0 * value(&loss.penalty) - value(&loss.wasserstein);
        assert!((value(&loss.total) - total).abs() < 1e-5);
        let regressor = value(&regressor_loss(&critic, &fake).unwrap());
        assert!((regressor + mean(&fake)).abs() < 1e-6);
    }

    #[test]
    fn a_critic_learns_to_score_real_higher() {
        let (store, critic) = critic(3, 0.1, 0.3);
        let (real, fake) = (waves(&[4, 3, 64, 64], 0.0), waves(&[4, 3, 64, 64], 2.0) * 0.2);
        let estimate = || critic_loss(&critic, &real, &fake, &epsilon(4), 10.0, Reduce::Sum).unwrap();
        let before = estimate().wasserstein.double_value(&[]);
        // Adam as in training: plain gradient descent diverges for some draws of ε.
        let betas = Betas(0.5, 0.999);
        let rates = Rates { learning_rate: 2e-3, betas, clip: f64::INFINITY, ..RATES };
        let mut adam = Adam::new(store.variables(), rates).unwrap();
        for _ in 0..30 {
            adam.zero_gradients();
            estimate().total.backward();
            adam.step(1.0).unwrap();
        }
        let after = estimate().wasserstein.double_value(&[]);
        assert!(after > before + 0.01, "{before} {after}");
    }

    /// Compares the gradient of both losses with finite differences.
    #[test]
    fn both_critics_have_a_gradient_on_the_masks() {
        let images = waves(&[2, 2, 3, 64, 64], 0.5) * 0.5 + 0.5;
        for (kind, inputs) in [(CriticKind::Spatial, 3), (CriticKind::Temporal, 6)] {
            let (_store, critic) = critic(inputs, 0.1, 0.3);
            let masks = (waves(&[2, 2, 1, 64, 64], 1.5) * 0.5 + 0.5).set_requires_grad(true);
            let loss =
                |masks: &Tensor| regressor_loss(&critic, &kind.input(&images, masks).unwrap()).unwrap();
            loss(&masks).backward();
            let gradient = masks.grad();
            let direction = &gradient / gradient.norm();
            let ahead = loss(&(&masks + &direction * 1e-6)).double_value(&[]);
            let behind = loss(&(&masks - &direction * 1e-6)).double_value(&[]);
            let (norm, expected) = (gradient.norm().double_value(&[]), (ahead - behind) / 2e-6);
            assert!(expected > 0.0 && (norm / expected - 1.0).abs() < 1e-4, "{norm} {expected}");
        }
    }
}
