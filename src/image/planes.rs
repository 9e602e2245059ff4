//! Frames as they are stored, in planes of components.

use super::Picture;

/// The bytes of a frame.
#[derive(Clone, Debug)]
pub struct Planes<'a> {
    /// One slice a plane; the last row of each may lack its padding.
    pub data: Vec<&'a [u8]>,
    /// What is where in them.
    pub format: PlaneFormat,
}

/// What is where in the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlaneFormat {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Where R, G and B, or Y, U and V are.
    pub components: [Component; 3],
    /// What they mean.
    pub colors: Colors,
}

/// Samples of one byte each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Component {
    /// The plane it is in.
    pub plane: usize,
    /// Where in the plane the first sample is.
    pub offset: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
    /// There is one sample for every 2^n columns, and rows.
    pub subsampling: (u32, u32),
    /// A sample lies at the first of its columns, and rows, and not in their middle.
    pub cosited: (bool, bool),
}

/// RGB in [0, 1] from three samples in [0, 255]: `matrix` times samples, plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colors {
    /// By row: what R, G and B are made of.
    pub matrix: [[f32; 3]; 3],
    /// Of R, G and B.
    pub offset: [f32; 3],
}

impl Colors {
    /// Samples that are R, G and B.
    pub const RGB: Self = {
        let unit = 1.0 / 255.0;
        Self { matrix: [[unit, 0.0, 0.0], [0.0, unit, 0.0], [0.0, 0.0, unit]], offset: [0.0; 3] }
    };

    /// Samples of which black and white, or the extremes of chroma, are `offset` and `offset + scale`: R, G
    /// and B, or with the weights of red and blue in luma (`kr`, `kb`) Y, U and V.
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
    /// Samples in a row, and rows.
    pub(crate) fn size(&self, (width, height): (usize, usize)) -> (usize, usize) {
        (width.div_ceil(1 << self.subsampling.0), height.div_ceil(1 << self.subsampling.1))
    }

    /// Bytes of the plane that it needs.
    pub(crate) fn end(&self, size: (usize, usize)) -> usize {
        let (columns, rows) = self.size(size);
        self.offset + rows.saturating_sub(1) * self.stride + columns.saturating_sub(1) * self.step + 1
    }
}

impl<'a> Planes<'a> {
    /// Those of packed RGB.
    pub fn of_picture(picture: &Picture<'a>) -> Self {
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
