//! A run's state on disk: weights, moments and step in one file, replaced whole.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Kind, Tensor, nn};

use super::adam::Adam;
use crate::{Error, Result};

const STEP: &str = "step";

/// Writes the state beside its final place and then moves it there.
pub fn save(path: &Path, store: &nn::VarStore, adam: &Adam, step: u64) -> Result<()> {
    let weights = store.variables().into_iter().map(|(name, tensor)| (format!("weight.{name}"), tensor));
    let step = Tensor::f_from_slice(&[step as i64])?;
    let all: Vec<(String, Tensor)> = weights.chain(adam.state()).chain([(STEP.to_owned(), step)]).collect();
    let partial = path.with_extension("partial");
    Tensor::write_safetensors(&all, &partial)?;
    std::fs::rename(&partial, path).map_err(|source| Error::write(path, source))
}

/// Puts the state back and returns the step it was saved at.
pub fn load(path: &Path, store: &nn::VarStore, adam: &mut Adam) -> Result<u64> {
    let refuse = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let mut all: BTreeMap<String, Tensor> = Tensor::read_safetensors(path)
        .map_err(|error| refuse(format!("cannot be read ({error}); delete it to start anew")))?
        .into_iter()
        .collect();
    let step = all.remove(STEP).ok_or_else(|| refuse("there is no step in it".into()))?;
    for (name, mut variable) in store.variables() {
        let tensor = all
            .remove(&format!("weight.{name}"))
            .filter(|tensor| tensor.size() == variable.size())
            .ok_or_else(|| refuse(format!("no tensor {name} of shape {:?}", variable.size())))?;
        tch::no_grad(|| variable.f_copy_(&tensor).map(|_| ()))?;
    }
    let step = step.f_to_kind(Kind::Int64)?.f_int64_value(&[0])? as u64;
    adam.restore(step, all).map_err(refuse)?;
    Ok(step)
}
