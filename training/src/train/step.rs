//! One step of training: so many of each critic, then one of the regressor down equation 5.

use tch::{Kind, Tensor};

use super::adam::{Adam, norm};
use super::config::TrainConfig;
use super::critics::{Critics, Finding};
use super::network::Network;
use super::objective::Supervised;
use super::window::Manner;
use crate::Result;
use crate::clips::Batch;

/// What is trained.
#[derive(Debug)]
pub struct Trainee {
    /// The regressor.
    pub network: Network,
    /// Its optimiser.
    pub adam: Adam,
    /// What judges it, if anything.
    pub critics: Option<Critics>,
    /// How windows are computed.
    pub manner: Manner,
}

/// What a step found.
#[derive(Debug, Default)]
pub struct Found {
    /// Scalars for the curve, by name.
    pub scalars: Vec<(String, f64)>,
    /// Whose loss or gradient is no number any more.
    pub astray: Option<String>,
    /// Soft masks (K, B, 1, H, W) of the last batch.
    pub masks: Option<Tensor>,
}

impl Found {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.scalars.push((name.into(), value));
    }

    fn critics(&mut self, findings: &[Finding]) {
        for finding in findings {
            let name = finding.sight.name();
            self.add(format!("wasserstein/{name}"), finding.wasserstein);
            self.add(format!("penalty/{name}"), finding.penalty);
            self.add(format!("critic_gradient/{name}"), finding.norm);
            if let (Err(who), None) = (finding.check(), &self.astray) {
                self.astray = Some(who);
            }
        }
    }
}

impl Trainee {
    /// One step on batches of its own, as many as the configuration wants, at `schedule` times the highest rates.
    /// `gradients` asks for the norms of each loss's gradient on the regressor.
    ///
    /// # Errors
    /// Clips of a size that the network does not take, too little memory.
    pub fn step(
        &mut self,
        config: &TrainConfig,
        batches: &[Batch],
        schedule: f64,
        gradients: bool,
    ) -> Result<Found> {
        let mut found = Found::default();
        let Some((last, before)) = batches.split_last() else { return Ok(found) };
        if let Some(critics) = &mut self.critics {
            for batch in before {
                let masks = tch::no_grad(|| self.network.unroll(batch, &self.manner))?.f_sigmoid()?;
                found.critics(&critics.step(&critics.scene(batch)?, &masks, schedule)?);
            }
        }
        let frames = last.images.size()[0] - 2;
        let logits = self.network.unroll(last, &self.manner)?;
        let (truth, valid) = (last.masks.f_narrow(0, 2, frames)?, last.valid.f_narrow(0, 2, frames)?);
        let supervised = Supervised::new(config.loss.cross_entropy, &logits, &truth, &valid)?;
        let mut parts = vec![(
            "supervised",
            supervised.weighted(&config.loss)?,
            supervised.cross_entropy.shallow_clone(),
        )];
        let masks = logits.f_sigmoid()?;
        if let Some(critics) = &mut self.critics {
            let scene = critics.scene(last)?;
            let steps = if critics.settings.fresh_batches { 1 } else { critics.settings.steps };
            for _ in 0..steps {
                found.critics(&critics.step(&scene, &masks, schedule)?);
            }
            for (sight, weight, loss) in critics.regressor_losses(&scene, &masks)? {
                parts.push((sight.name(), loss.f_mul_scalar(weight)?, loss));
            }
        }
        if gradients {
            let parameters = self.adam.parameters();
            for (name, weighted, _) in &parts {
                let gradients = Tensor::f_run_backward(&[weighted], &parameters, true, false)?;
                let defined: Vec<Tensor> = gradients.into_iter().filter(Tensor::defined).collect();
                found.add(format!("gradient/{name}"), norm(&defined)?);
            }
        }
        let weighted: Vec<&Tensor> = parts.iter().map(|(_, weighted, _)| weighted).collect();
        let total = Tensor::f_stack(&weighted, 0)?.f_sum(Kind::Float)?;
        self.adam.zero_gradients();
        total.f_backward()?;
        let norm = self.adam.step(schedule)?;

        let total = total.double_value(&[]);
        found.add("loss/total", total);
        for (name, _, loss) in &parts {
            let name = if *name == "supervised" { "cross_entropy" } else { name };
            found.add(format!("loss/{name}"), loss.double_value(&[]));
        }
        found.add("region_similarity", supervised.region.double_value(&[]));
        found.add("gradient/total", norm);
        if !(total.is_finite() && norm.is_finite()) && found.astray.is_none() {
            found.astray = Some("the regressor's loss".to_owned());
        }
        found.masks = Some(masks.f_detach()?);
        Ok(found)
    }
}
