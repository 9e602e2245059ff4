// SPDX-License-Identifier: MPL-2.0

//! Errors of mattes against a true alpha: the measures of Rhemann et al., *A perceptually motivated online benchmark for
//! image matting*, CVPR 2009, and the temporal one of Erofeev et al., *Perceptually motivated benchmark for video
//! matting*, BMVC 2015, over whole frames.

use crate::clicks::largest_region;
use crate::{Error, Result};

/// Standard deviation of the Gaussian whose derivatives are the gradient, in pixels.
const GRADIENT_SIGMA: f64 = 1.4;
/// Weight of the Gaussian, relative to that of its integral, at which the filter ends.
const GRADIENT_CUT: f64 = 1e-2;
/// Steps of alpha in which connectivity is measured.
const LEVELS: u32 = 10;
/// Distance in alpha from which a pixel counts as disconnected.
const DISCONNECTED: f64 = 0.15;
/// Half the width of the band about the edge, in pixels.
pub const BAND: usize = 10;
/// Alpha, of 255, from which a pixel belongs to the edge, and from which it belongs to the object.
const EDGE: (u8, u8) = (6, 250);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlphaPlane {
    width: usize,
    values: Vec<u8>,
}

impl AlphaPlane {
    /// Returns the plane of `values`, rows of `width` bytes; `None` if there is no pixel or the last row is not full.
    pub fn new(width: usize, values: Vec<u8>) -> Option<Self> {
        (!values.is_empty() && width > 0 && values.len().is_multiple_of(width))
            .then_some(Self { width, values })
    }

    pub fn size(&self) -> (usize, usize) {
        (self.width, self.values.len() / self.width)
    }

    /// Rows without padding.
    pub fn values(&self) -> &[u8] {
        &self.values
    }
}

/// Errors of one matte.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AlphaErrors {
    /// Mean absolute difference (MAD), alpha from 0 to 1.
    pub mad: f64,
    /// Mean squared error (MSE).
    pub mse: f64,
    /// Gradient error, thousandths of the sum over pixels.
    pub gradient: f64,
    /// Connectivity error, thousandths of the sum over pixels.
    pub connectivity: f64,
    /// Mean absolute difference within 10 pixels of the true edge. `None` without an edge.
    pub band: Option<f64>,
}

impl AlphaErrors {
    /// Compares a matte with the true alpha of the same frame.
    pub(crate) fn of(what: &str, matte: &AlphaPlane, truth: &AlphaPlane) -> Result<Self> {
        check_size(what, matte, truth)?;
        let differences = matte.values.iter().zip(&truth.values).map(|(a, b)| u64::from(a.abs_diff(*b)));
        let count = matte.values.len() as f64;
        let (sum, squares) = differences
            .clone()
            .fold((0, 0), |(sum, squares), difference| (sum + difference, squares + difference * difference));
        let (band_sum, band_count) = differences
            .zip(band(truth))
            .filter(|(_, inside)| *inside)
            .fold((0, 0u64), |(sum, count), (difference, _)| (sum + difference, count + 1));
        Ok(Self {
            mad: sum as f64 / count / 255.0,
            mse: squares as f64 / count / (255.0 * 255.0),
            gradient: gradient_error(matte, truth),
            connectivity: connectivity_error(matte, truth),
            band: (band_count > 0).then(|| band_sum as f64 / band_count as f64 / 255.0),
        })
    }
}

/// Errors of the mattes of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatteScore {
    /// Means over the frames; that of the band over the frames with an edge.
    pub errors: AlphaErrors,
    /// Root of the mean square over pixels and pairs of successive frames of the difference of the changes of alpha
    /// (dtSSD). The mean of one root for each pair, as in many papers, is at most as large.
    pub flicker: f64,
}

impl MatteScore {
    /// Returns the mean of several sequences; of the band, over those with an edge.
    pub fn mean<'a>(scores: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let errors = mean_errors(scores.clone().map(|score| score.errors));
        Self { errors, flicker: mean(scores.map(|score| score.flicker)) }
    }
}

/// Adds up the errors of a sequence, frame by frame.
#[derive(Clone, Debug, Default)]
pub struct MatteScorer {
    errors: Vec<AlphaErrors>,
    last: Option<(AlphaPlane, AlphaPlane)>,
    square_sum: f64,
    pairs: usize,
}

