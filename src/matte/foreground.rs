// SPDX-License-Identifier: MPL-2.0

//! Colours of the object in its soft edges.
//!
//! A pixel with alpha α shows I = α F + (1 − α) B. Estimates of F and B are means over the surroundings, weighted by
//! powers of α and of 1 − α, at the finest resolution that has enough weight (pull-push interpolation, Gortler et al.,
//! *The Lumigraph*, 1996). As in Forte and Pitié, *Approximate fast foreground colour estimation*, ICIP 2021, they are then
//! fused with I. Here, F and B change as little as possible so that they explain I:
//! F + α (I − α F − (1 − α) B) / (α² + (1 − α)²).

use std::ops::Range;

use super::MaskView;
use crate::Result;
use crate::image::{SamplesMut, product};

/// Side of a cell, for which one pair of colours is estimated, in samples.
const CELL: usize = 4;
/// Cells per side of a block. Blocks far from soft edges are skipped.
const CELLS: usize = 4;
/// Side of a block in samples.
const BLOCK: usize = CELL * CELLS;
/// Distance from soft edges up to which colours are used, in blocks.
const REACH: usize = 2;
/// Weight of the next coarser estimate, in opaque cells.
const COARSE_WEIGHT: f32 = 0.1;

/// Weight and weighted sample of the object, then of the background.
type Sums = [f32; 4];
/// Estimated samples of the object and the background.
type Pair = [f32; 2];

/// Estimates the colours of the object in its soft edges; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct ForegroundEstimator {
    grid: BlockGrid,
    /// Sums of the cells, then of groups of 2x2, 4x4, … of them.
    sums: Vec<Field<Sums>>,
    /// The estimates at the same resolutions.
    pairs: Vec<Field<Pair>>,
}

/// The blocks of a plane of alpha that are needed.
#[derive(Debug, Default)]
struct BlockGrid {
    /// All blocks of the plane, in rows of `across`.
    kinds: Vec<BlockKind>,
    across: usize,
    /// Columns and rows of blocks that hold all of `near`.
    columns: Range<usize>,
    rows: Range<usize>,
    /// Blocks within [`REACH`] of soft blocks.
    near: Vec<(usize, usize, BlockKind)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BlockKind {
    /// All alpha is 0.
    #[default]
    Background,
    /// All alpha is 255.
    Object,
    /// All alpha is 0 or 255.
    Hard,
    /// Some alpha is neither.
    Soft,
}

#[derive(Debug, Default)]
struct Field<T> {
    width: usize,
    values: Vec<T>,
}

impl<T: Copy> Field<T> {
    fn reset(&mut self, (width, height): (usize, usize), value: T) {
        self.width = width;
        self.values.clear();
        self.values.resize(width * height, value);
    }

    fn height(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn at(&self, x: usize, y: usize) -> T {
        self.values[y * self.width + x]
    }
}

impl BlockGrid {
    fn find(&mut self, alpha: MaskView) {
        self.across = alpha.width.div_ceil(BLOCK);
        let down = alpha.height.div_ceil(BLOCK);
        self.kinds.clear();
        self.near.clear();
        (self.columns, self.rows) = (self.across..0, down..0);
        let mut folds = Vec::new();
        for rows in alpha.values.chunks(alpha.width * BLOCK).take(down) {
            folds.clear();
            folds.resize(self.across, (u128::MAX, 0, 0));
            for row in rows.chunks_exact(alpha.width) {
                for ((all, any, soft), alphas) in folds.iter_mut().zip(row.chunks(BLOCK)) {
                    let alphas = together(alphas);
                    *all &= alphas;
                    *any |= alphas;
                    *soft |= soft_bits(alphas);
                }
            }
            self.kinds.extend(folds.iter().map(|fold| match fold {
                (_, 0, _) => BlockKind::Background,
                (u128::MAX, ..) => BlockKind::Object,
                (.., 0) => BlockKind::Hard,
                _ => BlockKind::Soft,
            }));
        }
        let mut is_near = vec![false; self.kinds.len()];
        for (index, _) in self.kinds.iter().enumerate().filter(|(_, kind)| **kind == BlockKind::Soft) {
            let (x, y) = (index % self.across, index / self.across);
            let columns = x.saturating_sub(REACH)..(x + REACH + 1).min(self.across);
            let rows = y.saturating_sub(REACH)..(y + REACH + 1).min(down);
            for y in rows.clone() {
                is_near[y * self.across..][columns.clone()].fill(true);
            }
            self.columns = self.columns.start.min(columns.start)..self.columns.end.max(columns.end);
            self.rows = self.rows.start.min(rows.start)..self.rows.end.max(rows.end);
        }
        let near = is_near.iter().enumerate().filter(|(_, near)| **near);
        self.near.extend(near.map(|(i, _)| (i % self.across, i / self.across, self.kinds[i])));
    }

