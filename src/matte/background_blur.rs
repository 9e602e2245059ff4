// SPDX-License-Identifier: MPL-2.0

//! Blur of what is behind the object: means over square cells, a Gaussian filter over the cells, and bilinear
//! enlargement. The samples are weighted by their transparency and divided by the sum of the weights (normalised
//! convolution), so that the colours of the object do not appear around it.

use super::{Enlarger, MaskView};
use crate::Result;
use crate::image::{PlaneMut, SamplesMut};

/// Standard deviations of the filter in cells: at least this many. Fewer cells make the interpolation between them
/// visible.
const MIN_SIGMA_CELLS: f64 = 1.5;
/// Range of the cell side, as a power of two. Larger cells overflow the sums of a column.
const SHIFTS: (u32, u32) = (1, 7);

/// Blurs the background of components; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct BackgroundBlur {
    /// Sum of the weights of each cell, and of the weighted samples.
    weights: Vec<f32>,
    values: Vec<f32>,
    scratch: Vec<f32>,
    /// Sums of the columns in a row of cells.
    columns: (Vec<u16>, Vec<u32>),
    line: Vec<u8>,
    cells: Vec<u8>,
    enlarger: Enlarger,
    plane: Vec<u8>,
}

/// Side of the cells along one axis, and the standard deviation of the filter in cells.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    shift: u32,
    sigma: f64,
}

impl Axis {
    /// Axis for a blur with a standard deviation of `sigma` samples.
    fn new(sigma: f64) -> Self {
        let shift = (sigma / MIN_SIGMA_CELLS).log2().floor().max(0.0) as u32;
        let shift = shift.clamp(SHIFTS.0, SHIFTS.1);
        // Means over cells of side s have a variance of s²/12, and the interpolation between cells adds s²/6.
        let side = f64::from(1 << shift);
        let sigma = (sigma * sigma - side * side / 4.0).max(0.0).sqrt() / side;
        Self { shift, sigma }
    }

    fn side(self) -> usize {
        1 << self.shift
    }

    /// Weights of the filter from its centre outwards.
    fn kernel(self) -> Vec<f32> {
        // Cells without weight need a neighbour with weight.
        let sigma = self.sigma.max(0.3);
        let radius = (3.0 * sigma).ceil() as i32;
        (0..=radius).map(|x| (-0.5 * (f64::from(x) / sigma).powi(2)).exp() as f32).collect()
    }
}

impl BackgroundBlur {
    /// Blurs samples with standard deviations of `sigma` samples (horizontal, vertical), each weighted by how
    /// transparent `alpha` is there. `alpha` has the size of the component. Where everything within reach is opaque,
    /// the result is 0. The returned plane is at least as large as the component.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the samples do not fit in their data, or `alpha` has another size.
    pub fn blur(&mut self, samples: &SamplesMut, alpha: MaskView, sigma: (f64, f64)) -> Result<PlaneMut<'_>> {
        alpha.check_for(samples)?;
        let (x_axis, y_axis) = (Axis::new(sigma.0), Axis::new(sigma.1));
        let (across, down) = (samples.width.div_ceil(x_axis.side()), samples.height.div_ceil(y_axis.side()));
        self.sum_cells(samples, alpha, (x_axis, y_axis), across);
        for field in [&mut self.weights, &mut self.values] {
            filter_rows(field, &mut self.scratch, across, &x_axis.kernel());
            filter_columns(field, &mut self.scratch, across, &y_axis.kernel());
        }
        self.cells.clear();
        let mean =
            |(value, weight): (&f32, &f32)| if *weight > 0.0 { (value / weight + 0.5) as u8 } else { 0 };
        self.cells.extend(self.values.iter().zip(&self.weights).map(mean));

        let (width, height) = (across * x_axis.side(), down * y_axis.side());
        self.plane.resize(width * height, 0);
        let cells = MaskView { values: &self.cells, width: across, height: down };
        let mut plane = PlaneMut { data: &mut self.plane, width, height, stride: width };
        self.enlarger.enlarge(&cells, &mut plane)?;
        Ok(plane)
    }

    fn sum_cells(
        &mut self,
        samples: &SamplesMut,
        alpha: MaskView,
        (x_axis, y_axis): (Axis, Axis),
        across: usize,
    ) {
        let (width, height) = (samples.width, samples.height);
        let (side, rows) = (x_axis.side(), y_axis.side());
        self.weights.clear();
        self.values.clear();
        self.line.resize(width, 0);
        let (weights, values) = &mut self.columns;
        for first in (0..height).step_by(rows) {
            weights.clear();
            weights.resize(width, 0);
            values.clear();
            values.resize(width, 0);
            let rows = first..(first + rows).min(height);
            for y in rows.clone() {
                samples.read(y, 0, &mut self.line);
                let alphas = &alpha.values[y * alpha.width..][..width];
                let sums = weights.iter_mut().zip(values.iter_mut());
                for ((weight, value), (&sample, &alpha)) in sums.zip(self.line.iter().zip(alphas)) {
                    let transparency = u16::from(255 - alpha);
                    *weight += transparency;
                    *value += u32::from(u16::from(sample) * transparency);
                }
            }
            let cells = weights.chunks(side).zip(values.chunks(side)).take(across);
            for (weights, values) in cells {
                let weight: u32 = weights.iter().copied().map(u32::from).sum();
                let value: u32 = values.iter().sum();
                // The edge of a matte is not exact. Cells that hold a part of the object, and with it colours of the
                // object that the matte misses, count less than in proportion.
                let share = weight as f32 / (255 * weights.len() * rows.len()) as f32;
                let factor = share * share * share;
                self.weights.push(weight as f32 * factor);
                self.values.push(value as f32 * factor);
            }
        }
    }
}

