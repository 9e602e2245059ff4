// SPDX-License-Identifier: MPL-2.0

//! Convolution of 3x3 by the minimal filtering algorithm F(4x4, 3x3) (Lavin and Gray, CVPR 2016): 36 multiplications for
//! sixteen outputs instead of 144.

use std::cell::RefCell;
use std::ops::Range;

use tch::Tensor;

use super::bfloat16::values_mut;
use super::dense::{Dense, Factors, UNLIMITED, padded_bias};
use super::tiles::{Run, TILE_SIDE as STEP};
use super::{grown, share};
use crate::Result;
use crate::model::tensor_slices::{floats, plain};
use crate::model::vector::{Element, Kernel, MIN_LANES, Vector, run as run_kernel};
use crate::team::in_parallel;

/// Inputs of a tile along each axis.
const SIDE: usize = 6;
/// Minimum number of tiles for which the weights are read once, if there are as many.
const BATCH: usize = 18;
/// Bands of rows for each thread if tiles are not spread evenly.
const BANDS: usize = 4;

/// Transform of a kernel along one axis, (SIDE, 3).
#[rustfmt::skip]
const KERNEL: [f32; SIDE * 3] = [
    1.0 / 4.0, 0.0, 0.0,
    -1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0,
    -1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0,
    1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0,
    1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0,
    0.0, 0.0, 1.0,
];

#[derive(Debug)]
pub struct Winograd {
    /// Transformed weights, one product for each position of a tile, row by row.
    products: Vec<Dense>,
    bias: Vec<f32>,
    pub inputs: usize,
    pub outputs: usize,
    /// Channels of a product: the outputs, at least [`MIN_LANES`].
    columns: usize,
    factors: Factors,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers::new()) };
}

/// Memory of one thread.
struct Buffers {
    /// A row of the input outside of the picture, (columns, inputs), zeros.
    zeros: Vec<f32>,
    /// Rows of the input of a run of tiles, transformed along columns, (SIDE, columns, inputs).
    rows: Vec<f32>,
    /// Transformed tiles, (SIDE², tiles, inputs).
    tiles: Vec<f32>,
    /// The same in bfloat16, (SIDE², tiles, pairs of inputs).
    pairs: Vec<u32>,
    /// Products, (SIDE², tiles, [`Winograd::columns`]).
    products: Vec<f32>,
}

impl Buffers {
    const fn new() -> Self {
        Self {
            zeros: Vec::new(),
            rows: Vec::new(),
            tiles: Vec::new(),
            pairs: Vec::new(),
            products: Vec::new(),
        }
    }

    /// Returns the parts of the memory for a convolution of `count` tiles at once.
    fn parts(&mut self, conv: &Winograd, count: usize) -> Parts<'_> {
        let (tiles, pairs) = match conv.factors {
            Factors::Float32 => (conv.inputs, 0),
            Factors::Bfloat16 => (0, conv.inputs.div_ceil(2)),
        };
        let all = SIDE * SIDE * count;
        Parts {
            zeros: grown(&mut self.zeros, (STEP * count + 2) * conv.inputs),
            rows: grown(&mut self.rows, SIDE * (STEP * count + 2) * conv.inputs),
            tiles: grown(&mut self.tiles, all * tiles),
            pairs: grown(&mut self.pairs, all * pairs),
            products: grown(&mut self.products, all * conv.columns),
        }
    }
}

struct Parts<'a> {
    zeros: &'a [f32],
    rows: &'a mut [f32],
    tiles: &'a mut [f32],
    pairs: &'a mut [u32],
    products: &'a mut [f32],
}

