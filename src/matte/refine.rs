//! Edges that follow those of the picture: a guided filter (He, Sun and Tang, *Guided Image Filtering*, 2013)
//! in its fast form (He and Sun, *Fast Guided Filter*, 2015). Around each place of the small mask, alpha is
//! taken for a linear function of luma; its coefficients are enlarged, and applied to the luma of the frame.
//!
//! Where luma tells nothing, such a function is but a blurred mask. So the evenly enlarged mask stays, by as
//! much as luma leaves unexplained of it, and the result never leaves the range of the mask near by: where
//! that is flat, nothing changes.

use std::ops::Range;

use super::MaskView;
use super::enlarge::Taps;
use super::feather::round;
use super::guide::Guide;
use crate::Result;
use crate::image::{PlaneMut, Region};

/// Places of the small mask to each side that a function is fitted to.
const RADIUS: usize = 1;
/// Places to each side whose range of values is allowed.
const RANGE: usize = 1;
/// A range of alpha below this one, of 255, is flat.
pub(super) const FLAT: u8 = 12;
/// Variance of luma, of 255², that counts as noise.
pub(super) const EPS: f32 = 5.0;
/// How the explained share becomes the share of the refined value: 0 below the first, 1 from the second on.
pub(super) const TRUST: (f32, f32) = (0.1, 0.5);
/// Maps that are enlarged: share, slope, offset, least and greatest value.
const MAPS: usize = 5;

/// Refines, and keeps its buffers from frame to frame.
#[derive(Debug, Default)]
pub struct Refiner {
    columns: Taps,
    rows: Taps,
    /// Ranges of the mask, for all places.
    least: Vec<u8>,
    greatest: Vec<u8>,
    spare: Vec<u8>,
    sums: Vec<u32>,
    /// One per place within the bounds of what is looked at.
    luma: Vec<f32>,
    mask: Vec<f32>,
    work: [Vec<f32>; 4],
    line: Vec<f32>,
    maps: [Vec<f32>; MAPS],
    /// The maps of two rows, at the plane's width.
    upper: [Vec<f32>; MAPS],
    lower: [Vec<f32>; MAPS],
}

