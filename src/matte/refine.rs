// SPDX-License-Identifier: MPL-2.0

//! Refinement of edges by a guided filter (He, Sun and Tang, *Guided Image Filtering*, 2013) in its fast form (He
//! and Sun, *Fast Guided Filter*, 2015). Around each pixel of the small mask, alpha is modelled as a linear
//! function of luma. The coefficients are enlarged and applied to the luma of the frame.
//!
//! Where luma does not explain alpha, this model is only a blurred mask. The less of the variance it explains, the
//! more weight the bilinearly enlarged mask has. The result is limited to the range of the mask's neighbouring
//! values, so flat areas do not change.

use std::ops::Range;

use super::MaskView;
use super::enlarge::LinearAxis;
use super::feather::round;
use super::guide::Guide;
use crate::Result;
use crate::image::{PlaneMut, Region};

/// Radius of the window of the linear model, in pixels of the small mask.
const RADIUS: usize = 1;
/// Radius of the window whose range of values limits the result, in pixels of the small mask.
const RANGE_RADIUS: usize = 1;
/// Range of alpha values (0 to 255) below which a window counts as flat.
pub(super) const FLAT: u8 = 12;
/// Variance of luma (0 to 255) that counts as noise; it regularises the fit.
pub(super) const LUMA_NOISE: f32 = 5.0;
/// Explained share of the variance: up to the first value the model has weight 0, from the second on weight 1.
pub(super) const EXPLAINED_RANGE: (f32, f32) = (0.1, 0.5);
/// Number of enlarged maps: weight, slope, offset, lowest and highest value.
const MAPS: usize = 5;

/// Refines edges; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct Refiner {
    columns: LinearAxis,
    rows: LinearAxis,
    /// Lowest and highest value around each pixel of the mask.
    lowest: Vec<u8>,
    highest: Vec<u8>,
    scratch: Vec<u8>,
    sums: Vec<u32>,
    /// Mean luma and mask of each pixel within the bounds.
    luma: Vec<f32>,
    mask: Vec<f32>,
    work: [Vec<f32>; 4],
    line: Vec<f32>,
    maps: [Vec<f32>; MAPS],
    /// The maps of two adjacent rows, at the width of the plane.
    upper: [Vec<f32>; MAPS],
    lower: [Vec<f32>; MAPS],
}

impl Refiner {
    /// Refines `plane`, which holds the enlarged `small` and covers `region` of `guide`. Leaves the plane
    /// unchanged if the region exceeds the guide or the mask was not enlarged.
    pub fn refine(
        &mut self,
        small: &MaskView,
        guide: &Guide,
        region: Region,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let fits = region.x + plane.width <= guide.size().0 && region.y + plane.height <= guide.size().1;
        if !fits || plane.width < small.width || plane.height < small.height {
            return Ok(());
        }
        self.columns.set(small.width, plane.width);
        self.rows.set(small.height, plane.height);
        self.find_ranges(small);
        let Some(bounds) = self.bounds(small) else { return Ok(()) };
        self.shrink(guide, region, &bounds, small);
        self.fit(&bounds);
        self.apply(small, guide, region, &bounds, plane)
    }

    fn find_ranges(&mut self, small: &MaskView) {
        let scratch = &mut self.scratch;
        extremes(small, &mut self.lowest, scratch, u8::min);
        extremes(small, &mut self.highest, scratch, u8::max);
    }

    /// Whether the mask is not flat around a pixel.
    fn is_edge(&self, index: usize) -> bool {
        self.highest[index] - self.lowest[index] >= FLAT
    }

    /// Bounds of the pixels that are needed to refine the edges; `None` if the mask is flat.
    fn bounds(&self, small: &MaskView) -> Option<Bounds> {
        let (mut columns, mut rows) = (small.width..0, small.height..0);
        for y in 0..small.height {
            let row = y * small.width..(y + 1) * small.width;
            let Some(first) = row.clone().position(|index| self.is_edge(index)) else { continue };
            let last = row.clone().rev().position(|index| self.is_edge(index)).unwrap_or_default();
            columns = columns.start.min(first)..columns.end.max(small.width - last);
            rows = rows.start.min(y)..y + 1;
        }
        let margin = 2 * RADIUS + 1;
        (rows.start < rows.end).then(|| Bounds {
            columns: columns.start.saturating_sub(margin)..(columns.end + margin).min(small.width),
            rows: rows.start.saturating_sub(margin)..(rows.end + margin).min(small.height),
        })
    }

