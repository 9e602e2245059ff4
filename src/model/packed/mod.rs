// SPDX-License-Identifier: MPL-2.0

//! Convolutions on the CPU with weights packed for its vector instructions, for inference on x86-64 processors with AVX2 and
//! FMA. Pictures are float32; the factors of products are float32 or bfloat16 ([`Factors`]). [`Conv`](super::layers::Conv) defines their results for finite values.
//!
//! libtorch is about as fast for large convolutions, but writes and reads every intermediate result, and prepares kernels
//! for each new size of the input.

mod bfloat16;
mod dense;
mod tiles;
mod winograd;

use tch::{Device, Kind, Tensor};

pub use self::bfloat16::values_mut;
pub use self::dense::{Dense, Factors, PANEL, TILE, UNLIMITED, padded_bias};
pub use self::tiles::{Run, TILE_SIDE, Tiles};
use self::winograd::Winograd;
use super::tensor_slices::{Unshared, floats, is_float, pixels};
use super::vector::available;
use crate::Result;
use crate::team::{self, in_parallel};

/// Returns whether a network can be packed: weights of this kind on this device, and a processor with AVX2 and FMA.
pub fn fits(weight: &Tensor) -> bool {
    weight.device() == Device::Cpu && weight.kind() == Kind::Float && available()
}

/// Packed convolution of stride 1.
#[derive(Debug)]
pub enum PackedConv {
    Pointwise(Dense),
    /// Kernel of 3x3 with one pixel of zeros around the picture.
    Winograd(Winograd),
}

impl PackedConv {
    /// Packs a convolution of 1x1 or 3x3, stride 1 and one group that keeps the size. `weight` is (outputs, inputs, rows,
    /// columns). Returns `None` for other kernels, kernels of 3x3 with fewer than 8 inputs, other kinds than float32,
    /// other devices than the CPU, and processors without AVX2 and FMA.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, factors: Factors) -> Result<Option<Self>> {
        if !fits(weight) {
            return Ok(None);
        }
        let (_, _, rows, columns) = weight.size4()?;
        Ok(match (rows, columns) {
            (1, 1) => Some(Self::Pointwise(Dense::of_conv(weight, bias, None, factors)?)),
            (3, 3) => Winograd::new(weight, bias, factors)?.map(Self::Winograd),
            _ => None,
        })
    }

    /// Convolves `x` (N, inputs, H, W) float32 on the CPU to (N, outputs, H, W), channels last. Then adds `added`, which only
    /// kernels of 3x3 can, and applies ReLU if `relu` is set. Returns `None` for other tensors.
    pub fn forward(&self, x: &Tensor, added: Option<&Tensor>, relu: bool) -> Result<Option<Tensor>> {
        let (inputs, outputs) = match self {
            Self::Pointwise(conv) => (conv.inputs, conv.outputs),
            Self::Winograd(conv) => (conv.inputs, conv.outputs),
        };
        if !is_float(x) || x.dim() != 4 || x.size()[1] != inputs as i64 || x.numel() == 0 {
            return Ok(None);
        }
        let (n, _, height, width) = x.size4()?;
        let fits = |added: &&Tensor| is_float(added) && added.size() == [n, outputs as i64, height, width];
        if added.is_some() && (matches!(self, Self::Pointwise(_)) || !added.iter().all(fits)) {
            return Ok(None);
        }
        let (height, width) = (height as usize, width as usize);
        let (x, added) = (pixels(x)?, added.map(pixels).transpose()?);
        let mut y = Map::new(n as usize, height, width, outputs)?;
        for (item, x) in floats(&x).chunks_exact(height * width * inputs).enumerate() {
            let y = y.item(item);
            let added = added.as_ref().map(|added| &floats(added)[item * y.len()..][..y.len()]);
            match self {
                Self::Pointwise(dense) => pointwise(dense, x, relu, y),
                Self::Winograd(conv) => conv.forward(x, added, (height, width), relu, y),
            }
        }
        Ok(Some(y.into_tensor()?))
    }

    /// Convolves `x` (1, inputs, H, W) float32 on the CPU to (1, outputs, H, W), channels last, but only at `tiles`. Then applies
    /// ReLU if `relu` is set. The result is zero in the tiles next to them, and undefined elsewhere. Returns `None` for kernels
    /// of 1x1 and for other tensors.
    pub fn forward_tiles(&self, x: &Tensor, tiles: &Tiles, relu: bool) -> Result<Option<Tensor>> {
        let Self::Winograd(conv) = self else { return Ok(None) };
        if !is_float(x) || x.dim() != 4 || x.size()[..2] != [1, conv.inputs as i64] || x.numel() == 0 {
            return Ok(None);
        }
        let (_, _, height, width) = x.size4()?;
        let (height, width) = (height as usize, width as usize);
        let x = pixels(x)?;
        let mut y = Map::new(1, height, width, conv.outputs)?;
        y.clear_around(tiles);
        conv.forward_tiles(floats(&x), (height, width), relu, &tiles.runs(), y.item(0));
        Ok(Some(y.into_tensor()?))
    }
}

