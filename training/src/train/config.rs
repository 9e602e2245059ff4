//! Everything that decides a training run, one TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gstfastganseg::device::DeviceChoice;
use gstfastganseg::model::Config;
use serde::{Deserialize, Serialize};

use super::adam::{Betas, Rates};
use super::critics::CriticSettings;
use super::objective::Loss;
use super::schedule::Schedule;
use super::validate::Validation;
use crate::check::{Checked, at_least_one, must, not_negative, positive};
use crate::clips::Data;
use crate::{Error, Result};

/// The key of a file that changes another.
const EXTENDS: &str = "extends";
/// Files that may extend each other in a row.
const MOST_FILES: usize = 8;

/// A training run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Weights to start from, `.safetensors` of the same configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// ImageNet weights of the encoder, `.safetensors`. What it lacks starts at random with a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<PathBuf>,
    /// Length of the run in regressor steps; the schedule ends there. Either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the run in epochs: so many clips as there are annotated frames and stills, those of the critics'
    /// steps included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Stop here with a checkpoint, to go on later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<u64>,
    /// Of the weights that start at random, and of the clips.
    pub seed: u64,
    /// Where the regressor is trained: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// Threads of the training step.
    pub threads: i32,
    /// Threads that make clips.
    pub loader_threads: usize,
    /// Compute the regressor in bfloat16, with float32 weights and losses.
    pub mixed_precision: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between rows of the curve, which have means over them.
    #[serde(default = "report_every")]
    pub report_every: u64,
    /// Steps between measurements of what each part of the loss does to the regressor; 0 = never.
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
    /// The critics; without them there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critics: Option<CriticSettings>,
    /// Scores on the way; without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// What the weights file says of itself: training data, licence and the like.
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
    /// The highest, after warm-up.
    pub learning_rate: f64,
    /// Of the encoder; 0 keeps it frozen.
    pub encoder_learning_rate: f64,
    /// Decay of the first and the second moment.
    pub betas: Betas,
    /// Share of a weight lost a step, times the learning rate.
    pub weight_decay: f64,
    /// Greatest norm of the whole gradient; `inf` = any.
    pub clip: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Share of the run at the highest rate, before the decay begins.
    #[serde(default)]
    pub hold: f64,
    /// Power of the polynomial decay.
    pub decay_power: f64,
}

impl Optimiser {
    /// As the optimiser takes them.
    pub fn rates(&self) -> Rates {
        Rates {
            learning_rate: self.learning_rate,
            encoder_learning_rate: self.encoder_learning_rate,
            betas: self.betas,
            weight_decay: self.weight_decay,
            clip: self.clip,
        }
    }

    /// For a run of so many steps.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule { steps, warm_up: self.warm_up, hold: self.hold, decay_power: self.decay_power }
    }
}

impl TrainConfig {
    /// Reads a file and applies overrides of the form `a.b=value`; `steps` and `epochs` take each other's place.
    /// A file that says `extends = "other.toml"`, relative to itself, changes the values of that one.
    ///
    /// # Errors
    /// A file that cannot be read, unknown or missing keys, values out of range; the message names
    /// the file.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let refuse = |reason: String| Error::Config { path: path.to_owned(), reason };
        let mut table = read(path, MOST_FILES)?;
        let given =
            |key: &str| overrides.iter().any(|item| item.split('=').next().map(str::trim) == Some(key));
        for [length, other] in [["steps", "epochs"], ["epochs", "steps"]] {
            if given(length) {
                table.remove(other);
            }
        }
        for item in overrides {
            set(&mut table, item).map_err(refuse)?;
        }
        let config: Self = table.try_into().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
        config.check().map_err(refuse)?;
        Ok(config)
    }

    /// Regressor steps of the run, where an epoch has so many clips.
    pub fn length(&self, clips: u64) -> u64 {
        match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => {
                let a_step = self.data.batch as u64 * self.batches();
                (epochs.unwrap_or(0.0) * clips as f64 / a_step as f64).ceil().max(1.0) as u64
            }
        }
    }

    /// Batches that a regressor step takes, those of the critics included.
    pub fn batches(&self) -> u64 {
        self.critics.as_ref().map_or(1, CriticSettings::batches)
    }

    /// As TOML, overrides and defaults included.
    ///
    /// # Errors
    /// None in practice: every value has a form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Config {
            path: "(effective configuration)".into(),
            reason: error.to_string(),
        })
    }

    fn check(&self) -> Checked {
        self.model.validate().map_err(|error| error.to_string())?;
        self.data.check()?;
        must(self.steps.is_some() != self.epochs.is_some(), "give either steps or epochs")?;
        at_least_one("steps", self.steps.unwrap_or(1))?;
        let epochs = self.epochs.unwrap_or(1.0);
        must(epochs > 0.0 && epochs < 1e6, "epochs: above 0, below 1000000")?;
        at_least_one("stop_after", self.stop_after.unwrap_or(1))?;
        at_least_one("checkpoint_every", self.checkpoint_every)?;
        at_least_one("report_every", self.report_every)?;
        let optimiser = &self.optimiser;
        positive("optimiser.learning_rate", optimiser.learning_rate)?;
        not_negative("optimiser.encoder_learning_rate", optimiser.encoder_learning_rate)?;
        not_negative("optimiser.weight_decay", optimiser.weight_decay)?;
        must(optimiser.clip > 0.0, "optimiser.clip: above 0; inf = never")?;
        must(
            (0.0..1.0).contains(&optimiser.hold),
            "optimiser.hold is a share of the run, from 0 to below 1",
        )?;
        not_negative("optimiser.decay_power", optimiser.decay_power)?;
        optimiser.betas.check("optimiser.betas")?;
        not_negative("loss.cross_entropy_weight", self.loss.cross_entropy_weight)?;
        not_negative("loss.region_weight", self.loss.region_weight)?;
        self.device.parse::<DeviceChoice>().map_err(|error| error.to_string())?;
        if let Some(critics) = &self.critics {
            for size in self.data.sizes() {
                critics.check(size.into())?;
            }
        }
        if let Some(validation) = &self.validation {
            validation.check()?;
        }
        must(self.threads > 0, "threads: at least 1")?;
        must(self.loader_threads > 0, "loader_threads: at least 1")
    }
}

