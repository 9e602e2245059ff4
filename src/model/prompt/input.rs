//! From a picture to the input of the network, and from its output back to the picture.

use tch::{Kind, Tensor};

use crate::Result;
use crate::image::Picture;
use crate::model::layers::{channels_last, resize};

/// Rows and columns of the network's input.
pub const SIDE: i64 = 1024;
/// Rows and columns of logits.
pub const LOGITS: i64 = SIDE / 4;
/// Mean and standard deviation of R, G and B in [0, 255].
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];

/// Place of a picture in the network's input: its longer side fills the input, the rest is padding at the right or at
/// the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Width and height of the picture.
    picture: (usize, usize),
    /// Width and height in the input.
    scaled: (i64, i64),
}

impl Placement {
    /// Places a picture of this width and height.
    pub fn new((width, height): (usize, usize)) -> Self {
        let longer = width.max(height).max(1) as f64;
        let scaled = |side: usize| ((side as f64 * SIDE as f64 / longer).round() as i64).clamp(1, SIDE);
        Self { picture: (width, height), scaled: (scaled(width), scaled(height)) }
    }

    /// Width and height of the picture.
    pub fn picture(&self) -> (usize, usize) {
        self.picture
    }

    /// Maps a position in pixels of the picture to fractions of the input's side.
    pub fn to_input(self, (x, y): (f64, f64)) -> (f64, f64) {
        let axis = |at: f64, from: usize, to: i64| at * to as f64 / from as f64 / SIDE as f64;
        (axis(x, self.picture.0, self.scaled.0), axis(y, self.picture.1, self.scaled.1))
    }

    /// Returns the input (1, 3, [`SIDE`], [`SIDE`]) for a picture: float32, channels last, on the CPU.
    pub fn input(&self, picture: &Picture) -> Result<Tensor> {
        picture.check()?;
        let row = 3 * picture.width;
        let rows = picture.data.chunks(picture.stride).take(picture.height);
        let packed: Vec<u8> = rows.flat_map(|line| &line[..row]).copied().collect();
        let (width, height) = (picture.width as i64, picture.height as i64);
        let image = Tensor::f_from_data_size(&packed, &[1, height, width, 3], Kind::Uint8)?;
        let image = image.f_permute([0, 3, 1, 2])?;
        let (width, height) = self.scaled;
        let image = if image.size()[2..] == [height, width] {
            image
        } else {
            image.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?
        };
        let channel = |values: [f32; 3]| Tensor::f_from_slice(&values)?.f_reshape([1, 3, 1, 1]);
        let image = image.f_to_kind(Kind::Float)?.f_sub(&channel(MEAN)?)?.f_div(&channel(DEVIATION)?)?;
        channels_last(&image.f_constant_pad_nd([0, SIDE - width, 0, SIDE - height])?)
    }

    /// The part of logits ([`LOGITS`], [`LOGITS`]) that shows the picture, in whole positions.
    pub fn valid(&self, logits: &Tensor) -> Result<Tensor> {
        let positions = |side: i64| (side * LOGITS + SIDE / 2) / SIDE;
        let (width, height) = self.scaled;
        Ok(logits.f_narrow(0, 0, positions(height).max(1))?.f_narrow(1, 0, positions(width).max(1))?)
    }

    /// Enlarges logits ([`LOGITS`], [`LOGITS`]) to the picture, (H, W).
    pub fn to_picture(self, logits: &Tensor) -> Result<Tensor> {
        let logits = resize(&logits.f_reshape([1, 1, LOGITS, LOGITS])?, SIDE, SIDE)?;
        let (width, height) = self.scaled;
        let logits = logits.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?;
        let (width, height) = self.picture;
        Ok(resize(&logits, height as i64, width as i64)?.f_reshape([height as i64, width as i64])?)
    }
}