impl MatteScorer {
    /// Adds the next frame.
    pub fn add(&mut self, what: &str, matte: AlphaPlane, truth: AlphaPlane) -> Result<()> {
        self.errors.push(AlphaErrors::of(what, &matte, &truth)?);
        if let Some((last_matte, last_truth)) = &self.last {
            check_size(what, &matte, last_matte)?;
            let change = |now: u8, last: u8| i64::from(now) - i64::from(last);
            let mattes = matte.values.iter().zip(&last_matte.values).map(|(now, last)| change(*now, *last));
            let truths = truth.values.iter().zip(&last_truth.values).map(|(now, last)| change(*now, *last));
            let squares: i64 = mattes.zip(truths).map(|(a, b)| (a - b) * (a - b)).sum();
            self.square_sum += squares as f64 / matte.values.len() as f64 / (255.0 * 255.0);
            self.pairs += 1;
        }
        self.last = Some((matte, truth));
        Ok(())
    }

    /// Returns the score; `None` with fewer than two frames.
    pub fn finish(&self) -> Option<MatteScore> {
        (self.pairs > 0).then(|| MatteScore {
            errors: mean_errors(self.errors.iter().copied()),
            flicker: (self.square_sum / self.pairs as f64).sqrt(),
        })
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}

fn mean_errors(errors: impl Iterator<Item = AlphaErrors> + Clone) -> AlphaErrors {
    let of = |measure: fn(AlphaErrors) -> f64| mean(errors.clone().map(measure));
    let bands = errors.clone().filter_map(|errors| errors.band);
    AlphaErrors {
        mad: of(|errors| errors.mad),
        mse: of(|errors| errors.mse),
        gradient: of(|errors| errors.gradient),
        connectivity: of(|errors| errors.connectivity),
        band: Some(mean(bands)).filter(|band| !band.is_nan()),
    }
}

fn check_size(what: &str, plane: &AlphaPlane, other: &AlphaPlane) -> Result<()> {
    let ((width, height), (other_width, other_height)) = (plane.size(), other.size());
    if plane.size() == other.size() {
        return Ok(());
    }
    let reason = format!(
        "it has {width}x{height} pixels, but {other_width}x{other_height} are needed; write mattes at the size of the \
         true alpha, the same in all frames of a sequence"
    );
    Err(Error::score(what, reason))
}

/// Pixels within a square of [`BAND`] pixels about pixels that are neither object nor background.
fn band(truth: &AlphaPlane) -> impl Iterator<Item = bool> {
    let near = |is: fn(u8) -> bool| {
        let (width, height) = truth.size();
        let flags: Vec<bool> = truth.values.iter().map(|&alpha| is(alpha)).collect();
        let rows: Vec<bool> =
            flags.chunks_exact(width).flat_map(|row| any_within(row.iter().copied())).collect();
        let columns: Vec<Vec<bool>> =
            (0..width).map(|x| any_within(rows[x..].iter().step_by(width).copied())).collect();
        (0..width * height).map(move |i| columns[i % width][i / width])
    };
    near(|alpha| alpha >= EDGE.0)
        .zip(near(|alpha| alpha < EDGE.1))
        .map(|(object, background)| object && background)
}

/// Whether there is a flag at most [`BAND`] positions away.
fn any_within(flags: impl Iterator<Item = bool>) -> Vec<bool> {
    let mut counts = vec![0];
    counts.extend(flags.scan(0, |count, flag| {
        *count += usize::from(flag);
        Some(*count)
    }));
    let length = counts.len() - 1;
    (0..length).map(|i| counts[(i + BAND + 1).min(length)] > counts[i.saturating_sub(BAND)]).collect()
}

fn gradient_error(matte: &AlphaPlane, truth: &AlphaPlane) -> f64 {
    let (a, b) = (gradient(matte), gradient(truth));
    a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / 1000.0
}

/// Magnitude of the gradient, by derivatives of a Gaussian as filters with unit norm.
fn gradient(plane: &AlphaPlane) -> Vec<f64> {
    let (width, height) = plane.size();
    let spread = -2.0 * ((std::f64::consts::TAU).sqrt() * GRADIENT_SIGMA * GRADIENT_CUT).ln();
    let radius = (GRADIENT_SIGMA * spread.sqrt()).ceil() as isize;
    let gaussian = |x: isize| (-0.5 * (x as f64 / GRADIENT_SIGMA).powi(2)).exp();
    let smooth: Vec<f64> = (-radius..=radius).map(gaussian).collect();
    let derivative: Vec<f64> = (-radius..=radius).map(|x| x as f64 * gaussian(x)).collect();
    // The norm of a separable filter is the product of the norms.
    let unit = |kernel: Vec<f64>| {
        let norm = kernel.iter().map(|value| value * value).sum::<f64>().sqrt();
        kernel.into_iter().map(|value| value / norm).collect::<Vec<_>>()
    };
    let (smooth, derivative) = (unit(smooth), unit(derivative));
    let values: Vec<f64> = plane.values.iter().map(|&value| f64::from(value) / 255.0).collect();
    // Beyond the borders, the value at the border is repeated.
    let filter = |values: &[f64], along_rows: &[f64], along_columns: &[f64]| {
        let place = |at: usize, tap: usize, count: usize| {
            (at as isize + tap as isize - radius).clamp(0, count as isize - 1) as usize
        };
        let rows: Vec<f64> = (0..values.len())
            .map(|i| {
                let row = &values[i / width * width..][..width];
                along_rows
                    .iter()
                    .enumerate()
                    .map(|(tap, weight)| weight * row[place(i % width, tap, width)])
                    .sum()
            })
            .collect();
        (0..values.len())
            .map(|i| {
                let at = |tap: usize| rows[place(i / width, tap, height) * width + i % width];
                along_columns.iter().enumerate().map(|(tap, weight)| weight * at(tap)).sum()
            })
            .collect::<Vec<f64>>()
    };
    let (x, y) = (filter(&values, &derivative, &smooth), filter(&values, &smooth, &derivative));
    x.iter().zip(&y).map(|(x, y)| x.hypot(*y)).collect()
}

/// Sum over pixels of the difference of their connectedness to the source region, the largest connected region that is
/// opaque in both.
fn connectivity_error(matte: &AlphaPlane, truth: &AlphaPlane) -> f64 {
    let width = matte.width;
    // The largest level at which a pixel is connected to the region, in steps.
    let mut connected = vec![None; matte.values.len()];
    for level in 1..=LEVELS {
        let opaque: Vec<bool> = matte
            .values
            .iter()
            .zip(&truth.values)
            .map(|(&a, &b)| u32::from(a.min(b)) * LEVELS >= 255 * level)
            .collect();
        let region = largest_region(&opaque, width).0;
        for (connected, inside) in connected.iter_mut().zip(region) {
            if !inside && connected.is_none() {
                *connected = Some(level - 1);
            }
        }
    }
    let connectedness = |alpha: u8, connected: f64| {
        let distance = f64::from(alpha) / 255.0 - connected;
        if distance >= DISCONNECTED { 1.0 - distance } else { 1.0 }
    };
    let pixels = matte.values.iter().zip(&truth.values).zip(&connected);
    pixels
        .map(|((&matte, &truth), connected)| {
            let connected = f64::from(connected.unwrap_or(LEVELS)) / f64::from(LEVELS);
            (connectedness(matte, connected) - connectedness(truth, connected)).abs()
        })
        .sum::<f64>()
        / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, values: &[u8]) -> AlphaPlane {
        AlphaPlane::new(width, values.to_vec()).unwrap()
    }

