//! Export of the weights of a training run.

use std::collections::BTreeMap;
use std::path::Path;

use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::model::{Lite, Matching, Resnet50, zero_init};
use tch::{Device, Kind, nn};

use crate::Result;

/// Writes `weights` with their configuration to `out` in half precision. `metadata` is added to that of the
/// weights.
///
/// # Errors
/// If the weights do not fit their configuration, or the file cannot be written.
pub fn export(weights: &Weights, metadata: &BTreeMap<String, String>, out: &Path) -> Result<()> {
    let config = weights.config();
    let store = nn::VarStore::new(Device::Cpu);
    match config.matching {
        Matching::Affinity => drop(zero_init(|| Lite::new(&store.root(), config))?),
        Matching::GlobalConvolution => drop(zero_init(|| Resnet50::new(&store.root(), config))?),
    }
    weights.fill(&store)?;
    let mut all = weights.metadata().clone();
    all.extend(metadata.clone());
    Ok(weights::save(out, &store, config, &all, Kind::Half)?)
}
