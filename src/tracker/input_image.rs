// SPDX-License-Identifier: MPL-2.0

//! Conversion of a picture to the input of the network.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::image::Picture;
use crate::matte::shrink;
use crate::model::layers::{channels_last, picture_tensor};

/// Resizes a picture to `size` (H, W) and returns it as (1, 3, H, W), RGB in [0, 1], channels last.
pub fn input_image(picture: &Picture, size: (i64, i64), (kind, device): (Kind, Device)) -> Result<Tensor> {
    let image = picture_tensor(picture)?.f_to_device(device)?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
    channels_last(&shrink(&image, size.0, size.1)?.f_to_kind(kind)?)
}
