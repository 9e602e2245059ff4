// SPDX-License-Identifier: MPL-2.0

//! Configuration of a training run, a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gstfastganseg::device::DeviceChoice;
use gstfastganseg::torch::model::Config;
use serde::{Deserialize, Serialize};

use super::adam::{Betas, Rates};
use super::critics::CriticSettings;
use super::distillation::Distillation;
use super::objective::Loss;
use super::refinement::Refinement;
use super::validate::Validation;
use crate::check::{Checked, MAX_THREADS, at_least_one, count, must, not_negative, positive};
use crate::clips::Data;
use crate::{Result, config_file};

/// Section, old name and new name of renamed keys.
const RENAMED_KEYS: [(&str, &str, &str); 2] =
    [("data.augment", "intruder", "distractor"), ("data.synthetic", "newcomer", "late_distractor")];

/// Configuration of a training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Initial weights of the same model configuration, `.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// ImageNet weights of the encoder, `.safetensors`. Missing tensors of a ResNet-50 are initialised at random,
    /// with a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<PathBuf>,
    /// Length of the run and of the schedule in regressor steps. Exclusive with `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the run in epochs. An epoch has as many clips as there are annotated frames and stills, including
    /// the clips of the critic steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Step at which to stop with a checkpoint. The run can be resumed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<u64>,
    /// Seed of random initial weights and of clips.
    pub seed: u64,
    /// Device of the regressor: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// Threads of the training step.
    pub threads: i32,
    /// Threads of the clip loader.
    pub loader_threads: usize,
    /// Whether to compute the regressor in bfloat16, with float32 weights and losses.
    pub mixed_precision: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between rows of the curve. A row contains means over these steps.
    #[serde(default = "report_every")]
    pub report_every: u64,
    /// Steps between measurements of the gradient norm of each loss on the regressor; 0 = never.
    #[serde(default)]
    pub gradients_every: u64,
    /// The network.
    pub model: Config,
    /// The clips.
    pub data: Data,
    /// The regressor's optimiser.
    pub optimiser: Optimiser,
    /// The supervised part of the loss.
    pub loss: Loss,
    /// Distillation from a teacher; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// Trains the refiner alone; absent = everything but the refiner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
    /// The critics; absent = supervised training only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critics: Option<CriticSettings>,
    /// Validation during training; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Metadata of the weights file, such as training data and licence.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn cpu() -> String {
    "cpu".to_owned()
}

fn report_every() -> u64 {
    25
}

/// Adam with decoupled weight decay and a polynomial schedule.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Maximum learning rate, reached after warm-up.
    pub learning_rate: f64,
    /// Maximum learning rate of the encoder; 0 = frozen.
    pub encoder_learning_rate: f64,
    /// Decay of the first and the second moment.
    pub betas: Betas,
    /// Weight decay per step, relative to the learning rate.
    pub weight_decay: f64,
    /// Maximum norm of the gradient over all variables; `inf` = no clipping.
    pub clip: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Share of the run before the decay begins, 0 to below 1.
    #[serde(default)]
    pub hold: f64,
    /// Power of the polynomial decay.
    pub decay_power: f64,
}

impl Optimiser {
    /// The rates of the optimiser.
    pub fn rates(&self) -> Rates {
        Rates {
            learning_rate: self.learning_rate,
            encoder_learning_rate: self.encoder_learning_rate,
            betas: self.betas,
            weight_decay: self.weight_decay,
            clip: self.clip,
        }
    }

    /// Checks every value.
    pub(crate) fn check(&self) -> Checked {
        positive("optimiser.learning_rate", self.learning_rate)?;
        not_negative("optimiser.encoder_learning_rate", self.encoder_learning_rate)?;
        not_negative("optimiser.weight_decay", self.weight_decay)?;
        must(self.clip > 0.0, "optimiser.clip: above 0; inf = no clipping")?;
        must((0.0..1.0).contains(&self.hold), "optimiser.hold: a share of the run, from 0 to below 1")?;
        not_negative("optimiser.decay_power", self.decay_power)?;
        self.betas.check("optimiser.betas")
    }

