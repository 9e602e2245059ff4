// SPDX-License-Identifier: MPL-2.0

//! Softmax readout on the CPU: rows of the affinity matrix are computed, weighted and read while they are in the cache.
//!
//! For float32 without gradients on x86-64 processors with AVX2 and FMA. Everything else takes the tensor
//! operations of [`matching`](super::matching), which define the result.

use std::f32::consts::{LN_2, LOG2_E};

use tch::Tensor;

use crate::Result;
use crate::model::meter;
use crate::model::packed::{Dense, Factors, PANEL, TILE, UNLIMITED, share};
use crate::model::tensor_slices::{Unshared, floats, is_float, pixels, plain, stored_items};
use crate::model::vector::{Kernel, MAX_LANES, Vector, available, run};
use crate::team::in_parallel;

/// Rows of the affinity matrix that are computed together.
const BLOCK: usize = 12;

/// What to read with the softmax of `sharpness · query · keys` over the tokens.
#[derive(Clone, Copy)]
pub struct Readout<'a> {
    /// (N, queries, key).
    pub query: &'a Tensor,
    /// (N, key, tokens).
    pub keys: &'a Tensor,
    /// One number.
    pub sharpness: &'a Tensor,
    /// (N, channels, tokens).
    pub value: &'a Tensor,
    /// Number format of query and keys in products.
    pub factors: Factors,
}

/// Values of the items of a tensor (N, …).
struct Items {
    values: Tensor,
    count: usize,
}

impl Items {
    fn new(x: &Tensor) -> Result<Self> {
        let x = stored_items(x)?;
        Ok(Self { count: x.size()[0] as usize, values: plain(&x)? })
    }

    fn get(&self, n: usize) -> &[f32] {
        let length = self.values.numel() / self.count;
        &floats(&self.values)[n % self.count * length..][..length]
    }
}

impl Readout<'_> {
    /// Whether the tensors and the processor are supported. Shapes that do not belong together may panic later.
    pub fn fits(&self) -> bool {
        let Self { query, keys, sharpness, value, .. } = *self;
        available() && [query, keys, sharpness, value].into_iter().all(|x| is_float(x) && x.numel() > 0)
    }

    /// Returns `value` read with a bias, (N, channels, queries). The rows of `bias` (…, tokens), which is added before the
    /// softmax, are repeated cyclically.
    pub fn with_bias(self, bias: &Tensor) -> Result<Tensor> {
        let bias = plain(bias)?;
        let biases = floats(&bias);
        let (n, channels, tokens) = self.value.size3()?;
        let queries = self.query.size()[1];
        let rows = biases.len() / tokens as usize;
        // Objects with the same weights are channels of one.
        let is_shared = self.query.stride()[0] == 0 && self.keys.stride()[0] == 0 && rows <= queries as usize;
        let (query, keys, value) = if is_shared {
            let value = self.value.f_reshape([1, n * channels, tokens])?;
            (self.query.f_narrow(0, 0, 1)?, self.keys.f_narrow(0, 0, 1)?, value)
        } else {
            (self.query.shallow_clone(), self.keys.shallow_clone(), self.value.shallow_clone())
        };
        let readout = Readout { query: &query, keys: &keys, value: &value, ..self };
        let (read, _) = readout.read(None, |item, query| {
            let row = (item * queries as usize + query) % rows;
            Some(&biases[row * tokens as usize..][..tokens as usize])
        })?;
        Ok(read.f_reshape([n, channels, queries])?)
    }

    /// Returns `value` read, (N, channels, queries), and the maximum similarity to an object token and to a background
    /// token, (N, 2, queries). `mask` (N, 1, tokens) is the object fraction of each token, 0 to 1.
    pub fn with_best(self, mask: &Tensor) -> Result<(Tensor, Tensor)> {
        self.read(Some(&Items::new(mask)?), |_, _| None)
    }

    fn read<'b>(
        &self,
        masks: Option<&Items>,
        bias: impl Fn(usize, usize) -> Option<&'b [f32]> + Sync,
    ) -> Result<(Tensor, Tensor)> {
        let (n, queries, key) = self.query.size3()?;
        let (_, channels, tokens) = self.value.size3()?;
        meter::count("matching.products", || n * queries * tokens * (key + channels));
        let sharpness = self.sharpness.f_double_value(&[])? as f32;
        let (query, keys, value) = (Items::new(self.query)?, Items::new(self.keys)?, Items::new(self.value)?);
        let mut read = Unshared::empty(&[n, queries, channels])?;
        let mut best = Unshared::empty(&[n, queries, 2])?;
        let [queries, key, channels, tokens] = [queries, key, channels, tokens].map(|length| length as usize);
        let band = share(queries.div_ceil(BLOCK)) * BLOCK;
        let items = read.floats_mut().chunks_exact_mut(queries * channels);
        for (item, (read, best)) in items.zip(best.floats_mut().chunks_exact_mut(queries * 2)).enumerate() {
            let packed = Dense::of_columns(keys.get(item), tokens, self.factors);
            let (query, value) = (query.get(item), value.get(item));
            let mask = masks.map(|masks| masks.get(item));
            let bands = read.chunks_mut(band * channels).zip(best.chunks_mut(band * 2));
            in_parallel(bands.enumerate(), |(index, (read, best))| {
                let mut likeness = vec![0.0; BLOCK * tokens];
                let blocks = read.chunks_mut(BLOCK * channels).zip(best.chunks_mut(BLOCK * 2));
                for (block, (read, best)) in blocks.enumerate() {
                    let first = index * band + block * BLOCK;
                    let count = read.len() / channels;
                    let rows = &mut likeness[..count * tokens];
                    packed.forward(&query[first * key..][..count * key], rows, tokens, UNLIMITED);
                    let mut sums = [0.0; BLOCK];
                    let each = rows.chunks_exact_mut(tokens).zip(best.chunks_exact_mut(2)).zip(&mut sums);
                    for (at, ((row, best), sum)) in each.enumerate() {
                        if let Some(mask) = mask {
                            (best[0], best[1]) = run(MaxLikeness { row, mask }, MAX_LANES);
                        }
                        let bias = bias(item, first + at);
                        *sum = run(Exponentials { row, sharpness, bias }, MAX_LANES);
                    }
                    run(WeightedSums { rows, value, channels, sums: read }, MAX_LANES);
                    for (read, sum) in read.chunks_exact_mut(channels).zip(sums) {
                        read.iter_mut().for_each(|read| *read /= sum);
                    }
                }
            });
        }
        let transposed = |x: Unshared| x.into_tensor().f_transpose(1, 2);
        Ok((transposed(read)?, transposed(best)?))
    }
}

