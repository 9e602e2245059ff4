// SPDX-License-Identifier: MPL-2.0

//! Samples of one component of a frame.

use super::plane::{mix, product};
use crate::{Error, Result};

/// Number of samples that are skipped together if no sample of them changes.
const RUN: usize = 32;

/// Writable 8-bit samples of one component, with other components between them.
#[derive(Debug)]
pub struct SamplesMut<'a> {
    /// Bytes from the first sample to the last, at least.
    pub data: &'a mut [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
}

impl SamplesMut<'_> {
    /// Bytes of a row from its first sample to its last one.
    fn row_bytes(&self) -> usize {
        (self.width - 1) * self.step + 1
    }

    /// Checks the size.
    ///
    /// # Errors
    /// [`Error::Config`] if the data is too short for the size, rows overlap, or there is no sample.
    pub fn check(&self) -> Result<()> {
        let Self { width, height, stride, step, .. } = *self;
        let row = width.checked_sub(1).and_then(|steps| steps.checked_mul(step)?.checked_add(1));
        let fits = row.is_some_and(|row| {
            let rows = height.checked_sub(1).and_then(|rows| rows.checked_mul(stride)?.checked_add(row));
            step > 0 && (stride >= row || height == 1) && rows.is_some_and(|bytes| bytes <= self.data.len())
        });
        if fits {
            return Ok(());
        }
        Err(Error::Config(format!(
            "samples of {width}x{height} do not fit in {} bytes with a stride of {stride} and steps of {step}",
            self.data.len()
        )))
    }

    /// Copies the samples from `column` of row `y` on to `out`. The samples must be inside the component, and
    /// [`check`](Self::check) must have succeeded.
    pub(crate) fn read(&self, y: usize, column: usize, out: &mut [u8]) {
        let row = &self.data[y * self.stride..][..self.row_bytes()][column * self.step..];
        match self.step {
            1 => out.copy_from_slice(&row[..out.len()]),
            2 => gather::<2>(row, out),
            3 => gather::<3>(row, out),
            4 => gather::<4>(row, out),
            step => out.iter_mut().zip(row.iter().step_by(step)).for_each(|(out, sample)| *out = *sample),
        }
    }

    /// The samples from `column` of row `y` on. The conditions are those of [`read`](Self::read).
    pub(crate) fn row_mut(&mut self, y: usize, column: usize) -> impl Iterator<Item = &mut u8> {
        let bytes = self.row_bytes();
        self.data[y * self.stride..][..bytes][column * self.step..].iter_mut().step_by(self.step)
    }

    /// Multiplies every sample by the value of packed rows of the same width, where 255 is 1.0.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn multiply(&mut self, values: &[u8]) -> Result<()> {
        self.check()?;
        let width = self.width;
        for (y, values) in values.chunks_exact(width).take(self.height).enumerate() {
            self.row_mut(y, 0).zip(values).for_each(|(sample, &value)| *sample = product(*sample, value));
        }
        Ok(())
    }

    /// Lays the samples over others, which show through where `alpha`, packed rows of the same width, is below 255.
    /// `under` returns a row of them, at least as wide.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn lay_over<'a>(&mut self, alpha: &[u8], under: impl Fn(usize) -> &'a [u8]) -> Result<()> {
        self.check()?;
        let (width, step, bytes) = (self.width, self.step, self.row_bytes());
        for (y, alpha) in alpha.chunks_exact(width).take(self.height).enumerate() {
            let row = &mut self.data[y * self.stride..][..bytes];
            let runs = row.chunks_mut(RUN * step).zip(alpha.chunks(RUN).zip(under(y).chunks(RUN)));
            for (row, (alpha, under)) in runs {
                match step {
                    _ if alpha.iter().fold(255, |all, &alpha| all & alpha) == 255 => (),
                    1 => mix_all(row, under, alpha),
                    2 => lay_run::<2>(row, under, alpha),
                    3 => lay_run::<3>(row, under, alpha),
                    4 => lay_run::<4>(row, under, alpha),
                    _ => {
                        let samples = row.iter_mut().step_by(step).zip(under.iter().zip(alpha));
                        samples.for_each(|(over, (&under, &alpha))| *over = mix(*over, under, alpha));
                    }
                }
            }
        }
        Ok(())
    }
}

