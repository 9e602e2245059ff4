// SPDX-License-Identifier: MPL-2.0

//! Colours of the object in its soft edges.
//!
//! A pixel with alpha α shows I = α F + (1 − α) B. Estimates of F and B are means over the surroundings, weighted by
//! powers of α and of 1 − α, at the finest resolution that has enough weight (pull-push interpolation, Gortler et al.,
//! *The Lumigraph*, 1996). They are fused with I as in Forte and Pitié, *Approximate fast foreground colour
//! estimation*, ICIP 2021, equation 6: F + α (I − α F − (1 − α) B).

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

/// Blocks of a plane of alpha.
#[derive(Debug, Default)]
struct BlockGrid {
    across: usize,
    down: usize,
    /// Whether a block has soft alpha, neither 0 nor 255.
    soft: Vec<bool>,
    /// Blocks within [`REACH`] of soft blocks.
    near: Vec<(usize, usize)>,
}

/// Rows of values.
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
        self.down = alpha.height.div_ceil(BLOCK);
        self.soft.clear();
        self.soft.resize(self.across * self.down, false);
        for (y, row) in alpha.values.chunks_exact(alpha.width).take(alpha.height).enumerate() {
            let blocks = &mut self.soft[y / BLOCK * self.across..][..self.across];
            for (soft, alpha) in blocks.iter_mut().zip(row.chunks(BLOCK)) {
                *soft |= alpha.iter().fold(false, |soft, &alpha| soft | is_soft(alpha));
            }
        }
        self.near.clear();
        for y in 0..self.down {
            for x in 0..self.across {
                let columns = x.saturating_sub(REACH)..(x + REACH + 1).min(self.across);
                let mut rows = y.saturating_sub(REACH)..(y + REACH + 1).min(self.down);
                if rows.any(|y| self.soft[y * self.across..][columns.clone()].contains(&true)) {
                    self.near.push((x, y));
                }
            }
        }
    }
}

fn is_soft(alpha: u8) -> bool {
    // 0 and 255 become 255 and 254.
    alpha.wrapping_sub(1) < 254
}

impl ForegroundEstimator {
    /// Returns whether `alpha` has soft edges, neither 0 nor 255.
    pub fn has_soft_edges(alpha: MaskView) -> bool {
        alpha.values.chunks(BLOCK).any(|alphas| alphas.iter().fold(false, |soft, &alpha| soft | is_soft(alpha)))
    }

