// SPDX-License-Identifier: MPL-2.0

//! From a picture to the input of the network, and from its output back to the picture.

use tch::{Kind, Tensor};

use crate::Result;
use crate::image::Picture;
use crate::model::layers::{channels_last, picture_tensor, resize, shrink};

/// Rows and columns of the network's input.
pub const SIDE: i64 = 1024;
/// Rows and columns of logits.
pub const LOGITS: i64 = SIDE / 4;
/// Padding beside the picture that the encoder computes, in pixels. The features of the rest are copied.
pub const MARGIN: i64 = 64;
/// Mean and standard deviation of R, G and B in [0, 255].
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];
/// Logit of the padding in masks.
pub const BACKGROUND: f64 = -20.0;

/// Place of a picture in the network's input: its longer side has a given length, by default that of the input. The rest is
/// padding at the right and at the bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Width and height of the picture.
    picture: (usize, usize),
    /// Width and height in the input.
    scaled: (i64, i64),
}

impl Placement {
    pub fn new(size: (usize, usize)) -> Self {
        Self::with_side(size, SIDE)
    }

    /// Places a picture of this width and height. Its longer side has `side` pixels of the input, at most [`SIDE`].
    pub fn with_side((width, height): (usize, usize), side: i64) -> Self {
        let longer = width.max(height).max(1) as f64;
        let scaled = |length: usize| ((length as f64 * side as f64 / longer).round() as i64).clamp(1, side);
        Self { picture: (width, height), scaled: (scaled(width), scaled(height)) }
    }

    pub fn picture(&self) -> (usize, usize) {
        self.picture
    }

    /// Maps a position in pixels of the picture to fractions of the input's side.
    pub fn to_input(self, (x, y): (f64, f64)) -> (f64, f64) {
        let axis = |at: f64, from: usize, to: i64| at * to as f64 / from as f64 / SIDE as f64;
        (axis(x, self.picture.0, self.scaled.0), axis(y, self.picture.1, self.scaled.1))
    }

    /// Returns the part of the input (1, 3, [`SIDE`], [`SIDE`]) that has the picture and `margin` pixels of padding:
    /// float32, channels last, on the CPU.
    pub fn input(&self, picture: &Picture, margin: i64) -> Result<Tensor> {
        let (width, height) = self.scaled;
        let image = shrink(&picture_tensor(picture)?, height, width)?;
        let channel = |values: [f32; 3]| Tensor::f_from_slice(&values)?.f_reshape([1, 3, 1, 1]);
        let image = image.f_to_kind(Kind::Float)?.f_sub(&channel(MEAN)?)?.f_div(&channel(DEVIATION)?)?;
        let side = |side: i64| ((side + margin + 15) / 16 * 16).min(SIDE);
        channels_last(&image.f_constant_pad_nd([0, side(width) - width, 0, side(height) - height])?)
    }

    /// The part of logits (…, [`LOGITS`], [`LOGITS`]) that shows the picture, in whole positions.
    pub fn valid(&self, logits: &Tensor) -> Result<Tensor> {
        let (columns, rows) = self.positions();
        Ok(logits.f_narrow(-2, 0, rows)?.f_narrow(-1, 0, columns)?)
    }

    /// Enlarges logits ([`LOGITS`], [`LOGITS`]) to the picture, (H, W).
    pub fn to_picture(self, logits: &Tensor) -> Result<Tensor> {
        let logits = resize(&logits.f_reshape([1, 1, LOGITS, LOGITS])?, SIDE, SIDE)?;
        let (width, height) = self.scaled;
        let logits = logits.f_narrow(2, 0, height)?.f_narrow(3, 0, width)?;
        let (width, height) = self.picture;
        Ok(resize(&logits, height as i64, width as i64)?.f_reshape([height as i64, width as i64])?)
    }

    /// Reduces logits at the size of the picture (H, W) to ([`LOGITS`], [`LOGITS`]); the padding is background.
    pub fn to_logits(self, logits: &Tensor) -> Result<Tensor> {
        let (height, width) = logits.size2()?;
        let (columns, rows) = self.positions();
        let logits = logits.f_reshape([1, 1, height, width])?.f_sub_scalar(BACKGROUND)?;
        let logits = logits.f_internal_upsample_bilinear2d_aa([rows, columns], false, None, None)?;
        let padded = logits.f_constant_pad_nd([0, LOGITS - columns, 0, LOGITS - rows])?;
        Ok(padded.f_add_scalar(BACKGROUND)?.f_reshape([LOGITS, LOGITS])?)
    }