    /// Averages luma over the area of each pixel of the small mask.
    fn shrink(&mut self, guide: &Guide, region: Region, bounds: &Bounds, small: &MaskView) {
        let (width, height) = (self.columns.len(), self.rows.len());
        let column = |position: usize| position * width / small.width;
        let (begin, end) = (column(bounds.columns.start), column(bounds.columns.end));
        self.luma.clear();
        self.mask.clear();
        for y in bounds.rows.clone() {
            let rows = y * height / small.height..(y + 1) * height / small.height;
            self.sums.clear();
            self.sums.resize(end - begin, 0);
            for row in rows.clone() {
                let values = guide.row(region.y + row, region.x + begin..region.x + end);
                self.sums.iter_mut().zip(&*values).for_each(|(sum, &value)| *sum += u32::from(value));
            }
            for x in bounds.columns.clone() {
                let columns = column(x) - begin..column(x + 1) - begin;
                let count = columns.len() * rows.len();
                let sum: u32 = self.sums[columns].iter().sum();
                self.luma.push(sum as f32 / count as f32);
                self.mask.push(f32::from(small.values[y * small.width + x]));
            }
        }
    }

    /// Computes the coefficients of the linear models.
    fn fit(&mut self, bounds: &Bounds) {
        let (width, height) = (bounds.columns.len(), bounds.rows.len());
        let [mean_luma, mean_mask, luma_luma, luma_mask] = &mut self.work;
        let [share, slope, offset, scratch, _] = &mut self.maps;
        let line = &mut self.line;
        let product = |a: &[f32], b: &[f32], out: &mut Vec<f32>| {
            out.clear();
            out.extend(a.iter().zip(b).map(|(a, b)| a * b));
        };
        let mut mean = |from: &[f32], to: &mut Vec<f32>, line: &mut Vec<f32>| {
            mean(from, to, scratch, line, (width, height));
        };
        mean(&self.luma, mean_luma, line);
        mean(&self.mask, mean_mask, line);
        product(&self.luma, &self.luma, offset);
        mean(offset, luma_luma, line);
        product(&self.luma, &self.mask, offset);
        mean(offset, luma_mask, line);
        product(&self.mask, &self.mask, offset);
        mean(offset, share, line);
        slope.clear();
        offset.clear();
        for index in 0..width * height {
            let (i, p) = (mean_luma[index], mean_mask[index]);
            let variance = (luma_luma[index] - i * i).max(0.0) + LUMA_NOISE;
            let spread = (share[index] - p * p).max(0.0) + 1.0;
            let covariance = luma_mask[index] - i * p;
            let explained = covariance * covariance / (variance * spread);
            let trust =
                ((explained - EXPLAINED_RANGE.0) / (EXPLAINED_RANGE.1 - EXPLAINED_RANGE.0)).clamp(0.0, 1.0);
            // The slope of the mask at an edge of luma; the least-squares slope would be flatter.
            let a = covariance / variance / explained.max(EXPLAINED_RANGE.0);
            slope.push(trust * a);
            offset.push(trust * (p - a * i));
            share[index] = trust;
        }
        for map in [share, slope, offset] {
            mean(map, luma_luma, line);
            std::mem::swap(map, luma_luma);
        }
    }

    fn apply(
        &mut self,
        small: &MaskView,
        guide: &Guide,
        region: Region,
        bounds: &Bounds,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let mut runs = Vec::new();
        let mut current = None;
        let interpolate = self.columns.len();
        for map in self.upper.iter_mut().chain(&mut self.lower) {
            map.resize(interpolate, 0.0);
        }
        let mut out = plane.rows()?;
        for y in 0..self.rows.len() {
            let Some(out) = out.next() else { break };
            let (first, second, share) = self.rows.between(y);
            if current != Some(first) {
                current = Some(first);
                runs.clear();
                self.find_runs(small, (first, second), &mut runs);
                for run in &runs {
                    self.enlarge_row(small, bounds, first, run, true);
                    self.enlarge_row(small, bounds, second, run, false);
                }
            }
            for run in &runs {
                let luma = guide.row(region.y + y, region.x + run.start..region.x + run.end);
                self.blend(run.clone(), share, &luma, &mut out[run.clone()]);
            }
        }
        Ok(())
    }

