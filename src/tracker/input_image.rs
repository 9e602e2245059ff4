// SPDX-License-Identifier: MPL-2.0

//! Conversion of a picture to the input of the network.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::image::Picture;
use crate::matte::shrink;
use crate::model::layers::channels_last;

/// Resizes a picture to `size` (H, W) and returns it as (1, 3, H, W), RGB in [0, 1], channels last.
pub fn input_image(picture: &Picture, size: (i64, i64), (kind, device): (Kind, Device)) -> Result<Tensor> {
    picture.check()?;
    let Picture { data, width, height, stride } = *picture;
    let row = 3 * width;
    let rows = if stride == row {
        Tensor::f_from_data_size(&data[..row * height], &[row as i64 * height as i64], Kind::Uint8)?
    } else {
        let packed: Vec<u8> =
            data.chunks(stride).take(height).flat_map(|line| &line[..row]).copied().collect();
        Tensor::f_from_data_size(&packed, &[packed.len() as i64], Kind::Uint8)?
    };
    let image = rows
        .f_to_device(device)?
        .f_reshape([1, height as i64, width as i64, 3])?
        .f_permute([0, 3, 1, 2])?
        .f_to_kind(Kind::Float)?
        .f_div_scalar(255.0)?;
    channels_last(&shrink(&image, size.0, size.1)?.f_to_kind(kind)?)
}
