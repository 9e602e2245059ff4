//! Whether a run may go on from the checkpoint in its folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::TrainConfig;
use super::session::{CHECKPOINT, CONFIG};
use crate::{Error, Result};

/// What decides neither clips nor networks: how fast and where the run goes on, what it tells, when it stops. With
/// these, what is to be tried when a run diverges.
const MAY_CHANGE: [&str; 17] = [
    "checkpoint_every",
    "critics.device",
    "critics.learning_rate",
    "critics.penalty_weight",
    "data.broken_limit",
    "data.cache",
    "device",
    "gradients_every",
    "loader_threads",
    "mixed_precision",
    "optimiser.clip",
    "optimiser.encoder_learning_rate",
    "optimiser.learning_rate",
    "report_every",
    "stop_after",
    "threads",
    "validation.every",
];

/// Whether the key has any value on the way, `validated` being whether both parts of the run have validation.
fn may_change(key: &str, validated: bool) -> bool {
    MAY_CHANGE.contains(&key)
        || key.starts_with("metadata.")
        || (key.starts_with("data.sources.") && key.ends_with(".preload"))
        || (key.starts_with("validation.") && !validated)
}

/// Refuses to go on from the checkpoint in `out` with another configuration than it was made with.
///
/// # Errors
/// The keys that differ, with both values and the remedy; a checkpoint without a configuration beside it.
pub fn check(config: &TrainConfig, out: &Path) -> Result<()> {
    let checkpoint = out.join(CHECKPOINT);
    let refuse = |reason: String| Error::Checkpoint { path: checkpoint.clone(), reason };
    let path = out.join(CONFIG);
    let remedy = "give another folder with --out to begin a new run";
    let text = std::fs::read_to_string(&path).map_err(|error| {
        refuse(format!(
            "the configuration of its run, {}, cannot be read ({error}): {remedy}",
            path.display()
        ))
    })?;
    let before: TrainConfig = toml::from_str(&text).map_err(|error| {
        refuse(format!("the configuration of its run, {}, is broken ({error}): {remedy}", path.display()))
    })?;
    let differences = differences(&before, config).map_err(|error| refuse(error.to_string()))?;
    if differences.is_empty() {
        return Ok(());
    }
    Err(refuse(format!(
        "its run has another configuration: {}. Set these keys as in {}, or {remedy}; start_from takes the weights \
         along. A run may go on with other values of {}, metadata and data.sources.NAME.preload only",
        differences.join(", "),
        path.display(),
        MAY_CHANGE.join(", ")
    )))
}

/// The keys that must not differ but do.
fn differences(before: &TrainConfig, now: &TrainConfig) -> Result<Vec<String>, toml::ser::Error> {
    let validated = before.validation.is_some() && now.validation.is_some();
    let (before, now) = (values(before)?, values(now)?);
    let all: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let show =
        |value: Option<&toml::Value>| value.map_or_else(|| "not set".to_owned(), toml::Value::to_string);
    let differing = all.into_iter().filter(|key| before.get(*key) != now.get(*key));
    Ok(differing
        .filter(|key| !may_change(key, validated))
        .map(|key| format!("{key} (there {}, here {})", show(before.get(key)), show(now.get(key))))
        .collect())
}

/// All values by their keys, such as `data.window`.
fn values(config: &TrainConfig) -> Result<BTreeMap<String, toml::Value>, toml::ser::Error> {
    fn flatten(prefix: &str, table: toml::Table, all: &mut BTreeMap<String, toml::Value>) {
        for (key, value) in table {
            let key = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) => flatten(&format!("{key}."), inner, all),
                value => drop(all.insert(key, value)),
            }
        }
    }
    let mut all = BTreeMap::new();
    flatten("", toml::Table::try_from(config)?, &mut all);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(settings: &[&str]) -> TrainConfig {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper-stage2.toml");
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        TrainConfig::open(&path, &settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn keys(settings: &[&str]) -> Vec<String> {
        let differences = differences(&shipped(&[]), &shipped(settings)).unwrap();
        differences.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_decides_clips_and_networks_must_not_change() {
        for (setting, key) in [
            ("seed=9", "seed"),
            ("steps=9", "steps"),
            ("data.window=3", "data.window"),
            ("data.augment.flip=0.25", "data.augment.flip"),
            ("loss.region_weight=2", "loss.region_weight"),
            ("critics.steps=2", "critics.steps"),
            ("optimiser.betas=[0.1, 0.2]", "optimiser.betas"),
            ("start_from=other.safetensors", "start_from"),
        ] {
            assert!(keys(&[setting]).contains(&key.to_owned()), "{setting}: {:?}", keys(&[setting]));
        }
    }

    #[test]
    fn what_is_to_be_tried_against_divergence_may_change() {
        let settings = [
            "stop_after=5",
            "threads=7",
            "device=cpu",
            "optimiser.learning_rate=1e-6",
            "critics.learning_rate=1e-6",
            "critics.penalty_weight=20",
            "mixed_precision=false",
            "metadata.licence=another",
        ];
        assert_eq!(keys(&settings), Vec::<String>::new());
    }

    /// A name with a mistake in it would allow nothing.
    #[test]
    fn every_key_that_may_change_exists() {
        let mut config = shipped(&["stop_after=5", "critics.device=cpu"]);
        config.validation = Some(crate::train::Validation {
            data: "davis".into(),
            sequences: Vec::new(),
            split: None,
            every: 1,
            frame_step: 1,
        });
        let values = values(&config).unwrap();
        for key in MAY_CHANGE {
            assert!(values.contains_key(key), "{key}");
        }
    }
}