/// Returns the maximum similarity of each of `query` (1 or N, queries, key) to an object token and to a background token of
/// `keys` (N, key, tokens), (N, 2, queries). `mask` (N, 1, tokens) is the object fraction of each token, 0 to 1. Returns
/// `None` for tensors and processors that are not supported.
pub fn best_likeness(
    query: &Tensor,
    keys: &Tensor,
    mask: &Tensor,
    factors: Factors,
) -> Result<Option<Tensor>> {
    if !available() || ![query, keys, mask].into_iter().all(|x| is_float(x) && x.numel() > 0) {
        return Ok(None);
    }
    let (n, key, tokens) = keys.size3()?;
    let queries = query.size()[1];
    meter::count("matching.products", || n * queries * tokens * key);
    let (query, keys, mask) = (Items::new(query)?, Items::new(keys)?, Items::new(mask)?);
    let mut best = Unshared::empty(&[n, queries, 2])?;
    let [queries, key, tokens] = [queries, key, tokens].map(|length| length as usize);
    let band = share(queries.div_ceil(BLOCK)) * BLOCK;
    for (item, best) in best.floats_mut().chunks_exact_mut(queries * 2).enumerate() {
        let packed = Dense::of_columns(keys.get(item), tokens, factors);
        let (query, mask) = (query.get(item), mask.get(item));
        in_parallel(best.chunks_mut(band * 2).zip(query.chunks(band * key)), |(best, query)| {
            let mut likeness = vec![0.0; BLOCK * tokens];
            for (best, query) in best.chunks_mut(BLOCK * 2).zip(query.chunks(BLOCK * key)) {
                let rows = &mut likeness[..best.len() / 2 * tokens];
                packed.forward(query, rows, tokens, UNLIMITED);
                for (best, row) in best.chunks_exact_mut(2).zip(rows.chunks_exact(tokens)) {
                    (best[0], best[1]) = run(MaxLikeness { row, mask }, MAX_LANES);
                }
            }
        });
    }
    Ok(Some(best.into_tensor().f_transpose(1, 2)?))
}