impl Winograd {
    /// Packs `weight` (outputs, inputs, 3, 3). Returns `None` for fewer than [`MIN_LANES`] inputs.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, factors: Factors) -> Result<Option<Self>> {
        let (outputs, inputs, ..) = weight.size4()?;
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        if inputs < MIN_LANES {
            return Ok(None);
        }
        let columns = outputs.max(MIN_LANES);
        let g = Tensor::f_from_slice(&KERNEL)?.f_reshape([SIDE as i64, 3])?;
        // (SIDE, SIDE, outputs, inputs)
        let transformed = g.f_matmul(&weight.f_matmul(&g.f_transpose(0, 1)?)?)?.f_permute([2, 3, 0, 1])?;
        let transformed = plain(&transformed)?;
        let products = floats(&transformed).chunks_exact(outputs * inputs);
        let bias = padded_bias(bias, columns)?;
        let products = products.map(|rows| Dense::new(rows, inputs, inputs, &[], factors)).collect();
        Ok(Some(Self { products, bias, inputs, outputs, columns, factors }))
    }

    /// Maps `x` (H, W, inputs) to `y` (H, W, outputs), to which `added` is added before ReLU.
    pub fn forward(&self, x: &[f32], added: Option<&[f32]>, size: (usize, usize), relu: bool, y: &mut [f32]) {
        let (rows, columns) = (size.0.div_ceil(STEP), size.1.div_ceil(STEP));
        let runs = Vec::from_iter((0..rows).map(|row| Run { row, columns: 0..columns }));
        self.forward_runs(x, added, size, relu, (&runs, share(rows)), y);
    }

    /// As [`forward`](Self::forward), for tiles only, which are ordered by rows.
    pub fn forward_tiles(&self, x: &[f32], size: (usize, usize), relu: bool, tiles: &[Run], y: &mut [f32]) {
        let band = share(size.0.div_ceil(STEP)).div_ceil(BANDS);
        self.forward_runs(x, None, size, relu, (tiles, band), y);
    }

    /// Computes runs of tiles in bands of rows of tiles.
    fn forward_runs(
        &self,
        x: &[f32],
        added: Option<&[f32]>,
        size: (usize, usize),
        relu: bool,
        (runs, band): (&[Run], usize),
        y: &mut [f32],
    ) {
        let length = STEP * size.1 * self.outputs;
        in_parallel(y.chunks_mut(band * length).enumerate(), |(index, y)| {
            let first = index * band;
            let from = runs.partition_point(|run| run.row < first);
            let mut rest = &runs[from..runs.partition_point(|run| run.row < first + band)];
            while !rest.is_empty() {
                let mut count = 0;
                let complete = rest.iter().position(|run| {
                    count += run.columns.len();
                    count >= BATCH
                });
                let batch;
                (batch, rest) = rest.split_at(complete.map_or(rest.len(), |last| last + 1));
                BUFFERS.with_borrow_mut(|buffers| {
                    let mut parts = buffers.parts(self, count);
                    let mut place = 0;
                    for run in batch {
                        self.transform_input(x, size, run, place, &mut parts);
                        place += run.columns.len();
                    }
                    self.multiply(&mut parts, count);
                    place = 0;
                    for run in batch {
                        let products = &*parts.products;
                        let start = (run.row - first) * length;
                        let end = y.len().min(start + length);
                        let added = added.map(|added| &added[run.row * length..][..end - start]);
                        let (y, columns) = (&mut y[start..end], run.columns.clone());
                        let (conv, width) = (self, size.1);
                        let kernel =
                            TransformOutput { conv, products, place, added, relu, y, width, columns };
                        run_kernel(kernel, self.columns);
                        place += run.columns.len();
                    }
                });
            }
        });
    }

    /// Transforms tiles, to those from `place` on.
    fn transform_input(&self, x: &[f32], size: (usize, usize), run: &Run, place: usize, parts: &mut Parts) {
        let Parts { zeros, rows, tiles, pairs, .. } = parts;
        let inputs = self.inputs;
        match self.factors {
            Factors::Float32 => {
                let padded = inputs;
                run_kernel(
                    TransformInput { x, size, run, place, zeros, rows, tiles, inputs, padded },
                    inputs,
                );
            }
            Factors::Bfloat16 => {
                let (tiles, padded) = (values_mut(pairs), inputs.next_multiple_of(2));
                run_kernel(
                    TransformInput { x, size, run, place, zeros, rows, tiles, inputs, padded },
                    inputs,
                );
            }
        }
    }

    fn multiply(&self, parts: &mut Parts, count: usize) {
        let Parts { tiles, pairs, products, .. } = parts;
        let products = self.products.iter().zip(products.chunks_exact_mut(count * self.columns));
        match self.factors {
            Factors::Float32 => {
                for ((dense, y), x) in products.zip(tiles.chunks_exact(count * self.inputs)) {
                    dense.forward(x, y, self.columns, UNLIMITED);
                }
            }
            Factors::Bfloat16 => {
                for ((dense, y), x) in products.zip(pairs.chunks_exact(count * self.inputs.div_ceil(2))) {
                    dense.forward_pairs(x, y, self.columns, UNLIMITED);
                }
            }
        }
    }
}

