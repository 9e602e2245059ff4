//! Reading by affinity on the CPU: what would be eight passes over a matrix of likenesses, in two over each of
//! its rows while that is in the cache.
//!
//! For float32 without gradients on x86-64 processors with AVX2; everything else takes the tensor operations of
//! [`matching`](super::matching), which say what is computed.

use tch::{Kind, Tensor};

use super::matching::product;
use crate::Result;
use crate::model::tensor_slices::{Unshared, floats, plain};

/// A softmax over the rows of a matrix of likenesses, not yet divided.
#[derive(Debug)]
pub struct SoftmaxReadout {
    /// (N, queries, tokens).
    numerators: Tensor,
    /// (N, 1, queries).
    denominators: Tensor,
}

impl SoftmaxReadout {
    /// What the weights read of `value` (N, channels, tokens); (N, channels, queries).
    pub fn read(&self, value: &Tensor) -> Result<Tensor> {
        let sums = product(value, &self.numerators.f_transpose(1, 2)?)?;
        Ok(sums.f_div(&self.denominators)?)
    }
}

/// Whether the likenesses are of the kind for [`softmax_readout`].
pub fn fits(likeness: &Unshared) -> bool {
    lanes::available() && likeness.is_plain()
}

/// The softmax of `sharpness · likeness + bias` over the tokens. `likeness` (N, queries, tokens) is used up; the
/// rows of `bias` are repeated as often as need be.
///
/// # Errors
/// An error of libtorch.
pub fn softmax_readout(mut likeness: Unshared, sharpness: &Tensor, bias: &Tensor) -> Result<SoftmaxReadout> {
    let (n, queries, tokens) = likeness.size3()?;
    let sharpness = number(sharpness)?;
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

/// The softmax of `sharpness · likeness` over the tokens, and the greatest likeness to a token of the object and to
/// one of the background, (N, 2, queries). `likeness` (N, queries, tokens) is used up; `mask` (N, 1, tokens) is how
/// much of each token is object, 0 to 1.
///
/// # Errors
/// An error of libtorch.
pub fn softmax_readout_with_best(
    mut likeness: Unshared,
    sharpness: &Tensor,
    mask: &Tensor,
) -> Result<(SoftmaxReadout, Tensor)> {
    let (n, queries, tokens) = likeness.size3()?;
    let sharpness = number(sharpness)?;
    let mask = plain(mask)?;
    let masks = floats(&mask).chunks_exact(tokens as usize).cycle();
    let items = likeness.floats_mut().chunks_exact_mut((queries * tokens) as usize);
    let (mut sums, mut best) = (Vec::new(), Vec::new());
    for (item, mask) in items.zip(masks) {
        let first = best.len();
        best.resize(first + 2 * queries as usize, 0.0);
        let (object, background) = best[first..].split_at_mut(queries as usize);
        for (query, row) in item.chunks_exact_mut(tokens as usize).enumerate() {
            (object[query], background[query]) = lanes::nearest(row, mask);
            sums.push(lanes::exponentials(row, sharpness, None));
        }
    }
    let denominators = Tensor::f_from_slice(&sums)?.f_reshape([n, 1, queries])?;
    let best = Tensor::f_from_slice(&best)?.f_reshape([n, 2, queries])?;
    Ok((SoftmaxReadout { numerators: likeness.into_tensor(), denominators }, best))
}

fn number(x: &Tensor) -> Result<f32> {
    Ok(x.f_to_kind(Kind::Float)?.f_double_value(&[])? as f32)
}

/// Arithmetic on one row, eight numbers at a time.
#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::f32::consts::{LN_2, LOG2_E};

    const LANES: usize = 8;

    pub fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    /// The greatest likeness to object and to background.
    pub fn nearest(row: &[f32], mask: &[f32]) -> (f32, f32) {
        assert!(available());
        // SAFETY: the processor has what the function wants.
        unsafe { nearest_avx2(row, mask) }
    }

    /// Replaces x by exp(sharpness · x + bias − greatest), and returns the sum.
    pub fn exponentials(row: &mut [f32], sharpness: f32, bias: Option<&[f32]>) -> f32 {
        assert!(available());
        // SAFETY: the processor has what the function wants.
        unsafe { exponentials_avx2(row, sharpness, bias) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn nearest_avx2(row: &[f32], mask: &[f32]) -> (f32, f32) {
        let mut object = [f32::NEG_INFINITY; LANES];
        let mut background = [f32::NEG_INFINITY; LANES];
        let (values, masks) = (row.chunks_exact(LANES), mask.chunks_exact(LANES));
        let rest = values.remainder().iter().zip(masks.remainder());
        for (values, masks) in values.zip(masks) {
            for lane in 0..LANES {
                let away = 2.0 * masks[lane];
                object[lane] = larger(object[lane], values[lane] + (away - 2.0));
                background[lane] = larger(background[lane], values[lane] - away);
            }
        }
        for (value, mask) in rest {
            object[0] = larger(object[0], value + (2.0 * mask - 2.0));
            background[0] = larger(background[0], value - 2.0 * mask);
        }
        (greatest(object), greatest(background))
    }

    #[target_feature(enable = "avx2,fma")]
    fn exponentials_avx2(row: &mut [f32], sharpness: f32, bias: Option<&[f32]>) -> f32 {
        let mut greatest = [f32::NEG_INFINITY; LANES];
        let whole = row.len() / LANES * LANES;
        match bias {
            Some(bias) => {
                for (values, bias) in row.chunks_exact_mut(LANES).zip(bias.chunks_exact(LANES)) {
                    for lane in 0..LANES {
                        values[lane] = values[lane].mul_add(sharpness, bias[lane]);
                        greatest[lane] = larger(greatest[lane], values[lane]);
                    }
                }
                for (value, bias) in row[whole..].iter_mut().zip(&bias[whole..]) {
                    *value = value.mul_add(sharpness, *bias);
                    greatest[0] = larger(greatest[0], *value);
                }
            }
            None => {
                for values in row.chunks_exact_mut(LANES) {
                    for lane in 0..LANES {
                        values[lane] *= sharpness;
                        greatest[lane] = larger(greatest[lane], values[lane]);
                    }
                }
                for value in &mut row[whole..] {
                    *value *= sharpness;
                    greatest[0] = larger(greatest[0], *value);
                }
            }
        }
        let greatest = self::greatest(greatest);
        let mut sums = [0.0; LANES];
        for values in row.chunks_exact_mut(LANES) {
            for lane in 0..LANES {
                values[lane] = exp(values[lane] - greatest);
                sums[lane] += values[lane];
            }
        }
        for value in &mut row[whole..] {
            *value = exp(*value - greatest);
            sums[0] += *value;
        }
        sums.into_iter().sum()
    }

    fn greatest(lanes: [f32; LANES]) -> f32 {
        lanes.into_iter().fold(f32::NEG_INFINITY, larger)
    }

    /// One instruction, unlike [`f32::max`], which minds NaN.
    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }

    /// eˣ for x ≤ 0, to a hundred-thousandth of itself; below −87 it stays at e⁻⁸⁷.
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        // Added and taken away again, it leaves the nearest integer, also to be found in its lowest bits.
        const ROUND: f32 = 12_582_912.0;
        let scaled = larger(x, -87.0) * LOG2_E;
        let shifted = scaled + ROUND;
        let x = scaled - (shifted - ROUND);
        // The series of 2ˣ, |x| ≤ ½.
        let mut power = 1.540_353e-4_f32;
        for coefficient in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, LN_2, 1.0] {
            power = power.mul_add(x, coefficient);
        }
        f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    pub fn available() -> bool {
        false
    }

    pub fn nearest(_: &[f32], _: &[f32]) -> (f32, f32) {
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

    /// Lengths that are and are not multiples of the lanes, values far enough apart to underflow.
    const TOKENS: [i64; 5] = [1, 7, 8, 61, 200];

    /// Whether the processor has AVX2 and FMA, by what the kernel says: nothing else may turn these tests off.
    fn available() -> bool {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
        assert_eq!(lanes::available(), cfg!(target_arch = "x86_64") && has("avx2") && has("fma"));
        lanes::available()
    }

    /// A tensor of its own with the same values.
    fn copy(x: &Tensor) -> Unshared {
        // SAFETY: nobody else has the copy.
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
    fn rows_are_weighed_as_softmax_does() {
        if !available() {
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
    fn the_nearest_tokens_of_object_and_background_are_found() {
        if !available() {
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
            let (weighed, best) = softmax_readout_with_best(copy(&likeness), &sharpness, &mask).unwrap();
            close(&best, &Tensor::stack(&[object, background], 1));
            close(&weighed.read(&value).unwrap(), &value.bmm(&weights.transpose(1, 2)));
        }
    }

    #[test]
    fn what_needs_gradients_or_is_of_another_kind_is_left_to_libtorch() {
        // SAFETY: nobody else has any of these.
        let fits = |x: Tensor| fits(&unsafe { Unshared::new(x) });
        assert_eq!(fits(random(&[1, 2, 8])), available());
        assert!(!fits(random(&[1, 2, 8]).set_requires_grad(true)));
        assert!(!fits(random(&[1, 8, 2]).transpose(1, 2)));
        assert!(!fits(random(&[1, 2, 8]).to_kind(Kind::BFloat16)));
    }
}