/// What to read with attention of each position to a square of another frame around it.
#[derive(Clone, Copy)]
pub struct LocalReadout<'a> {
    /// (1 or N, key, H, W).
    pub query: &'a Tensor,
    /// (1 or N, key, H, W).
    pub keys: &'a Tensor,
    /// One number.
    pub sharpness: &'a Tensor,
    /// Added before the softmax, (H, W, (2 radius + 1) W): for each row of the square, the columns of the frame.
    pub bias: &'a Tensor,
    /// (N, channels, H, W).
    pub value: &'a Tensor,
    /// Number format of query and keys in products.
    pub factors: Factors,
}

/// Distance from a position to the border of the square around it.
pub const RADIUS: usize = 5;
/// The keys of the squares around neighbours that are computed together fit in a panel.
const _: () = assert!(TILE + 2 * RADIUS <= PANEL);

impl LocalReadout<'_> {
    /// Whether the tensors and the processor are supported: query and keys must be the same for all objects. Shapes that
    /// do not belong together may panic later.
    pub fn fits(&self) -> bool {
        let Self { query, keys, sharpness, bias, value, .. } = *self;
        let is_shared = |x: &Tensor| x.size()[0] == 1 || x.stride()[0] == 0;
        available()
            && [query, keys, sharpness, bias, value].into_iter().all(|x| is_float(x) && x.numel() > 0)
            && is_shared(query)
            && is_shared(keys)
    }

    /// Returns `value` read, (N, channels, H, W).
    pub fn read(self) -> Result<Tensor> {
        let (_, key, h, w) = self.query.size4()?;
        let (n, channels, ..) = self.value.size4()?;
        let side = 2 * RADIUS + 1;
        meter::count("matching.products", || h * w * side as i64 * w * (key + n * channels));
        let sharpness = self.sharpness.f_double_value(&[])? as f32;
        let (query, keys) = (pixels(&self.query.f_narrow(0, 0, 1)?)?, plain(&self.keys.f_narrow(0, 0, 1)?)?);
        let (query, keys) = (floats(&query), floats(&keys));
        let (bias, value) = (plain(self.bias)?, plain(self.value)?);
        let (bias, value) = (floats(&bias), floats(&value));
        let mut read = Unshared::empty(&[h, w, n * channels])?;
        let [key, height, width, channels] = [key, h, w, n * channels].map(|length| length as usize);
        let tiles = width.div_ceil(TILE);
        // For each row, the keys of the squares of each tile of neighbours.
        let row_of_keys = |y: usize| {
            let mut columns = vec![0.0; key * tiles * PANEL];
            for (channel, columns) in columns.chunks_exact_mut(tiles * PANEL).enumerate() {
                let row = &keys[(channel * height + y) * width..][..width];
                for (tile, columns) in columns.chunks_exact_mut(PANEL).enumerate() {
                    for (column, value) in columns.iter_mut().enumerate() {
                        let x = (tile * TILE + column).checked_sub(RADIUS);
                        *value = x.and_then(|x| row.get(x)).copied().unwrap_or_default();
                    }
                }
            }
            Dense::of_columns(&columns, tiles * PANEL, self.factors)
        };
        let keys: Vec<Dense> = (0..height).map(row_of_keys).collect();
        let band = share(height);
        let bands = read.floats_mut().chunks_mut(band * width * channels);
        in_parallel(bands.enumerate(), |(index, read)| {
            let mut likeness = vec![0.0; side * TILE * PANEL];
            let mut weights = Vec::with_capacity(side * side);
            for (row, read) in read.chunks_exact_mut(width * channels).enumerate() {
                let y = index * band + row;
                let rows = y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(height);
                for (tile, read) in read.chunks_mut(TILE * channels).enumerate() {
                    let first = tile * TILE;
                    let count = read.len() / channels;
                    let query = &query[(y * width + first) * key..][..count * key];
                    for (v, likeness) in rows.clone().zip(likeness.chunks_exact_mut(TILE * PANEL)) {
                        keys[v].panel(tile, query, &mut likeness[..count * PANEL]);
                    }
                    for (at, read) in read.chunks_exact_mut(channels).enumerate() {
                        let x = first + at;
                        let columns = x.saturating_sub(RADIUS)..(x + RADIUS + 1).min(width);
                        let length = columns.len();
                        let bias = &bias[(y * width + x) * side * width..][..side * width];
                        weights.clear();
                        for (v, likeness) in rows.clone().zip(likeness.chunks_exact(TILE * PANEL)) {
                            let likeness = &likeness[at * PANEL + columns.start + RADIUS - first..][..length];
                            let bias = &bias[(v + RADIUS - y) * width + columns.start..][..length];
                            let logits = likeness.iter().zip(bias);
                            weights.extend(logits.map(|(likeness, bias)| sharpness * likeness + bias));
                        }
                        let exponentials = Exponentials { row: &mut weights, sharpness: 1.0, bias: None };
                        let scale = 1.0 / run(exponentials, MAX_LANES);
                        for (read, value) in read.iter_mut().zip(value.chunks_exact(height * width)) {
                            let rows = rows.clone().zip(weights.chunks_exact(length));
                            let sums = rows.map(|(v, weights)| {
                                let value = &value[v * width + columns.start..][..length];
                                weights.iter().zip(value).map(|(weight, value)| weight * value).sum::<f32>()
                            });
                            *read = scale * sums.sum::<f32>();
                        }
                    }
                }
            }
        });
        // (H, W, N, channels) to (N, channels, H, W)
        let read = read.into_tensor().f_reshape([h, w, n, -1])?;
        Ok(read.f_permute([2, 3, 0, 1])?)
    }
}

