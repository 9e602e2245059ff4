// SPDX-License-Identifier: MPL-2.0

//! Guide of the edge refinement: the brightness of the frame that a matte belongs to.

use std::borrow::Cow;
use std::ops::Range;

use crate::image::Picture;

/// One sample per pixel that the edges of a matte follow: luma, or green, which contributes most to luma.
#[derive(Clone, Copy, Debug)]
pub struct Guide<'a> {
    data: &'a [u8],
    width: usize,
    height: usize,
    stride: usize,
    pixel: usize,
    words: Option<Words>,
}

/// Storage of samples of more than 8 bits.
#[derive(Clone, Copy, Debug)]
struct Words {
    /// Number of bits below the eight most significant ones in use.
    shift: u32,
    little_endian: bool,
}

impl<'a> Guide<'a> {
    /// Guide of 8-bit samples, the first at the start of `data`: `pixel` is the distance in bytes from sample to
    /// sample, `stride` from row to row. Returns `None` if `data` is too short, or if the size or `pixel` is 0.
    pub fn bytes(
        data: &'a [u8],
        (width, height): (usize, usize),
        stride: usize,
        pixel: usize,
    ) -> Option<Self> {
        Self { data, width, height, stride, pixel, words: None }.checked(1)
    }

    /// As [`bytes`](Self::bytes), with 16-bit words. `shift` is the number of bits below the eight most
    /// significant ones in use.
    pub fn words(
        data: &'a [u8],
        (width, height): (usize, usize),
        (stride, pixel): (usize, usize),
        shift: u32,
        little_endian: bool,
    ) -> Option<Self> {
        let words = Some(Words { shift: shift.min(15), little_endian });
        Self { data, width, height, stride, pixel, words }.checked(2)
    }

    /// The green channel of a picture.
    pub fn from_picture(picture: &Picture<'a>) -> Option<Self> {
        let size = (picture.width, picture.height);
        Self::bytes(picture.data.get(1..)?, size, picture.stride, 3)
    }

    fn checked(self, sample: usize) -> Option<Self> {
        let row = self.width.checked_sub(1)?.checked_mul(self.pixel)?.checked_add(sample)?;
        let all = self.height.checked_sub(1)?.checked_mul(self.stride)?.checked_add(row)?;
        (self.pixel > 0 && self.data.len() >= all).then_some(self)
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The samples `columns` of row `y`, reduced to bytes.
    pub(super) fn row(&self, y: usize, columns: Range<usize>) -> Cow<'a, [u8]> {
        let columns = columns.start.min(self.width)..columns.end.min(self.width);
        let row = self.data.get(y.min(self.height - 1) * self.stride..).unwrap_or_default();
        if self.pixel == 1 && self.words.is_none() {
            return Cow::Borrowed(row.get(columns).unwrap_or_default());
        }
        let samples = row.get(columns.start * self.pixel..).unwrap_or_default();
        let samples = samples.chunks(self.pixel).take(columns.len());
        Cow::Owned(match self.words {
            None => samples.map(|sample| sample[0]).collect(),
            Some(words) => samples.map(|sample| words.high_byte(sample)).collect(),
        })
    }
}

impl Words {
    fn high_byte(self, sample: &[u8]) -> u8 {
        let &[first, second, ..] = sample else { return 0 };
        let word = [first, second];
        let word = if self.little_endian { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) };
        (word >> self.shift).min(255) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_every_storage_are_read_as_bytes() {
        let data: Vec<u8> = (0..24).collect();
        let planar = Guide::bytes(&data, (4, 3), 8, 1).unwrap();
        assert_eq!(*planar.row(1, 1..3), [9, 10]);
        let packed = Guide::bytes(&data[1..], (2, 3), 8, 4).unwrap();
        assert_eq!(*packed.row(2, 0..2), [17, 21]);
        // 10 bits, in the low and in the high bits of the word.
        let data = [0x40, 0x02, 0xfc, 0x03, 0x90, 0x00];
        let low = Guide::words(&data, (3, 1), (6, 2), 2, true).unwrap();
        assert_eq!(*low.row(0, 0..3), [0x90, 0xff, 0x24]);
        let data = [0x90, 0x00, 0xff, 0xc0];
        let high = Guide::words(&data, (2, 1), (4, 2), 8, false).unwrap();
        assert_eq!(*high.row(0, 0..2), [0x90, 0xff]);
    }

    #[test]
    fn a_picture_is_guided_by_its_green_channel() {
        let data = [1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12];
        let picture = Picture { data: &data, width: 2, height: 2, stride: 7 };
        assert_eq!(*Guide::from_picture(&picture).unwrap().row(1, 0..2), [8, 11]);
    }

    #[test]
    fn too_little_data_gives_no_guide() {
        assert!(Guide::bytes(&[0; 11], (4, 3), 4, 1).is_none());
        assert!(Guide::bytes(&[0; 12], (4, 3), 4, 1).is_some());
        assert!(Guide::bytes(&[], (0, 0), 0, 1).is_none());
        assert!(Guide::bytes(&[0; 9], (3, 3), 3, 0).is_none());
        assert!(Guide::words(&[0; 11], (2, 3), (4, 2), 8, true).is_none());
        assert!(Guide::bytes(&[0], (usize::MAX, 2), usize::MAX, 2).is_none());
    }
}
