// SPDX-License-Identifier: MPL-2.0

//! Conversion of tensors to pictures.

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use crate::{LabelMap, Result};

/// Converts values in [0, 1] to bytes.
pub(crate) fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let x = x.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_mul_scalar(255.0)?;
    let x = x.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?;
    Ok(Vec::<u8>::try_from(&x.f_contiguous()?.f_reshape([-1])?)?)
}

/// Converts an image (3, H, W), RGB in [0, 1].
pub(crate) fn picture(image: &Tensor) -> Result<RgbImage> {
    let (_, height, width) = image.size3()?;
    let rgb = bytes(&image.f_permute([1, 2, 0])?)?;
    Ok(RgbImage::from_raw(width as u32, height as u32, rgb).unwrap_or_default())
}

/// Returns object 1 where the soft mask is above one half, 0 elsewhere.
pub(crate) fn labels(soft: &[u8], width: usize, height: usize) -> Result<LabelMap> {
    LabelMap::new(width, height, soft.iter().map(|&value| u8::from(value > 127)).collect())
}