    fn cells(&self) -> (usize, usize) {
        (self.columns.len() * CELLS, self.rows.len() * CELLS)
    }

    fn first_cell(&self, x: usize, y: usize) -> (usize, usize) {
        ((x - self.columns.start) * CELLS, (y - self.rows.start) * CELLS)
    }
}

fn is_soft(alpha: u8) -> bool {
    // 0 and 255 become 255 and 254.
    alpha.wrapping_sub(1) < 254
}

/// At most [`BLOCK`] bytes as one number. The first one stands for those that are missing.
fn together(alphas: &[u8]) -> u128 {
    let bytes = <[u8; BLOCK]>::try_from(alphas).unwrap_or_else(|_| {
        let mut bytes = [alphas.first().copied().unwrap_or(0); BLOCK];
        bytes.iter_mut().zip(alphas).for_each(|(byte, alpha)| *byte = *alpha);
        bytes
    });
    u128::from_ne_bytes(bytes)
}

/// Bits that differ from their neighbour in the same byte: none if all bytes are 0 or 255.
fn soft_bits(alphas: u128) -> u128 {
    const ALL_BUT_THE_LOWEST: u128 = u128::from_ne_bytes([0xfe; BLOCK]);
    (alphas ^ (alphas << 1)) & ALL_BUT_THE_LOWEST
}

impl ForegroundEstimator {
    /// Returns whether `alpha` has soft edges, neither 0 nor 255.
    pub fn has_soft_edges(alpha: MaskView) -> bool {
        alpha.values.chunks(BLOCK).any(|alphas| soft_bits(together(alphas)) != 0)
    }

    /// Replaces the samples of a component where `alpha` is soft by estimates of the object's. `alpha` has the size of
    /// the component. Other samples do not change, and nothing changes if there is no object or no background to
    /// estimate from.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the samples do not fit in their data, or `alpha` has another size.
    pub fn estimate(&mut self, samples: &mut SamplesMut, alpha: MaskView) -> Result<()> {
        alpha.check_for(samples)?;
        self.grid.find(alpha);
        if self.grid.near.is_empty() {
            return Ok(());
        }
        self.sum_cells(samples, alpha);
        self.sum_levels();
        let Some(&[object, _, background, _]) = self.sums.last().and_then(|top| top.values.first()) else {
            return Ok(());
        };
        if object > 0.0 && background > 0.0 {
            self.spread();
            self.fuse(samples, alpha);
        }
        Ok(())
    }

    fn level(&mut self, index: usize) {
        if self.sums.len() <= index {
            self.sums.push(Field::default());
            self.pairs.push(Field::default());
        }
    }

    fn sum_cells(&mut self, samples: &SamplesMut, alpha: MaskView) {
        self.level(0);
        let Self { grid, sums, .. } = self;
        let field = &mut sums[0];
        field.reset(grid.cells(), [0.0; 4]);
        for &(x, y, kind) in &grid.near {
            let columns = (alpha.width - x * BLOCK).min(BLOCK);
            let (first_x, first_y) = grid.first_cell(x, y);
            for row in 0..CELLS {
                let first = y * BLOCK + row * CELL;
                let rows = first..(first + CELL).min(alpha.height);
                let cells = &mut field.values[(first_y + row) * field.width + first_x..][..CELLS];
                match kind {
                    BlockKind::Background => sum_opaque(samples, rows, (x * BLOCK, columns), cells, 2),
                    BlockKind::Object => sum_opaque(samples, rows, (x * BLOCK, columns), cells, 0),
                    _ => sum_weighted(samples, alpha, rows, (x * BLOCK, columns), cells),
                }
            }
        }
    }