/// Channels and rows of weights that are read together.
const CHANNELS: usize = 4;
const ROWS: usize = 3;

/// Sums of `value` (channels, tokens), weighted by each of `rows` (…, tokens), to `sums` (…, channels).
struct WeightedSums<'a> {
    rows: &'a [f32],
    value: &'a [f32],
    channels: usize,
    sums: &'a mut [f32],
}

impl Kernel for WeightedSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { rows, value, channels, sums } = self;
        let tokens = value.len() / channels;
        for (group, value) in value.chunks(CHANNELS * tokens).enumerate() {
            let first = group * CHANNELS;
            let mut rows = rows.chunks_exact(ROWS * tokens);
            let mut sums = sums.chunks_exact_mut(ROWS * channels);
            // SAFETY: the caller has checked the instructions.
            unsafe {
                for (rows, sums) in rows.by_ref().zip(sums.by_ref()) {
                    read_group::<V, ROWS>(rows, value, tokens, (channels, first), sums);
                }
                let rest = rows.remainder().chunks_exact(tokens);
                for (row, sums) in rest.zip(sums.into_remainder().chunks_exact_mut(channels)) {
                    read_group::<V, 1>(row, value, tokens, (channels, first), sums);
                }
            }
        }
    }
}

/// Reads at most [`CHANNELS`] channels with `R` rows. `place` is the width of `sums` and the first channel to write.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn read_group<V: Vector, const R: usize>(
    rows: &[f32],
    value: &[f32],
    tokens: usize,
    (width, first): (usize, usize),
    sums: &mut [f32],
) {
    let count = value.len() / tokens;
    let rows: [&[f32]; R] = std::array::from_fn(|row| &rows[row * tokens..][..tokens]);
    // Of fewer channels, the last one is read again.
    let channels: [&[f32]; CHANNELS] =
        std::array::from_fn(|index| &value[index.min(count - 1) * tokens..][..tokens]);
    let whole = tokens - tokens % V::LANES;
    // SAFETY: that of this function.
    let totals = unsafe {
        let mut totals = [[V::splat(0.0); CHANNELS]; R];
        for at in (0..whole).step_by(V::LANES) {
            let mut values = [V::splat(0.0); CHANNELS];
            for (value, channel) in values.iter_mut().zip(&channels) {
                *value = V::load(&channel[at..]);
            }
            for (totals, row) in totals.iter_mut().zip(&rows) {
                let weights = V::load(&row[at..]);
                for (total, value) in totals.iter_mut().zip(&values) {
                    *total = weights.mul_add(*value, *total);
                }
            }
        }
        let mut results = [[0.0; CHANNELS]; R];
        for (results, totals) in results.iter_mut().zip(&totals) {
            for (result, total) in results.iter_mut().zip(totals) {
                *result = total.sum();
            }
        }
        results
    };
    for ((totals, row), sums) in totals.into_iter().zip(rows).zip(sums.chunks_exact_mut(width)) {
        for ((sum, total), channel) in sums[first..][..count].iter_mut().zip(totals).zip(channels) {
            let rest = row[whole..].iter().zip(&channel[whole..]).map(|(weight, value)| weight * value);
            *sum = total + rest.sum::<f32>();
        }
    }
}

/// Maximum similarity to an object token and to a background token.
struct MaxLikeness<'a> {
    row: &'a [f32],
    mask: &'a [f32],
}