/// First indices of vectors that cover `length` values, at least one vector. The last two may overlap.
#[inline(always)]
fn vectors<V: Vector>(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(V::LANES).map(move |at| at.min(length - V::LANES))
}

/// Transforms the inputs of a tile along one axis.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn input<V: Vector>([x0, x1, x2, x3, x4, x5]: [V; SIDE]) -> [V; SIDE] {
    // SAFETY: that of this function.
    unsafe {
        let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(5.0));
        let even = four.mul_sub_from(x2, x4);
        let odd = four.mul_sub_from(x1, x3);
        let (near_even, near_odd) = (x4.sub(x2), x3.sub(x1));
        [
            four.mul_add(x0, five.mul_sub_from(x2, x4)),
            even.add(odd),
            even.sub(odd),
            two.mul_add(near_odd, near_even),
            two.mul_sub_from(near_odd, near_even),
            four.mul_add(x1, five.mul_sub_from(x3, x5)),
        ]
    }
}

/// Transforms the products of a tile along one axis.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn output<V: Vector>([m0, m1, m2, m3, m4, m5]: [V; SIDE]) -> [V; STEP] {
    // SAFETY: that of this function.
    unsafe {
        let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
        let (sum, difference) = (m1.add(m2), m1.sub(m2));
        let (far_sum, far_difference) = (m3.add(m4), m3.sub(m4));
        [
            m0.add(sum).add(far_sum),
            two.mul_add(far_difference, difference),
            four.mul_add(far_sum, sum),
            eight.mul_add(far_difference, difference).add(m5),
        ]
    }
}

/// Transforms the tiles of a run, to those from `place` on.
struct TransformInput<'a, T> {
    /// (H, W, inputs).
    x: &'a [f32],
    size: (usize, usize),
    run: &'a Run,
    place: usize,
    zeros: &'a [f32],
    rows: &'a mut [f32],
    /// (SIDE², tiles, padded).
    tiles: &'a mut [T],
    inputs: usize,
    padded: usize,
}

