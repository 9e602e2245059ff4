//! A run's state on disk: weights and moments of every network and the step in one file, replaced whole. The random
//! numbers of a step follow from the seed and the step's number, so that they need no state.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use crate::{Error, Result, files};

const STEP: &str = "step";

/// A network with its optimiser.
#[derive(Debug)]
pub struct Part<'a> {
    /// `regressor`, `spatial`, `temporal`.
    pub name: &'static str,
    /// Its variables.
    pub store: &'a nn::VarStore,
    /// Its optimiser.
    pub adam: &'a mut Adam,
}

/// Writes the state after `step` steps; the one before stays until that is on the disk.
pub fn save(path: &Path, parts: &[Part], step: u64) -> Result<()> {
    let number = |value: u64| Tensor::f_from_slice(&[value as i64]);
    let mut all = vec![(STEP.to_owned(), number(step)?)];
    for Part { name, store, adam } in parts {
        let weights = store.variables().into_iter().map(|(key, tensor)| (format!("weight.{key}"), tensor));
        for (key, tensor) in weights.chain(adam.state()) {
            all.push((format!("{name}.{key}"), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?));
        }
        all.push((format!("{name}.steps"), number(adam.steps())?));
    }
    files::replace(path, |partial| Ok(Tensor::write_safetensors(&all, partial)?))
}

/// Puts the state back and returns the step it was saved at. What was loaded before an error stays.
pub fn load(path: &Path, parts: &mut [Part]) -> Result<u64> {
    let refuse = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let all: BTreeMap<String, Tensor> = Tensor::read_safetensors(path)
        .map_err(|error| refuse(format!("cannot be read ({error}); delete it to start anew")))?
        .into_iter()
        .collect();
    let mut all = all;
    let number = |all: &mut BTreeMap<String, Tensor>, key: &str| -> Result<u64> {
        let tensor = all.remove(key).ok_or_else(|| refuse(format!("there is no {key} in it")))?;
        Ok(tensor.f_to_kind(Kind::Int64)?.f_int64_value(&[0])? as u64)
    };
    let step = number(&mut all, STEP)?;
    for Part { name, store, adam } in parts {
        let prefix = format!("{name}.");
        let mut own: BTreeMap<String, Tensor> = BTreeMap::new();
        for key in all.keys().filter(|key| key.starts_with(&prefix)).cloned().collect::<Vec<_>>() {
            own.extend(all.remove(&key).map(|tensor| (key[prefix.len()..].to_owned(), tensor)));
        }
        for (key, mut variable) in store.variables() {
            let tensor = own
                .remove(&format!("weight.{key}"))
                .filter(|tensor| tensor.size() == variable.size())
                .ok_or_else(|| refuse(format!("no tensor {name}.{key} of shape {:?}", variable.size())))?;
            tch::no_grad(|| variable.f_copy_(&tensor).map(|_| ()))?;
        }
        let steps = number(&mut own, "steps")?;
        adam.restore(steps, &mut own).map_err(&refuse)?;
        if let Some(key) = own.keys().next() {
            return Err(refuse(format!("{name}.{key} is of another run; use another folder")));
        }
    }
    match all.keys().next() {
        Some(key) => Err(refuse(format!("{key} is of a run with other critics; use another folder"))),
        None => Ok(step),
    }
}
