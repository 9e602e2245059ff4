// SPDX-License-Identifier: MPL-2.0

//! Matrix product over channels.

use tch::Tensor;

use crate::Result;
use crate::model::tensor_slices::{floats, plain};

/// Output channels that are computed together.
pub const PANEL: usize = 16;
/// Range of values that are not limited.
pub const UNLIMITED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];
/// Pixels that are computed together.
pub const TILE: usize = 6;

/// Matrix product over channels: weights in panels of [`PANEL`] outputs, (panels, inputs, PANEL); missing outputs are
/// zero.
#[derive(Debug)]
pub struct Dense {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Returns the values of a bias with zeros up to `length`.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) when memory runs out.
pub fn padded_bias(bias: Option<&Tensor>, length: usize) -> Result<Vec<f32>> {
    let bias = bias.map(plain).transpose()?;
    let mut bias = bias.as_ref().map_or(&[][..], floats).to_vec();
    bias.resize(length, 0.0);
    Ok(bias)
}

impl Dense {
    /// Packs `rows`, the weights of one output each. `inputs`, at least `length`, is the number of channels of the input; the
    /// weights of the surplus are zero.
    pub fn new(rows: &[f32], length: usize, inputs: usize, bias: &[f32]) -> Self {
        let outputs = rows.len() / length;
        let padded = outputs.next_multiple_of(PANEL);
        let mut weights = vec![0.0; padded * inputs];
        for (output, row) in rows.chunks_exact(length).enumerate() {
            let panel = &mut weights[output / PANEL * inputs * PANEL..];
            for (input, value) in row.iter().enumerate() {
                panel[input * PANEL + output % PANEL] = *value;
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(padded, 0.0);
        Self { inputs, outputs, weights, bias }
    }

    /// Packs `columns` (inputs, outputs), without a bias.
    pub fn of_columns(columns: &[f32], outputs: usize) -> Self {
        let inputs = columns.len() / outputs;
        let padded = outputs.next_multiple_of(PANEL);
        let mut weights = vec![0.0; padded * inputs];
        for (input, columns) in columns.chunks_exact(outputs).enumerate() {
            for (panel, values) in columns.chunks(PANEL).enumerate() {
                weights[(panel * inputs + input) * PANEL..][..values.len()].copy_from_slice(values);
            }
        }
        Self { inputs, outputs, weights, bias: vec![0.0; padded] }
    }

    /// Packs a convolution, `weight` (outputs, channels, rows, columns); the inputs are rows, columns and channels of the
    /// kernel, and zeros up to the number `inputs`, if given.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn of_conv(weight: &Tensor, bias: Option<&Tensor>, inputs: Option<usize>) -> Result<Self> {
        let weight = plain(&weight.f_permute([0, 2, 3, 1])?)?;
        let length = weight.numel() / weight.size()[0] as usize;
        let bias = bias.map(plain).transpose()?;
        let bias = bias.as_ref().map_or(&[][..], floats);
        Ok(Self::new(floats(&weight), length, inputs.unwrap_or(length), bias))
    }

    /// Number of outputs with padding.
    pub fn padded(&self) -> usize {
        self.bias.len()
    }

    /// Maps pixels `x` (…, inputs) to `y` (…, width), limited to `range`. Writes `outputs` channels of each pixel and, if
    /// `width` is larger, the padding. Needs AVX2 and FMA: see [`available`](crate::model::vector::available).
    pub fn forward(&self, x: &[f32], y: &mut [f32], width: usize, range: [f32; 2]) {
        lanes::dense(self, x, y, width, range);
    }

    /// Maps pixels `x` (…, inputs) to the outputs of one panel, `y` (…, PANEL). Needs AVX2 and FMA.
    pub fn panel(&self, panel: usize, x: &[f32], y: &mut [f32]) {
        lanes::panel(self, panel, x, y);
    }
}

#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};

    use super::{Dense, PANEL, TILE, UNLIMITED};
    use crate::model::vector::{LANES, available, limited, load, store};

