// SPDX-License-Identifier: MPL-2.0

//! Convolution of 3x3 by the minimal filtering algorithm F(2x2, 3x3) (Lavin and Gray, CVPR 2016): 16 multiplications for
//! four outputs instead of 36.

use tch::{Kind, Tensor};

use super::dense::{Dense, UNLIMITED};
use super::{in_parallel, share};
use crate::Result;
use crate::model::tensor_slices::{floats, plain};

/// Outputs of a tile along each axis.
const STEP: usize = 2;
/// Inputs of a tile along each axis.
const SIDE: usize = 4;

/// Packed convolution of 3x3.
#[derive(Debug)]
pub struct Winograd {
    /// Transformed weights, one product for each position of a tile, row by row.
    products: Vec<Dense>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// Memory of one thread.
struct Buffers {
    /// Rows of the input, transformed along columns, (SIDE, 1 + columns + padding, inputs).
    rows: Vec<f32>,
    /// Transformed tiles, (SIDE², tiles, inputs).
    tiles: Vec<f32>,
    /// Products, (SIDE², tiles, outputs).
    products: Vec<f32>,
}

impl Winograd {
    /// Packs `weight` (outputs, inputs, 3, 3).
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (outputs, inputs, ..) = weight.size4()?;
        let g = [[1.0f32, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
        let g = Tensor::f_from_slice(g.as_flattened())?.f_reshape([4, 3])?;
        // (SIDE, SIDE, outputs, inputs)
        let transformed = g.f_matmul(&weight.f_matmul(&g.f_transpose(0, 1)?)?)?.f_permute([2, 3, 0, 1])?;
        let transformed = plain(&transformed)?;
        let (outputs, inputs) = (outputs as usize, inputs as usize);
        let products = floats(&transformed).chunks_exact(outputs * inputs);
        let bias = match bias {
            Some(bias) => floats(&plain(bias)?).to_vec(),
            None => Vec::<f32>::try_from(Tensor::f_zeros([outputs as i64], (Kind::Float, weight.device()))?)?,
        };
        let products = products.map(|rows| Dense::new(rows, inputs, inputs, &[])).collect();
        Ok(Self { products, bias, inputs, outputs })
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
        let length = width * self.outputs;
        in_parallel(y.chunks_mut(band * STEP * length).enumerate(), |(index, y)| {
            let mut buffers = Buffers {
                rows: vec![0.0; SIDE * (STEP * tiles + 2) * self.inputs],
                tiles: vec![0.0; SIDE * SIDE * tiles * self.inputs],
                products: vec![0.0; SIDE * SIDE * tiles * self.outputs],
            };
            for (row, y) in y.chunks_mut(STEP * length).enumerate() {
                let first = (index * band + row) * STEP;
                lanes::transform_input(self, x, size, first, &mut buffers);
                let parts = buffers.tiles.chunks_exact(tiles * self.inputs);
                let products = buffers.products.chunks_exact_mut(tiles * self.outputs);
                for ((dense, x), y) in self.products.iter().zip(parts).zip(products) {
                    dense.forward(x, y, self.outputs, UNLIMITED);
                }
                lanes::transform_output(self, &mut buffers.products, relu, y, width);
            }
        });
    }
}

/// Linear combinations of vectors. The loops become vector instructions.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_unsafe))]
mod lanes {
    use super::{Buffers, SIDE, STEP, Winograd};
    use crate::model::vector::available;

    /// Transforms the tiles whose first output row is `first`.
    pub fn transform_input(
        conv: &Winograd,
        x: &[f32],
        size: (usize, usize),
        first: usize,
        buffers: &mut Buffers,
    ) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { transform_input_avx2(conv, x, size, first, buffers) }
    }