/// Maps pixels `x` (…, inputs) to `y` (…, outputs).
fn pointwise(dense: &Dense, x: &[f32], relu: bool, y: &mut [f32]) {
    let range = [if relu { 0.0 } else { f32::NEG_INFINITY }, f32::INFINITY];
    let pixels = share(y.len() / dense.outputs);
    let parts = x.chunks(pixels * dense.inputs).zip(y.chunks_mut(pixels * dense.outputs));
    in_parallel(parts, |(x, y)| dense.forward(x, y, dense.outputs, range));
}

/// Values (N, H, W, C).
pub struct Map {
    values: Unshared,
    pub items: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Map {
    /// Returns uninitialised values.
    pub fn new(items: usize, height: usize, width: usize, channels: usize) -> Result<Self> {
        let values = Unshared::empty(&[items, height, width, channels].map(|side| side as i64))?;
        Ok(Self { values, items, height, width, channels })
    }

    /// Returns the values of all items, (H, W, C) each.
    pub fn items(&self) -> impl Iterator<Item = &[f32]> {
        self.values.floats().chunks_exact(self.height * self.width * self.channels)
    }

    /// Returns the values (H, W, C) of an item.
    pub fn item(&mut self, index: usize) -> &mut [f32] {
        let length = self.height * self.width * self.channels;
        &mut self.values.floats_mut()[index * length..][..length]
    }

    /// Sets the values next to `tiles` to zero, as far as the first item has such tiles.
    pub fn clear_around(&mut self, tiles: &Tiles) {
        let around = tiles.with_neighbours();
        let (rows, columns) = tiles.size();
        let border = Tiles::new(rows, columns, |row, column| {
            around.contains(row, column) && !tiles.contains(row, column)
        });
        let (height, width, channels) = (self.height, self.width, self.channels);
        let values = self.item(0);
        for Run { row, columns } in border.runs() {
            let columns = columns.start * TILE_SIDE..(columns.end * TILE_SIDE).min(width);
            for y in row * TILE_SIDE..((row + 1) * TILE_SIDE).min(height) {
                let start = (y * width + columns.start) * channels;
                values[start..][..columns.len() * channels].fill(0.0);
            }
        }
    }

    /// Returns (N, C, H, W), channels last.
    pub fn into_tensor(self) -> Result<Tensor> {
        Ok(self.values.into_tensor().f_permute([0, 3, 1, 2])?)
    }
}

/// Returns the first `length` values of `buffer`, which grows if necessary. It never shrinks, because growing clears memory.
pub fn grown<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}

/// Number of rows for each thread that may work on layers.
pub fn share(rows: usize) -> usize {
    rows.div_ceil(team::size().max(1)).max(1)
}

#[cfg(test)]
mod tests;
