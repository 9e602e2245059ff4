// SPDX-License-Identifier: MPL-2.0

//! Softmax readout on the CPU: two passes over each row of the affinity matrix while the row is in the cache,
//! instead of eight passes over the whole matrix.
//!
//! For float32 without gradients on x86-64 processors with AVX2 and FMA. Everything else takes the tensor
//! operations of [`matching`](super::matching), which define the result.

use tch::{Kind, Tensor};

use super::features::product;
use crate::Result;
use crate::model::tensor_slices::{Unshared, floats, plain};
use crate::model::vector::available;

/// Softmax over the rows of an affinity matrix, not yet divided by the denominators.
#[derive(Debug)]
pub struct SoftmaxReadout {
    /// (N, queries, tokens).
    numerators: Tensor,
    /// (N, 1, queries).
    denominators: Tensor,
}

impl SoftmaxReadout {
    /// Reads `value` (N, channels, tokens) with the softmax weights; returns (N, channels, queries).
    pub fn read(&self, value: &Tensor) -> Result<Tensor> {
        let sums = product(value, &self.numerators.f_transpose(1, 2)?)?;
        Ok(sums.f_div(&self.denominators)?)
    }
}

/// Whether [`softmax_readout`] supports the affinity matrix and the processor.
pub fn fits(likeness: &Unshared) -> bool {
    available() && likeness.is_plain()
}

/// Returns the softmax of `sharpness · likeness + bias` over the tokens. `likeness` (N, queries, tokens) is
/// overwritten; the rows of `bias` are repeated cyclically.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) when memory runs out.
pub fn softmax_readout(mut likeness: Unshared, sharpness: &Tensor, bias: &Tensor) -> Result<SoftmaxReadout> {
    let (n, queries, tokens) = likeness.size3()?;
    let sharpness = scalar(sharpness)?;
    let bias = plain(bias)?;
    let bias = floats(&bias);
    let rows = likeness.floats_mut().chunks_exact_mut(tokens as usize);
    let sums: Vec<f32> = rows
        .zip(bias.chunks_exact(tokens as usize).cycle())
        .map(|(row, bias)| lanes::exponentials(row, sharpness, Some(bias)))
        .collect();
    let denominators = Tensor::f_from_slice(&sums)?.f_reshape([n, 1, queries])?;
    Ok(SoftmaxReadout { numerators: likeness.into_tensor(), denominators })
}

/// Returns the softmax of `sharpness · likeness` over the tokens, and the maximum similarity to an object token
/// and to a background token, (N, 2, queries). `likeness` (N, queries, tokens) is overwritten; `mask` (N, 1,
/// tokens) is the object fraction of each token, 0 to 1.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) when memory runs out.
pub fn softmax_readout_with_best(
    mut likeness: Unshared,
    sharpness: &Tensor,
    mask: &Tensor,
) -> Result<(SoftmaxReadout, Tensor)> {
    let (n, queries, tokens) = likeness.size3()?;
    let sharpness = scalar(sharpness)?;
    let mask = plain(mask)?;
    let masks = floats(&mask).chunks_exact(tokens as usize).cycle();
    let items = likeness.floats_mut().chunks_exact_mut((queries * tokens) as usize);
    let (mut sums, mut best) = (Vec::new(), Vec::new());
    for (item, mask) in items.zip(masks) {
        let first = best.len();
        best.resize(first + 2 * queries as usize, 0.0);
        let (object, background) = best[first..].split_at_mut(queries as usize);
        for (query, row) in item.chunks_exact_mut(tokens as usize).enumerate() {
            (object[query], background[query]) = lanes::max_likeness(row, mask);
            sums.push(lanes::exponentials(row, sharpness, None));
        }
    }
    let denominators = Tensor::f_from_slice(&sums)?.f_reshape([n, 1, queries])?;
    let best = Tensor::f_from_slice(&best)?.f_reshape([n, 2, queries])?;
    Ok((SoftmaxReadout { numerators: likeness.into_tensor(), denominators }, best))
}

fn scalar(x: &Tensor) -> Result<f32> {
    Ok(x.f_to_kind(Kind::Float)?.f_double_value(&[])? as f32)
}