impl<T: Element> Kernel for TransformInput<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { x, size: (height, width), run, place, zeros, rows, tiles, inputs, padded } = self;
        let (first, start, count) = (run.row * STEP, run.columns.start * STEP, run.columns.len());
        // Columns of the picture that the tiles depend on.
        let (left, right) = (start.saturating_sub(1), (start + count * STEP + 1).min(width));
        let length = (right - left) * inputs;
        let from: [&[f32]; SIDE] = std::array::from_fn(|at| match (first + at).checked_sub(1) {
            Some(y) if y < height => &x[(y * width + left) * inputs..][..length],
            _ => &zeros[..length],
        });
        let columns = (count * STEP + 2) * inputs;
        let rows = &mut rows[..SIDE * columns];
        let offset = (left + 1 - start) * inputs;
        for row in rows.chunks_exact_mut(columns) {
            row[..offset].fill(0.0);
            row[offset + length..].fill(0.0);
        }
        for at in vectors::<V>(length) {
            // SAFETY: the caller has checked the instructions.
            unsafe {
                let mut values = [V::splat(0.0); SIDE];
                for (value, row) in values.iter_mut().zip(&from) {
                    *value = V::load(&row[at..]);
                }
                for (row, value) in input(values).iter().enumerate() {
                    value.store(&mut rows[row * columns + offset + at..]);
                }
            }
        }
        let part = tiles.len() / (SIDE * SIDE);
        for (row, parts) in rows.chunks_exact(columns).zip(tiles.chunks_exact_mut(SIDE * part)) {
            for tile in 0..count {
                let pixels = &row[STEP * tile * inputs..][..SIDE * inputs];
                let to = (place + tile) * padded;
                for at in vectors::<V>(inputs) {
                    // SAFETY: the caller has checked the instructions.
                    unsafe {
                        let mut values = [V::splat(0.0); SIDE];
                        for (pixel, value) in values.iter_mut().enumerate() {
                            *value = V::load(&pixels[pixel * inputs + at..]);
                        }
                        for (index, value) in input(values).iter().enumerate() {
                            T::store(*value, &mut parts[index * part + to + at..]);
                        }
                    }
                }
                if padded > inputs {
                    for index in 0..SIDE {
                        parts[index * part + to + inputs..][..padded - inputs].fill(T::default());
                    }
                }
            }
        }
    }
}

/// Transforms the products of tiles from `place` on to `columns` of the output rows `y`, at most [`STEP`].
struct TransformOutput<'a> {
    conv: &'a Winograd,
    products: &'a [f32],
    place: usize,
    /// As `y`.
    added: Option<&'a [f32]>,
    relu: bool,
    y: &'a mut [f32],
    width: usize,
    columns: Range<usize>,
}

impl Kernel for TransformOutput<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { conv, products, place, added, relu, y, width, columns: run } = self;
        let (bias, outputs, columns) = (&conv.bias, conv.outputs, conv.columns);
        let part = products.len() / (SIDE * SIDE);
        let count = y.len() / (width * outputs);
        let lowest = if relu { 0.0 } else { f32::NEG_INFINITY };
        for (index, tile) in run.enumerate() {
            let from = (place + index) * columns;
            let to = tile * STEP * outputs;
            // The last tile of a row may have fewer columns.
            let pixels = (width - tile * STEP).min(STEP);
            for at in vectors::<V>(columns) {
                // SAFETY: the caller has checked the instructions.
                unsafe {
                    let (bias, lowest) = (V::load(&bias[at..]), V::splat(lowest));
                    // (STEP, SIDE)
                    let mut sums = [[V::splat(0.0); SIDE]; STEP];
                    for column in 0..SIDE {
                        let mut values = [V::splat(0.0); SIDE];
                        for (row, value) in values.iter_mut().enumerate() {
                            *value = V::load(&products[(row * SIDE + column) * part + from + at..]);
                        }
                        for (sums, value) in sums.iter_mut().zip(&output(values)) {
                            sums[column] = *value;
                        }
                    }
                    for (row, sums) in sums.iter().enumerate().take(count) {
                        for (pixel, value) in output(*sums).iter().enumerate().take(pixels) {
                            let start = row * width * outputs + to + pixel * outputs;
                            let y = &mut y[start..][..outputs];
                            let mut value = value.add(bias);
                            if outputs < V::LANES {
                                let mut values = [0.0; MIN_LANES];
                                if let Some(added) = added {
                                    values[..outputs].copy_from_slice(&added[start..][..outputs]);
                                }
                                value = value.add(V::load(&values)).max(lowest);
                                value.store(&mut values);
                                y.copy_from_slice(&values[..outputs]);
                            } else {
                                if let Some(added) = added {
                                    value = value.add(V::load(&added[start + at..]));
                                }
                                value.max(lowest).store(&mut y[at..]);
                            }
                        }
                    }
                }
            }
        }
    }
}
