//! Scores of a network while it trains, by the very tracker that runs it later, and the best weights so far.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstfastganseg::model::Config;
use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::tracker::{Options, Tracker};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tch::{Kind, nn};

use crate::check::{Checked, at_least_one, must};
use crate::dataset::{Dataset, Selection};
use crate::eval::{EvalOptions, evaluate};
use crate::score::Scores;
use crate::{Error, Result};

/// The file of the best weights, in the run's folder.
pub const BEST: &str = "best.safetensors";
/// J&F in the metadata of weights that were validated.
pub const SCORE: &str = "validation_j_and_f";
/// [J, F] by sequence there, as JSON.
pub const BY_SEQUENCE: &str = "validation_by_sequence";

/// One frame in so many was shown, where not all were.
pub const FRAME_STEP: &str = "validation_frame_step";

/// When and on what a network is scored while it trains, `[validation]` in a run's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// A DAVIS-layout folder.
    pub data: PathBuf,
    /// Sequences of it by name; without them those of `split`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequences: Vec<String>,
    /// A text file with one sequence a line; without it `ImageSets/**/val.txt`, else every folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Steps from one validation to the next. There is one after the last step as well.
    pub every: u64,
    /// Only every so-many-th frame is shown and scored: less time, for a harder task.
    #[serde(default = "one")]
    pub frame_step: usize,
}

fn one() -> usize {
    1
}

impl Validation {
    /// Whether to validate after `done` of `steps` steps.
    pub fn is_due(&self, done: u64, steps: u64) -> bool {
        done.is_multiple_of(self.every) || done == steps
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What is wrong, with the key's name.
    pub(crate) fn check(&self) -> Checked {
        at_least_one("validation.every", self.every)?;
        must(self.frame_step > 0, "validation.frame_step: at least 1")?;
        let both = self.split.is_some() && !self.sequences.is_empty();
        must(!both, "validation: give sequences or split, not both")
    }
}

/// What a validation found.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The measures of every sequence.
    pub scores: Scores,
    /// Whether no weights before were better, so that these are [`BEST`] now.
    pub is_best: bool,
    /// One frame in so many was shown.
    pub frame_step: usize,
    /// How long it took.
    pub time: Duration,
}

impl Validated {
    /// J, F and J&F over all objects as a [`Recorder`](super::Recorder) takes them.
    pub fn scalars(&self) -> [(&'static str, f64); 3] {
        let summary = self.scores.summary();
        [
            ("score/J", summary.region.mean),
            ("score/F", summary.contour.mean),
            ("score/J&F", summary.region_and_contour()),
        ]
    }

    /// The same for the metadata of a weights file, with the means of every sequence.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let summary = self.scores.summary();
        let by_sequence: BTreeMap<&str, [f64; 2]> = self
            .scores
            .sequences
            .iter()
            .map(|sequence| {
                let summary = sequence.summary();
                (sequence.name.as_str(), [round(summary.region.mean), round(summary.contour.mean)])
            })
            .collect();
        let mut metadata = BTreeMap::from([
            (SCORE.to_owned(), summary.region_and_contour().to_string()),
            ("validation_j".to_owned(), summary.region.mean.to_string()),
            ("validation_f".to_owned(), summary.contour.mean.to_string()),
            (BY_SEQUENCE.to_owned(), serde_json::to_string(&by_sequence).unwrap_or_default()),
        ]);
        if self.frame_step > 1 {
            metadata.insert(FRAME_STEP.to_owned(), self.frame_step.to_string());
        }
        metadata
    }
}

/// To a hundredth of a per cent.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Scores networks, and keeps the best.
///
/// Nothing that a run depends on is touched: libtorch's random numbers, its number of threads, the gradients.
#[derive(Debug)]
pub struct Validator {
    settings: Validation,
    dataset: Dataset,
    options: Options,
    out: PathBuf,
    best: Option<f64>,
}

impl Validator {
    /// `options` says where to run the network; `out` is the run's folder. The best score of an earlier part of
    /// the run is that of the file there.
    ///
    /// # Errors
    /// Bad settings or data, a file of best weights that cannot be read.
    pub fn open(settings: &Validation, options: &Options, out: &Path) -> Result<Self> {
        settings.check().map_err(|reason| Error::Core(gstfastganseg::Error::Config(reason)))?;
        let selection = Selection {
            split: settings.split.clone(),
            sequences: settings.sequences.clone(),
            ..Selection::default()
        };
        let dataset = Dataset::open(&settings.data, &selection)?.thinned(settings.frame_step);
        for sequence in dataset.sequences() {
            sequence.tracked()?;
        }
        let path = out.join(BEST);
        let best = if path.exists() { score_of(&path)? } else { None };
        Ok(Self { settings: settings.clone(), dataset, options: options.clone(), out: out.to_owned(), best })
    }

    /// Whether to validate after `done` of `steps` steps.
    pub fn is_due(&self, done: u64, steps: u64) -> bool {
        self.settings.is_due(done, steps)
    }

    /// The best J&F so far.
    pub fn best(&self) -> Option<f64> {
        self.best
    }

    /// Frames that a validation shows to the network.
    pub fn frames(&self) -> usize {
        self.dataset.frames()
    }

    /// Scores the weights as they are in `store` after `done` steps, in half precision as they are written. If
    /// there were none better they become [`BEST`], with `metadata` and their scores.
    ///
    /// # Errors
    /// Weights that do not fit in half precision, a broken picture, a network that fails, a file that cannot be
    /// written.
    pub fn run(
        &mut self,
        store: &nn::VarStore,
        config: &Config,
        metadata: &BTreeMap<String, String>,
        done: u64,
    ) -> Result<Validated> {
        let begun = Instant::now();
        let weights = Weights::of_store(store, config, metadata, Kind::Half)?;
        let mut tracker = Tracker::from_weights(&weights, &self.options)?;
        let evaluation =
            evaluate(&mut tracker, &self.dataset, &EvalOptions::default(), &ProgressBar::hidden())?;
        let score = evaluation.scores.summary().region_and_contour();
        let is_best = self.best.is_none_or(|best| score > best);
        let frame_step = self.settings.frame_step;
        let validated = Validated { scores: evaluation.scores, is_best, frame_step, time: begun.elapsed() };
        if is_best {
            let mut metadata = metadata.clone();
            metadata.extend(validated.metadata());
            metadata.insert("steps".to_owned(), done.to_string());
            weights::save(&self.out.join(BEST), store, config, &metadata, Kind::Half)?;
            self.best = Some(score);
        }
        Ok(validated)
    }
}

fn score_of(path: &Path) -> Result<Option<f64>> {
    let weights = Weights::open(path)?;
    Ok(weights.metadata().get(SCORE).and_then(|score| score.parse().ok()))
}
