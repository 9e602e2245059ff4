// SPDX-License-Identifier: MPL-2.0

//! Matrix product over channels.

use std::cell::RefCell;

use tch::Tensor;

use super::{bfloat16, grown};
use crate::Result;
use crate::model::tensor_slices::{floats, plain};
use crate::model::vector::{Kernel, MAX_LANES, MIN_LANES, Vector, run};

/// Output channels that are computed together.
pub const PANEL: usize = MAX_LANES;
/// Range of values that are not limited.
pub const UNLIMITED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];
/// Pixels that are computed together.
pub const TILE: usize = 6;

/// Matrix product over channels, with weights in panels of [`PANEL`] outputs; missing outputs are zero.
#[derive(Debug)]
pub struct Dense {
    pub inputs: usize,
    pub outputs: usize,
    weights: Weights,
    bias: Vec<f32>,
}

/// Number format of the factors of products. Sums are float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// 32-bit floating point.
    Float32,
    /// 16-bit brain floating point; needs AVX-512 with its instructions for bfloat16.
    Bfloat16,
}

#[derive(Debug)]
enum Weights {
    /// (panels, inputs, PANEL).
    Float32(Vec<f32>),
    /// (panels, pairs of inputs, PANEL).
    Bfloat16(Vec<u32>),
}

impl Weights {
    fn new(panels: Vec<f32>, inputs: usize, factors: Factors) -> Self {
        match factors {
            Factors::Float32 => Self::Float32(panels),
            Factors::Bfloat16 => Self::Bfloat16(bfloat16::pairs_of_panels(&panels, inputs, PANEL)),
        }
    }
}

thread_local! {
    /// Pixels of a thread in bfloat16.
    static PAIRS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Returns the values of a bias with zeros up to `length`.
pub fn padded_bias(bias: Option<&Tensor>, length: usize) -> Result<Vec<f32>> {
    let bias = bias.map(plain).transpose()?;
    let mut bias = bias.as_ref().map_or(&[][..], floats).to_vec();
    bias.resize(length, 0.0);
    Ok(bias)
}

impl Dense {
    /// Packs `rows`, the weights of one output each. `inputs`, at least `length`, is the number of channels of the input; the
    /// weights of the surplus are zero.
    pub fn new(rows: &[f32], length: usize, inputs: usize, bias: &[f32], factors: Factors) -> Self {
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
        Self { inputs, outputs, weights: Weights::new(weights, inputs, factors), bias }
    }

    /// Packs `columns` (inputs, outputs), without a bias.
    pub fn of_columns(columns: &[f32], outputs: usize, factors: Factors) -> Self {
        let inputs = columns.len() / outputs;
        let padded = outputs.next_multiple_of(PANEL);
        let mut weights = vec![0.0; padded * inputs];
        for (input, columns) in columns.chunks_exact(outputs).enumerate() {
            for (panel, values) in columns.chunks(PANEL).enumerate() {
                weights[(panel * inputs + input) * PANEL..][..values.len()].copy_from_slice(values);
            }
        }
        Self { inputs, outputs, weights: Weights::new(weights, inputs, factors), bias: vec![0.0; padded] }
    }

    /// Packs a convolution, `weight` (outputs, channels, rows, columns); the inputs are rows, columns and channels of the
    /// kernel, and zeros up to the number `inputs`, if given.
    pub fn of_conv(
        weight: &Tensor,
        bias: Option<&Tensor>,
        inputs: Option<usize>,
        factors: Factors,
    ) -> Result<Self> {
        let weight = plain(&weight.f_permute([0, 2, 3, 1])?)?;
        let length = weight.numel() / weight.size()[0] as usize;
        let bias = bias.map(plain).transpose()?;
        let bias = bias.as_ref().map_or(&[][..], floats);
        Ok(Self::new(floats(&weight), length, inputs.unwrap_or(length), bias, factors))
    }

    pub fn padded(&self) -> usize {
        self.bias.len()
    }

    /// Maps pixels `x` (…, inputs) to `y` (…, width), limited to `range`. Writes `outputs` channels of each pixel and, if
    /// `width` is larger, the padding. Needs AVX2 and FMA: see [`available`](crate::model::vector::available).
    pub fn forward(&self, x: &[f32], y: &mut [f32], width: usize, range: [f32; 2]) {
        match &self.weights {
            Weights::Float32(weights) => {
                floats_panels(x, self.inputs, (weights, &self.bias), range, y, width)
            }
            Weights::Bfloat16(weights) => self.forward_converted(x, (weights, &self.bias), range, y, width),
        }
    }

    /// As [`forward`](Self::forward), with factors and pixels in bfloat16: `x` (…, pairs of inputs).
    pub fn forward_pairs(&self, x: &[u32], y: &mut [f32], width: usize, range: [f32; 2]) {
        let Weights::Bfloat16(weights) = &self.weights else { panic!("weights in float32") };
        bfloat16::panels(x, self.inputs.div_ceil(2), (weights, &self.bias), range, y, width);
    }

    pub fn factors(&self) -> Factors {
        match self.weights {
            Weights::Float32(_) => Factors::Float32,
            Weights::Bfloat16(_) => Factors::Bfloat16,
        }
    }

    /// Maps pixels `x` (…, inputs) to the outputs of one panel, `y` (…, PANEL). Needs AVX2 and FMA.
    pub fn panel(&self, panel: usize, x: &[f32], y: &mut [f32]) {
        let bias = &self.bias[panel * PANEL..][..PANEL];
        match &self.weights {
            Weights::Float32(weights) => {
                let length = self.inputs * PANEL;
                let panel = (&weights[panel * length..][..length], bias);
                floats_panels(x, self.inputs, panel, UNLIMITED, y, PANEL);
            }
            Weights::Bfloat16(weights) => {
                let length = self.inputs.div_ceil(2) * PANEL;
                let panel = (&weights[panel * length..][..length], bias);
                self.forward_converted(x, panel, UNLIMITED, y, PANEL);
            }
        }
    }

    /// Converts pixels to bfloat16 and maps them with the weights and biases of some panels.
    fn forward_converted(
        &self,
        x: &[f32],
        panels: (&[u32], &[f32]),
        range: [f32; 2],
        y: &mut [f32],
        width: usize,
    ) {
        let pairs = self.inputs.div_ceil(2);
        let length = x.len() / self.inputs * pairs;
        PAIRS.with_borrow_mut(|converted| {
            let converted = grown(converted, length);
            bfloat16::convert(x, self.inputs, converted);
            bfloat16::panels(converted, pairs, panels, range, y, width);
        });
    }
}

fn floats_panels(
    x: &[f32],
    inputs: usize,
    panels: (&[f32], &[f32]),
    range: [f32; 2],
    y: &mut [f32],
    width: usize,
) {
    run(Panels { x, inputs, panels, range, y, width }, MIN_LANES);
}

/// Products of pixels `x` (…, inputs) with the weights and biases of panels, limited to `range`, to `y` (…, width).
struct Panels<'a> {
    x: &'a [f32],
    inputs: usize,
    panels: (&'a [f32], &'a [f32]),
    range: [f32; 2],
    y: &'a mut [f32],
    width: usize,
}