    /// Replaces the samples of a component where `alpha` is soft by estimates of the object's. `alpha` has the size of
    /// the component. Other samples do not change, and nothing changes if there is no object or no background to
    /// estimate from.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the samples do not fit in their data.
    pub fn estimate(&mut self, samples: &mut SamplesMut, alpha: MaskView) -> Result<()> {
        samples.check()?;
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
        field.reset((grid.across * CELLS, grid.down * CELLS), [0.0; 4]);
        for &(x, y) in &grid.near {
            let columns = (alpha.width - x * BLOCK).min(BLOCK);
            for row in 0..CELLS {
                let first = y * BLOCK + row * CELL;
                let mut weights = [[0u16; BLOCK]; 2];
                let mut values = [[0u32; BLOCK]; 2];
                for y in first..(first + CELL).min(alpha.height) {
                    let mut line = [0; BLOCK];
                    samples.read(y, x * BLOCK, &mut line[..columns]);
                    let mut powers = [[0; BLOCK]; 2];
                    let alphas = &alpha.values[y * alpha.width + x * BLOCK..][..columns];
                    for (i, &alpha) in alphas.iter().enumerate() {
                        powers[0][i] = fourth_power(alpha);
                        powers[1][i] = fourth_power(255 - alpha);
                    }
                    for side in 0..2 {
                        for i in 0..BLOCK {
                            let power = u16::from(powers[side][i]);
                            weights[side][i] += power;
                            values[side][i] += u32::from(power * u16::from(line[i]));
                        }
                    }
                }
                let cells = &mut field.values[(y * CELLS + row) * field.width + x * CELLS..][..CELLS];
                for (i, cell) in cells.iter_mut().enumerate() {
                    let part = i * CELL..(i + 1) * CELL;
                    let unit = 1.0 / (255 * CELL * CELL) as f32;
                    for side in 0..2 {
                        let weight: u16 = weights[side][part.clone()].iter().sum();
                        let value: u32 = values[side][part.clone()].iter().sum();
                        cell[2 * side] = f32::from(weight) * unit;
                        cell[2 * side + 1] = value as f32 * unit;
                    }
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
                        sum.iter_mut().zip(cell).for_each(|(sum, value)| *sum += value);
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
                for &(x, y) in &grid.near {
                    (0..CELLS * CELLS).for_each(|i| work(x * CELLS + i % CELLS, y * CELLS + i / CELLS));
                }
            } else {
                (0..sums.values.len()).for_each(|i| work(i % sums.width, i / sums.width));
            }
        }
    }

    fn fuse(&self, samples: &mut SamplesMut, alpha: MaskView) {
        let pairs = &self.pairs[0];
        for &(x, y) in &self.grid.near {
            if !self.grid.soft[y * self.grid.across + x] {
                continue;
            }
            let columns = (alpha.width - x * BLOCK).min(BLOCK);
            for y in y * BLOCK..((y + 1) * BLOCK).min(alpha.height) {
                let alphas = &alpha.values[y * alpha.width + x * BLOCK..][..columns];
                let row = samples.row_mut(y, x * BLOCK).zip(alphas).enumerate();
                for (i, (sample, &alpha)) in row.filter(|(_, (_, alpha))| is_soft(**alpha)) {
                    let [object, background] = between(pairs, x * BLOCK + i, y);
                    let alpha = f32::from(alpha) / 255.0;
                    let mixed = alpha * object + (1.0 - alpha) * background;
                    // The cast limits the range.
                    *sample = (object + alpha * (f32::from(*sample) - mixed) + 0.5) as u8;
                }
            }
        }
    }
}

/// Fourth power of a byte in which 255 is 1.0.
fn fourth_power(value: u8) -> u8 {
    let square = product(value, value);
    product(square, square)
}

/// The value at cell (`x`, `y`) of a field of half the resolution, interpolated bilinearly.
fn doubled(coarse: &Field<Pair>, x: usize, y: usize) -> Pair {
    let (x0, y0) = (x / 2, y / 2);
    let other = |at: usize, index: usize, count: usize| {
        if at.is_multiple_of(2) { index.saturating_sub(1) } else { (index + 1).min(count - 1) }
    };
    let (x1, y1) = (other(x, x0, coarse.width), other(y, y0, coarse.height()));
    let (a, b, c, d) = (coarse.at(x0, y0), coarse.at(x1, y0), coarse.at(x0, y1), coarse.at(x1, y1));
    std::array::from_fn(|i| 0.0625 * (9.0 * a[i] + 3.0 * (b[i] + c[i]) + d[i]))
}

/// The value at a sample, interpolated bilinearly between cells.
fn between(pairs: &Field<Pair>, x: usize, y: usize) -> Pair {
    let place = |at: usize, count: usize| {
        let at = (at as f32 + 0.5) / CELL as f32 - 0.5;
        let first = at.max(0.0) as usize;
        (first, (first + 1).min(count - 1), (at - first as f32).max(0.0))
    };
    let (x0, x1, u) = place(x, pairs.width);
    let (y0, y1, v) = place(y, pairs.height());
    let (a, b, c, d) = (pairs.at(x0, y0), pairs.at(x1, y0), pairs.at(x0, y1), pairs.at(x1, y1));
    std::array::from_fn(|i| {
        let (upper, lower) = (a[i] + (b[i] - a[i]) * u, c[i] + (d[i] - c[i]) * u);
        upper + (lower - upper) * v
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::mix;

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
            alpha.iter().enumerate().map(|(i, &alpha)| mix(object(i), background(i), alpha)).collect();
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
        let others = data.iter().enumerate().filter(|(i, _)| i % stride >= WIDTH * step || i % stride % step != 0);
        assert!(others.map(|(_, value)| value).all(|&value| value == 7), "other bytes are unchanged");
        (pixels, after)
    }

    #[test]
    fn soft_edges_get_the_colour_of_the_object() {
        for (ramp, step) in [(2.0, 1), (5.0, 2), (12.0, 3), (30.0, 4)] {
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
            assert!(after_error < 0.15 * before_error, "ramp {ramp}: {after_error}, was {before_error}");
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