    #[test]
    fn differences_are_means_over_all_pixels() {
        let errors =
            AlphaErrors::of("m", &plane(2, &[0, 51, 255, 255]), &plane(2, &[0, 0, 255, 153])).unwrap();
        assert!((errors.mad - (0.2 + 0.4) / 4.0).abs() < 1e-12);
        assert!((errors.mse - (0.04 + 0.16) / 4.0).abs() < 1e-12);
        assert_eq!(errors.band, Some(errors.mad), "all of it is within the band");
    }

    #[test]
    fn the_band_is_ten_pixels_to_each_side_of_the_edge() {
        let truth: Vec<u8> =
            (0..100).map(|x| [0, 128, 255][usize::from(x >= 50) + usize::from(x >= 53)]).collect();
        let inside: Vec<usize> =
            band(&plane(100, &truth)).enumerate().filter(|(_, inside)| *inside).map(|(x, _)| x).collect();
        assert_eq!(inside, (40..63).collect::<Vec<_>>());
        assert_eq!(band(&plane(3, &[255; 9])).filter(|inside| *inside).count(), 0);
        let errors = AlphaErrors::of("m", &plane(3, &[0; 9]), &plane(3, &[0; 9])).unwrap();
        assert_eq!(errors, AlphaErrors::default());
    }

