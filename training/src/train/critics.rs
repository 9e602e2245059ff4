// SPDX-License-Identifier: MPL-2.0

//! The critics of a run with their weights and optimisers.

use gstfastganseg::device::DeviceChoice;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use super::adam::{Adam, Betas, Rates};
use super::objective::{critic_loss, regressor_loss};
use crate::Result;
use crate::check::{Checked, count, must, not_negative, positive, within};
use crate::clips::Batch;
use crate::critic::{Critic, CriticKind, Noise, Reduce, Shape};
use crate::distributed::{Ranks, Reducer};

/// First purpose of the critics' random numbers in [`Batch::draw`], above those of the regressor's frames.
const CRITIC_DRAWS: i64 = 1 << 20;

/// Settings of the critics, `[critics]` in a training configuration. The defaults are those of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticSettings {
    /// Weight λ_S of the spatial critic, for single frames; 0 = no such critic.
    pub spatial_weight: f64,
    /// Weight λ_T of the temporal critic, for windows; 0 = no such critic.
    pub temporal_weight: f64,
    /// Weight λ_gp of the gradient penalty.
    pub penalty_weight: f64,
    /// Reduction of a critic's score map for the gradient penalty.
    pub gp_reduce: Reduce,
    /// Threshold on |Y − Ŷ|, 0 to 1. Below it, the real masks have the value of the predicted masks; 0 = nowhere.
    pub overwrite: f64,
    /// Noise of the other pixels of the real masks.
    pub noise: Noise,
    /// Critic steps per regressor step.
    pub steps: u64,
    /// Whether every critic step has its own batch. Otherwise all use that of the regressor step, which saves the
    /// additional passes of the regressor.
    pub fresh_batches: bool,
    /// Learning rate of both critics.
    pub learning_rate: f64,
    /// Decay of the first and the second moment.
    pub betas: Betas,
    /// Widths of the layers.
    pub shape: Shape,
    /// Device of the critics: `cpu`, `cuda` or `cuda:N`. By default that of the regressor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

impl Default for CriticSettings {
    fn default() -> Self {
        Self {
            spatial_weight: 1.0,
            temporal_weight: 1.0,
            penalty_weight: 10.0,
            gp_reduce: Reduce::Sum,
            overwrite: 0.25,
            noise: Noise::Residual,
            steps: 5,
            fresh_batches: true,
            learning_rate: 1e-5,
            betas: Betas(0.5, 0.999),
            shape: Shape::default(),
            device: None,
        }
    }
}

impl CriticSettings {
    /// Checks the values for clips of `size` (H, W). The message names the key.
    pub(crate) fn check(&self, size: [i64; 2]) -> Checked {
        not_negative("critics.spatial_weight", self.spatial_weight)?;
        not_negative("critics.temporal_weight", self.temporal_weight)?;
        not_negative("critics.penalty_weight", self.penalty_weight)?;
        must(
            self.spatial_weight + self.temporal_weight > 0.0,
            "critics: set spatial_weight or temporal_weight above 0",
        )?;
        within("critics.overwrite", self.overwrite, [0.0, 1.0])?;
        // With fresh batches, those of all steps are in memory.
        count("critics.steps", self.steps, 100)?;
        positive("critics.learning_rate", self.learning_rate)?;
        self.betas.check("critics.betas")?;
        must(self.shape.max_channels > 0, "critics.shape.max_channels: at least 1")?;
        must(self.shape.width > 0.0 && self.shape.width <= 4.0, "critics.shape.width: above 0, up to 4")?;
        let large = size.iter().all(|side| *side >= Critic::MIN_SIDE);
        must(large, &format!("data.size: at least {0}x{0} for the critics", Critic::MIN_SIDE))?;
        let check =
            |device: &String| device.parse::<DeviceChoice>().map(drop).map_err(|error| error.to_string());
        self.device.as_ref().map_or(Ok(()), check)
    }

    /// The number of batches per regressor step.
    pub fn batches(&self) -> u64 {
        if self.fresh_batches { self.steps } else { 1 }
    }
}

#[derive(Debug)]
pub struct CriticState {
    pub kind: CriticKind,
    /// Weight of the loss, λ_S or λ_T.
    pub weight: f64,
    pub store: nn::VarStore,
    pub adam: Adam,
    reducer: Reducer,
    critic: Critic,
}

/// Images and true masks of the predicted frames of a batch, on the critics' device and in float32.
#[derive(Debug)]
pub struct CriticInputs<'a> {
    batch: &'a Batch,
    /// (K, B, 3, H, W).
    images: Tensor,
    /// (K, B, 1, H, W).
    truth: Tensor,
    /// (K, B, 1, H, W).
    valid: Tensor,
}

#[derive(Debug)]
pub struct Critics {
    /// One or two critics.
    pub states: Vec<CriticState>,
    pub settings: CriticSettings,
    device: Device,
}