    /// Sums groups of 2x2 until one is left.
    fn sum_levels(&mut self) {
        let mut index = 0;
        while self.sums[index].values.len() > 1 {
            index += 1;
            self.level(index);
            let [.., fine, coarse] = &mut self.sums[..=index] else { return };
            coarse.reset((fine.width.div_ceil(2), fine.height().div_ceil(2)), [0.0; 4]);
            for (y, row) in fine.values.chunks_exact(fine.width).enumerate() {
                let sums = &mut coarse.values[y / 2 * coarse.width..][..coarse.width];
                for (sum, pair) in sums.iter_mut().zip(row.chunks(2)) {
                    for cell in pair {
                        (0..4).for_each(|i| sum[i] += cell[i]);
                    }
                }
            }
        }
        self.sums.truncate(index + 1);
        self.pairs.truncate(index + 1);
    }

    /// Computes the estimates from the coarsest resolution to the finest one, there near soft edges only.
    fn spread(&mut self) {
        let Self { grid, sums, pairs } = self;
        for (index, sums) in sums.iter().enumerate().rev() {
            let (fine, coarse) = pairs[index..].split_at_mut(1);
            let (fine, coarse) = (&mut fine[0], coarse.first());
            fine.reset((sums.width, sums.height()), [0.0; 2]);
            let mut work = |x: usize, y: usize| {
                let base = coarse.map_or([0.0; 2], |coarse| doubled(coarse, x, y));
                let extra = if coarse.is_some() { COARSE_WEIGHT } else { 0.0 };
                let [object, object_sum, background, background_sum] = sums.at(x, y);
                fine.values[y * sums.width + x] = [
                    (object_sum + extra * base[0]) / (object + extra),
                    (background_sum + extra * base[1]) / (background + extra),
                ];
            };
            if index == 0 {
                for &(x, y, _) in &grid.near {
                    let (x, y) = grid.first_cell(x, y);
                    (0..CELLS * CELLS).for_each(|i| work(x + i % CELLS, y + i / CELLS));
                }
            } else {
                (0..sums.values.len()).for_each(|i| work(i % sums.width, i / sums.width));
            }
        }
    }

