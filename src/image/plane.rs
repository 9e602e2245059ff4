// SPDX-License-Identifier: MPL-2.0

//! Operations on the rows of a plane.

use super::{PlaneMut, Region};
use crate::{Error, Result};

impl PlaneMut<'_> {
    /// The rows, without padding.
    ///
    /// # Errors
    /// [`Error::Config`] if the data is too short for the size, rows overlap, or there is no pixel.
    pub fn rows(&mut self) -> Result<impl Iterator<Item = &mut [u8]>> {
        let Self { width, height, stride, .. } = *self;
        let bytes = height.checked_sub(1).and_then(|rows| rows.checked_mul(stride)?.checked_add(width));
        if width == 0 || stride < width || bytes.is_none_or(|bytes| self.data.len() < bytes) {
            return Err(Error::Config(format!(
                "a plane of {width}x{height} does not fit in {} bytes with a stride of {stride}",
                self.data.len()
            )));
        }
        Ok(self.data.chunks_mut(stride).take(height).map(move |row| &mut row[..width]))
    }

    /// Sets every pixel to `value`.
    ///
    /// # Errors
    /// Those of [`rows`](Self::rows).
    pub fn fill(&mut self, value: u8) -> Result<()> {
        self.rows()?.for_each(|row| row.fill(value));
        Ok(())
    }

    /// Copies packed rows of the plane's width.
    pub(crate) fn copy(&mut self, values: &[u8]) -> Result<()> {
        let width = self.width;
        self.rows()?.zip(values.chunks_exact(width)).for_each(|(row, values)| row.copy_from_slice(values));
        Ok(())
    }

    /// Multiplies every pixel by the value of packed rows of the plane's width, where 255 is 1.0.
    #[cfg(feature = "plugin")]
    pub(crate) fn multiply(&mut self, values: &[u8]) -> Result<()> {
        let width = self.width;
        for (row, values) in self.rows()?.zip(values.chunks_exact(width)) {
            row.iter_mut().zip(values).for_each(|(value, &other)| *value = product(*value, other));
        }
        Ok(())
    }

    /// The part of the plane at `region`, clipped to the plane.
    pub(crate) fn part(&mut self, region: Region) -> PlaneMut<'_> {
        let width = region.width.min(self.width.saturating_sub(region.x));
        let height = region.height.min(self.height.saturating_sub(region.y));
        let data = self.data.get_mut(region.y * self.stride + region.x..).unwrap_or_default();
        PlaneMut { data, width, height, stride: self.stride }
    }
}

/// Product of two bytes in which 255 is 1.0, rounded.
#[inline(always)]
pub(crate) fn product(a: u8, b: u8) -> u8 {
    mix(a, 0, b)
}

/// `over` with the opacity `alpha`, where 255 is 1.0, in front of `under`, rounded.
#[inline(always)]
pub(crate) fn mix(over: u8, under: u8, alpha: u8) -> u8 {
    // The sum is at most 255², so all of it fits in 16 bits.
    let sum = u16::from(over) * u16::from(alpha) + u16::from(under) * u16::from(255 - alpha) + 128;
    ((sum + (sum >> 8)) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_mixtures_are_rounded() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let exact = f64::from(a) * f64::from(b) / 255.0;
                assert_eq!(f64::from(product(a, b)), exact.round(), "{a} * {b}");
                for under in [0, 1, 100, 254, 255] {
                    let exact = exact + f64::from(under) * f64::from(255 - b) / 255.0;
                    assert_eq!(f64::from(mix(a, under, b)), exact.round(), "{a} over {under}, {b}");
                }
            }
        }
    }

    #[test]
    fn padding_is_not_changed() {
        let mut data = [1; 8];
        let mut plane = PlaneMut { data: &mut data, width: 2, height: 2, stride: 5 };
        plane.fill(7).unwrap();
        plane.part(Region { x: 1, y: 1, width: 9, height: 9 }).fill(8).unwrap();
        assert_eq!(data, [7, 7, 1, 1, 1, 7, 8, 1]);
    }

    #[test]
    fn sizes_that_exceed_the_data_are_errors() {
        let mut data = [0; 8];
        for (width, height, stride) in [(3, 3, 3), (4, 2, 3), (0, 2, 4), (2, 0, 4), (1, usize::MAX, 9)] {
            let mut plane = PlaneMut { data: &mut data, width, height, stride };
            assert!(plane.fill(0).is_err(), "{width}x{height}, stride {stride}");
        }
    }
}