impl Refiner {
    /// Refines `plane`, which holds the enlarged `small` and shows `region` of what `guide` shows. A guide of
    /// another size, or a mask that was not enlarged, leaves it as it is.
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
        let spare = &mut self.spare;
        extremes(small, &mut self.least, spare, u8::min);
        extremes(small, &mut self.greatest, spare, u8::max);
    }

    /// Whether the mask is not flat around a place.
    fn is_open(&self, index: usize) -> bool {
        self.greatest[index] - self.least[index] >= FLAT
    }

    /// What has to be looked at.
    fn bounds(&self, small: &MaskView) -> Option<Bounds> {
        let (mut columns, mut rows) = (small.width..0, small.height..0);
        for y in 0..small.height {
            let row = y * small.width..(y + 1) * small.width;
            let Some(first) = row.clone().position(|index| self.is_open(index)) else { continue };
            let last = row.clone().rev().position(|index| self.is_open(index)).unwrap_or_default();
            columns = columns.start.min(first)..columns.end.max(small.width - last);
            rows = rows.start.min(y)..y + 1;
        }
        let margin = 2 * RADIUS + 1;
        (rows.start < rows.end).then(|| Bounds {
            columns: columns.start.saturating_sub(margin)..(columns.end + margin).min(small.width),
            rows: rows.start.saturating_sub(margin)..(rows.end + margin).min(small.height),
        })
    }

    /// The mean luma of the pixels of each place.
    fn shrink(&mut self, guide: &Guide, region: Region, bounds: &Bounds, small: &MaskView) {
        let (width, height) = (self.columns.len(), self.rows.len());
        let column = |place: usize| place * width / small.width;
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

    /// The coefficients of the functions.
    fn fit(&mut self, bounds: &Bounds) {
        let (width, height) = (bounds.columns.len(), bounds.rows.len());
        let [mean_luma, mean_mask, luma_luma, luma_mask] = &mut self.work;
        let [share, slope, offset, spare, _] = &mut self.maps;
        let line = &mut self.line;
        let product = |a: &[f32], b: &[f32], out: &mut Vec<f32>| {
            out.clear();
            out.extend(a.iter().zip(b).map(|(a, b)| a * b));
        };
        let mut mean = |from: &[f32], to: &mut Vec<f32>, line: &mut Vec<f32>| {
            mean(from, to, spare, line, (width, height));
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
            let variance = (luma_luma[index] - i * i).max(0.0) + EPS;
            let spread = (share[index] - p * p).max(0.0) + 1.0;
            let covariance = luma_mask[index] - i * p;
            let explained = covariance * covariance / (variance * spread);
            let trust = ((explained - TRUST.0) / (TRUST.1 - TRUST.0)).clamp(0.0, 1.0);
            // As steep as the mask is where luma has an edge, rather than as flat as the best guess.
            let a = covariance / variance / explained.max(TRUST.0);
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
        let stretch = self.columns.len();
        for map in self.upper.iter_mut().chain(&mut self.lower) {
            map.resize(stretch, 0.0);
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

    /// Columns of the plane whose alpha comes from a place around which the mask is not flat.
    fn find_runs(&self, small: &MaskView, rows: (usize, usize), runs: &mut Vec<Range<usize>>) {
        let open =
            |x: usize| self.is_open(rows.0 * small.width + x) || self.is_open(rows.1 * small.width + x);
        let mut x = 0;
        while x < small.width {
            let begin = x;
            while x < small.width && open(x) {
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
            self.columns.stretch(run, |place| map[own(place)], &mut out[run.clone()]);
        }
        for (map, out) in [&self.least, &self.greatest].into_iter().zip(&mut target[3..]) {
            let map = &map[row * small.width..][..small.width];
            self.columns.stretch(run, |place| f32::from(map[place]), &mut out[run.clone()]);
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
            let even = f32::from(out[x]);
            let refined = even + at(1) * f32::from(luma[x]) + at(2) - at(0) * even;
            out[x] = round(refined.max(at(3)).min(at(4))) as u8;
        }
    }
}

/// Places of the small mask.
struct Bounds {
    columns: Range<usize>,
    rows: Range<usize>,
}

/// The least or greatest value within [`RANGE`] of each.
fn extremes(small: &MaskView, to: &mut Vec<u8>, spare: &mut Vec<u8>, pick: impl Fn(u8, u8) -> u8 + Copy) {
    let MaskView { values, width, height } = *small;
    spare.clear();
    spare.extend_from_slice(values);
    for (row, from) in spare.chunks_exact_mut(width).zip(values.chunks_exact(width)) {
        for step in 1..=RANGE.min(width - 1) {
            row[step..].iter_mut().zip(from).for_each(|(out, &value)| *out = pick(*out, value));
            row.iter_mut().zip(&from[step..]).for_each(|(out, &value)| *out = pick(*out, value));
        }
    }
    to.clear();
    to.extend_from_slice(spare);
    for step in 1..=RANGE.min(height - 1) {
        let step = step * width;
        to[step..].iter_mut().zip(&*spare).for_each(|(out, &value)| *out = pick(*out, value));
        to.iter_mut().zip(&spare[step..]).for_each(|(out, &value)| *out = pick(*out, value));
    }
}

/// Means within [`RADIUS`], of what there is within the borders.
fn mean(
    from: &[f32],
    to: &mut Vec<f32>,
    spare: &mut Vec<f32>,
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
    let window = |place: usize, length: usize| place.saturating_sub(RADIUS)..(place + RADIUS + 1).min(length);
    spare.clear();
    spare.resize(from.len(), 0.0);
    for (row, out) in from.chunks_exact(width).zip(spare.chunks_exact_mut(width)) {
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
        for row in spare[window.start * width..window.end * width].chunks_exact(width) {
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

    /// A mask of 12x6 with its edge in the middle, a frame of 96x48 with its edge at `edge`.
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
        let even = plane.data.to_vec();
        let region = Region { x: 0, y: 0, width, height };
        Refiner::default().refine(&small, &guide, region, plane).unwrap();
        (even, data)
    }

    #[test]
    fn edges_become_those_of_the_picture() {
        for edge in [45, 48, 51] {
            for (dark, bright) in [(40, 200), (200, 40)] {
                let (even, after) = refined(|x, _| if x < edge { dark } else { bright });
                let row = &after[20 * 96..21 * 96];
                let (wanted, found) = (edge as f64 - 0.5, contour(row));
                assert!((found - wanted).abs() <= 0.6, "{edge}: {found}");
                let ramp = |row: &[u8]| row.iter().filter(|&&value| value > 64 && value < 191).count();
                assert!(ramp(row) < ramp(&even[..96]), "{row:?}");
            }
        }
    }

    #[test]
    fn without_an_edge_in_the_picture_nothing_changes() {
        let (even, after) = refined(|_, _| 99);
        assert_eq!(even, after);
    }

    #[test]
    fn texture_changes_little_and_flat_parts_not_at_all() {
        let (even, after) = refined(|x, y| (40 + (x * 7919 + y * 104_729) % 151) as u8);
        for (i, (a, b)) in even.iter().zip(&after).enumerate() {
            let x = i % 96;
            if !(28..68).contains(&x) {
                assert_eq!(a, b, "at {x}");
            }
        }
        let change: u64 = even.iter().zip(&after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(change / (48 * 40) < 25, "{change}");
    }

    #[test]
    fn any_size_and_place_is_safe() {
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
