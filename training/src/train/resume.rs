// SPDX-License-Identifier: MPL-2.0

//! Checks whether a run can be resumed from the checkpoint in its folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::checkpoint::{CHECKPOINT, CONFIG};
use super::config::TrainConfig;
use crate::check::differing_keys;
use crate::{Error, Result, config_file};

/// Keys that may change when a run is resumed. They affect neither clips nor networks, but speed, device, reports
/// and the end of the run; or they are the remedies against divergence.
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

/// Key that may change, but not from or to 0: a frozen encoder has no moments in the checkpoint.
const ENCODER_RATE: &str = "optimiser.encoder_learning_rate";

/// Keys that may differ between ranks.
const MAY_DIFFER: [&str; 5] = ["critics.device", "data.cache", "device", "loader_threads", "threads"];

/// Returns the settings that must be equal on all ranks, by key.
///
/// # Errors
/// [`Error::Config`] if a value has no form in TOML, which does not occur in practice.
pub fn shared_settings(config: &TrainConfig) -> Result<BTreeMap<String, String>> {
    let table = toml::Table::try_from(config).map_err(config_file::no_toml)?;
    let shared = values(table).into_iter().filter(|(key, _)| !MAY_DIFFER.contains(&key.as_str()));
    Ok(shared.map(|(key, value)| (key, value.to_string())).collect())
}

/// Returns whether a key may change when a run with the configuration `before` is resumed with `now`.
fn may_change(key: &str, before: &TrainConfig, now: &TrainConfig) -> bool {
    let trains_encoder = |config: &TrainConfig| config.optimiser.encoder_learning_rate > 0.0;
    let validated = before.validation.is_some() && now.validation.is_some();
    match key {
        ENCODER_RATE => trains_encoder(before) == trains_encoder(now),
        _ => {
            MAY_CHANGE.contains(&key)
                || key.starts_with("metadata.")
                || (key.starts_with("data.sources.") && key.ends_with(".preload"))
                || (key.starts_with("validation.") && !validated)
        }
    }
}

/// Checks that a new run in the folder `out` replaces none of the weights files `names`.
pub fn check_new(out: &Path, names: &[&str]) -> Result<()> {
    let Some(path) = names.iter().map(|name| out.join(name)).find(|path| path.exists()) else {
        return Ok(());
    };
    let reason = format!(
        "no such file, but {} exists, and a new run would replace it; set another folder with --out, or move the files \
         of that run away",
        path.display()
    );
    Err(Error::Checkpoint(out.join(CHECKPOINT), reason))
}

/// Checks that `config` can resume the checkpoint in `out`.
pub fn check(config: &TrainConfig, out: &Path) -> Result<()> {
    let keys = format!(
        "{} (not from or to 0: {ENCODER_RATE}), metadata and data.sources.NAME.preload",
        MAY_CHANGE.join(", ")
    );
    check_values(config, out, may_change, &keys)
}

/// Checks that `config` has the values of the configuration in `out`, except for keys of which `may_change(key, before,
/// now)` holds. `keys` is their list in the error.
///
/// # Errors
/// [`Error::Checkpoint`] if a key differs that must not change, with both values and the remedy, or if the folder
/// has no readable configuration.
pub fn check_values<Config: Serialize + DeserializeOwned>(
    config: &Config,
    out: &Path,
    may_change: impl Fn(&str, &Config, &Config) -> bool,
    keys: &str,
) -> Result<()> {
    let checkpoint = out.join(CHECKPOINT);
    let refuse = |reason: String| Error::Checkpoint(checkpoint.clone(), reason);
    let path = out.join(CONFIG);
    let remedy = "set another folder with --out to start a new run";
    let text = std::fs::read_to_string(&path).map_err(|error| {
        refuse(format!("cannot read the configuration of its run, {} ({error}): {remedy}", path.display()))
    })?;
    let before: Config = toml::from_str(&text).map_err(|error| {
        refuse(format!("the configuration of its run, {}, is invalid ({error}): {remedy}", path.display()))
    })?;
    let differences =
        differences("checkpoint", &before, config, may_change).map_err(|error| refuse(error.to_string()))?;
    if differences.is_empty() {
        return Ok(());
    }
    Err(refuse(format!(
        "the configuration differs from that of its run: {}. Set these keys as in {}, or {remedy} (start_from reuses \
         the weights). Only {keys} may change when a run is resumed",
        differences.join(", "),
        path.display(),
    )))
}

/// The keys that differ but must not change, with both values. `owner` has the values `before`.
pub fn differences<Config: Serialize>(
    owner: &str,
    before: &Config,
    now: &Config,
    may_change: impl Fn(&str, &Config, &Config) -> bool,
) -> Result<Vec<String>, toml::ser::Error> {
    let [old, new] = [values(toml::Table::try_from(before)?), values(toml::Table::try_from(now)?)];
    let differing = differing_keys(&old, &new).filter(|(key, _)| !may_change(key, before, now));
    Ok(differing.map(|(key, [before, now])| format!("{key} ({owner} {before}, now {now})")).collect())
}

/// All values of a configuration by their keys, such as `data.window`.
pub(super) fn values(config: toml::Table) -> BTreeMap<String, toml::Value> {
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
    flatten("", config, &mut all);
    all
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
        let differences = differences("checkpoint", &shipped(&[]), &shipped(settings), may_change).unwrap();
        differences.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn keys_of_clips_and_networks_must_not_change() {
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
    fn keys_of_speed_and_remedies_against_divergence_may_change() {
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

    #[test]
    fn the_encoder_rate_may_change_but_not_between_frozen_and_trained() {
        let key = "optimiser.encoder_learning_rate";
        assert_eq!(keys(&["optimiser.encoder_learning_rate=1e-7"]), Vec::<String>::new());
        assert_eq!(keys(&["optimiser.encoder_learning_rate=0"]), [key]);
        let frozen = shipped(&["optimiser.encoder_learning_rate=0"]);
        assert!(!may_change(key, &frozen, &shipped(&[])) && may_change(key, &frozen, &frozen));
    }

    /// A misspelt key would never match.
    #[test]
    fn every_key_that_may_change_exists() {
        let mut config = shipped(&["stop_after=5", "critics.device=cpu"]);
        config.validation = toml::from_str("data = 'davis'\nevery = 1").unwrap();
        let values = values(toml::Table::try_from(&config).unwrap());
        for key in MAY_CHANGE.iter().chain(&MAY_DIFFER).copied() {
            assert!(values.contains_key(key), "{key}");
        }
    }
}