    #[test]
    fn the_gradient_of_a_ramp_is_its_slope() {
        // The response of the filter to a slope of 1 is the sum of tap x position along x, times that of the taps
        // along y.
        let ramp: Vec<u8> = (0..40 * 40).map(|i| (i % 40 * 5) as u8).collect();
        let gradient = gradient(&plane(40, &ramp));
        let gaussian: Vec<f64> = (-4..=4).map(|x| (-0.5 * (f64::from(x) / 1.4).powi(2)).exp()).collect();
        let norm = gaussian.iter().map(|value| value * value).sum::<f64>().sqrt();
        let (mut moment, mut derivative_norm) = (0.0, 0.0);
        for (x, value) in (-4..=4).zip(&gaussian) {
            moment += f64::from(x * x) * value;
            derivative_norm += (f64::from(x) * value).powi(2);
        }
        let response = moment / derivative_norm.sqrt() * gaussian.iter().sum::<f64>() / norm;
        assert!((gradient[20 * 40 + 20] - response * 5.0 / 255.0).abs() < 1e-9, "{}", gradient[820]);
        let step =
            |at: usize| plane(40, &(0..40 * 40).map(|i| 255 * u8::from(i % 40 >= at)).collect::<Vec<_>>());
        assert_eq!(gradient_error(&step(20), &step(20)), 0.0);
        assert!(gradient_error(&step(20), &step(21)) < gradient_error(&step(20), &step(24)));
    }

    #[test]
    fn connectivity_counts_what_is_apart_from_the_object() {
        let mut truth = vec![0; 100];
        truth[..30].fill(255);
        let truth = plane(10, &truth);
        assert_eq!(connectivity_error(&truth, &truth), 0.0);
        // Opaque pixels that belong to nothing: each is 1 away from its level 0.
        let mut matte = truth.values.clone();
        matte[90..95].fill(255);
        assert!((connectivity_error(&plane(10, &matte), &truth) - 5.0 / 1000.0).abs() < 1e-12);
        // A faint veil is below the threshold.
        let mut matte = truth.values.clone();
        matte[90..95].fill(36);
        assert_eq!(connectivity_error(&plane(10, &matte), &truth), 0.0);
        // A hole: the level of its pixels is that of the matte, and the truth is above it.
        let mut matte = truth.values.clone();
        matte[5] = 102;
        assert!((connectivity_error(&plane(10, &matte), &truth) - 0.6 / 1000.0).abs() < 1e-12);
    }

    #[test]
    fn flicker_is_the_change_that_the_truth_does_not_make() {
        let mut scorer = MatteScorer::default();
        assert_eq!(scorer.finish(), None);
        let moving = [plane(2, &[0, 0]), plane(2, &[51, 0]), plane(2, &[51, 0])];
        for (matte, truth) in [0, 102, 102].into_iter().zip(moving) {
            scorer.add("m", plane(2, &[matte, 0]), truth).unwrap();
        }
        let score = scorer.finish().unwrap();
        assert!((score.flicker - (0.04f64 / 2.0 / 2.0).sqrt()).abs() < 1e-12);
        assert!((score.errors.mad - (0.0 + 0.1 + 0.1) / 3.0).abs() < 1e-12);
        let error = scorer.add("d/3.png", plane(1, &[0, 0]), plane(2, &[0, 0])).unwrap_err().to_string();
        assert!(error.contains("d/3.png") && error.contains("1x2"), "{error}");
        let other = MatteScore { flicker: 0.0, ..score };
        assert_eq!(MatteScore::mean([score, other].iter()).flicker, score.flicker / 2.0);
    }
}
