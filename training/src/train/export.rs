// SPDX-License-Identifier: MPL-2.0

//! Export of the weights of a training run.

use std::collections::BTreeMap;
use std::path::Path;

use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{NetworkVisitor, Regressor, build};
use tch::{Device, Kind, nn};

use crate::Result;

/// Keeps the variables of a network, which the store holds.
struct Variables;

impl NetworkVisitor for Variables {
    type Output = ();

    fn visit<R: Regressor + 'static>(self, _: R) -> gstfastganseg::Result<()> {
        Ok(())
    }
}

/// Writes `weights` with their configuration to `out` in half precision. `metadata` is added to that of the
/// weights.
///
/// # Errors
/// If the weights do not fit their configuration, or the file cannot be written.
pub fn export(weights: &Weights, metadata: &BTreeMap<String, String>, out: &Path) -> Result<()> {
    let config = weights.config();
    let store = nn::VarStore::new(Device::Cpu);
    build(&store.root(), config, Variables)?;
    weights.fill(&store)?;
    let mut all = weights.metadata().clone();
    all.extend(metadata.clone());
    Ok(weights::save(out, &store, config, &all, Kind::Half)?)
}
