//! The critics of a run, each with its weights and its optimiser.

use gstfastganseg::device;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use super::adam::{Adam, Betas, Rates};
use super::objective::{critic_loss, regressor_loss};
use crate::Result;
use crate::check::{Checked, at_least_one, must, not_negative, positive, within};
use crate::clips::Batch;
use crate::critic::{Critic, Noise, RealMaskNoise, Reduce, Shape, spatial, temporal};

/// The critics, `[critics]` in a run's configuration; without it there are none. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticSettings {
    /// Weight λ_S of the critic of single frames; 0 = there is none.
    pub spatial_weight: f64,
    /// Weight λ_T of the critic of whole windows; 0 = there is none.
    pub temporal_weight: f64,
    /// Weight λ_gp of the gradient penalty.
    pub penalty_weight: f64,
    /// Of what the penalty takes the gradient.
    pub gp_reduce: Reduce,
    /// Where |Y − Ŷ| is below this, the critics' real masks have the regressor's value; 0 = nowhere.
    pub overwrite: f64,
    /// What noise the rest of the real masks gets.
    pub noise: Noise,
    /// Critic steps a regressor step.
    pub steps: u64,
    /// Whether each of them has clips of its own; else all have those of the regressor's step, which costs one
    /// pass of the regressor in the place of so many.
    pub fresh_batches: bool,
    /// Learning rate of both critics.
    pub learning_rate: f64,
    /// Decay of the first and the second moment.
    pub betas: Betas,
    /// Widths of their layers.
    pub shape: Shape,
    /// Where they are, `cpu`, `cuda` or `cuda:N`; none = with the regressor.
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
    /// Refuses what makes no sense for clips of `size`; the message names the key.
    pub(crate) fn check(&self, size: [i64; 2]) -> Checked {
        not_negative("critics.spatial_weight", self.spatial_weight)?;
        not_negative("critics.temporal_weight", self.temporal_weight)?;
        not_negative("critics.penalty_weight", self.penalty_weight)?;
        must(
            self.spatial_weight + self.temporal_weight > 0.0,
            "critics: spatial_weight or temporal_weight must be above 0",
        )?;
        within("critics.overwrite", self.overwrite, [0.0, 1.0])?;
        at_least_one("critics.steps", self.steps)?;
        positive("critics.learning_rate", self.learning_rate)?;
        self.betas.check("critics.betas")?;
        must(self.shape.max_channels > 0, "critics.shape.max_channels: at least 1")?;
        must(self.shape.width > 0.0 && self.shape.width <= 4.0, "critics.shape.width: above 0, up to 4")?;
        let large = size.iter().all(|side| *side >= Critic::LEAST);
        must(large, &format!("data.size: at least {0}x{0} for the critics", Critic::LEAST))?;
        match &self.device {
            Some(device) => {
                device.parse::<device::DeviceChoice>().map(drop).map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    /// Batches that a regressor step takes.
    pub fn batches(&self) -> u64 {
        if self.fresh_batches { self.steps } else { 1 }
    }
}

/// What one critic is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CriticKind {
    /// Single frames.
    Spatial,
    /// All frames of a window.
    Temporal,
}

impl CriticKind {
    /// Its name in curves and checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spatial => "spatial",
            Self::Temporal => "temporal",
        }
    }

    /// Pictures (K, B, 3, H, W) cut out by masks (K, B, 1, H, W).
    fn cut(self, images: &Tensor, masks: &Tensor) -> Result<Tensor> {
        match self {
            Self::Spatial => spatial(images, masks),
            Self::Temporal => temporal(images, masks),
        }
    }
}

/// A critic with what trains it.
#[derive(Debug)]
pub struct CriticState {
    /// What it is shown.
    pub kind: CriticKind,
    /// Weight of its loss, λ_S or λ_T.
    pub weight: f64,
    /// Its variables.
    pub store: nn::VarStore,
    /// Its optimiser.
    pub adam: Adam,
    critic: Critic,
}

/// What a critic's step found.
#[derive(Clone, Copy, Debug)]
pub struct CriticStats {
    /// Whose.
    pub kind: CriticKind,
    /// E D(real) − E D(fake) before the step.
    pub wasserstein: f64,
    /// The gradient penalty, without its weight.
    pub penalty: f64,
    /// The gradient's norm.
    pub norm: f64,
}

/// The predicted frames of a batch as critics see them, on the critics' device and in float32.
#[derive(Debug)]
pub struct Scene {
    /// (K, B, 3, H, W).
    images: Tensor,
    /// (K, B, 1, H, W).
    truth: Tensor,
    valid: Tensor,
}

