// SPDX-License-Identifier: MPL-2.0

//! Low-resolution copy of a whole frame that tells a scene cut from motion.

use crate::Result;
use crate::image::{FrameSource, Picture, Region};

/// Width and height of a thumbnail in cells.
const COLUMNS: usize = 32;
const ROWS: usize = 18;
/// Samples per cell in each direction.
const SAMPLES: usize = 2;
/// Maximum shift between two thumbnails in cells, which compensates for camera motion.
const MAX_SHIFT: isize = 3;
/// Minimum similarity at which no shifts are tried.
const NO_SHIFT_SIMILARITY: f64 = 0.9;
/// A channel with a standard deviation below this (of 255) is flat,
const MAX_FLAT_DEVIATION: f32 = 3.0;
/// if no cell differs more than this from the mean: a small object on a plain background does.
const MAX_FLAT_DIFFERENCE: f32 = 8.0;

/// Mean colours of the cells of a frame, R, G and B, 0 to 255.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// One plane per channel, row by row.
    channels: [Vec<f32>; 3],
    /// Grey values of the same cells.
    grey: Vec<f32>,
}

impl Thumbnail {
    pub fn of(source: &mut dyn FrameSource) -> Result<Self> {
        let (width, height) = source.size();
        let whole = Region::whole((width, height));
        let size = match (COLUMNS * SAMPLES, ROWS * SAMPLES) {
            // Scaling a small frame saves nothing.
            (columns, rows) if width * height <= 4 * columns * rows => (width, height),
            size => size,
        };
        let picture = source.overview(whole, size)?;
        Ok(Self::from_picture(&picture))
    }

    fn from_picture(picture: &Picture) -> Self {
        let mut channels = [0; 3].map(|_| Vec::with_capacity(COLUMNS * ROWS));
        let at = |index: usize, count: usize, length: usize| (2 * index + 1) * length / (2 * count);
        for cell in 0..COLUMNS * ROWS {
            let (row, column) = (cell / COLUMNS, cell % COLUMNS);
            let mut sum = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let y = at(row * SAMPLES + sample / SAMPLES, ROWS * SAMPLES, picture.height);
                let x = at(column * SAMPLES + sample % SAMPLES, COLUMNS * SAMPLES, picture.width);
                let pixel = picture.data.get(y * picture.stride + 3 * x..).unwrap_or_default();
                sum.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += f32::from(value));
            }
            for (channel, sum) in channels.iter_mut().zip(sum) {
                channel.push(sum / (SAMPLES * SAMPLES) as f32);
            }
        }
        let [r, g, b] = &channels;
        let grey = r.iter().zip(g).zip(b).map(|((r, g), b)| 0.3 * r + 0.59 * g + 0.11 * b).collect();
        Self { channels, grey }
    }

    /// Returns whether the frame has a single colour: black, grey, or what a decoder shows without data.
    pub fn is_blank(&self) -> bool {
        self.channels.iter().all(|channel| {
            let mean = channel.iter().sum::<f32>() / channel.len() as f32;
            let variance =
                channel.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / channel.len() as f32;
            variance.sqrt() < MAX_FLAT_DEVIATION
                && channel.iter().all(|value| (value - mean).abs() < MAX_FLAT_DIFFERENCE)
        })
    }

    /// Similarity of two frames regardless of brightness: 1 for the same picture, about 0 for unrelated ones.
    ///
    /// It is the normalised cross-correlation of the grey values at the best of a few shifts.
    pub fn similarity(&self, other: &Self) -> f64 {
        let (a, b) = (&self.grey, &other.grey);
        let mut best = correlation(a, b, 0, 0);
        if best >= NO_SHIFT_SIMILARITY {
            return best;
        }
        for dy in -MAX_SHIFT..=MAX_SHIFT {
            for dx in -MAX_SHIFT..=MAX_SHIFT {
                best = best.max(correlation(a, b, dx, dy));
            }
        }
        best
    }
}

/// Normalised cross-correlation of `a` with `b` shifted by (`dx`, `dy`) cells, over their overlap.
fn correlation(a: &[f32], b: &[f32], dx: isize, dy: isize) -> f64 {
    let (mut n, mut sums, mut squares, mut product) = (0.0f64, (0.0f64, 0.0f64), (0.0f64, 0.0f64), 0.0f64);
    for row in 0..ROWS {
        let Some(other_row) = row.checked_add_signed(dy).filter(|&row| row < ROWS) else { continue };
        for column in 0..COLUMNS {
            let Some(other) = column.checked_add_signed(dx).filter(|&column| column < COLUMNS) else {
                continue;
            };
            let (x, y) = (f64::from(a[row * COLUMNS + column]), f64::from(b[other_row * COLUMNS + other]));
            n += 1.0;
            sums = (sums.0 + x, sums.1 + y);
            squares = (squares.0 + x * x, squares.1 + y * y);
            product += x * y;
        }
    }
    let variance = |sum: f64, square: f64| (square / n - (sum / n).powi(2)).max(0.0);
    let (va, vb) = (variance(sums.0, squares.0), variance(sums.1, squares.1));
    let min_variance = f64::from(MAX_FLAT_DEVIATION).powi(2);
    if va < min_variance || vb < min_variance {
        return if va < min_variance && vb < min_variance { 1.0 } else { 0.0 };
    }
    (product / n - sums.0 / n * sums.1 / n) / (va * vb).sqrt()
}