impl Kernel for MaxLikeness<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> (f32, f32) {
        let Self { row, mask } = self;
        let whole = row.len() - row.len() % (2 * V::LANES);
        // SAFETY: the caller has checked the instructions.
        let (mut object, mut background) = unsafe {
            let two = V::splat(2.0);
            // Two of each, so that an instruction need not wait for the one before.
            let mut object = [V::splat(f32::NEG_INFINITY); 2];
            let mut background = object;
            for at in (0..whole).step_by(2 * V::LANES) {
                for (half, (object, background)) in object.iter_mut().zip(&mut background).enumerate() {
                    let at = at + half * V::LANES;
                    let (values, mask) = (V::load(&row[at..]), V::load(&mask[at..]));
                    *object = two.mul_add(mask, values.sub(two)).max(*object);
                    *background = two.mul_sub_from(mask, values).max(*background);
                }
            }
            (object[0].max(object[1]).maximum(), background[0].max(background[1]).maximum())
        };
        for (value, mask) in row[whole..].iter().zip(&mask[whole..]) {
            object = larger(object, value + (2.0 * mask - 2.0));
            background = larger(background, value - 2.0 * mask);
        }
        (object, background)
    }
}

/// Replaces x by exp(sharpness · x + bias − maximum) and returns the sum.
struct Exponentials<'a> {
    row: &'a mut [f32],
    sharpness: f32,
    bias: Option<&'a [f32]>,
}

impl Kernel for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<V: Vector>(self) -> f32 {
        let Self { row, sharpness, bias } = self;
        let whole = row.len() - row.len() % (2 * V::LANES);
        // SAFETY: the caller has checked the instructions.
        unsafe {
            let factor = V::splat(sharpness);
            let mut highest = [V::splat(f32::NEG_INFINITY); 2];
            for at in (0..whole).step_by(2 * V::LANES) {
                for (half, highest) in highest.iter_mut().enumerate() {
                    let at = at + half * V::LANES;
                    let values = V::load(&row[at..]);
                    let values = match bias {
                        Some(bias) => values.mul_add(factor, V::load(&bias[at..])),
                        None => values.mul(factor),
                    };
                    values.store(&mut row[at..]);
                    *highest = values.max(*highest);
                }
            }
            let mut highest = highest[0].max(highest[1]).maximum();
            for at in whole..row.len() {
                row[at] = row[at].mul_add(sharpness, bias.map_or(0.0, |bias| bias[at]));
                highest = larger(highest, row[at]);
            }
            let shift = V::splat(highest);
            let mut sums = [V::splat(0.0); 2];
            for at in (0..whole).step_by(2 * V::LANES) {
                for (half, sums) in sums.iter_mut().enumerate() {
                    let at = at + half * V::LANES;
                    let values = exp_lanes(V::load(&row[at..]).sub(shift));
                    values.store(&mut row[at..]);
                    *sums = sums.add(values);
                }
            }
            let mut sum = sums[0].add(sums[1]).sum();
            for value in &mut row[whole..] {
                *value = exp(*value - highest);
                sum += *value;
            }
            sum
        }
    }
}

/// One instruction, unlike [`f32::max`], which handles NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Least exponent. The result is e⁻⁸⁷ below it.
const LEAST: f32 = -87.0;
/// Adding and subtracting it rounds to an integer, which is also in the lowest bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// Polynomial of 2ˣ for |x| ≤ ½, highest power first.
const POWERS: [f32; 7] = [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, LN_2, 1.0];