/// All critics of a run.
#[derive(Debug)]
pub struct Critics {
    /// One or two.
    pub states: Vec<CriticState>,
    /// As they were configured.
    pub settings: CriticSettings,
    device: Device,
}

impl Critics {
    /// At random; `window` is K, `device` that of the regressor.
    pub fn new(settings: &CriticSettings, window: usize, device: Device) -> Result<Self> {
        let device = match &settings.device {
            Some(choice) => device::open(choice.parse()?)?.0,
            None => device,
        };
        let rates = Rates {
            learning_rate: settings.learning_rate,
            encoder_learning_rate: 0.0,
            betas: settings.betas,
            weight_decay: 0.0,
            clip: f64::INFINITY,
        };
        let wanted = [
            (CriticKind::Spatial, settings.spatial_weight, 3),
            (CriticKind::Temporal, settings.temporal_weight, 3 * window as i64),
        ];
        let mut states = Vec::new();
        for (kind, weight, channels) in wanted.into_iter().filter(|(_, weight, _)| *weight > 0.0) {
            let store = nn::VarStore::new(device);
            let critic = Critic::new(&store.root(), channels, settings.shape);
            let adam = Adam::new(store.variables(), rates)?;
            states.push(CriticState { kind, weight, store, adam, critic });
        }
        Ok(Self { states, settings: settings.clone(), device })
    }

    /// What the critics see of a batch beside the regressor's masks.
    pub fn scene(&self, batch: &Batch) -> Result<Scene> {
        let frames = batch.images.size()[0] - 2;
        let part = |x: &Tensor| x.f_narrow(0, 2, frames)?.f_to_device(self.device)?.f_to_kind(Kind::Float);
        Ok(Scene { images: part(&batch.images)?, truth: part(&batch.masks)?, valid: part(&batch.valid)? })
    }

    /// One step of every critic against the regressor's soft masks (K, B, 1, H, W), at `schedule` times the
    /// highest rate.
    pub fn step(&mut self, scene: &Scene, masks: &Tensor, schedule: f64) -> Result<Vec<CriticStats>> {
        let masks = masks.f_detach()?.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let noise = RealMaskNoise { overwrite: self.settings.overwrite, noise: self.settings.noise };
        let real = noise.apply(&scene.truth, &masks)?;
        let [real, fake] = [real.f_mul(&scene.valid)?, masks.f_mul(&scene.valid)?];
        let mut stats = Vec::with_capacity(self.states.len());
        for state in &mut self.states {
            let [real, fake] = [&real, &fake].map(|masks| state.kind.cut(&scene.images, masks));
            let CriticSettings { penalty_weight, gp_reduce, .. } = self.settings;
            let loss = critic_loss(&state.critic, &real?, &fake?, penalty_weight, gp_reduce)?;
            state.adam.zero_gradients();
            loss.total.f_backward()?;
            let norm = state.adam.step(schedule)?;
            stats.push(CriticStats {
                kind: state.kind,
                wasserstein: loss.wasserstein.double_value(&[]),
                penalty: loss.penalty.double_value(&[]),
                norm,
            });
        }
        Ok(stats)
    }

    /// −E D(fake) of every critic, without weight and differentiable in `masks`, on the device of the masks.
    /// The critics' own weights get no gradient.
    pub fn regressor_losses(
        &mut self,
        scene: &Scene,
        masks: &Tensor,
    ) -> Result<Vec<(CriticKind, f64, Tensor)>> {
        let home = masks.device();
        let masks = masks.f_to_device(self.device)?.f_to_kind(Kind::Float)?.f_mul(&scene.valid)?;
        let mut losses = Vec::with_capacity(self.states.len());
        for state in &mut self.states {
            state.adam.set_requires_grad(false);
            let loss =
                state.kind.cut(&scene.images, &masks).and_then(|fake| regressor_loss(&state.critic, &fake));
            state.adam.set_requires_grad(true);
            losses.push((state.kind, state.weight, loss?.f_to_device(home)?));
        }
        Ok(losses)
    }
}

impl CriticStats {
    /// Beyond this no critic that is held to slope 1 gets on pictures; its penalty has lost it.
    const MAX_SANE: f64 = 1e6;

    /// Refuses what is no number, or too large for one that still means anything.
    pub fn check(&self) -> Result<(), String> {
        let sound =
            self.wasserstein.abs() < Self::MAX_SANE && self.penalty < Self::MAX_SANE && self.norm.is_finite();
        if sound { Ok(()) } else { Err(format!("the {} critic", self.kind.name())) }
    }
}
