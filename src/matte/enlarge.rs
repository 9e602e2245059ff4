// SPDX-License-Identifier: MPL-2.0

//! Bilinear enlargement of 8-bit masks.

use super::MaskView;
use crate::Result;
use crate::image::PlaneMut;

/// Fractional bits of the values between the horizontal and the vertical pass.
const FRACTION_BITS: u32 = 6;

/// Enlarges masks; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct Enlarger {
    columns: LinearAxis,
    rows: LinearAxis,
    upper: Line,
    lower: Line,
}

/// Linear interpolation along one axis: the two source positions of each destination position, and their weights.
#[derive(Debug, Default)]
pub struct LinearAxis {
    /// Length of the source and of the destination axis.
    size: (usize, usize),
    /// Lower source position.
    first: Vec<usize>,
    /// Weight of the higher source position, in units of 1 / 2^15.
    share: Vec<i16>,
    /// For each source position, the first destination position whose lower source position is not below it.
    starts: Vec<usize>,
}

impl LinearAxis {
    /// Sets the length of the source axis (`from`) and of the destination axis (`to`), both at least 1. Pixel
    /// centres are at half-integers.
    pub fn set(&mut self, from: usize, to: usize) {
        if self.size == (from, to) {
            return;
        }
        self.size = (from, to);
        self.first.clear();
        self.share.clear();
        for position in 0..to {
            let at = ((position as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
            self.first.push(at as usize);
            self.share.push((at.fract() * 32767.0).round() as i16);
        }
        let first = &self.first;
        self.starts = (0..=from).map(|position| first.partition_point(|&it| it < position)).collect();
    }

    /// The first destination position whose lower source position is not below `position`.
    pub fn start(&self, position: usize) -> usize {
        self.starts[position.min(self.size.0)]
    }
}

/// A source row, interpolated to the destination width.
#[derive(Debug, Default)]
struct Line {
    row: Option<usize>,
    values: Vec<i16>,
    /// Range of columns outside of which all values are 0.
    extent: (usize, usize),
}

impl Line {
    fn set(&mut self, small: &MaskView, row: usize, columns: &LinearAxis) {
        if self.row == Some(row) {
            return;
        }
        self.row = Some(row);
        self.values.resize(columns.size.1, 0);
        let source = &small.values[row * small.width..][..small.width];
        let begin = source.iter().position(|&value| value != 0).unwrap_or(small.width);
        let end = source.iter().rposition(|&value| value != 0).map_or(begin, |last| last + 1);
        self.extent = (columns.start(begin.saturating_sub(1)), columns.start(end));
        if begin == end {
            self.extent = (0, 0);
        }
        self.values[..self.extent.0].fill(0);
        self.values[self.extent.1..].fill(0);
        for position in begin.saturating_sub(1)..end {
            let a = i32::from(source[position]);
            let b = i32::from(source[(position + 1).min(small.width - 1)]);
            let run = columns.start(position)..columns.start(position + 1);
            let values = &mut self.values[run.clone()];
            if a == b {
                values.fill((a << FRACTION_BITS) as i16);
            } else {
                let slope = (b - a) << (FRACTION_BITS + 1);
                for (value, share) in values.iter_mut().zip(&columns.share[run]) {
                    *value = ((a << FRACTION_BITS) + ((slope * i32::from(*share)) >> 16)) as i16;
                }
            }
        }
    }
}

impl Enlarger {
    /// Interpolates `small` at the pixels of `plane`. At the same size, the mask is copied. A plane of less than half the size
    /// misses pixels.
    pub fn enlarge(&mut self, small: &MaskView, plane: &mut PlaneMut) -> Result<()> {
        if (small.width, small.height) == (plane.width, plane.height) {
            return plane.copy(small.values);
        }
        self.columns.set(small.width, plane.width);
        self.rows.set(small.height, plane.height);
        self.upper.row = None;
        self.lower.row = None;
        for (y, out) in plane.rows()?.enumerate() {
            let first = self.rows.first[y];
            if self.lower.row == Some(first) {
                std::mem::swap(&mut self.upper, &mut self.lower);
            }
            self.upper.set(small, first, &self.columns);
            self.lower.set(small, (first + 1).min(small.height - 1), &self.columns);
            mix(&self.upper, &self.lower, self.rows.share[y], out);
        }
        Ok(())
    }
}

fn mix(upper: &Line, lower: &Line, share: i16, out: &mut [u8]) {
    let (begin, end) = match (upper.extent, lower.extent) {
        ((0, 0), other) | (other, (0, 0)) => other,
        (a, b) => (a.0.min(b.0), a.1.max(b.1)),
    };
    out[..begin].fill(0);
    out[end..].fill(0);
    let lines = upper.values[begin..end].iter().zip(&lower.values[begin..end]);
    for (out, (&a, &b)) in out[begin..end].iter_mut().zip(lines) {
        // Values are at most 255 << 6, so twice the difference still fits in 16 bits. Processors have SIMD
        // instructions for these operations on eight such values.
        let twice = (b - a) << 1;
        let value = a + ((i32::from(twice) * i32::from(share)) >> 16) as i16;
        *out = ((value + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enlarged(values: &[u8], (w, h): (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
        let mut data = vec![0x55; width * height];
        let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
        let small = MaskView { values, width: w, height: h };
        Enlarger::default().enlarge(&small, &mut plane).unwrap();
        data
    }

    #[test]
    fn values_are_interpolated_between_pixel_centres() {
        assert_eq!(enlarged(&[0, 200], (2, 1), (4, 1)), [0, 50, 150, 200]);
        assert_eq!(enlarged(&[0, 200], (1, 2), (1, 4)), [0, 50, 150, 200]);
        assert_eq!(enlarged(&[7], (1, 1), (3, 2)), [7; 6]);
        assert_eq!(enlarged(&[0, 100, 200, 44], (2, 2), (2, 2)), [0, 100, 200, 44]);
    }

    #[test]
    fn every_size_matches_bilinear_interpolation() {
        let small: Vec<u8> = (0..7 * 5).map(|i| [0, 0, 255, 13, 200, 0][i * i % 6]).collect();
        let mut enlarger = Enlarger::default();
        for (width, height) in [(7, 5), (8, 5), (7, 6), (13, 21), (100, 9), (64, 64), (9, 77), (5, 3), (4, 9)]
        {
            let mut data = vec![1; width * height];
            let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
            enlarger.enlarge(&MaskView { values: &small, width: 7, height: 5 }, &mut plane).unwrap();
            let at = |position: usize, from: usize, to: usize| {
                ((position as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0)
            };
            for (i, &value) in data.iter().enumerate() {
                let (x, y) = (at(i % width, 7, width), at(i / width, 5, height));
                let pick = |x: usize, y: usize| f64::from(small[y.min(4) * 7 + x.min(6)]);
                let (x0, y0, u, v) = (x as usize, y as usize, x.fract(), y.fract());
                let expected = (pick(x0, y0) * (1.0 - u) + pick(x0 + 1, y0) * u) * (1.0 - v)
                    + (pick(x0, y0 + 1) * (1.0 - u) + pick(x0 + 1, y0 + 1) * u) * v;
                assert!((f64::from(value) - expected).abs() <= 0.6, "{width}x{height} at {i}");
            }
        }
    }

    #[test]
    fn flat_masks_are_unchanged() {
        for value in [0, 1, 254, 255] {
            assert!(enlarged(&[value; 12], (4, 3), (37, 29)).iter().all(|&it| it == value));
        }
    }
}