    /// The learning rate of the step after `done` of `steps` steps, relative to the maximum: linear warm-up, a constant rate,
    /// then polynomial decay to zero at the end of the run.
    pub fn schedule(&self, done: u64, steps: u64) -> f64 {
        let progress = done as f64 / steps as f64;
        let decayed = ((progress - self.hold) / (1.0 - self.hold)).clamp(0.0, 1.0);
        let warm = ((done + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        warm * (1.0 - decayed).powf(self.decay_power)
    }
}

impl TrainConfig {
    /// Reads a file and applies overrides of the form `a.b=value`. An override of `steps` removes `epochs` and
    /// vice versa. A file with `extends = "base.toml"` overrides values of that file; the path is relative to the
    /// extending file.
    ///
    /// # Errors
    /// If a file cannot be read, keys are unknown or missing, or values are out of range. The message names the
    /// file.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let is_set =
            |key: &str| overrides.iter().any(|item| item.split('=').next().map(str::trim) == Some(key));
        let prepare = |table: &mut toml::Table| {
            for [length, other] in [["steps", "epochs"], ["epochs", "steps"]] {
                if is_set(length) && !is_set(other) {
                    table.remove(other);
                }
            }
            refuse_old_keys(table)
        };
        config_file::open(path, overrides, prepare, Self::check)
    }

    /// The length of the run in regressor steps. `clips` is the number of clips of an epoch.
    pub fn length(&self, clips: u64) -> u64 {
        let clips_per_step = self.data.batch as u64 * self.batches();
        let steps = self.epochs.unwrap_or(0.0) * clips as f64 / clips_per_step as f64;
        self.steps.unwrap_or(steps.ceil().max(1.0) as u64)
    }

    /// The number of batches per regressor step, including those of the critics.
    pub fn batches(&self) -> u64 {
        self.critics.as_ref().map_or(1, CriticSettings::batches)
    }

    /// The effective configuration as TOML, including overrides and defaults.
    ///
    /// # Errors
    /// If a value has no form in TOML, which does not occur in practice.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(config_file::no_toml)
    }

    fn check(&self) -> Checked {
        self.model.validate().map_err(|error| error.to_string())?;
        self.data.check()?;
        must(self.steps.is_some() != self.epochs.is_some(), "set either steps or epochs")?;
        at_least_one("steps", self.steps.unwrap_or(1))?;
        let epochs = self.epochs.unwrap_or(1.0);
        must(epochs > 0.0 && epochs < 1e6, "epochs: above 0 and below 1000000")?;
        at_least_one("stop_after", self.stop_after.unwrap_or(1))?;
        at_least_one("checkpoint_every", self.checkpoint_every)?;
        at_least_one("report_every", self.report_every)?;
        self.optimiser.check()?;
        not_negative("loss.cross_entropy_weight", self.loss.cross_entropy_weight)?;
        not_negative("loss.region_weight", self.loss.region_weight)?;
        not_negative("loss.matte_weight", self.loss.matte_weight)?;
        self.device.parse::<DeviceChoice>().map_err(|error| error.to_string())?;
        self.distillation.as_ref().map_or(Ok(()), Distillation::check)?;
        if let Some(refinement) = &self.refinement {
            refinement.check(&self.data.sizes())?;
            must(self.model.refiner_channels > 0, "refinement: set model.refiner_channels above 0")?;
            must(
                self.critics.is_none() && self.distillation.is_none() && self.validation.is_none(),
                "refinement: remove critics, distillation and validation, which does not score mattes",
            )?;
            must(
                self.start_from.is_some(),
                "refinement: set start_from to the network whose masks are refined",
            )?;
        }
        if let Some(critics) = &self.critics {
            for size in self.data.sizes() {
                critics.check(size.into())?;
            }
        }
        self.validation.as_ref().map_or(Ok(()), Validation::check)?;
        count("threads", self.threads.try_into().unwrap_or(0), MAX_THREADS)?;
        count("loader_threads", self.loader_threads as u64, MAX_THREADS)
    }
}

