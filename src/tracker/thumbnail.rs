//! A few colours of a whole frame, by which an interruption is told from motion.

use crate::Result;
use crate::image::{Picture, Region, Scene};

/// Width and height of a thumbnail in cells.
const COLUMNS: usize = 32;
const ROWS: usize = 18;
/// Samples of each cell in either direction, where the picture has as many.
const SAMPLES: usize = 2;
/// Cells by which two thumbnails are moved against each other at most, for motion of the camera.
const SHIFT: isize = 3;
/// A similarity at which no shift is tried.
const CLEAR: f64 = 0.9;
/// A channel whose values differ by less than this (standard deviation, of 255) shows nothing.
const FLAT: f32 = 3.0;

/// Mean colours of the cells of a frame, R, G and B in 0 to 255.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// One plane a channel, row by row.
    channels: [Vec<f32>; 3],
    /// Of the same cells.
    grey: Vec<f32>,
}

impl Thumbnail {
    /// # Errors
    /// A frame that cannot be converted.
    pub fn of(scene: &mut dyn Scene) -> Result<Self> {
        let (width, height) = scene.size();
        let whole = Region::whole((width, height));
        let size = match (COLUMNS * SAMPLES, ROWS * SAMPLES) {
            // Scaling a small frame saves nothing.
            (columns, rows) if width * height <= 4 * columns * rows => (width, height),
            size => size,
        };
        let picture = scene.overview(whole, size)?;
        Ok(Self::of_picture(&picture))
    }

    fn of_picture(picture: &Picture) -> Self {
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

    /// Whether the frame is of one colour: black, grey, or what a decoder shows without data.
    pub fn is_blank(&self) -> bool {
        self.channels.iter().all(|channel| {
            let mean = channel.iter().sum::<f32>() / channel.len() as f32;
            let variance =
                channel.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / channel.len() as f32;
            variance.sqrt() < FLAT
        })
    }

    /// How alike two frames are whatever their brightness, 1 for the same picture, about 0 for unrelated ones: the
    /// normalised cross-correlation of the grey values, at the best of a few shifts.
    pub fn similarity(&self, other: &Self) -> f64 {
        let (a, b) = (&self.grey, &other.grey);
        let mut best = correlation(a, b, 0, 0);
        if best >= CLEAR {
            return best;
        }
        for dy in -SHIFT..=SHIFT {
            for dx in -SHIFT..=SHIFT {
                best = best.max(correlation(a, b, dx, dy));
            }
        }
        best
    }
}

/// The normalised cross-correlation of `a` with `b` moved by (`dx`, `dy`) cells, where they overlap.
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
    let flat = f64::from(FLAT).powi(2);
    if va < flat || vb < flat {
        return if va < flat && vb < flat { 1.0 } else { 0.0 };
    }
    (product / n - sums.0 / n * sums.1 / n) / (va * vb).sqrt()
}
