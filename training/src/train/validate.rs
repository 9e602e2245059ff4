// SPDX-License-Identifier: MPL-2.0

//! Validation during training, with the tracker that the element uses, and the best weights so far.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gstfastganseg::torch::model::Config;
use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::tracker::{Options, Tracker};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::{Kind, nn};

use crate::check::{Checked, at_least_one, must};
use crate::dataset::{Dataset, Selection, Sequence};
use crate::distributed::Ranks;
use crate::eval::{EvalOptions, check, evaluate};
use crate::score::{Scores, SequenceScore};
use crate::{Error, Result};

/// File name of the best weights, in the run's folder.
pub const BEST: &str = "best.safetensors";
/// Metadata key of J&F in validated weights.
pub const SCORE: &str = "validation_j_and_f";
/// Metadata key of [J, F] by sequence, as JSON.
pub const BY_SEQUENCE: &str = "validation_by_sequence";
/// Metadata key of what the scores belong to, as JSON: data, sequences and frame step.
pub const SET: &str = "validation_set";
/// Metadata key of the frame step, present if it is above 1.
pub const FRAME_STEP: &str = "validation_frame_step";

/// Validation settings, `[validation]` in a training configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// A folder in the DAVIS layout.
    pub data: PathBuf,
    /// Names of the sequences; if empty, those of `split`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<String>,
    /// A text file with one sequence per line. By default `ImageSets/**/val.txt`, else every folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Steps between validations. The last step is also followed by one.
    pub every: u64,
    /// Every n-th frame is tracked and scored. Above 1 this takes less time, but the task is harder.
    #[serde(default = "one")]
    pub frame_step: usize,
}

fn one() -> usize {
    1
}

impl Validation {
    /// Returns whether to validate after `done` of `steps` steps.
    pub fn is_due(&self, done: u64, steps: u64) -> bool {
        done.is_multiple_of(self.every) || done == steps
    }

    /// Checks the values.
    ///
    /// # Errors
    /// If a value is out of range. The message names the key.
    pub(crate) fn check(&self) -> Checked {
        at_least_one("validation.every", self.every)?;
        must(self.frame_step > 0, "validation.frame_step: at least 1")?;
        let both = self.split.is_some() && !self.sequences.is_empty();
        must(!both, "validation: set sequences or split, not both")
    }
}

/// The result of a validation.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The scores of every sequence.
    pub scores: Scores,
    /// Whether J&F is the highest so far, so that these weights were saved as [`BEST`].
    pub is_best: bool,
    /// The scores as metadata of a weights file, with the means of every sequence.
    pub metadata: BTreeMap<String, String>,
}

impl Validated {
    /// J, F and J&F over all objects as scalars of a curve, 0 to 1.
    pub fn scalars(&self) -> [(&'static str, f64); 3] {
        let summary = self.scores.summary();
        [
            ("score/J", summary.region.mean),
            ("score/F", summary.contour.mean),
            ("score/J&F", summary.region_and_contour()),
        ]
    }
}

/// Rounds to a hundredth of a per cent.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Scores networks and saves the best.
///
/// A validation does not change the state of training: libtorch's random numbers, its number of threads, the
/// gradients.
#[derive(Debug)]
pub struct Validator {
    settings: Validation,
    dataset: Dataset,
    /// Value of [`SET`].
    set: String,
    options: Options,
    out: PathBuf,
    best: Option<f64>,
}

impl Validator {
    /// Opens the validation data. `options` selects the device; `out` is the run's folder. If the run `resumes`, the score of
    /// a [`BEST`] file there is the best so far, unless it belongs to other data, sequences or another frame step.
    ///
    /// # Errors
    /// If the settings or the data are invalid, or the [`BEST`] file cannot be read.
    pub fn open(settings: &Validation, options: &Options, out: &Path, resumes: bool) -> Result<Self> {
        settings.check().map_err(|reason| Error::Core(gstfastganseg::Error::Config(reason)))?;
        let selection = Selection {
            split: settings.split.clone(),
            sequences: settings.sequences.clone(),
            ..Selection::default()
        };
        let dataset = Dataset::open(&settings.data, &selection)?.thinned(settings.frame_step);
        for sequence in dataset.sequences() {
            check(sequence, &EvalOptions::default())?;
        }
        let path = out.join(BEST);
        let names: Vec<&str> = dataset.sequences().iter().map(Sequence::name).collect();
        let Validation { data, frame_step, .. } = settings;
        let set = serde_json::json!({ "data": data, "sequences": names, "frame_step": frame_step });
        let set = set.to_string();
        let best = if resumes && path.exists() { read_score(&path, &set)? } else { None };
        let (settings, options, out) = (settings.clone(), options.clone(), out.to_owned());
        Ok(Self { settings, dataset, set, options, out, best })
    }