    /// Finds the columns of the plane that are interpolated from pixels around which the mask is not flat.
    fn find_runs(&self, small: &MaskView, rows: (usize, usize), runs: &mut Vec<Range<usize>>) {
        let is_edge =
            |x: usize| self.is_edge(rows.0 * small.width + x) || self.is_edge(rows.1 * small.width + x);
        let mut x = 0;
        while x < small.width {
            let begin = x;
            while x < small.width && is_edge(x) {
                x += 1;
            }
            if x > begin {
                let run = self.columns.start(begin.saturating_sub(1))..self.columns.start(x);
                match runs.last_mut() {
                    Some(last) if last.end >= run.start => last.end = run.end,
                    _ => runs.push(run),
                }
            }
            x += 1;
        }
    }

    fn enlarge_row(
        &mut self,
        small: &MaskView,
        bounds: &Bounds,
        row: usize,
        run: &Range<usize>,
        upper: bool,
    ) {
        let target = if upper { &mut self.upper } else { &mut self.lower };
        let start = (row - bounds.rows.start) * bounds.columns.len();
        let own = |x: usize| start + x - bounds.columns.start;
        for (map, out) in self.maps[..3].iter().zip(target.iter_mut()) {
            self.columns.interpolate(run, |position| map[own(position)], &mut out[run.clone()]);
        }
        for (map, out) in [&self.lowest, &self.highest].into_iter().zip(&mut target[3..]) {
            let map = &map[row * small.width..][..small.width];
            self.columns.interpolate(run, |position| f32::from(map[position]), &mut out[run.clone()]);
        }
    }

    fn blend(&self, run: Range<usize>, share: f32, luma: &[u8], out: &mut [u8]) {
        let count = run.len().min(luma.len());
        let rows =
            |map: usize| (&self.upper[map][run.clone()][..count], &self.lower[map][run.clone()][..count]);
        let maps: [_; MAPS] = std::array::from_fn(rows);
        let (luma, out) = (&luma[..count], &mut out[..count]);
        for x in 0..count {
            let at = |map: usize| {
                let (a, b) = (maps[map].0[x], maps[map].1[x]);
                a + (b - a) * share
            };
            let bilinear = f32::from(out[x]);
            let refined = bilinear + at(1) * f32::from(luma[x]) + at(2) - at(0) * bilinear;
            out[x] = round(refined.max(at(3)).min(at(4))) as u8;
        }
    }
}

/// A rectangle in pixels of the small mask.
struct Bounds {
    columns: Range<usize>,
    rows: Range<usize>,
}

/// Lowest or highest value, as chosen by `pick`, within [`RANGE_RADIUS`] of each pixel.
fn extremes(small: &MaskView, to: &mut Vec<u8>, scratch: &mut Vec<u8>, pick: impl Fn(u8, u8) -> u8 + Copy) {
    let MaskView { values, width, height } = *small;
    scratch.clear();
    scratch.extend_from_slice(values);
    for (row, from) in scratch.chunks_exact_mut(width).zip(values.chunks_exact(width)) {
        for step in 1..=RANGE_RADIUS.min(width - 1) {
            row[step..].iter_mut().zip(from).for_each(|(out, &value)| *out = pick(*out, value));
            row.iter_mut().zip(&from[step..]).for_each(|(out, &value)| *out = pick(*out, value));
        }
    }
    to.clear();
    to.extend_from_slice(scratch);
    for step in 1..=RANGE_RADIUS.min(height - 1) {
        let step = step * width;
        to[step..].iter_mut().zip(&*scratch).for_each(|(out, &value)| *out = pick(*out, value));
        to.iter_mut().zip(&scratch[step..]).for_each(|(out, &value)| *out = pick(*out, value));
    }
}