/// Arithmetic on one row, eight values at a time.
#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::f32::consts::{LN_2, LOG2_E};

    use crate::model::vector::{LANES, available};

    /// Returns the maximum similarity to an object token and to a background token.
    pub fn max_likeness(row: &[f32], mask: &[f32]) -> (f32, f32) {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { max_likeness_avx2(row, mask) }
    }

    /// Replaces x by exp(sharpness · x + bias − maximum) and returns the sum.
    pub fn exponentials(row: &mut [f32], sharpness: f32, bias: Option<&[f32]>) -> f32 {
        assert!(available());
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { exponentials_avx2(row, sharpness, bias) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn max_likeness_avx2(row: &[f32], mask: &[f32]) -> (f32, f32) {
        let mut object = [f32::NEG_INFINITY; LANES];
        let mut background = [f32::NEG_INFINITY; LANES];
        let (values, masks) = (row.chunks_exact(LANES), mask.chunks_exact(LANES));
        let rest = values.remainder().iter().zip(masks.remainder());
        for (values, masks) in values.zip(masks) {
            for lane in 0..LANES {
                let shift = 2.0 * masks[lane];
                object[lane] = larger(object[lane], values[lane] + (shift - 2.0));
                background[lane] = larger(background[lane], values[lane] - shift);
            }
        }
        for (value, mask) in rest {
            object[0] = larger(object[0], value + (2.0 * mask - 2.0));
            background[0] = larger(background[0], value - 2.0 * mask);
        }
        (maximum(object), maximum(background))
    }

    #[target_feature(enable = "avx2,fma")]
    fn exponentials_avx2(row: &mut [f32], sharpness: f32, bias: Option<&[f32]>) -> f32 {
        let mut maximum = [f32::NEG_INFINITY; LANES];
        let whole = row.len() / LANES * LANES;
        match bias {
            Some(bias) => {
                for (values, bias) in row.chunks_exact_mut(LANES).zip(bias.chunks_exact(LANES)) {
                    for lane in 0..LANES {
                        values[lane] = values[lane].mul_add(sharpness, bias[lane]);
                        maximum[lane] = larger(maximum[lane], values[lane]);
                    }
                }
                for (value, bias) in row[whole..].iter_mut().zip(&bias[whole..]) {
                    *value = value.mul_add(sharpness, *bias);
                    maximum[0] = larger(maximum[0], *value);
                }
            }
            None => {
                for values in row.chunks_exact_mut(LANES) {
                    for lane in 0..LANES {
                        values[lane] *= sharpness;
                        maximum[lane] = larger(maximum[lane], values[lane]);
                    }
                }
                for value in &mut row[whole..] {
                    *value *= sharpness;
                    maximum[0] = larger(maximum[0], *value);
                }
            }
        }
        let maximum = self::maximum(maximum);
        let mut sums = [0.0; LANES];
        for values in row.chunks_exact_mut(LANES) {
            for lane in 0..LANES {
                values[lane] = exp(values[lane] - maximum);
                sums[lane] += values[lane];
            }
        }
        for value in &mut row[whole..] {
            *value = exp(*value - maximum);
            sums[0] += *value;
        }
        sums.into_iter().sum()
    }

    fn maximum(lanes: [f32; LANES]) -> f32 {
        lanes.into_iter().fold(f32::NEG_INFINITY, larger)
    }

    /// One instruction, unlike [`f32::max`], which handles NaN.
    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }

    /// Returns eˣ for x ≤ 0 with a relative error below 1e-5; e⁻⁸⁷ for x below −87.
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        // Adding and subtracting it rounds to an integer, which is also in the lowest bits of the sum.
        const ROUND: f32 = 12_582_912.0;
        let scaled = larger(x, -87.0) * LOG2_E;
        let shifted = scaled + ROUND;
        let x = scaled - (shifted - ROUND);
        // Polynomial of 2ˣ for |x| ≤ ½.
        let mut power = 1.540_353e-4_f32;
        for coefficient in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, LN_2, 1.0] {
            power = power.mul_add(x, coefficient);
        }
        f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    pub fn max_likeness(_: &[f32], _: &[f32]) -> (f32, f32) {
        unreachable!("not available")
    }

    pub fn exponentials(_: &mut [f32], _: f32, _: Option<&[f32]>) -> f32 {
        unreachable!("not available")
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::vector::checked_available;

    /// Token counts that are and are not multiples of the lane count.
    const TOKENS: [i64; 5] = [1, 7, 8, 61, 200];

    /// Returns an unshared copy.
    fn copy(x: &Tensor) -> Unshared {
        // SAFETY: there is no other handle on the copy.
        unsafe { Unshared::new(x.copy()) }
    }

    fn random(size: &[i64]) -> Tensor {
        Tensor::rand(size, (Kind::Float, Device::Cpu)) * 2.0 - 1.0
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.size(), b.size());
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn readout_equals_softmax() {
        if !checked_available() {
            return;
        }
        tch::manual_seed(5);
        for tokens in TOKENS {
            for sharpness in [0.5, 14.0, 60.0] {
                let (likeness, value) = (random(&[3, 6, tokens]), random(&[3, 4, tokens]));
                let bias = random(&[6, tokens]) * 3.0;
                let sharpness = Tensor::from(sharpness as f32);
                let weights = (&likeness * &sharpness + &bias).softmax(-1, Kind::Float);
                let read = softmax_readout(copy(&likeness), &sharpness, &bias).unwrap().read(&value).unwrap();
                close(&read, &value.bmm(&weights.transpose(1, 2)));
            }
        }
    }

    #[test]
    fn maximum_similarities_to_object_and_background() {
        if !checked_available() {
            return;
        }
        tch::manual_seed(6);
        for tokens in TOKENS {
            let (likeness, value) = (random(&[2, 5, tokens]), random(&[2, 3, tokens]));
            let mask = Tensor::rand([2, 1, tokens], (Kind::Float, Device::Cpu));
            let sharpness = Tensor::from(9.0f32);
            let object = (&likeness + &mask * 2.0 - 2.0).amax(-1, false);
            let background = (&likeness - &mask * 2.0).amax(-1, false);
            let weights = (&likeness * 9.0).softmax(-1, Kind::Float);
            let (readout, best) = softmax_readout_with_best(copy(&likeness), &sharpness, &mask).unwrap();
            close(&best, &Tensor::stack(&[object, background], 1));
            close(&readout.read(&value).unwrap(), &value.bmm(&weights.transpose(1, 2)));
        }
    }

    #[test]
    fn gradients_and_other_kinds_are_left_to_libtorch() {
        // SAFETY: none of these tensors has another handle.
        let fits = |x: Tensor| fits(&unsafe { Unshared::new(x) });
        assert_eq!(fits(random(&[1, 2, 8])), checked_available());
        assert!(!fits(random(&[1, 2, 8]).set_requires_grad(true)));
        assert!(!fits(random(&[1, 8, 2]).transpose(1, 2)));
        assert!(!fits(random(&[1, 2, 8]).to_kind(Kind::BFloat16)));
    }
}
