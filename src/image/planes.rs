// SPDX-License-Identifier: MPL-2.0

//! Frames as stored, in planes of components.

use super::Picture;

/// A frame as stored.
#[derive(Clone, Debug)]
pub struct Planes<'a> {
    /// One slice per plane; the last row of each may lack its padding.
    pub data: Vec<&'a [u8]>,
    /// Layout of the data.
    pub format: PlaneFormat,
}

/// Layout and colours of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneFormat {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// R, G and B, or Y, U and V.
    pub components: [Component; 3],
    /// Conversion of the samples to RGB.
    pub colors: Colors,
}

/// Location of the 8-bit samples of one component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Component {
    /// Index of the plane.
    pub plane: usize,
    /// Offset of the first sample in the plane in bytes.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
    /// There is one sample per 2^n columns and per 2^n rows.
    pub subsampling: (u32, u32),
    /// Whether a sample is located at the first of its columns and of its rows, not in their centre.
    pub cosited: (bool, bool),
}

/// Conversion of three samples in [0, 255] to RGB in [0, 1]: `matrix` * samples + `offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colors {
    /// One row each for R, G and B.
    pub matrix: [[f32; 3]; 3],
    /// Offsets of R, G and B.
    pub offset: [f32; 3],
}

impl Colors {
    /// Conversion of R, G and B samples.
    pub const RGB: Self = {
        let unit = 1.0 / 255.0;
        Self { matrix: [[unit, 0.0, 0.0], [0.0, unit, 0.0], [0.0, 0.0, unit]], offset: [0.0; 3] }
    };

    /// Conversion of samples that are normalised as (sample - `offset`) / `scale`. They are R, G and B, or Y, U
    /// and V if `weights` has the weights of red and blue in luma (`kr`, `kb`).
    pub fn new(offset: [f64; 3], scale: [f64; 3], weights: Option<(f64, f64)>) -> Self {
        let rgb = match weights {
            None => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            Some((kr, kb)) => {
                let kg = 1.0 - kr - kb;
                let (red, blue) = (2.0 - 2.0 * kr, 2.0 - 2.0 * kb);
                [[1.0, 0.0, red], [1.0, -kb * blue / kg, -kr * red / kg], [1.0, blue, 0.0]]
            }
        };
        let matrix = rgb.map(|row| std::array::from_fn(|c| (row[c] / scale[c]) as f32));
        let offset = rgb.map(|row| (0..3).map(|c| -row[c] * offset[c] / scale[c]).sum::<f64>() as f32);
        Self { matrix, offset }
    }
}

impl Component {
    /// Samples per row, and rows, in a frame of this size.
    pub(crate) fn size(&self, (width, height): (usize, usize)) -> (usize, usize) {
        (width.div_ceil(1 << self.subsampling.0), height.div_ceil(1 << self.subsampling.1))
    }

    /// Minimum length of the plane in bytes.
    pub(crate) fn end(&self, size: (usize, usize)) -> usize {
        let (columns, rows) = self.size(size);
        self.offset + rows.saturating_sub(1) * self.stride + columns.saturating_sub(1) * self.step + 1
    }
}

impl<'a> Planes<'a> {
    /// The single plane of a packed RGB picture.
    pub fn from_picture(picture: &Picture<'a>) -> Self {
        let component =
            |offset| Component { offset, stride: picture.stride, step: 3, ..Component::default() };
        let format = PlaneFormat {
            width: picture.width,
            height: picture.height,
            components: [component(0), component(1), component(2)],
            colors: Colors::RGB,
        };
        Self { data: vec![picture.data], format }
    }
}