/// Refuses renamed keys. The message contains the new name.
fn refuse_old_keys(table: &toml::Table) -> Checked {
    for (section, old, new) in RENAMED_KEYS {
        let mut inner = Some(table);
        for part in section.split('.') {
            inner = inner.and_then(|table| table.get(part)).and_then(toml::Value::as_table);
        }
        if inner.is_some_and(|table| table.contains_key(old)) {
            return Err(format!("{section}.{old}: rename this key to {new}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::resume::values;

    fn shipped(name: &str) -> TrainConfig {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
        TrainConfig::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn old_keys_are_refused_with_their_new_name() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lite.toml");
        for (key, new) in
            [("data.augment.intruder", "distractor"), ("data.synthetic.newcomer", "late_distractor")]
        {
            let error = TrainConfig::open(&path, &[format!("{key}=0.5")]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(new) && error.contains("lite.toml"), "{error}");
        }
    }

    #[test]
    fn shipped_configurations_match_the_paper() {
        for (name, epochs, hold) in [("paper-stage1.toml", 6.0, 0.0), ("paper-stage2.toml", 40.0, 0.25)] {
            let config = shipped(name);
            let (data, optimiser) = (&config.data, config.optimiser);
            assert_eq!((config.epochs, config.steps), (Some(epochs), None), "{name}");
            assert_eq!((data.window, data.batch, data.size), (4, 6, [512, 512]));
            assert_eq!((data.augment.scale, data.augment.rotation), ([0.75, 1.25], 30.0));
            assert_eq!((data.augment.flip, data.augment.first_reference), (0.5, 0.0));
            assert_eq!((optimiser.learning_rate, optimiser.encoder_learning_rate), (1e-5, 1e-5));
            assert_eq!((optimiser.betas, optimiser.decay_power), (Betas(0.5, 0.999), 0.9));
            assert_eq!((optimiser.weight_decay, optimiser.clip, optimiser.hold), (0.0, f64::INFINITY, hold));
            assert_eq!((config.loss.cross_entropy_weight, config.loss.region_weight), (100.0, 0.0));
            assert_eq!((config.model.width, config.model.network_size), (1.0, [512, 512]));
        }
        assert!(shipped("paper-stage1.toml").critics.is_none());
        let critics = shipped("paper-stage2.toml").critics.unwrap();
        assert_eq!(critics, CriticSettings::default(), "the defaults match the paper");
        assert_eq!(
            (critics.spatial_weight, critics.temporal_weight, critics.penalty_weight),
            (1.0, 1.0, 10.0)
        );
        assert_eq!((critics.steps, critics.overwrite), (5, 0.25));
        shipped("smoke.toml");
        shipped("lite.toml");
    }

    #[test]
    fn the_effective_configuration_reads_back_unchanged() {
        let config = shipped("paper-stage2.toml");
        let parsed: TrainConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(config.to_toml().unwrap(), parsed.to_toml().unwrap());
        assert!(parsed.optimiser.clip.is_infinite());
    }

    #[test]
    fn a_file_overrides_values_of_its_base_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/lite.toml");
        std::fs::copy(base, path("lite.toml")).unwrap();
        std::fs::create_dir(path("more")).unwrap();
        std::fs::write(path("more/longer.toml"), "extends = '../lite.toml'\n[data]\nwindow = 5").unwrap();
        std::fs::write(path("more/both.toml"), "extends = 'longer.toml'\nseed = 7\ndata.batch = 2").unwrap();
        let (plain, both) = (
            TrainConfig::open(&path("lite.toml"), &[]).unwrap(),
            TrainConfig::open(&path("more/both.toml"), &[]).unwrap(),
        );
        assert_eq!((both.seed, both.data.window, both.data.batch), (7, 5, 2));
        assert_eq!((both.steps, both.data.sources), (plain.steps, plain.data.sources));

        std::fs::write(path("circle.toml"), "extends = 'circle.toml'").unwrap();
        std::fs::write(path("lost.toml"), "extends = 'nowhere.toml'").unwrap();
        let error = |name: &str| TrainConfig::open(&path(name), &[]).unwrap_err().to_string();
        assert!(error("circle.toml").contains("extends itself"), "{}", error("circle.toml"));
        assert!(error("lost.toml").contains("nowhere.toml"), "{}", error("lost.toml"));
    }

    /// Replaces a number, or each item of a list in turn, by `bad`.
    fn replaced(value: &toml::Value, bad: f64) -> Vec<toml::Value> {
        match value {
            toml::Value::Array(list) => (0..list.len())
                .flat_map(|index| {
                    replaced(&list[index], bad).into_iter().map(move |item| {
                        let mut list = list.clone();
                        list[index] = item;
                        toml::Value::Array(list)
                    })
                })
                .collect(),
            toml::Value::Integer(_) if bad == -1.0 => vec![toml::Value::Integer(-1)],
            _ => vec![toml::Value::Float(bad)],
        }
    }

    #[test]
    fn negative_and_non_finite_numbers_are_refused() {
        let mut config = shipped("paper-stage2.toml");
        config.stop_after = Some(5);
        config.data.shapes = vec![[64, 96]];
        config.data.sources.values_mut().for_each(|source| source.size = Some([64, 96]));
        config.validation = toml::from_str("data = 'davis'\nevery = 1").unwrap();
        let is_number = |value: &toml::Value| value.is_integer() || value.is_float();
        let mut all = values(toml::Table::try_from(&config).unwrap());
        all.retain(|_, value| {
            is_number(value) || value.as_array().is_some_and(|list| list.iter().any(is_number))
        });
        all.insert("steps".to_owned(), toml::Value::Integer(1));
        assert!(all.len() > 60, "{all:?}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, config.to_toml().unwrap()).unwrap();
        TrainConfig::open(&file, &[]).unwrap();
        for (key, value) in &all {
            for bad in [f64::NAN, f64::INFINITY, -1.0] {
                if key == "optimiser.clip" && bad == f64::INFINITY {
                    continue;
                }
                for value in replaced(value, bad) {
                    let setting = [format!("{key}={value}")];
                    let Err(error) = TrainConfig::open(&file, &setting) else {
                        panic!("{setting:?} is accepted");
                    };
                    let name = key.rsplit('.').next().unwrap();
                    assert!(error.to_string().contains(name), "{setting:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn epochs_include_the_clips_of_critic_steps() {
        let mut config = shipped("paper-stage2.toml");
        // 4,200 clips per epoch, 40 epochs, 6 clips per batch, 5 batches per regressor step.
        assert_eq!(config.length(4200), 5600);
        config.critics = config.critics.map(|critics| CriticSettings { fresh_batches: false, ..critics });
        assert_eq!(config.length(4200), 28_000);
        config.critics = None;
        assert_eq!(config.length(4200), 28_000);
        config.steps = Some(7);
        assert_eq!(config.length(4200), 7);
    }

    #[test]
    fn the_rate_is_constant_until_the_decay_begins() {
        let stage2 = shipped("paper-stage2.toml").optimiser;
        let optimiser = Optimiser { warm_up: 0, hold: 0.25, decay_power: 0.9, ..stage2 };
        let schedule = |done: u64| optimiser.schedule(done, 4000);
        assert!([0, 500, 1000].iter().all(|&step| schedule(step) == 1.0));
        assert!((schedule(2500) - 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!(schedule(4000), 0.0);
    }

    #[test]
    fn without_hold_decay_begins_during_the_linear_warm_up() {
        let stage2 = shipped("paper-stage2.toml").optimiser;
        let optimiser = Optimiser { warm_up: 10, hold: 0.0, decay_power: 1.0, ..stage2 };
        let schedule = |done: u64| optimiser.schedule(done, 100);
        assert!((schedule(0) - 0.1).abs() < 1e-12);
        assert!((schedule(4) - 0.5 * 0.96).abs() < 1e-12);
        assert!((schedule(50) - 0.5).abs() < 1e-12);
    }
}
