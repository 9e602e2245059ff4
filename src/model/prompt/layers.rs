// SPDX-License-Identifier: MPL-2.0

//! Layers of the prompt network, built from the tensors of its weights file.

use tch::Tensor;

use crate::Result;
use crate::model::store::Store;

/// Affine map of the last dimension.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
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

#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
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

/// Returns the attention of heads (N, heads, L, C), joined to (N, L, heads * C). `bias` is added before the softmax.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = Tensor::f_scaled_dot_product_attention(query, key, value, bias, 0.0, false, None, false)?;
    Ok(y.f_transpose(1, 2)?.f_flatten(2, 3)?)
}