/// Returns eˣ for x ≤ 0 with a relative error below 1e-5.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let scaled = larger(x, LEAST) * LOG2_E;
    let shifted = scaled + ROUND;
    let x = scaled - (shifted - ROUND);
    let power = POWERS[1..].iter().fold(POWERS[0], |power, coefficient| power.mul_add(x, *coefficient));
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// As [`exp`].
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn exp_lanes<V: Vector>(x: V) -> V {
    // SAFETY: that of this function.
    unsafe {
        let round = V::splat(ROUND);
        let scaled = x.max(V::splat(LEAST)).mul(V::splat(LOG2_E));
        let shifted = scaled.add(round);
        let x = scaled.sub(shifted.sub(round));
        let mut power = V::splat(POWERS[0]);
        for coefficient in &POWERS[1..] {
            power = power.mul_add(x, V::splat(*coefficient));
        }
        power.scaled(shifted)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::lite::features::product;
    use crate::model::vector::{checked_available, checked_has_bfloat16};
    use crate::threads::with_threads;

    /// Numbers of queries, keys, channels and tokens that are and are not multiples of the lanes and blocks.
    const SHAPES: [[i64; 4]; 5] =
        [[6, 3, 4, 1], [5, 8, 3, 7], [12, 5, 1, 8], [25, 48, 64, 61], [31, 7, 6, 200]];

    fn random(size: &[i64]) -> Tensor {
        Tensor::rand(size, (Kind::Float, Device::Cpu)) * 2.0 - 1.0
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.size(), b.size());
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
    }

    /// Number formats of query and keys that the processor supports.
    fn formats() -> Vec<(Factors, Kind)> {
        let bfloat16 = checked_has_bfloat16().then_some((Factors::Bfloat16, Kind::BFloat16));
        std::iter::once((Factors::Float32, Kind::Float)).chain(bfloat16).collect()
    }

    /// Calls `check` with inputs of several shapes, batches, formats and numbers of threads.
    fn for_inputs(check: impl Fn(Readout, &Tensor)) {
        if !checked_available() {
            return;
        }
        tch::manual_seed(5);
        for [queries, key, channels, tokens] in SHAPES {
            for (threads, sharpness) in [(1, 0.5), (2, 14.0), (5, 60.0)] {
                // As in the network, the columns of keys and values may be stored one after the other.
                let scale = (key as f64).sqrt();
                let shared = |rows: i64, columns: i64| {
                    (random(&[1, rows, columns]) / scale).expand([3, rows, columns], false)
                };
                for (query, keys) in [
                    (shared(queries, key), random(&[3, key, tokens])),
                    (random(&[3, queries, key]) / scale, random(&[3, tokens, key]).transpose(1, 2)),
                    (shared(queries, key), shared(key, tokens)),
                ] {
                    let value = random(&[3, channels, tokens]);
                    let sharpness = Tensor::from(sharpness as f32);
                    with_threads(threads, || {
                        for (factors, kind) in formats() {
                            let rounded = |x: &Tensor| x.to_kind(kind).to_kind(Kind::Float);
                            let likeness = product(&rounded(&query), &rounded(&keys)).unwrap();
                            let (query, keys) = (&query, &keys);
                            let inputs =
                                Readout { query, keys, sharpness: &sharpness, value: &value, factors };
                            assert!(inputs.fits());
                            check(inputs, &likeness);
                        }
                    });
                }
            }
        }
    }

    #[test]
    fn readout_equals_softmax() {
        for_inputs(|inputs, likeness| {
            let size = likeness.size();
            for rows in [size[1], 3 * size[1]] {
                let bias = random(&[rows, size[2]]) * 3.0;
                let biases = bias.reshape([-1, size[1], size[2]]);
                let weights = (likeness * inputs.sharpness + biases).softmax(-1, Kind::Float);
                close(&inputs.with_bias(&bias).unwrap(), &inputs.value.bmm(&weights.transpose(1, 2)));
            }
        });
    }

    #[test]
    fn maximum_similarities_to_object_and_background() {
        for_inputs(|inputs, likeness| {
            let mask = Tensor::rand([3, 1, likeness.size()[2]], (Kind::Float, Device::Cpu));
            let object = (likeness + &mask * 2.0 - 2.0).amax(-1, false);
            let background = (likeness - &mask * 2.0).amax(-1, false);
            let weights = (likeness * inputs.sharpness).softmax(-1, Kind::Float);
            let (read, best) = inputs.with_best(&mask).unwrap();
            let expected = Tensor::stack(&[object, background], 1);
            close(&best, &expected);
            let alone = best_likeness(inputs.query, inputs.keys, &mask, inputs.factors).unwrap();
            close(&alone.unwrap(), &expected);
            close(&read, &inputs.value.bmm(&weights.transpose(1, 2)));
        });
    }

    #[test]
    fn gradients_and_other_kinds_are_left_to_libtorch() {
        let x = random(&[1, 2, 2]);
        let fits = |y: &Tensor| {
            [0, 1, 2, 3].into_iter().any(|index| {
                let parts = [0, 1, 2, 3].map(|at| if at == index { y } else { &x });
                let [query, keys, sharpness, value] = parts;
                Readout { query, keys, sharpness, value, factors: Factors::Float32 }.fits()
            })
        };
        assert_eq!(fits(&x), checked_available());
        assert!(!fits(&random(&[1, 2, 2]).set_requires_grad(true)));
        assert!(!fits(&random(&[1, 2, 2]).to_kind(Kind::BFloat16)));
        assert!(!fits(&random(&[1, 2, 0])));
    }
}