/// The values of a file and of those that it extends, `files` of them at most.
fn read(path: &Path, files: usize) -> Result<toml::Table> {
    let refuse = |reason: String| Error::Config { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    let Some(base) = table.remove(EXTENDS) else { return Ok(table) };
    let Some(base) = base.as_str() else { return Err(refuse(format!("{EXTENDS}: the path of a file"))) };
    if files <= 1 {
        return Err(refuse(format!("{EXTENDS}: more than {MOST_FILES} files, or one that extends itself")));
    }
    let mut whole = read(&path.with_file_name(base), files - 1)?;
    extend(&mut whole, table);
    Ok(whole)
}

/// Puts the values of `changes` in the place of those of `table`, table by table.
fn extend(table: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => extend(inner, changes),
            (_, change) => drop(table.insert(key, change)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(name: &str) -> TrainConfig {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
        TrainConfig::open(&path, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn shipped_configurations_are_the_papers() {
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
        assert_eq!(critics, CriticSettings::default(), "the defaults are the paper's");
        assert_eq!(
            (critics.spatial_weight, critics.temporal_weight, critics.penalty_weight),
            (1.0, 1.0, 10.0)
        );
        assert_eq!((critics.steps, critics.overwrite), (5, 0.25));
        shipped("smoke.toml");
        shipped("lite.toml");
    }

    #[test]
    fn the_effective_configuration_reads_back() {
        let config = shipped("paper-stage2.toml");
        let again: TrainConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(config.to_toml().unwrap(), again.to_toml().unwrap());
        assert!(again.optimiser.clip.is_infinite());
    }

    #[test]
    fn a_file_changes_the_values_of_the_one_that_it_extends() {
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

    /// All numbers of a configuration by their keys, those of lists too.
    fn numbers(prefix: &str, value: &toml::Value, all: &mut Vec<(String, toml::Value)>) {
        match value {
            toml::Value::Table(table) => {
                table.iter().for_each(|(key, value)| numbers(&format!("{prefix}.{key}"), value, all));
            }
            toml::Value::Array(list) if list.iter().any(|item| item.is_integer() || item.is_float()) => {
                all.push((prefix.to_owned(), value.clone()));
            }
            toml::Value::Integer(_) | toml::Value::Float(_) => all.push((prefix.to_owned(), value.clone())),
            _ => (),
        }
    }

    /// What is put in the place of a number, or of each item of a list.
    fn spoiled(value: &toml::Value, bad: f64) -> Vec<toml::Value> {
        match value {
            toml::Value::Array(list) => (0..list.len())
                .flat_map(|index| {
                    spoiled(&list[index], bad).into_iter().map(move |item| {
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
    fn no_number_may_be_negative_infinite_or_none() {
        let mut config = shipped("paper-stage2.toml");
        config.stop_after = Some(5);
        config.data.shapes = vec![[64, 96]];
        config.data.sources.values_mut().for_each(|source| source.size = Some([64, 96]));
        config.validation = Some(Validation {
            data: "davis".into(),
            sequences: Vec::new(),
            split: None,
            every: 1,
            frame_step: 1,
        });
        let mut all = vec![("steps".to_owned(), toml::Value::Integer(1))];
        for (key, value) in toml::Table::try_from(&config).unwrap() {
            numbers(&key, &value, &mut all);
        }
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
                for value in spoiled(value, bad) {
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
    fn epochs_count_the_clips_of_critics_too() {
        let mut config = shipped("paper-stage2.toml");
        // 4,200 clips an epoch, 40 of them, 6 a batch, 5 batches a regressor step.
        assert_eq!(config.length(4200), 5600);
        config.critics = config.critics.map(|critics| CriticSettings { fresh_batches: false, ..critics });
        assert_eq!(config.length(4200), 28_000);
        config.critics = None;
        assert_eq!(config.length(4200), 28_000);
        config.steps = Some(7);
        assert_eq!(config.length(4200), 7);
    }
}
