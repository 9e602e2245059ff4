// SPDX-License-Identifier: MPL-2.0

//! Networks for inference alone, built from the tensors of a weights file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::layers::{Conv, ConvSpec, channels_last};
use crate::{Error, Result};

/// Tensors of a weights file under a common prefix of their names, and where and how they are used.
pub struct Store<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    origin: &'a Path,
    prefix: String,
    device: Device,
    kind: Kind,
}

impl<'a> Store<'a> {
    /// Creates the root; tensors are converted to `device` and `kind`. Messages name the file `origin`.
    pub fn new(
        tensors: &'a BTreeMap<String, Tensor>,
        origin: &'a Path,
        (device, kind): (Device, Kind),
    ) -> Self {
        Self { tensors, origin, prefix: String::new(), device, kind }
    }

    /// Returns the tensors below `name`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    pub fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let refuse = |reason| Error::Weights { path: self.origin.to_owned(), reason };
        let tensor = self.tensors.get(&name).ok_or_else(|| refuse(format!("tensor `{name}` is missing")))?;
        if tensor.size() != shape {
            let found = tensor.size();
            return Err(refuse(format!("tensor `{name}`: expected shape {shape:?}, found {found:?}")));
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// Returns the convolution of `weight` and, if `spec` has one, `bias`.
    pub fn conv(&self, spec: ConvSpec) -> Result<Conv> {
        let (rows, columns) = spec.kernel;
        let weight = self.tensor("weight", &[spec.outputs, spec.inputs / spec.groups, rows, columns])?;
        let bias = spec.bias.then(|| self.tensor("bias", &[spec.outputs])).transpose()?;
        Ok(Conv::from_tensors(channels_last(&weight)?, bias, spec))
    }
}