impl Critics {
    /// Creates randomly initialised critics for K = `window` predicted frames. `device` is that of the regressor.
    pub fn new(settings: &CriticSettings, window: usize, device: Device, ranks: &Ranks) -> Result<Self> {
        let device = match &settings.device {
            Some(choice) => gstfastganseg::torch::open_device(ranks.device(choice.parse()?)?)?.0,
            None => device,
        };
        let rates = Rates {
            learning_rate: settings.learning_rate,
            encoder_learning_rate: 0.0,
            betas: settings.betas,
            weight_decay: 0.0,
            clip: f64::INFINITY,
        };
        let kinds = [
            (CriticKind::Spatial, settings.spatial_weight, 3),
            (CriticKind::Temporal, settings.temporal_weight, 3 * window as i64),
        ];
        let mut states = Vec::new();
        for (kind, weight, channels) in kinds.into_iter().filter(|(_, weight, _)| *weight > 0.0) {
            let store = nn::VarStore::new(device);
            let critic = Critic::new(&store.root(), channels, settings.shape);
            let adam = Adam::new(store.variables(), rates)?;
            let reducer = ranks.reducer(&adam.parameters_in_backward_order())?;
            states.push(CriticState { kind, weight, store, adam, reducer, critic });
        }
        Ok(Self { states, settings: settings.clone(), device })
    }

    /// Returns the critics' inputs from a batch, apart from the predicted masks.
    pub fn critic_inputs<'a>(&self, batch: &'a Batch) -> Result<CriticInputs<'a>> {
        let frames = batch.images.size()[0] - 2;
        let part = |x: &Tensor| x.f_narrow(0, 2, frames)?.f_to_device(self.device)?.f_to_kind(Kind::Float);
        Ok(CriticInputs {
            batch,
            images: part(&batch.images)?,
            truth: part(&batch.masks)?,
            valid: part(&batch.valid)?,
        })
    }

    /// Takes one step of every critic with the predicted soft masks (K, B, 1, H, W), at `schedule` times the
    /// maximum learning rate. `pass` counts the steps with the same batch, whose random numbers differ. Returns the Wasserstein
    /// estimates E D(real) − E D(fake) before the step, the penalties without their weight and the norms of the gradients.
    pub fn step(
        &mut self,
        inputs: &CriticInputs,
        masks: &Tensor,
        schedule: f64,
        pass: u64,
    ) -> Result<Vec<(String, f64)>> {
        let masks = masks.f_detach()?.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let CriticSettings { overwrite, noise, penalty_weight, gp_reduce, .. } = self.settings;
        let options = (Kind::Float, self.device);
        let purpose = CRITIC_DRAWS + (1 + self.states.len() as i64) * pass as i64;
        let normal = || {
            let mut size = masks.size();
            size[1] = 1;
            inputs.batch.draw(purpose, 1, |_| Ok(Tensor::f_randn(&size, options)?))
        };
        let real = noise.real_masks(overwrite, &inputs.truth, &masks, normal)?;
        let [real, fake] = [real.f_mul(&inputs.valid)?, masks.f_mul(&inputs.valid)?];
        let mut scalars = Vec::new();
        for (state, purpose) in self.states.iter_mut().zip(purpose + 1..) {
            let samples = state.kind.samples(masks.size()[0]);
            let epsilon = inputs.batch.draw(purpose, 1, |_| Ok(Tensor::f_rand(samples, options)?))?;
            let epsilon = epsilon.f_reshape([-1, 1, 1, 1])?;
            let [real, fake] = [&real, &fake].map(|masks| state.kind.input(&inputs.images, masks));
            let loss = critic_loss(&state.critic, &real?, &fake?, &epsilon, penalty_weight, gp_reduce)?;
            state.adam.zero_gradients();
            state.reducer.prepare(&loss.total)?;
            loss.total.f_backward()?;
            let norm = state.adam.step(schedule)?;
            let name = state.kind.name();
            scalars.push((format!("wasserstein/{name}"), loss.wasserstein.double_value(&[])));
            scalars.push((format!("penalty/{name}"), loss.penalty.double_value(&[])));
            scalars.push((format!("critic_gradient/{name}"), norm));
        }
        Ok(scalars)
    }

    /// Returns −E D(fake) of every critic with its kind and weight; the loss itself is unweighted. It is
    /// differentiable in `masks`, on their device. The variables of the critics get no gradient.
    pub fn regressor_losses(
        &mut self,
        inputs: &CriticInputs,
        masks: &Tensor,
    ) -> Result<Vec<(CriticKind, f64, Tensor)>> {
        let device = masks.device();
        let masks = masks.f_to_device(self.device)?.f_to_kind(Kind::Float)?.f_mul(&inputs.valid)?;
        let mut losses = Vec::with_capacity(self.states.len());
        for state in &mut self.states {
            state.adam.set_requires_grad(false);
            let loss = state
                .kind
                .input(&inputs.images, &masks)
                .and_then(|fake| regressor_loss(&state.critic, &fake));
            state.adam.set_requires_grad(true);
            losses.push((state.kind, state.weight, loss?.f_to_device(device)?));
        }
        Ok(losses)
    }
}
