// SPDX-License-Identifier: MPL-2.0

//! Convolution of 3x3 by the minimal filtering algorithm F(4x4, 3x3) (Lavin and Gray, CVPR 2016): 36 multiplications for
//! sixteen outputs instead of 144.

use std::cell::RefCell;

use tch::Tensor;

use super::dense::{Dense, UNLIMITED, padded_bias};
use super::{in_parallel, share};
use crate::Result;
use crate::model::tensor_slices::{floats, plain};

/// Outputs of a tile along each axis.
const STEP: usize = 4;
/// Inputs of a tile along each axis.
const SIDE: usize = 6;
/// Minimum number of tiles for which the weights are read once, if the picture has as many.
const BATCH: usize = 18;

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

/// Packed convolution of 3x3.
#[derive(Debug)]
pub struct Winograd {
    /// Transformed weights, one product for each position of a tile, row by row.
    products: Vec<Dense>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
    /// Channels of a product: the outputs, or as many as a vector has.
    columns: usize,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers::new()) };
}

/// Memory of one thread.
struct Buffers {
    /// A row of the input outside of the picture, (W, inputs), zeros.
    zeros: Vec<f32>,
    /// Rows of the input, transformed along columns, (SIDE, 1 + columns + padding, inputs).
    rows: Vec<f32>,
    /// Transformed tiles, (SIDE², tiles, inputs).
    tiles: Vec<f32>,
    /// Products, (SIDE², tiles, [`Winograd::columns`]).
    products: Vec<f32>,
}

impl Buffers {
    const fn new() -> Self {
        Self { zeros: Vec::new(), rows: Vec::new(), tiles: Vec::new(), products: Vec::new() }
    }

    /// Sets the sizes for a convolution of `width` columns and `count` tiles at once.
    fn resize(&mut self, conv: &Winograd, width: usize, count: usize) {
        self.zeros.resize(width * conv.inputs, 0.0);
        self.rows.resize(SIDE * (STEP * width.div_ceil(STEP) + 2) * conv.inputs, 0.0);
        self.tiles.resize(SIDE * SIDE * count * conv.inputs, 0.0);
        self.products.resize(SIDE * SIDE * count * conv.columns, 0.0);
    }
}

impl Winograd {
    /// Packs `weight` (outputs, inputs, 3, 3). Returns `None` if it has fewer input channels than a vector.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Self>> {
        let (outputs, inputs, ..) = weight.size4()?;
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        if inputs < lanes::MIN_CHANNELS {
            return Ok(None);
        }
        let columns = outputs.max(lanes::MIN_CHANNELS);
        let g = Tensor::f_from_slice(&KERNEL)?.f_reshape([SIDE as i64, 3])?;
        // (SIDE, SIDE, outputs, inputs)
        let transformed = g.f_matmul(&weight.f_matmul(&g.f_transpose(0, 1)?)?)?.f_permute([2, 3, 0, 1])?;
        let transformed = plain(&transformed)?;
        let products = floats(&transformed).chunks_exact(outputs * inputs);
        let bias = padded_bias(bias, columns)?;
        let products = products.map(|rows| Dense::new(rows, inputs, inputs, &[])).collect();
        Ok(Some(Self { products, bias, inputs, outputs, columns }))
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Maps `x` (H, W, inputs) to `y` (H, W, outputs).
    pub fn forward(&self, x: &[f32], size: (usize, usize), relu: bool, threads: usize, y: &mut [f32]) {
        let (height, width) = size;
        let tiles = width.div_ceil(STEP);
        let band = share(height.div_ceil(STEP), threads);
        // Rows of tiles whose products are computed together.
        let batch = BATCH.div_ceil(tiles).min(band);
        let length = STEP * width * self.outputs;
        in_parallel(y.chunks_mut(band * length).enumerate(), |(index, y)| {
            BUFFERS.with_borrow_mut(|buffers| {
                buffers.resize(self, width, batch * tiles);
                for (step, y) in y.chunks_mut(batch * length).enumerate() {
                    let first = index * band + step * batch;
                    for row in 0..batch {
                        lanes::transform_input(self, x, size, (first + row) * STEP, row * tiles, buffers);
                    }
                    let parts = buffers.tiles.chunks_exact(batch * tiles * self.inputs);
                    let products = buffers.products.chunks_exact_mut(batch * tiles * self.columns);
                    for ((dense, x), y) in self.products.iter().zip(parts).zip(products) {
                        dense.forward(x, y, self.columns, UNLIMITED);
                    }
                    lanes::sum_rows(&mut buffers.products);
                    for (row, y) in y.chunks_mut(length).enumerate() {
                        lanes::transform_output(self, &buffers.products, row * tiles, relu, y, width);
                    }
                }
            });
        });
    }
}