/// Mean within [`RADIUS`] of each pixel; windows end at the borders.
fn mean(
    from: &[f32],
    to: &mut Vec<f32>,
    scratch: &mut Vec<f32>,
    line: &mut Vec<f32>,
    (width, height): (usize, usize),
) {
    const SCALES: [f32; 2 * RADIUS + 2] = {
        let mut scales = [0.0; 2 * RADIUS + 2];
        let mut count = 1;
        while count < scales.len() {
            scales[count] = 1.0 / count as f32;
            count += 1;
        }
        scales
    };
    let window =
        |position: usize, length: usize| position.saturating_sub(RADIUS)..(position + RADIUS + 1).min(length);
    scratch.clear();
    scratch.resize(from.len(), 0.0);
    for (row, out) in from.chunks_exact(width).zip(scratch.chunks_exact_mut(width)) {
        out.copy_from_slice(row);
        for step in 1..=RADIUS.min(width - 1) {
            out[step..].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            out.iter_mut().zip(&row[step..]).for_each(|(sum, value)| *sum += value);
        }
        for (x, sum) in out.iter_mut().enumerate() {
            *sum *= SCALES[window(x, width).len()];
        }
    }
    to.clear();
    for y in 0..height {
        let window = window(y, height);
        let scale = 1.0 / window.len() as f32;
        line.clear();
        line.resize(width, 0.0);
        for row in scratch[window.start * width..window.end * width].chunks_exact(width) {
            line.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        to.extend(line.iter().map(|sum| sum * scale));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matte::Enlarger;
    use crate::matte::testing::contour;

    const SIZE: (usize, usize) = (96, 48);

    /// Enlarges a 12x6 mask with an edge in the middle to 96x48, and refines it by `luma` at (x, y). Returns the
    /// bilinear and the refined plane.
    fn refined(luma: impl Fn(usize, usize) -> u8) -> (Vec<u8>, Vec<u8>) {
        let (width, height) = SIZE;
        let small: Vec<u8> =
            (0..72).map(|i| [0, 0, 0, 0, 0, 40, 215, 255, 255, 255, 255, 255][i % 12]).collect();
        let small = MaskView { values: &small, width: 12, height: 6 };
        let luma: Vec<u8> = (0..width * height).map(|i| luma(i % width, i / width)).collect();
        let guide = Guide::bytes(&luma, SIZE, width, 1).unwrap();
        let mut data = vec![0; width * height];
        let plane = &mut PlaneMut { data: &mut data, width, height, stride: width };
        Enlarger::default().enlarge(&small, plane).unwrap();
        let bilinear = plane.data.to_vec();
        let region = Region { x: 0, y: 0, width, height };
        Refiner::default().refine(&small, &guide, region, plane).unwrap();
        (bilinear, data)
    }

    #[test]
    fn edges_follow_those_of_luma() {
        for edge in [45, 48, 51] {
            for (dark, bright) in [(40, 200), (200, 40)] {
                let (bilinear, after) = refined(|x, _| if x < edge { dark } else { bright });
                let row = &after[20 * 96..21 * 96];
                let (wanted, found) = (edge as f64 - 0.5, contour(row));
                assert!((found - wanted).abs() <= 0.6, "{edge}: {found}");
                let ramp = |row: &[u8]| row.iter().filter(|&&value| value > 64 && value < 191).count();
                assert!(ramp(row) < ramp(&bilinear[..96]), "{row:?}");
            }
        }
    }

    #[test]
    fn without_an_edge_in_luma_nothing_changes() {
        let (bilinear, after) = refined(|_, _| 99);
        assert_eq!(bilinear, after);
    }

    #[test]
    fn texture_changes_edges_little_and_flat_areas_not_at_all() {
        let (bilinear, after) = refined(|x, y| (40 + (x * 7919 + y * 104_729) % 151) as u8);
        for (i, (a, b)) in bilinear.iter().zip(&after).enumerate() {
            let x = i % 96;
            if !(28..68).contains(&x) {
                assert_eq!(a, b, "at {x}");
            }
        }
        let change: u64 = bilinear.iter().zip(&after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(change / (48 * 40) < 25, "{change}");
    }

    #[test]
    fn any_size_and_region_is_safe() {
        for (w, h, width, height, x, y) in [
            (1, 1, 1, 1, 0, 0),
            (1, 1, 5, 3, 2, 1),
            (3, 2, 7, 5, 1, 2),
            (5, 5, 4, 9, 0, 0),
            (2, 7, 3, 7, 9, 9),
        ] {
            let values: Vec<u8> = (0..w * h).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect();
            let small = MaskView { values: &values, width: w, height: h };
            let luma: Vec<u8> = (0..8 * 8).map(|i| (i * 37 % 256) as u8).collect();
            let guide = Guide::bytes(&luma, (8, 8), 8, 1).unwrap();
            let mut data = vec![100; (width + 2) * height];
            let plane = &mut PlaneMut { data: &mut data, width, height, stride: width + 2 };
            Refiner::default().refine(&small, &guide, Region { x, y, width, height }, plane).unwrap();
            assert!(data.chunks(width + 2).all(|row| row[width..] == [100; 2]));
        }
    }
}
