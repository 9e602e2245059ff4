//! Everything that decides a training run, one TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gstfastganseg::model::Config;
use serde::{Deserialize, Serialize};

use crate::clips::Data;
use crate::{Error, Result};

/// A training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The network.
    pub model: Config,
    /// The clips.
    pub data: Data,
    /// The optimiser.
    pub optimiser: Optimiser,
    /// The loss.
    pub loss: Loss,
    /// Weights to start from, `.safetensors` of the same configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// ImageNet weights of the encoder, `.safetensors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<PathBuf>,
    /// Length of the run; the schedule ends there.
    pub steps: u64,
    /// Stop here with a checkpoint, to go on later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<u64>,
    /// Of the weights that start at random, and of the clips.
    pub seed: u64,
    /// Threads of the training step.
    pub threads: i32,
    /// Threads that make clips.
    pub loader_threads: usize,
    /// Compute in bfloat16, with float32 weights.
    pub mixed_precision: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// What the weights file says of itself: training data, licence and the like.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Adam with decoupled weight decay and a polynomial schedule.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// The highest, after warm-up.
    pub learning_rate: f64,
    /// Of the encoder; 0 keeps it frozen.
    pub encoder_learning_rate: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Share of a weight lost a step, times the learning rate.
    pub weight_decay: f64,
    /// Greatest norm of the whole gradient.
    pub clip: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Power of the polynomial decay.
    pub decay_power: f64,
}

/// Pixel loss and region loss.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// Its kind.
    pub cross_entropy: CrossEntropy,
    /// Weight of the cross-entropy.
    pub cross_entropy_weight: f64,
    /// Weight of 1 − soft region similarity.
    pub region_weight: f64,
}

/// How pixels are weighted in the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrossEntropy {
    /// The paper's: object and background by each other's share.
    Balanced,
    /// Three times as much near the contour.
    Edge,
}

impl TrainConfig {
    /// Reads a file and applies overrides of the form `a.b=value`.
    ///
    /// # Errors
    /// A file that cannot be read, unknown or missing keys, values out of range; the message names
    /// the file.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
        let refuse = |reason: String| Error::Config { path: path.to_owned(), reason };
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
        for item in overrides {
            set(&mut table, item).map_err(refuse)?;
        }
        let config: Self = table.try_into().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
        config.check().map_err(refuse)?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.model.validate().map_err(|error| error.to_string())?;
        self.data.check()?;
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        must(self.steps > 0 && self.checkpoint_every > 0, "steps and checkpoint_every must be at least 1")?;
        must(self.optimiser.learning_rate > 0.0, "optimiser.learning_rate must be positive")?;
        must(self.threads > 0 && self.loader_threads > 0, "threads must be at least 1")
    }
}

/// Applies `a.b.c=value`, the value in TOML's syntax or a bare string.
fn set(table: &mut toml::Table, item: &str) -> std::result::Result<(), String> {
    let (key, value) =
        item.split_once('=').ok_or_else(|| format!("{item:?} is not of the form key=value"))?;
    let value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut inner = table;
    for part in path {
        inner = inner
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{part:?} in {key:?} is not a table"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}
