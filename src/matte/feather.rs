// SPDX-License-Identifier: MPL-2.0

//! Feathering: two box filters in sequence per direction turn each edge into an S-shaped ramp around its position.

use super::MaskView;
use super::blocks::{Blocks, Rect};
use crate::Result;
use crate::image::PlaneMut;

/// Maximum width added to edges, in pixels.
pub const MAX_FEATHER: f64 = 256.0;
/// Fractional bits of the intermediate values.
const FRACTION_BITS: u32 = 7;

/// Feathers mattes; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct Featherer {
    blocks: Blocks,
    bytes: Vec<u8>,
    lines: [Vec<i32>; 2],
    sums: Vec<i32>,
    planes: [Vec<i32>; 2],
}

/// One-dimensional box filter of fractional width: the outermost value on each side has a lower weight.
#[derive(Clone, Copy, Debug)]
struct BoxFilter {
    /// Number of values on each side with full weight.
    radius: usize,
    /// Weight of each of these.
    inner: f32,
    /// Weight of the outermost value on each side.
    outer: f32,
}

impl BoxFilter {
    /// Box filter of a width of `1 + extra` pixels.
    fn new(extra: f64) -> Self {
        let half = extra / 2.0;
        Self {
            radius: half as usize,
            inner: (1.0 / (1.0 + extra)) as f32,
            outer: (half.fract() / (1.0 + extra)) as f32,
        }
    }

    fn reach(self) -> usize {
        self.radius + 1
    }

    fn mean(self, inner: i32, outer: i32) -> i32 {
        round(inner as f32 * self.inner + outer as f32 * self.outer)
    }
}

/// Rounds a value from 0 to 2²² to the nearest integer. Adding 2²³ leaves no bits for a fraction, so the integer
/// is in the low bits of the float. Unlike a cast, this needs no range check.
#[inline(always)]
pub fn round(value: f32) -> i32 {
    const TWO_POW_23: f32 = 8_388_608.0;
    (value + TWO_POW_23).to_bits() as i32 - TWO_POW_23.to_bits() as i32
}

impl Featherer {
    /// Widens edges by `width` pixels, at most [`MAX_FEATHER`].
    pub fn feather(&mut self, from: MaskView, width: f64, to: &mut PlaneMut) -> Result<()> {
        let filter = BoxFilter::new(width.clamp(0.0, MAX_FEATHER) / 2.0);
        let mut blocks = std::mem::take(&mut self.blocks);
        let result =
            blocks.filter(from, to, 2 * filter.reach(), |rect, to| self.soften(from, filter, &rect, to));
        self.blocks = blocks;
        result
    }

