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
    pub store: &'a nn::VarStore,
    pub adam: &'a mut Adam,
}

/// Writes the weights file with `weights`, then the state after `step` steps to `path`. The previous file stays until the
/// new one is complete.
///
/// # Errors
/// [`gstfastganseg::Error::Weights`] if a value of the state is not finite; the error of `weights`; an error if the file
/// cannot be written. The previous checkpoint is kept.
pub fn save(
    path: &Path,
    parts: &[NetworkState],
    step: u64,
    weights: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let number = |value: u64| Tensor::f_from_slice(&[value as i64]);
    let mut all = vec![(STEP.to_owned(), number(step)?)];
    for NetworkState { name, store, adam } in parts {
        let values = store.variables().into_iter().map(|(key, tensor)| (format!("weight.{key}"), tensor));
        for (key, tensor) in values.chain(adam.state()) {
            if !is_finite(&tensor)? {
                let reason = format!("tensor `{name}.{key}` holds values that are not finite");
                return Err(gstfastganseg::Error::Weights { path: path.to_owned(), reason }.into());
            }
            all.push((format!("{name}.{key}"), tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?));
        }
        all.push((format!("{name}.steps"), number(adam.steps)?));
    }
    // A state whose weights are out of range in the weights file must not replace the last good one.
    weights()?;
    files::replace(path, |partial| Ok(Tensor::write_safetensors(&all, partial)?))
}

/// Converts the error of [`save`] for weights that are not finite with `diverged`, which gets a description of them. Returns
/// other errors unchanged.
pub fn explain_divergence(error: Error, diverged: impl FnOnce(String) -> Error) -> Error {
    match error {
        Error::Core(gstfastganseg::Error::Weights { reason, .. }) => {
            diverged(format!("the weights ({reason})"))
        }
        other => other,
    }
}

/// Infinities and NaN survive a sum, and a double holds the sum of any finite float32s.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite())
}

/// Restores the state and returns its step. After an error the state may be restored in part.
pub fn load(path: &Path, parts: &mut [NetworkState]) -> Result<u64> {
    let refuse = |reason: String| Error::Checkpoint(path.to_owned(), reason);
    let mut all: BTreeMap<String, Tensor> = Tensor::read_safetensors(path)
        .map_err(|error| refuse(format!("cannot be read ({error}); delete it to start again")))?
        .into_iter()
        .collect();
    if let Some((key, _)) = all.iter().find(|(_, tensor)| !is_finite(tensor).unwrap_or(false)) {
        return Err(refuse(format!("{key} is not finite; start again in another folder with --out")));
    }
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

#[cfg(test)]
mod tests {
    use super::super::adam::RATES;
    use super::*;

    fn network(value: f64) -> (nn::VarStore, Adam) {
        let store = nn::VarStore::new(Device::Cpu);
        let _ = store.root().f_ones("x", &[3]).unwrap().set_requires_grad(false).f_fill_(value).unwrap();
        let adam = Adam::new(store.variables(), RATES).unwrap();
        (store, adam)
    }

    #[test]
    fn a_state_that_is_not_finite_does_not_replace_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CHECKPOINT);
        let write = |value: f64, weights: &dyn Fn() -> Result<()>| {
            let (store, mut adam) = network(value);
            save(&path, &[NetworkState { name: "regressor", store: &store, adam: &mut adam }], 7, weights)
        };
        write(1.0, &|| Ok(())).unwrap();
        let saved = std::fs::read(&path).unwrap();
        for value in [f64::NAN, f64::INFINITY] {
            let error = write(value, &|| panic!("the weights file is written")).unwrap_err().to_string();
            assert!(error.contains("regressor.weight.x") && error.contains("not finite"), "{error}");
        }
        let error = write(2.0, &|| Err(Error::Clips("out of range".into()))).unwrap_err().to_string();
        assert!(error.contains("out of range"), "{error}");
        assert!(saved == std::fs::read(&path).unwrap());

        let (store, mut adam) = network(0.0);
        let parts = &mut [NetworkState { name: "regressor", store: &store, adam: &mut adam }];
        assert_eq!(load(&path, parts).unwrap(), 7);
        let all =
            Tensor::read_safetensors(&path).unwrap().into_iter().map(|(key, tensor)| match key.as_str() {
                "regressor.first.x" => (key, tensor * f64::NAN),
                _ => (key, tensor),
            });
        Tensor::write_safetensors(&all.collect::<Vec<_>>(), &path).unwrap();
        let error = load(&path, parts).unwrap_err().to_string();
        assert!(error.contains("regressor.first.x") && error.contains("--out"), "{error}");
    }
}