    /// Returns whether to validate after `done` of `steps` steps.
    pub fn is_due(&self, done: u64, steps: u64) -> bool {
        self.settings.is_due(done, steps)
    }

    /// The best J&F so far, 0 to 1.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// The number of frames of a validation.
    pub fn frames(&self) -> usize {
        self.dataset.frames()
    }

    /// Scores the weights of `store` after `done` steps, in half precision as in a weights file. If J&F is the
    /// highest so far, saves them as [`BEST`] with `metadata` and the scores. All ranks must have the same weights;
    /// they share the sequences, and rank 0 saves.
    ///
    /// # Errors
    /// If a weight is out of range in half precision, an image cannot be decoded, the network fails, or the file
    /// cannot be written.
    pub fn run(
        &mut self,
        store: &nn::VarStore,
        config: &Config,
        metadata: &BTreeMap<String, String>,
        done: u64,
        ranks: &Ranks,
    ) -> Result<Validated> {
        let weights = Weights::of_store(store, config, metadata, Kind::Half)?;
        let mut tracker = Tracker::from_weights(&weights, &self.options)?;
        let options = EvalOptions::default();
        let scores = evaluate(&mut tracker, &self.dataset, &options, &ProgressBar::hidden(), ranks)?.scores;
        let score = scores.summary().region_and_contour();
        let is_best = self.best.is_none_or(|best| score > best);
        let score_metadata = metadata_of(&scores, &self.set, self.settings.frame_step);
        if is_best {
            let mut metadata = metadata.clone();
            metadata.extend(score_metadata.clone());
            metadata.insert("steps".to_owned(), done.to_string());
            if ranks.is_first() {
                let _saving = ranks.saving();
                weights::save(&self.out.join(BEST), store, config, &metadata, Kind::Half)?;
            }
            self.best = Some(score);
        }
        Ok(Validated { scores, is_best, metadata: score_metadata })
    }
}

/// The scores as metadata of a weights file, with the means of every sequence. `set` is the value of [`SET`].
fn metadata_of(scores: &Scores, set: &str, frame_step: usize) -> BTreeMap<String, String> {
    let summary = scores.summary();
    let means = |sequence: &SequenceScore| {
        let summary = sequence.summary();
        (sequence.name.clone(), [round(summary.region.mean), round(summary.contour.mean)])
    };
    let by_sequence: BTreeMap<String, [f64; 2]> = scores.sequences.iter().map(means).collect();
    let mut metadata = BTreeMap::from([
        (SCORE.to_owned(), summary.region_and_contour().to_string()),
        ("validation_j".to_owned(), summary.region.mean.to_string()),
        ("validation_f".to_owned(), summary.contour.mean.to_string()),
        (BY_SEQUENCE.to_owned(), serde_json::to_string(&by_sequence).unwrap_or_default()),
        (SET.to_owned(), set.to_owned()),
    ]);
    if frame_step > 1 {
        metadata.insert(FRAME_STEP.to_owned(), frame_step.to_string());
    }
    metadata
}

/// Returns the score of a weights file if it belongs to `set`.
fn read_score(path: &Path, set: &str) -> Result<Option<f64>> {
    let weights = Weights::open(path)?;
    let metadata = weights.metadata();
    let same = metadata.get(SET).is_some_and(|of| of == set);
    Ok(metadata.get(SCORE).filter(|_| same).and_then(|score| score.parse().ok()))
}
