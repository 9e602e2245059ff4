// SPDX-License-Identifier: MPL-2.0

//! Export of the weights of a training run.

use std::collections::BTreeMap;
use std::path::Path;

use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Config, NetworkVisitor, Regressor, build};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, nn};

use super::checkpoint::CONFIG;
use super::config::TrainConfig;
use super::resume::differences;
use super::session::CONFIGURATION;
use crate::Result;
use crate::clips::Source;

/// First letters of the metadata keys of a validation.
const VALIDATION: &str = "validation_";
/// Maximum number of differences in an error.
const LISTED: usize = 4;

/// The parts of a training configuration that `[metadata]` describes.
#[derive(Serialize, Deserialize)]
struct Described {
    model: Config,
    data: DescribedData,
}

#[derive(Serialize, Deserialize)]
struct DescribedData {
    sources: BTreeMap<String, Source>,
}

/// Checks that the weights in the file `model` come from a run with the network and the data of `config`, so that its
/// metadata describe them. The paths of the data, their preloading and all other keys may differ. Weights without a training
/// configuration in their metadata are accepted.
///
/// # Errors
/// [`gstfastganseg::Error::Weights`] with the keys that differ, their values and the remedy, or if the configuration in the
/// metadata is invalid.
pub fn check_described(model: &Path, weights: &Weights, config: &TrainConfig) -> Result<()> {
    let Some(text) = weights.metadata().get(CONFIGURATION) else { return Ok(()) };
    let refuse = |reason: String| gstfastganseg::Error::Weights { path: model.to_owned(), reason };
    let invalid = |error: &dyn std::fmt::Display| {
        refuse(format!(
            "the training configuration in its metadata is invalid ({error}): export it with the version of \
             fastganseg-train that trained it"
        ))
    };
    let before: Described = toml::from_str(text).map_err(|error| invalid(&error))?;
    let now = DescribedData { sources: config.data.sources.clone() };
    let now = Described { model: config.model.clone(), data: now };
    let may_differ =
        |key: &str, _: &Described, _: &Described| key.ends_with(".path") || key.ends_with(".preload");
    let mut differences =
        differences("weights", &before, &now, may_differ).map_err(|error| invalid(&error))?;
    if differences.is_empty() {
        return Ok(());
    }
    // Other data differ in dozens of keys.
    differences.sort_by_key(|difference| !difference.starts_with("model."));
    let more = differences.len().saturating_sub(LISTED);
    differences.truncate(LISTED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    let own = model.with_file_name(CONFIG);
    let own = match own.exists() {
        true => format!("--config {}", own.display()),
        false => "--config (fastganseg-train info prints it)".to_owned(),
    };
    Err(refuse(format!(
        "it was trained with another configuration, whose network or data differ: {}. Give the configuration of its run \
         with {own}, and change its metadata with --set metadata.KEY=VALUE",
        differences.join(", "),
    ))
    .into())
}

/// Keeps the variables of a network, which the store holds.
struct Variables;

impl NetworkVisitor for Variables {
    type Output = ();

    fn visit<R: Regressor + 'static>(self, _: R) -> gstfastganseg::Result<()> {
        Ok(())
    }
}

/// Writes `weights` with their configuration to `out` as `kind`, see [`weights::save`]. `metadata` is added to that of the
/// weights, from which the scores of validations are removed unless they are `scored` with this configuration.
///
/// # Errors
/// If the weights do not fit their configuration, or the file cannot be written.
pub fn export(
    weights: &Weights,
    metadata: &BTreeMap<String, String>,
    scored: bool,
    kind: Kind,
    out: &Path,
) -> Result<()> {
    let config = weights.config();
    let store = nn::VarStore::new(Device::Cpu);
    build(&store.root(), config, Variables)?;
    weights.fill(&store)?;
    let mut all = weights.metadata().clone();
    all.retain(|key, _| scored || !key.starts_with(VALIDATION));
    all.extend(metadata.clone());
    Ok(weights::save(out, &store, config, &all, kind)?)
}
