// SPDX-License-Identifier: MPL-2.0

//! One training step: the steps of each critic, then one step of the regressor on equation 5.

use tch::{Kind, Tensor};

use super::adam::{Adam, norm};
use super::config::TrainConfig;
use super::critics::{CriticStats, Critics};
use super::network::Network;
use super::objective::Supervised;
use super::window::UnrollOptions;
use crate::Result;
use crate::clips::Batch;

/// The networks of a run and their optimisers.
#[derive(Debug)]
pub struct Trainer {
    /// The regressor.
    pub network: Network,
    /// The optimiser of the regressor.
    pub adam: Adam,
    /// The critics, if any.
    pub critics: Option<Critics>,
    /// Options of the unrolled windows.
    pub options: UnrollOptions,
}

/// Result of a step.
#[derive(Debug, Default)]
pub struct StepLosses {
    /// Scalars for the curve, by name.
    pub scalars: Vec<(String, f64)>,
    /// The network whose loss or gradient diverged.
    pub diverged: Option<String>,
    /// Soft masks (K, B, 1, H, W) of the last batch.
    pub masks: Option<Tensor>,
}

impl StepLosses {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.scalars.push((name.into(), value));
    }

    fn critics(&mut self, stats: &[CriticStats]) {
        for stats in stats {
            let name = stats.kind.name();
            self.add(format!("wasserstein/{name}"), stats.wasserstein);
            self.add(format!("penalty/{name}"), stats.penalty);
            self.add(format!("critic_gradient/{name}"), stats.norm);
            if let (Err(name), None) = (stats.check(), &self.diverged) {
                self.diverged = Some(name);
            }
        }
    }
}

impl Trainer {
    /// Trains one step at `schedule` times the maximum learning rates. The regressor uses the last batch, the
    /// critics all of them. `gradients` enables the gradient norm of each loss on the regressor.
    ///
    /// # Errors
    /// If a network does not accept the size of the clips, or memory runs out.
    pub fn step(
        &mut self,
        config: &TrainConfig,
        batches: &[Batch],
        schedule: f64,
        gradients: bool,
    ) -> Result<StepLosses> {
        let mut losses = StepLosses::default();
        let Some((last, critic_batches)) = batches.split_last() else { return Ok(losses) };
        if let Some(critics) = &mut self.critics {
            for batch in critic_batches {
                let masks = tch::no_grad(|| self.network.unroll(batch, &self.options))?.f_sigmoid()?;
                losses.critics(&critics.step(&critics.critic_inputs(batch)?, &masks, schedule)?);
            }
        }
        let frames = last.images.size()[0] - 2;
        let logits = self.network.unroll(last, &self.options)?;
        let (truth, valid) = (last.masks.f_narrow(0, 2, frames)?, last.valid.f_narrow(0, 2, frames)?);
        let supervised = Supervised::new(config.loss.cross_entropy, &logits, &truth, &valid)?;
        let mut parts = vec![(
            "supervised",
            supervised.weighted(&config.loss)?,
            supervised.cross_entropy.shallow_clone(),
        )];
        let masks = logits.f_sigmoid()?;
        if let Some(critics) = &mut self.critics {
            let inputs = critics.critic_inputs(last)?;
            let steps = if critics.settings.fresh_batches { 1 } else { critics.settings.steps };
            for _ in 0..steps {
                losses.critics(&critics.step(&inputs, &masks, schedule)?);
            }
            for (kind, weight, loss) in critics.regressor_losses(&inputs, &masks)? {
                parts.push((kind.name(), loss.f_mul_scalar(weight)?, loss));
            }
        }
        if gradients {
            let parameters = self.adam.parameters();
            for (name, weighted, _) in &parts {
                let gradients = Tensor::f_run_backward(&[weighted], &parameters, true, false)?;
                let defined: Vec<Tensor> = gradients.into_iter().filter(Tensor::defined).collect();
                losses.add(format!("gradient/{name}"), norm(&defined)?);
            }
        }
        let weighted: Vec<&Tensor> = parts.iter().map(|(_, weighted, _)| weighted).collect();
        let total = Tensor::f_stack(&weighted, 0)?.f_sum(Kind::Float)?;
        self.adam.zero_gradients();
        total.f_backward()?;
        let norm = self.adam.step(schedule)?;

        let total = total.double_value(&[]);
        losses.add("loss/total", total);
        for (name, _, loss) in &parts {
            let name = if *name == "supervised" { "cross_entropy" } else { name };
            losses.add(format!("loss/{name}"), loss.double_value(&[]));
        }
        losses.add("region_similarity", supervised.region.double_value(&[]));
        losses.add("gradient/total", norm);
        if !(total.is_finite() && norm.is_finite()) && losses.diverged.is_none() {
            losses.diverged = Some("the regressor's loss".to_owned());
        }
        losses.masks = Some(masks.f_detach()?);
        Ok(losses)
    }
}