fn mix_all(over: &mut [u8], under: &[u8], alpha: &[u8]) {
    let samples = over.iter_mut().zip(under.iter().zip(alpha));
    samples.for_each(|(over, (&under, &alpha))| *over = mix(*over, under, alpha));
}

/// Lays at most [`RUN`] samples over others. Packed samples are mixed several at a time.
fn lay_run<const STEP: usize>(row: &mut [u8], under: &[u8], alpha: &[u8]) {
    let mut run = [0; RUN];
    let run = &mut run[..alpha.len()];
    let mixed = if alpha.iter().all(|&alpha| alpha == 0) {
        under
    } else {
        gather::<STEP>(row, run);
        mix_all(run, under, alpha);
        run
    };
    if let (Some((row, _)), Ok(mixed)) =
        (row.split_at_mut_checked((RUN - 1) * STEP + 1), <&[u8; RUN]>::try_from(mixed))
    {
        // Without checks of the bounds.
        (0..RUN).for_each(|i| row[i * STEP] = mixed[i]);
    } else {
        row.chunks_mut(STEP).zip(mixed).for_each(|(sample, &value)| sample[0] = value);
    }
}

fn gather<const STEP: usize>(row: &[u8], out: &mut [u8]) {
    for (out, row) in out.chunks_mut(RUN).zip(row.chunks(RUN * STEP)) {
        match (row.split_at_checked((RUN - 1) * STEP + 1), <&mut [u8; RUN]>::try_from(&mut *out)) {
            // Without checks of the bounds.
            (Some((row, _)), Ok(out)) => (0..RUN).for_each(|i| out[i] = row[i * STEP]),
            _ => out.iter_mut().zip(row.chunks(STEP)).for_each(|(out, sample)| *out = sample[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_every_step_are_laid_over_others() {
        for step in 1..=6 {
            let (width, height, stride) = (70, 3, 70 * step + 2);
            let mut data: Vec<u8> = (0..stride * height).map(|i| (i * 7) as u8).collect();
            let before = data.clone();
            let alpha: Vec<u8> = (0..width * height).map(|i| [255, 0, 100][i / 40 % 3]).collect();
            let other = vec![50; width + 5];
            let mut samples = SamplesMut { data: &mut data, width, height, stride, step };
            let mut row = vec![0; 20];
            samples.read(1, 50, &mut row);
            samples.lay_over(&alpha, |_| &other).unwrap();
            for (i, (&after, &before)) in data.iter().zip(&before).enumerate() {
                let (x, y) = (i % stride, i / stride);
                let expected = if x.is_multiple_of(step) && x / step < width {
                    let alpha = f64::from(alpha[y * width + x / step]) / 255.0;
                    (f64::from(before) * alpha + 50.0 * (1.0 - alpha)).round() as u8
                } else {
                    before
                };
                assert_eq!(after, expected, "step {step} at {x}, {y}");
            }
            let expected: Vec<u8> = (50..70).map(|x| before[stride + x * step]).collect();
            assert_eq!(row, expected);
        }
    }

    #[test]
    fn samples_that_exceed_the_data_are_errors() {
        let mut data = [0; 20];
        for (width, height, stride, step) in [
            (4, 2, 16, 4),
            (7, 3, 7, 1),
            (0, 1, 8, 1),
            (1, 0, 8, 1),
            (4, 2, 8, 4),
            (2, 1, 8, 0),
            (usize::MAX, 2, 8, 2),
        ] {
            let samples = SamplesMut { data: &mut data, width, height, stride, step };
            assert!(samples.check().is_err(), "{width}x{height}, stride {stride}, step {step}");
        }
        assert!(SamplesMut { data: &mut data, width: 5, height: 2, stride: 10, step: 2 }.check().is_ok());
    }
}