#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::{
        __m256, _mm256_add_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_max_ps, _mm256_set1_ps,
        _mm256_sub_ps,
    };

    use super::{Buffers, SIDE, STEP, Winograd};
    use crate::model::vector::{LANES, available, load, store};

    /// Input channels that a convolution must have.
    pub const MIN_CHANNELS: usize = LANES;

    /// Transforms the tiles whose first output row is `first`, to those from `place` on.
    pub fn transform_input(
        conv: &Winograd,
        x: &[f32],
        size: (usize, usize),
        first: usize,
        place: usize,
        buffers: &mut Buffers,
    ) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { transform_input_avx2(conv, x, size, first, place, buffers) }
    }

    /// Transforms products along columns, in place: the first [`STEP`] of [`SIDE`] rows of each tile are the result.
    pub fn sum_rows(products: &mut [f32]) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { sum_rows_avx2(products) }
    }

    /// Transforms the tiles from `place` on along rows, to the output rows `y`, at most [`STEP`].
    pub fn transform_output(
        conv: &Winograd,
        sums: &[f32],
        place: usize,
        relu: bool,
        y: &mut [f32],
        width: usize,
    ) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { transform_output_avx2(conv, sums, place, relu, y, width) }
    }

    /// First indices of vectors that cover `length` values, at least [`LANES`]. The last two may overlap.
    fn vectors(length: usize) -> impl Iterator<Item = usize> {
        (0..length).step_by(LANES).map(move |at| at.min(length - LANES))
    }

    /// Transforms the inputs of a tile along one axis.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn input([x0, x1, x2, x3, x4, x5]: [__m256; SIDE]) -> [__m256; SIDE] {
        let [two, four, five] = [2.0, 4.0, 5.0].map(|value| _mm256_set1_ps(value));
        let even = _mm256_fnmadd_ps(four, x2, x4);
        let odd = _mm256_fnmadd_ps(four, x1, x3);
        let (near_even, near_odd) = (_mm256_sub_ps(x4, x2), _mm256_sub_ps(x3, x1));
        [
            _mm256_fmadd_ps(four, x0, _mm256_fnmadd_ps(five, x2, x4)),
            _mm256_add_ps(even, odd),
            _mm256_sub_ps(even, odd),
            _mm256_fmadd_ps(two, near_odd, near_even),
            _mm256_fnmadd_ps(two, near_odd, near_even),
            _mm256_fmadd_ps(four, x1, _mm256_fnmadd_ps(five, x3, x5)),
        ]
    }

    /// Transforms the products of a tile along one axis.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn output([m0, m1, m2, m3, m4, m5]: [__m256; SIDE]) -> [__m256; STEP] {
        let [two, four, eight] = [2.0, 4.0, 8.0].map(|value| _mm256_set1_ps(value));
        let (sum, difference) = (_mm256_add_ps(m1, m2), _mm256_sub_ps(m1, m2));
        let (far_sum, far_difference) = (_mm256_add_ps(m3, m4), _mm256_sub_ps(m3, m4));
        [
            _mm256_add_ps(_mm256_add_ps(m0, sum), far_sum),
            _mm256_fmadd_ps(two, far_difference, difference),
            _mm256_fmadd_ps(four, far_sum, sum),
            _mm256_add_ps(_mm256_fmadd_ps(eight, far_difference, difference), m5),
        ]
    }

    #[target_feature(enable = "avx2,fma")]
    fn transform_input_avx2(
        conv: &Winograd,
        x: &[f32],
        (height, width): (usize, usize),
        first: usize,
        place: usize,
        buffers: &mut Buffers,
    ) {
        let inputs = conv.inputs;
        let length = width * inputs;
        let Buffers { zeros, rows, tiles, .. } = buffers;
        let from: [&[f32]; SIDE] = std::array::from_fn(|at| match (first + at).checked_sub(1) {
            Some(y) if y < height => &x[y * length..][..length],
            _ => zeros.as_slice(),
        });
        let columns = rows.len() / SIDE;
        for row in rows.chunks_exact_mut(columns) {
            row[..inputs].fill(0.0);
            row[inputs + length..].fill(0.0);
        }
        for at in vectors(length) {
            for (row, value) in input(from.map(|row| load(&row[at..]))).into_iter().enumerate() {
                store(&mut rows[row * columns + inputs + at..], value);
            }
        }
        let part = tiles.len() / (SIDE * SIDE);
        let count = width.div_ceil(STEP);
        for (row, parts) in rows.chunks_exact(columns).zip(tiles.chunks_exact_mut(SIDE * part)) {
            for tile in 0..count {
                let pixels = &row[STEP * tile * inputs..][..SIDE * inputs];
                let to = (place + tile) * inputs;
                for at in vectors(inputs) {
                    let values = std::array::from_fn(|pixel| load(&pixels[pixel * inputs + at..]));
                    for (index, value) in input(values).into_iter().enumerate() {
                        store(&mut parts[index * part + to + at..], value);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn sum_rows_avx2(products: &mut [f32]) {
        let length = products.len() / SIDE;
        let whole = length - length % LANES;
        for at in (0..whole).step_by(LANES) {
            let rows = std::array::from_fn(|row| load(&products[row * length + at..]));
            for (row, value) in output(rows).into_iter().enumerate() {
                store(&mut products[row * length + at..], value);
            }
        }
        // The rest is less than a vector.
        let rest = length - whole;
        let mut ends = [[0.0; LANES]; SIDE];
        for (row, end) in ends.iter_mut().enumerate() {
            end[..rest].copy_from_slice(&products[row * length + whole..][..rest]);
        }
        for (row, value) in output(ends.map(|end| load(&end))).into_iter().enumerate() {
            let mut end = [0.0; LANES];
            store(&mut end, value);
            products[row * length + whole..][..rest].copy_from_slice(&end[..rest]);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn transform_output_avx2(
        conv: &Winograd,
        sums: &[f32],
        place: usize,
        relu: bool,
        y: &mut [f32],
        width: usize,
    ) {
        let (outputs, columns) = (conv.outputs, conv.columns);
        let part = sums.len() / (SIDE * SIDE);
        let lowest = _mm256_set1_ps(if relu { 0.0 } else { f32::NEG_INFINITY });
        for (sums, y) in sums.chunks_exact(SIDE * part).zip(y.chunks_exact_mut(width * outputs)) {
            for (tile, y) in y.chunks_mut(STEP * outputs).enumerate() {
                let from = (place + tile) * columns;
                for at in vectors(columns) {
                    let bias = load(&conv.bias[at..]);
                    let values = std::array::from_fn(|index| load(&sums[index * part + from + at..]));
                    // The last tile of a row may have fewer columns.
                    for (value, y) in output(values).into_iter().zip(y.chunks_exact_mut(outputs)) {
                        let value = _mm256_max_ps(_mm256_add_ps(value, bias), lowest);
                        if outputs < LANES {
                            let mut values = [0.0; LANES];
                            store(&mut values, value);
                            y.copy_from_slice(&values[..outputs]);
                        } else {
                            store(&mut y[at..], value);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    use super::{Buffers, Winograd};

    pub const MIN_CHANNELS: usize = usize::MAX;

    pub fn transform_input(_: &Winograd, _: &[f32], _: (usize, usize), _: usize, _: usize, _: &mut Buffers) {
        unreachable!("not available")
    }

    pub fn sum_rows(_: &mut [f32]) {
        unreachable!("not available")
    }

    pub fn transform_output(_: &Winograd, _: &[f32], _: usize, _: bool, _: &mut [f32], _: usize) {
        unreachable!("not available")
    }
}
