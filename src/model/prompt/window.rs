// SPDX-License-Identifier: MPL-2.0

//! Transformer block of TinyViT: attention within windows, a local convolution, and an MLP.

use tch::Tensor;

use super::layers::{LayerNorm, Linear, attention, gelu};
use crate::Result;
use crate::model::layers::{Conv, ConvSpec};
use crate::model::store::Store;

const EPSILON: f64 = 1e-5;
/// Channels of an attention head.
const HEAD: i64 = 32;
/// Hidden channels of the MLP by input channel.
const EXPANSION: i64 = 4;

/// Self-attention of the positions of a window with a learnt bias for each offset.
#[derive(Debug)]
struct Attention {
    norm: LayerNorm,
    qkv: Linear,
    proj: Linear,
    /// (1, heads, L, L) for windows of L positions.
    bias: Tensor,
}

impl Attention {
    fn new(store: &Store, channels: i64, window: i64) -> Result<Self> {
        let heads = channels / HEAD;
        let length = window * window;
        let biases = store.tensor("attention_biases", &[heads, length])?;
        let bias = biases.f_index_select(1, &offsets(window).to(biases.device()))?;
        Ok(Self {
            norm: LayerNorm::new(&store.at("norm"), channels, EPSILON)?,
            qkv: Linear::new(&store.at("qkv"), channels, 3 * channels)?,
            proj: Linear::new(&store.at("proj"), channels, channels)?,
            bias: bias.f_reshape([1, heads, length, length])?,
        })
    }

    /// Maps windows (N, L, C) to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, length, channels) = x.size3()?;
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        // The channels of each head are those of its query, key and value.
        let qkv = qkv.f_reshape([n, length, channels / HEAD, 3 * HEAD])?.f_transpose(1, 2)?;
        let part = |index: i64| qkv.f_narrow(3, index * HEAD, HEAD);
        self.proj.forward(&attention(&part(0)?, &part(1)?, &part(2)?, Some(&self.bias))?)
    }
}

/// Index of the bias of each pair of positions in a window, flat: that of their absolute offset, row by row.
fn offsets(window: i64) -> Tensor {
    let positions = || (0..window).flat_map(|y| (0..window).map(move |x| (y, x)));
    let index = |((y, x), (v, u)): ((i64, i64), (i64, i64))| (y - v).abs() * window + (x - u).abs();
    let pairs = positions().flat_map(|a| positions().map(move |b| (a, b)));
    Tensor::from_slice(&pairs.map(index).collect::<Vec<_>>())
}

#[derive(Debug)]
pub struct Block {
    attention: Attention,
    local: Conv,
    norm: LayerNorm,
    expand: Linear,
    reduce: Linear,
    window: i64,
}

impl Block {
    /// Reads a block with windows of `window` x `window` positions.
    pub fn new(store: &Store, channels: i64, window: i64) -> Result<Self> {
        let mlp = store.at("mlp");
        let local = ConvSpec::square(channels, channels, 3).depthwise();
        Ok(Self {
            attention: Attention::new(&store.at("attn"), channels, window)?,
            local: store.at("local_conv").at("c").conv(local)?,
            norm: LayerNorm::new(&mlp.at("norm"), channels, EPSILON)?,
            expand: Linear::new(&mlp.at("fc1"), channels, EXPANSION * channels)?,
            reduce: Linear::new(&mlp.at("fc2"), EXPANSION * channels, channels)?,
            window,
        })
    }

    /// Maps `x` (1, C, H, W), channels last, to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.f_permute([0, 2, 3, 1])?;
        let x = self.attend(&x)?.f_add_(&x)?;
        let x = self.local.forward(&x.f_permute([0, 3, 1, 2])?)?.f_permute([0, 2, 3, 1])?;
        let hidden = gelu(self.expand.forward(&self.norm.forward(&x)?)?)?;
        Ok(self.reduce.forward(&hidden)?.f_add_(&x)?.f_permute([0, 3, 1, 2])?)
    }

    /// Attention within windows of `x` (1, H, W, C). Zeros complete the windows at the right and bottom border.
    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, channels) = x.size4()?;
        let side = self.window;
        let (rows, columns) = ((height + side - 1) / side, (width + side - 1) / side);
        let x = x.f_constant_pad_nd([0, 0, 0, columns * side - width, 0, rows * side - height])?;
        let windows = x.f_reshape([rows, side, columns, side, channels])?.f_transpose(1, 2)?;
        let y = self.attention.forward(&windows.f_reshape([rows * columns, side * side, channels])?)?;
        let y = y.f_reshape([rows, columns, side, side, channels])?.f_transpose(1, 2)?;
        let y = y.f_reshape([1, rows * side, columns * side, channels])?;
        Ok(y.f_narrow(1, 0, height)?.f_narrow(2, 0, width)?.f_contiguous()?)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn biases_depend_on_the_absolute_offset() {
        let index = offsets(3).reshape([9, 9]);
        // From row 0, column 2 to row 2, column 1.
        assert_eq!(index.int64_value(&[2, 7]), 2 * 3 + 1);
        assert_eq!(index.int64_value(&[7, 2]), 2 * 3 + 1);
        assert_eq!(index.diagonal(0, 0, 1).abs().max().int64_value(&[]), 0);
        assert_eq!(index.kind(), Kind::Int64);
    }
}