    /// Columns and rows of the picture in the logits.
    fn positions(&self) -> (i64, i64) {
        let positions = |side: i64| ((side * LOGITS + SIDE / 2) / SIDE).max(1);
        (positions(self.scaled.0), positions(self.scaled.1))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::image::OwnedPicture;

    fn close(a: (f64, f64), b: (f64, f64)) -> bool {
        (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9
    }

    #[test]
    fn the_longer_side_fills_the_input() {
        let placement = Placement::new((640, 360));
        assert_eq!(placement.scaled, (1024, 576));
        assert!(close(placement.to_input((640.0, 360.0)), (1.0, 0.5625)));
        assert!(close(placement.to_input((160.0, 90.0)), (0.25, 0.140625)));
        let placement = Placement::new((100, 400));
        assert_eq!(placement.scaled, (256, 1024));
        assert!(close(placement.to_input((100.0, 400.0)), (0.25, 1.0)));
        assert_eq!(Placement::new((16_384, 1)).scaled, (1024, 1));
        assert_eq!(Placement::new((3, 3)).scaled, (1024, 1024));
    }

    #[test]
    fn pictures_are_normalised_and_padded_with_zeros() {
        // Rows of 2 pixels with 3 bytes of padding.
        let data = [[255u8, 0, 0, 0, 255, 0, 9, 9, 9]; 4].concat();
        let picture = Picture { data: &data[..33], width: 2, height: 4, stride: 9 };
        let input = Placement::new((2, 4)).input(&picture, SIDE).unwrap();
        assert_eq!(input.size(), [1, 3, SIDE, SIDE]);
        let at = |channel: i64, y: i64, x: i64| input.double_value(&[0, channel, y, x]);
        assert!((at(0, 700, 10) - (255.0 - 123.675) / 58.395).abs() < 1e-5);
        assert!((at(1, 700, 500) - (255.0 - 116.28) / 57.12).abs() < 1e-5);
        assert_eq!((at(0, 0, 512), at(2, 1023, 1023)), (0.0, 0.0));
        assert!(at(0, 1023, 511) != 0.0);
    }

    #[test]
    fn large_pictures_are_averaged() {
        let stripes: Vec<u8> =
            (0..3 * 4096 * 8).map(|index| if index / 3 % 2 == 0 { 0 } else { 200 }).collect();
        let picture = OwnedPicture::from_rgb(4096, 8, stripes).unwrap();
        let input = Placement::new((4096, 8)).input(&picture.as_picture(), SIDE).unwrap();
        let value = input.double_value(&[0, 0, 0, 500]) * f64::from(DEVIATION[0]) + f64::from(MEAN[0]);
        assert!((value - 100.0).abs() < 2.0, "{value}");
    }

    #[test]
    fn logits_return_to_their_place_without_the_padding() {
        // Positive where the right half of a picture of 640x360 is; the padding is far above it.
        let logits = Tensor::full([LOGITS, LOGITS], -5.0, (Kind::Float, Device::Cpu));
        let _ = logits.narrow(1, LOGITS / 2, LOGITS / 2).fill_(5.0);
        let _ = logits.narrow(0, 160, 96).fill_(50.0);
        let placement = Placement::new((640, 360));
        let picture = placement.to_picture(&logits).unwrap();
        assert_eq!(picture.size(), [360, 640]);
        assert_eq!(picture.double_value(&[180, 310]), -5.0);
        assert_eq!(picture.double_value(&[180, 330]), 5.0);
        assert!(picture.double_value(&[180, 319]) < 0.0 && picture.double_value(&[180, 320]) > 0.0);
        assert_eq!(placement.valid(&logits).unwrap().size(), [144, 256]);
        let back = placement.to_logits(&picture).unwrap();
        assert_eq!(back.double_value(&[200, 200]), BACKGROUND);
        let difference = placement.valid(&back).unwrap() - placement.valid(&logits).unwrap();
        // Apart from the column at the edge of the object, and the last row.
        assert!(difference.narrow(0, 0, 140).narrow(1, 0, 126).abs().max().double_value(&[]) < 1e-4);
        assert_eq!(Placement::new((1, 16_384)).valid(&logits).unwrap().size(), [256, 1]);
    }
}