    fn soften(&mut self, from: MaskView, filter: BoxFilter, rect: &Rect, to: &mut PlaneMut) {
        let (width, height) = (rect.columns.len(), rect.rows.len());
        let margin = 2 * filter.reach();
        let columns = rect.columns.start as isize - margin as isize..(rect.columns.end + margin) as isize;
        let [horizontal, both] = &mut self.planes;
        horizontal.resize(width * (height + 2 * margin), 0);
        for (row, out) in horizontal.chunks_exact_mut(width).enumerate() {
            from.read((rect.rows.start + row) as isize - margin as isize, columns.clone(), &mut self.bytes);
            let [line, once] = &mut self.lines;
            line.clear();
            line.extend(self.bytes.iter().map(|&value| i32::from(value) << FRACTION_BITS));
            once.resize(width + margin, 0);
            filter_line(line, once, filter, &mut self.sums);
            filter_line(once, out, filter, &mut self.sums);
        }
        both.resize(width * (height + margin), 0);
        filter_columns(horizontal, both, width, filter, &mut self.sums);
        filter_columns(both, &mut horizontal[..width * height], width, filter, &mut self.sums);
        for (y, values) in rect.rows.clone().zip(horizontal.chunks_exact(width)) {
            let start = y * to.stride + rect.columns.start;
            let Some(out) = to.data.get_mut(start..start + width) else { continue };
            for (out, value) in out.iter_mut().zip(values) {
                *out = ((value + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS) as u8;
            }
        }
    }
}

/// Filters a line. `from` extends `reach` values beyond `to` on both sides.
fn filter_line(from: &[i32], to: &mut [i32], filter: BoxFilter, sums: &mut Vec<i32>) {
    sums.clear();
    let mut sum = 0;
    sums.push(0);
    sums.extend(from.iter().map(|value| {
        sum += value;
        sum
    }));
    let count = to.len();
    let length = 2 * filter.radius + 1;
    let inner = sums[1 + length..][..count].iter().zip(&sums[1..][..count]);
    let outer = from[..count].iter().zip(&from[1 + length..][..count]);
    for ((out, (b, a)), (first, last)) in to.iter_mut().zip(inner).zip(outer) {
        *out = filter.mean(b - a, first + last);
    }
}

/// Filters all columns of a plane of `width` columns. `from` has `reach` more rows than `to` on both sides.
fn filter_columns(from: &[i32], to: &mut [i32], width: usize, filter: BoxFilter, sums: &mut Vec<i32>) {
    let row = |y: usize| &from[y * width..][..width];
    let length = 2 * filter.radius + 1;
    sums.clear();
    sums.resize(width, 0);
    for y in 1..length {
        sums.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum += value);
    }
    for (y, out) in to.chunks_exact_mut(width).enumerate() {
        let edges = row(y).iter().zip(row(y + length + 1));
        let ends = row(y + length).iter().zip(row(y + 1));
        for (((out, sum), (first, last)), (enters, leaves)) in
            out.iter_mut().zip(sums.iter_mut()).zip(edges).zip(ends)
        {
            *sum += enters;
            *out = filter.mean(*sum, first + last);
            *sum -= leaves;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matte::testing::{contour, disk, edge};

    fn feathered(values: &[u8], width: usize, feather: f64) -> Vec<u8> {
        let height = values.len() / width;
        let mut out = vec![0; values.len()];
        let mut plane = PlaneMut { data: &mut out, width, height, stride: width };
        Featherer::default().feather(MaskView { values, width, height }, feather, &mut plane).unwrap();
        out
    }

    #[test]
    fn a_hard_edge_becomes_a_centred_ramp_of_the_feather_width() {
        for feather in [0.4, 1.0, 2.0, 5.5, 12.0, 30.0] {
            let before = edge(128, 60.3, 1.0);
            let after = feathered(&before, 128, feather);
            let row = &after[7 * 128..8 * 128];
            assert!((contour(row) - contour(&before[..128])).abs() < 0.1, "{feather}");
            assert!(row.is_sorted(), "{feather}");
            let ramp = row.iter().filter(|&&value| value != 0 && value != 255).count() as f64;
            assert!(ramp >= feather - 2.0 && ramp <= feather + 5.0, "{feather}: {ramp} pixels");
        }
        // Symmetric about the edge between two pixels.
        let row: Vec<u8> = (0..40).map(|x| if x < 20 { 0 } else { 255 }).collect();
        let after = feathered(&row, 40, 11.0);
        for x in 0..20 {
            assert!(after[x].abs_diff(255 - after[39 - x]) <= 1);
        }
    }

    #[test]
    fn feathering_applies_the_box_filter_twice() {
        // Feather 4: two box filters of three pixels.
        let row = [0, 0, 0, 0, 0, 0, 0, 243, 0, 0, 0, 0, 0, 0, 0];
        let after = feathered(&row, 15, 4.0);
        assert_eq!(after, [0, 0, 0, 0, 0, 27, 54, 81, 54, 27, 0, 0, 0, 0, 0]);
        // Feather 2: the outer two of the three pixels have half the weight.
        let row = [0, 0, 0, 0, 0, 0, 0, 160, 0, 0, 0, 0, 0, 0, 0];
        let after = feathered(&row, 15, 2.0);
        assert_eq!(after, [0, 0, 0, 0, 0, 10, 40, 60, 40, 10, 0, 0, 0, 0, 0]);
        assert_eq!(feathered(&row, 1, 2.0), after, "vertically");
    }

    #[test]
    fn a_disk_keeps_its_size() {
        let side = 100;
        let before = disk(side, 30.0, 1.0);
        let after = feathered(&before, side, 10.0);
        let (before, after) = (&before[50 * side..][..50], &after[50 * side..][..50]);
        assert!((contour(before) - contour(after)).abs() < 0.25);
    }

    #[test]
    fn a_larger_width_is_softer_and_0_changes_nothing() {
        let before = disk(70, 20.0, 1.0);
        assert_eq!(feathered(&before, 70, 0.0), before);
        let soft = |feather: f64| {
            let after = feathered(&before, 70, feather);
            after.windows(2).map(|pair| i64::from(pair[0].abs_diff(pair[1])).pow(2)).sum::<i64>()
        };
        let steepness: Vec<i64> = (0..40).map(|step| soft(f64::from(step) / 4.0)).collect();
        assert!(steepness.is_sorted_by(|a, b| a > b), "{steepness:?}");
    }

    #[test]
    fn flat_areas_are_unchanged_at_any_size() {
        for value in [0, 1, 254, 255] {
            assert_eq!(feathered(&[value; 15], 5, 300.0), [value; 15]);
        }
        let before = edge(200, 100.0, 1.0);
        for row in feathered(&before, 200, 16.0).chunks(200) {
            assert!(row[..85].iter().all(|&value| value == 0));
            assert!(row[116..].iter().all(|&value| value == 255));
        }
    }
}