/// Filters rows of `width` values. Beyond the borders, there is nothing.
fn filter_rows(field: &mut [f32], scratch: &mut Vec<f32>, width: usize, kernel: &[f32]) {
    for row in field.chunks_exact_mut(width) {
        scratch.clear();
        scratch.extend(row.iter().map(|value| value * kernel[0]));
        for (distance, &weight) in kernel.iter().enumerate().take(width).skip(1) {
            add(&mut scratch[distance..], &row[..width - distance], weight);
            add(&mut scratch[..width - distance], &row[distance..], weight);
        }
        row.copy_from_slice(scratch);
    }
}

/// Filters columns of a field of `width` columns. Beyond the borders, there is nothing.
fn filter_columns(field: &mut [f32], scratch: &mut Vec<f32>, width: usize, kernel: &[f32]) {
    scratch.clear();
    scratch.extend(field.iter().map(|value| value * kernel[0]));
    let count = field.len();
    for (distance, &weight) in kernel.iter().enumerate().skip(1) {
        let offset = (distance * width).min(count);
        add(&mut scratch[offset..], &field[..count - offset], weight);
        add(&mut scratch[..count - offset], &field[offset..], weight);
    }
    field.copy_from_slice(scratch);
}

fn add(to: &mut [f32], values: &[f32], weight: f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value * weight);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blurred(pixels: &[u8], alpha: &[u8], width: usize, sigma: f64) -> Vec<u8> {
        let height = pixels.len() / width;
        let mut data = pixels.to_vec();
        let samples = SamplesMut { data: &mut data, width, height, stride: width, step: 1 };
        let mut blur = BackgroundBlur::default();
        let mut plane =
            blur.blur(&samples, MaskView { values: alpha, width, height }, (sigma, sigma)).unwrap();
        plane.rows().unwrap().take(height).flat_map(|row| row[..width].to_vec()).collect()
    }

    #[test]
    fn the_blur_is_gaussian() {
        let (width, height) = (331, 40);
        // The blur of a step is the Gaussian's integral.
        let pixels: Vec<u8> = (0..width * height).map(|i| if i % width < 160 { 30 } else { 230 }).collect();
        for sigma in [2.0, 5.0, 9.0, 18.0, 40.0] {
            let after = blurred(&pixels, &vec![0; width * height], width, sigma);
            for x in 0..320 {
                // The integral, by a sum.
                let z = (x as f64 + 0.5 - 160.0) / sigma;
                let steps = 2000;
                let share = (0..steps)
                    .map(|i| -8.0 + (z + 8.0) * (i as f64 + 0.5) / steps as f64)
                    .map(|t| (-0.5 * t * t).exp())
                    .sum::<f64>()
                    * (z + 8.0)
                    / steps as f64
                    / std::f64::consts::TAU.sqrt();
                let expected = 30.0 + 200.0 * share.max(0.0);
                let found = f64::from(after[20 * width + x]);
                assert!((found - expected).abs() < 9.0, "sigma {sigma} at {x}: {found}, not {expected:.1}");
            }
        }
    }

    #[test]
    fn colours_of_the_object_do_not_appear_in_the_background() {
        let (width, height) = (128, 96);
        let distance = |i: usize| ((i % width) as f64 - 64.0).hypot((i / width) as f64 - 48.0);
        let alpha: Vec<u8> =
            (0..width * height).map(|i| (255.0 * (24.5 - distance(i)).clamp(0.0, 1.0)) as u8).collect();
        let pixels: Vec<u8> = alpha.iter().map(|&alpha| crate::image::mix(250, 80, alpha)).collect();
        for sigma in [4.0, 12.0, 30.0] {
            let after = blurred(&pixels, &alpha, width, sigma);
            for (i, (&value, &alpha)) in after.iter().zip(&alpha).enumerate() {
                // As far as it shows through.
                let error = f64::from(value.abs_diff(80)) * f64::from(255 - alpha) / 255.0;
                assert!(error < 5.0, "sigma {sigma} at {i}: {value} behind {alpha}");
            }
        }
    }

    #[test]
    fn every_size_and_sigma() {
        for (width, height) in [(1, 1), (1, 9), (7, 1), (5, 3), (33, 17), (64, 64)] {
            for sigma in [0.1, 1.0, 7.3, 1000.0] {
                for value in [0, 77, 255] {
                    let count = width * height;
                    let after = blurred(&vec![value; count], &vec![0; count], width, sigma);
                    assert_eq!(after, vec![value; count], "{width}x{height}, sigma {sigma}");
                }
                let after = blurred(&vec![9; width * height], &vec![255; width * height], width, sigma);
                assert_eq!(after, vec![0; width * height], "nothing is transparent");
            }
        }
    }
}