impl Kernel for Panels<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { x, inputs, panels: (weights, bias), range, y, width } = self;
        let panels = weights.chunks_exact(inputs * PANEL).zip(bias.chunks_exact(PANEL));
        for (index, (weights, bias)) in panels.enumerate() {
            let first = index * PANEL;
            let place = (width, first, (width - first).min(PANEL));
            // SAFETY: the caller has checked the instructions.
            unsafe { panel::<V>(weights, bias, x, y, range, place) };
        }
    }
}

/// Computes a panel of all pixels. `place` is the width of `y`, and the first output and the number of outputs to write.
///
/// # Safety
/// That of [`Kernel::run`].
#[inline(always)]
unsafe fn panel<V: Vector>(
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
    // SAFETY: that of this function.
    unsafe {
        for (x, y) in tiles.by_ref().zip(outputs.by_ref()) {
            V::call(Tile::<TILE> { x, weights, bias, range, y, place });
        }
        let (x, y) = (tiles.remainder(), outputs.into_remainder());
        match x.len() / inputs {
            1 => V::call(Tile::<1> { x, weights, bias, range, y, place }),
            2 => V::call(Tile::<2> { x, weights, bias, range, y, place }),
            3 => V::call(Tile::<3> { x, weights, bias, range, y, place }),
            4 => V::call(Tile::<4> { x, weights, bias, range, y, place }),
            5 => V::call(Tile::<5> { x, weights, bias, range, y, place }),
            _ => (),
        }
    }
}

/// A panel of `M` pixels.
struct Tile<'a, const M: usize> {
    x: &'a [f32],
    weights: &'a [f32],
    bias: &'a [f32],
    range: [f32; 2],
    y: &'a mut [f32],
    place: (usize, usize, usize),
}

impl<const M: usize> Kernel for Tile<'_, M> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        const HALF: usize = PANEL / 2;
        let Self { x, weights, bias, range, y, place: (width, first, count) } = self;
        let inputs = weights.len() / PANEL;
        assert!(x.len() >= M * inputs);
        // SAFETY: the caller has checked the instructions.
        unsafe {
            let mut sums = [[V::load(bias), V::load(&bias[HALF..])]; M];
            for (input, weights) in weights.chunks_exact(PANEL).enumerate() {
                let (low, high) = (V::load(weights), V::load(&weights[HALF..]));
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    // `pixel` is below M and `input` below `inputs`, so the index is below the length asserted.
                    let value = V::splat(*x.get_unchecked(pixel * inputs + input));
                    sums[0] = value.mul_add(low, sums[0]);
                    sums[1] = value.mul_add(high, sums[1]);
                }
            }
            let (low, high) = (V::splat(range[0]), V::splat(range[1]));
            for (pixel, sums) in sums.iter().enumerate() {
                let mut values = [0.0; PANEL];
                sums[0].max(low).min(high).store(&mut values);
                sums[1].max(low).min(high).store(&mut values[HALF..]);
                let y = &mut y[pixel * width + first..][..count];
                if count == PANEL {
                    y.copy_from_slice(&values);
                } else {
                    y.copy_from_slice(&values[..count]);
                }
            }
        }
    }
}

/// The vectors of [`Tile`] are half a panel.
const _: () = assert!(PANEL == 2 * MIN_LANES);