    fn fuse(&self, samples: &mut SamplesMut, alpha: MaskView) {
        let gains: [f32; 256] = std::array::from_fn(|alpha| {
            let alpha = alpha as f32 / 255.0;
            alpha / (alpha * alpha + (1.0 - alpha) * (1.0 - alpha))
        });
        let pairs = &self.pairs[0];
        let soft = self.grid.near.iter().filter(|(_, _, kind)| *kind == BlockKind::Soft);
        for &(x, y, _) in soft {
            let columns = (alpha.width - x * BLOCK).min(BLOCK);
            let (first_x, first_y) = self.grid.first_cell(x, y);
            for (row, y) in (y * BLOCK..((y + 1) * BLOCK).min(alpha.height)).enumerate() {
                let (upper, lower, share) = between(first_y * CELL + row, pairs.height());
                // The cells of the block and one to each side, between rows.
                let cells: [Pair; CELLS + 2] = std::array::from_fn(|i| {
                    let x = (first_x + i).saturating_sub(1).min(pairs.width - 1);
                    mix(pairs.at(x, upper), pairs.at(x, lower), share)
                });
                let alphas = &alpha.values[y * alpha.width + x * BLOCK..][..columns];
                let row = samples.row_mut(y, x * BLOCK).zip(alphas).enumerate();
                for (i, (sample, &alpha)) in row.filter(|(_, (_, alpha))| is_soft(**alpha)) {
                    let (left, right, share) = between(i + CELL, CELLS + 2);
                    let [object, background] = mix(cells[left], cells[right], share);
                    let part = f32::from(alpha) / 255.0;
                    let rest = f32::from(*sample) - part * object - (1.0 - part) * background;
                    // The cast limits the range.
                    *sample = (object + gains[usize::from(alpha)] * rest + 0.5) as u8;
                }
            }
        }
    }
}

const UNIT: f32 = 1.0 / (255 * CELL * CELL) as f32;

/// Sums the samples of a row of cells that are all object or all background. `side` is the index of the weight in
/// [`Sums`].
fn sum_opaque(
    samples: &SamplesMut,
    rows: Range<usize>,
    (column, columns): (usize, usize),
    cells: &mut [Sums],
    side: usize,
) {
    let count = rows.len();
    let mut values = [0u16; BLOCK];
    for y in rows {
        let mut line = [0; BLOCK];
        samples.read(y, column, &mut line[..columns]);
        values.iter_mut().zip(line).for_each(|(value, sample)| *value += u16::from(sample));
    }
    for (i, cell) in cells.iter_mut().enumerate() {
        let pixels = count * columns.saturating_sub(i * CELL).min(CELL);
        cell[side] = (255 * pixels) as f32 * UNIT;
        cell[side + 1] = f32::from(values[i * CELL..][..CELL].iter().sum::<u16>()) * 255.0 * UNIT;
    }
}

fn sum_weighted(
    samples: &SamplesMut,
    alpha: MaskView,
    rows: Range<usize>,
    (column, columns): (usize, usize),
    cells: &mut [Sums],
) {
    let mut weights = [[0u16; BLOCK]; 2];
    let mut values = [[0u32; BLOCK]; 2];
    for y in rows {
        let mut line = [0; BLOCK];
        samples.read(y, column, &mut line[..columns]);
        let mut alphas = [0; BLOCK];
        alphas[..columns].copy_from_slice(&alpha.values[y * alpha.width + column..][..columns]);
        let mut powers = [alphas.map(eighth_power), alphas.map(|alpha| eighth_power(255 - alpha))];
        // Beyond the border, there is nothing.
        powers[1][columns..].fill(0);
        for side in 0..2 {
            for i in 0..BLOCK {
                let power = u16::from(powers[side][i]);
                weights[side][i] += power;
                values[side][i] += u32::from(power * u16::from(line[i]));
            }
        }
    }
    for (i, cell) in cells.iter_mut().enumerate() {
        for side in 0..2 {
            let weight: u16 = weights[side][i * CELL..][..CELL].iter().sum();
            let value: u32 = values[side][i * CELL..][..CELL].iter().sum();
            cell[2 * side] = f32::from(weight) * UNIT;
            cell[2 * side + 1] = value as f32 * UNIT;
        }
    }
}

/// Eighth power of a byte in which 255 is 1.0.
fn eighth_power(value: u8) -> u8 {
    let square = product(value, value);
    let fourth = product(square, square);
    product(fourth, fourth)
}

/// The value at cell (`x`, `y`) of a field of half the resolution, interpolated bilinearly.
fn doubled(coarse: &Field<Pair>, x: usize, y: usize) -> Pair {
    let (x0, y0) = (x / 2, y / 2);
    let other = |at: usize, index: usize, count: usize| {
        if at.is_multiple_of(2) { index.saturating_sub(1) } else { (index + 1).min(count - 1) }
    };
    let (x1, y1) = (other(x, x0, coarse.width), other(y, y0, coarse.height()));
    let upper = mix(coarse.at(x0, y0), coarse.at(x1, y0), 0.25);
    mix(upper, mix(coarse.at(x0, y1), coarse.at(x1, y1), 0.25), 0.25)
}

/// The two of `count` cells that are nearest to a sample, and the share of the second one.
fn between(at: usize, count: usize) -> (usize, usize, f32) {
    let place = (at as f32 + 0.5) / CELL as f32 - 0.5;
    let first = place.max(0.0) as usize;
    (first, (first + 1).min(count - 1), (place - first as f32).max(0.0))
}

fn mix(a: Pair, b: Pair, share: f32) -> Pair {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::mix as mix_bytes;

    const WIDTH: usize = 100;
    const HEIGHT: usize = 70;

    /// Alpha of a disk whose edge is a ramp of `ramp` pixels.
    fn disk(ramp: f64) -> Vec<u8> {
        (0..WIDTH * HEIGHT)
            .map(|i| {
                let distance = ((i % WIDTH) as f64 - 50.0).hypot((i / WIDTH) as f64 - 35.0);
                (255.0 * ((22.0 - distance) / ramp + 0.5).clamp(0.0, 1.0)) as u8
            })
            .collect()
    }

    fn object(i: usize) -> u8 {
        (200 + (i % WIDTH) / 4) as u8
    }

    fn background(i: usize) -> u8 {
        (20 + i / WIDTH) as u8
    }

    /// Estimates one component of pixels with `step` components of the disk over the background.
    fn estimated(alpha: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
        let pixels: Vec<u8> =
            alpha.iter().enumerate().map(|(i, &alpha)| mix_bytes(object(i), background(i), alpha)).collect();
        let stride = WIDTH * step + 3;
        let mut data = vec![7; stride * HEIGHT];
        for (i, &pixel) in pixels.iter().enumerate() {
            data[i / WIDTH * stride + i % WIDTH * step] = pixel;
        }
        let mut samples = SamplesMut { data: &mut data, width: WIDTH, height: HEIGHT, stride, step };
        let alpha = MaskView { values: alpha, width: WIDTH, height: HEIGHT };
        ForegroundEstimator::default().estimate(&mut samples, alpha).unwrap();
        let read = |i: usize| data[i / WIDTH * stride + i % WIDTH * step];
        let after = (0..WIDTH * HEIGHT).map(read).collect();
        let others = data
            .iter()
            .enumerate()
            .filter(|(i, _)| i % stride >= WIDTH * step || !(i % stride).is_multiple_of(step));
        assert!(others.map(|(_, value)| value).all(|&value| value == 7), "other bytes are unchanged");
        (pixels, after)
    }

    #[test]
    fn soft_edges_get_the_colour_of_the_object() {
        for (ramp, step) in [(2.0, 1), (5.0, 2), (8.0, 4), (14.0, 3)] {
            let alpha = disk(ramp);
            let (before, after) = estimated(&alpha, step);
            let error = |values: &[u8]| {
                let soft = alpha.iter().enumerate().filter(|(_, alpha)| is_soft(**alpha));
                let errors: Vec<f64> = soft
                    .map(|(i, &alpha)| f64::from(alpha) / 255.0 * f64::from(values[i].abs_diff(object(i))))
                    .collect();
                errors.iter().sum::<f64>() / errors.len() as f64
            };
            let (before_error, after_error) = (error(&before), error(&after));
            assert!(after_error < 0.2 * before_error, "ramp {ramp}: {after_error}, was {before_error}");
            let hard = alpha.iter().zip(before.iter().zip(&after)).filter(|(alpha, _)| !is_soft(**alpha));
            assert!(hard.map(|(_, (before, after))| before.abs_diff(*after)).all(|change| change == 0));
        }
    }

    #[test]
    fn without_object_or_background_nothing_changes() {
        for value in [0, 1, 128, 254, 255] {
            let (before, after) = estimated(&vec![value; WIDTH * HEIGHT], 1);
            assert!(before == after || value == 128, "alpha {value}");
        }
    }

    #[test]
    fn every_size() {
        for (width, height) in [(1, 1), (1, 40), (3, 2), (16, 16), (17, 33), (65, 15)] {
            let alpha: Vec<u8> = (0..width * height).map(|i| (i * 37) as u8).collect();
            let mut data: Vec<u8> = vec![99; width * height];
            let mut samples = SamplesMut { data: &mut data, width, height, stride: width, step: 1 };
            let alpha = MaskView { values: &alpha, width, height };
            ForegroundEstimator::default().estimate(&mut samples, alpha).unwrap();
            assert!(data.iter().all(|&value| value == 99), "{width}x{height}: {data:?}");
        }
    }
}
