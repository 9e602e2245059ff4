// SPDX-License-Identifier: MPL-2.0

//! Checkpoint file of a run: weights and optimiser moments of every network, and the step. The file is replaced
//! atomically. The random numbers of a step depend on the seed and the step only, so a checkpoint does not store
//! them. Nor does it depend on the number of ranks.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use crate::{Error, Result, files};

/// File name of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// File name of the effective configuration, which the checkpoint belongs to.
pub const CONFIG: &str = "config.toml";
const STEP: &str = "step";

/// A network and its optimiser.
#[derive(Debug)]
pub struct NetworkState<'a> {
    /// `regressor`, `spatial`, `temporal` or `decoder`.
    pub name: &'static str,
    /// The variables of the network.
    pub store: &'a nn::VarStore,
    /// The optimiser.
    pub adam: &'a mut Adam,
}

/// Writes the state after `step` steps. The previous file stays until the new one is complete.
pub fn save(path: &Path, parts: &[NetworkState], step: u64) -> Result<()> {
    let number = |value: u64| Tensor::f_from_slice(&[value as i64]);
    let mut all = vec![(STEP.to_owned(), number(step)?)];
    for NetworkState { name, store, adam } in parts {
        let weights = store.variables().into_iter().map(|(key, tensor)| (format!("weight.{key}"), tensor));
        for (key, tensor) in weights.chain(adam.state()) {
            all.push((format!("{name}.{key}"), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?));
        }
        all.push((format!("{name}.steps"), number(adam.steps())?));
    }
    files::replace(path, |partial| Ok(Tensor::write_safetensors(&all, partial)?))
}

/// Restores the state and returns its step. After an error the state may be restored in part.
pub fn load(path: &Path, parts: &mut [NetworkState]) -> Result<u64> {
    let refuse = |reason: String| Error::Checkpoint { path: path.to_owned(), reason };
    let all: BTreeMap<String, Tensor> = Tensor::read_safetensors(path)
        .map_err(|error| refuse(format!("cannot be read ({error}); delete it to start again")))?
        .into_iter()
        .collect();
    let mut all = all;
    let number = |all: &mut BTreeMap<String, Tensor>, key: &str| -> Result<u64> {
        let tensor =
            all.remove(key).ok_or_else(|| refuse(format!("{key} is missing; use another folder")))?;
        Ok(tensor.f_to_kind(Kind::Int64)?.f_int64_value(&[0])? as u64)
    };
    let step = number(&mut all, STEP)?;
    for NetworkState { name, store, adam } in parts {
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
            return Err(refuse(format!("{name}.{key} belongs to another run; use another folder")));
        }
    }
    match all.keys().next() {
        Some(key) => Err(refuse(format!("{key} belongs to a run with other critics; use another folder"))),
        None => Ok(step),
    }
}
