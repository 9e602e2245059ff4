// SPDX-License-Identifier: MPL-2.0

//! Configuration of a training run of the prompt network, a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::check::{Checked, MAX_THREADS, at_least_one, count, must, not_negative, positive, share};
use crate::clips::Source;
use crate::train::Optimiser;
use crate::{Result, config_file};

/// Configuration of a training run of the prompt network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// Initial weights, `.safetensors`; none = the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// Length of the run and of the schedule.
    pub steps: u64,
    /// Seed of pictures and prompts.
    pub seed: u64,
    /// Threads of the training step.
    pub threads: i32,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between rows of the curve. A row contains means over these steps.
    pub report_every: u64,
    /// Pictures per step.
    pub batch: usize,
    /// Maximum number of clicks per picture; all but the first correct the mask.
    pub clicks: usize,
    /// Probability of a close-up: the network sees only the object and what is near it.
    pub close_ups: f64,
    /// Standard deviation of the sides of a box, relative to its size; half of the boxes are exact.
    pub box_noise: f64,
    /// Weight of the cross-entropy.
    pub cross_entropy_weight: f64,
    /// Weight of the Dice loss.
    pub dice_weight: f64,
    /// Weight of the squared error of the predicted IoU.
    pub iou_weight: f64,
    /// Sources of pictures, by name.
    pub sources: BTreeMap<String, Source>,
    /// The optimiser.
    pub optimiser: Optimiser,
    /// Metadata of the weights file, such as training data and licence.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl PromptConfig {
    /// Reads a file and applies overrides of the form `a.b=value`. A file with `extends = "base.toml"` overrides values of
    /// that file.
    ///
    /// # Errors
    /// If a file cannot be read, keys are unknown or missing, or values are out of range. The message names the file.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        config_file::open(path, overrides, |_| Ok(()), Self::check)
    }

    fn check(&self) -> Checked {
        at_least_one("steps", self.steps)?;
        count("threads", u64::try_from(self.threads).unwrap_or(0), MAX_THREADS)?;
        at_least_one("checkpoint_every", self.checkpoint_every)?;
        at_least_one("report_every", self.report_every)?;
        at_least_one("batch", self.batch as u64)?;
        must((1..=16).contains(&self.clicks), "clicks: must be from 1 to 16")?;
        share("close_ups", self.close_ups)?;
        share("box_noise", self.box_noise)?;
        not_negative("cross_entropy_weight", self.cross_entropy_weight)?;
        not_negative("dice_weight", self.dice_weight)?;
        not_negative("iou_weight", self.iou_weight)?;
        let weight = self.cross_entropy_weight + self.dice_weight;
        positive("the sum of cross_entropy_weight and dice_weight", weight)?;
        for (name, source) in &self.sources {
            source.check(&format!("sources.{name}"))?;
        }
        let ratios: f64 = self.sources.values().map(|source| source.ratio).sum();
        must(ratios > 0.0, "sources: at least one source must have a ratio above 0")?;
        let encoder = self.optimiser.encoder_learning_rate;
        must(encoder == 0.0, "optimiser.encoder_learning_rate: must be 0, the image encoder is not trained")?;
        self.optimiser.check()
    }
}