    pub fn dense(dense: &Dense, x: &[f32], y: &mut [f32], width: usize, range: [f32; 2]) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { dense_avx2(dense, x, y, width, range) }
    }

    pub fn panel(dense: &Dense, panel: usize, x: &[f32], y: &mut [f32]) {
        assert!(available());
        let weights = &dense.weights[panel * dense.inputs * PANEL..][..dense.inputs * PANEL];
        let bias = &dense.bias[panel * PANEL..][..PANEL];
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { panel_avx2(weights, bias, x, y, UNLIMITED, (PANEL, 0, PANEL)) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn dense_avx2(dense: &Dense, x: &[f32], y: &mut [f32], width: usize, range: [f32; 2]) {
        let panels = dense.weights.chunks_exact(dense.inputs * PANEL).zip(dense.bias.chunks_exact(PANEL));
        for (panel, (weights, bias)) in panels.enumerate() {
            let first = panel * PANEL;
            panel_avx2(weights, bias, x, y, range, (width, first, (width - first).min(PANEL)));
        }
    }

    /// Computes a panel of all pixels. `place` is the width of `y`, and the first output and the number of outputs to write.
    #[target_feature(enable = "avx2,fma")]
    fn panel_avx2(
        weights: &[f32],
        bias: &[f32],
        x: &[f32],
        y: &mut [f32],
        range: [f32; 2],
        place: (usize, usize, usize),
    ) {
        let inputs = weights.len() / PANEL;
        let mut tiles = x.chunks_exact(TILE * inputs);
        let mut outputs = y.chunks_exact_mut(TILE * place.0);
        for (x, y) in tiles.by_ref().zip(outputs.by_ref()) {
            tile::<TILE>(x, weights, bias, range, y, place);
        }
        let (x, y) = (tiles.remainder(), outputs.into_remainder());
        match x.len() / inputs {
            1 => tile::<1>(x, weights, bias, range, y, place),
            2 => tile::<2>(x, weights, bias, range, y, place),
            3 => tile::<3>(x, weights, bias, range, y, place),
            4 => tile::<4>(x, weights, bias, range, y, place),
            5 => tile::<5>(x, weights, bias, range, y, place),
            _ => (),
        }
    }

    /// Computes a panel of `M` pixels.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn tile<const M: usize>(
        x: &[f32],
        weights: &[f32],
        bias: &[f32],
        range: [f32; 2],
        y: &mut [f32],
        (width, first, count): (usize, usize, usize),
    ) {
        let inputs = weights.len() / PANEL;
        assert!(x.len() >= M * inputs);
        let mut sums = [[load(bias), load(&bias[LANES..])]; M];
        for (input, weights) in weights.chunks_exact(PANEL).enumerate() {
            let (low, high) = (load(weights), load(&weights[LANES..]));
            for (pixel, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `pixel` is below M and `input` below `inputs`, so the index is below the length asserted.
                let value = _mm256_set1_ps(unsafe { *x.get_unchecked(pixel * inputs + input) });
                sums[0] = _mm256_fmadd_ps(value, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(value, high, sums[1]);
            }
        }
        for (pixel, sums) in sums.into_iter().enumerate() {
            let [low, high] = sums;
            let sums = [limited(low, range), limited(high, range)];
            let mut values = [0.0; PANEL];
            store(&mut values, sums[0]);
            store(&mut values[LANES..], sums[1]);
            let y = &mut y[pixel * width + first..][..count];
            if count == PANEL {
                y.copy_from_slice(&values);
            } else {
                y.copy_from_slice(&values[..count]);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    use super::Dense;

    pub fn dense(_: &Dense, _: &[f32], _: &mut [f32], _: usize, _: [f32; 2]) {
        unreachable!("not available")
    }

    pub fn panel(_: &Dense, _: usize, _: &[f32], _: &mut [f32]) {
        unreachable!("not available")
    }
}
