//! Layers of the prompt network, built from the tensors of its weights file.

use std::collections::BTreeMap;
use std::fmt::Display;

use tch::{Device, Kind, Tensor};

use crate::model::layers::{Conv, ConvSpec, channels_last};
use crate::{Error, Result};

/// Tensors of a weights file under a common prefix of their names, and where and how they are used.
pub struct Store<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    prefix: String,
    device: Device,
    kind: Kind,
}

impl<'a> Store<'a> {
    /// Creates the root; tensors are converted to `device` and `kind`.
    pub fn new(tensors: &'a BTreeMap<String, Tensor>, device: Device, kind: Kind) -> Self {
        Self { tensors, prefix: String::new(), device, kind }
    }

    /// Returns the tensors below `name`.
    pub fn at(&self, name: impl Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..*self }
    }

    /// Returns the tensor `name`.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is missing or of another shape.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let refuse = |reason| Error::Weights { path: super::ORIGIN.into(), reason };
        let tensor = self.tensors.get(&name).ok_or_else(|| refuse(format!("tensor `{name}` is missing")))?;
        if tensor.size() != shape {
            let found = tensor.size();
            return Err(refuse(format!("tensor `{name}`: expected shape {shape:?}, found {found:?}")));
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }

    /// Returns the convolution of `weight` and, if `spec` has one, `bias`.
    ///
    /// # Errors
    /// Those of [`tensor`](Self::tensor).
    pub fn conv(&self, spec: ConvSpec) -> Result<Conv> {
        let (rows, columns) = spec.kernel;
        let weight = self.tensor("weight", &[spec.outputs, spec.inputs / spec.groups, rows, columns])?;
        let bias = spec.bias.then(|| self.tensor("bias", &[spec.outputs])).transpose()?;
        Ok(Conv::from_tensors(channels_last(&weight)?, bias, spec))
    }
}

/// Affine map of the last dimension.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Reads the layer.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or of another shape.
    pub fn new(store: &Store, inputs: i64, outputs: i64) -> Result<Self> {
        Ok(Self {
            weight: store.tensor("weight", &[outputs, inputs])?,
            bias: store.tensor("bias", &[outputs])?,
        })
    }

    /// Maps (…, inputs) to (…, outputs).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// Layer normalisation over channels.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// Reads the layer.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or of another shape.
    pub fn new(store: &Store, channels: i64, epsilon: f64) -> Result<Self> {
        let vector = |name| store.tensor(name, &[channels]);
        Ok(Self { weight: vector("weight")?, bias: vector("bias")?, epsilon })
    }

    /// Normalises the last dimension of `x` (…, C).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)?)
    }

    /// Normalises the channels of `x` (N, C, H, W).
    pub fn forward_image(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?)
    }
}

/// Linear layers with ReLU between them.
#[derive(Debug)]
pub struct Mlp(Vec<Linear>);

impl Mlp {
    /// Reads layers named `names`; `sizes` has the inputs of the first and the outputs of each.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or of another shape.
    pub fn new(store: &Store, names: &[&str], sizes: &[i64]) -> Result<Self> {
        let layers = names.iter().zip(sizes.windows(2));
        Ok(Self(
            layers
                .map(|(name, size)| Linear::new(&store.at(name), size[0], size[1]))
                .collect::<Result<_>>()?,
        ))
    }

    /// Maps (…, inputs) to (…, outputs).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for (index, layer) in self.0.iter().enumerate() {
            x = layer.forward(&if index == 0 { x } else { x.f_relu()? })?;
        }
        Ok(x)
    }
}

/// Applies the exact GELU in place.
pub fn gelu(mut x: Tensor) -> Result<Tensor> {
    Ok(x.f_gelu_("none")?)
}

/// Splits the channels of (N, L, C) into heads, (N, heads, L, C / heads).
pub fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor> {
    let (n, length, channels) = x.size3()?;
    Ok(x.f_reshape([n, length, heads, channels / heads])?.f_transpose(1, 2)?)
}

/// Joins heads (N, heads, L, C) to (N, L, heads * C).
pub fn join_heads(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_transpose(1, 2)?.f_flatten(2, 3)?)
}