    /// Transforms products to the output rows `y`, one or two.
    pub fn transform_output(conv: &Winograd, products: &mut [f32], relu: bool, y: &mut [f32], width: usize) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { transform_output_avx2(conv, products, relu, y, width) }
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    fn transform_input_avx2(
        conv: &Winograd,
        x: &[f32],
        (height, width): (usize, usize),
        first: usize,
        buffers: &mut Buffers,
    ) {
        let inputs = conv.inputs;
        let length = width * inputs;
        let row = |at: usize| {
            // Above and below the picture are zeros.
            let y = (first + at).checked_sub(1)?;
            (y < height).then(|| &x[y * length..][..length])
        };
        let rows: [Option<&[f32]>; SIDE] = std::array::from_fn(row);
        let columns = buffers.rows.len() / SIDE;
        for (at, to) in buffers.rows.chunks_exact_mut(columns).enumerate() {
            // The transform is its own along both axes: differences of rows 0 and 2, sums of 1 and 2, and so on.
            let (a, b, sign) = [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)][at];
            let to = &mut to[inputs..][..length];
            match (rows[a], rows[b]) {
                (Some(a), Some(b)) => {
                    to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = a + sign * b);
                }
                (Some(a), None) => to.copy_from_slice(a),
                (None, Some(b)) => to.iter_mut().zip(b).for_each(|(to, b)| *to = sign * b),
                (None, None) => to.fill(0.0),
            }
        }
        let tiles = buffers.tiles.len() / (SIDE * SIDE * inputs);
        let rows = buffers.rows.chunks_exact(columns);
        for (row, parts) in rows.zip(buffers.tiles.chunks_exact_mut(SIDE * tiles * inputs)) {
            let mut parts = parts.chunks_exact_mut(tiles * inputs);
            let mut next = || parts.next().unwrap_or_default();
            let (d0, d1, d2, d3) = (next(), next(), next(), next());
            for tile in 0..tiles {
                let pixels = &row[STEP * tile * inputs..][..SIDE * inputs];
                let (x0, rest) = pixels.split_at(inputs);
                let (x1, rest) = rest.split_at(inputs);
                let (x2, x3) = rest.split_at(inputs);
                let place = tile * inputs..(tile + 1) * inputs;
                let (d0, d1) = (&mut d0[place.clone()], &mut d1[place.clone()]);
                let (d2, d3) = (&mut d2[place.clone()], &mut d3[place]);
                let (x0, x3) = (&x0[..inputs], &x3[..inputs]);
                for channel in 0..inputs {
                    d0[channel] = x0[channel] - x2[channel];
                    d1[channel] = x1[channel] + x2[channel];
                    d2[channel] = x2[channel] - x1[channel];
                    d3[channel] = x1[channel] - x3[channel];
                }
            }
        }
    }

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    fn transform_output_avx2(conv: &Winograd, products: &mut [f32], relu: bool, y: &mut [f32], width: usize) {
        let outputs = conv.outputs;
        let bias = &conv.bias[..outputs];
        let tiles = products.len() / (SIDE * SIDE * outputs);
        let lowest = if relu { 0.0 } else { f32::NEG_INFINITY };
        // Along columns, in place: rows 0 + 1 + 2 for the first row of outputs, 1 − 2 − 3 for the second.
        let length = SIDE * tiles * outputs;
        let (m0, rest) = products.split_at_mut(length);
        let (m1, rest) = rest.split_at_mut(length);
        let (m2, m3) = rest.split_at_mut(length);
        let m3 = &m3[..length];
        for at in 0..length {
            let (a, b, c, d) = (m0[at], m1[at], m2[at], m3[at]);
            m0[at] = a + b + c;
            m1[at] = b - c - d;
        }
        for (sums, y) in [m0, m1].into_iter().zip(y.chunks_exact_mut(width * outputs)) {
            let (s0, rest) = sums.split_at(tiles * outputs);
            let (s1, rest) = rest.split_at(tiles * outputs);
            let (s2, s3) = rest.split_at(tiles * outputs);
            for (tile, y) in y.chunks_mut(STEP * outputs).enumerate() {
                let place = tile * outputs..(tile + 1) * outputs;
                let (s0, s1) = (&s0[place.clone()], &s1[place.clone()]);
                let (s2, s3) = (&s2[place.clone()], &s3[place]);
                let (left, right) = y.split_at_mut(outputs);
                for channel in 0..outputs {
                    let sum = s0[channel] + s1[channel] + s2[channel] + bias[channel];
                    left[channel] = if sum > lowest { sum } else { lowest };
                }
                // The last tile of an odd width has one column.
                if right.len() == outputs {
                    for channel in 0..outputs {
                        let sum = s1[channel] - s2[channel] - s3[channel] + bias[channel];
                        right[channel] = if sum > lowest { sum } else { lowest };
                    }
                }
            }
        }
    }
}
