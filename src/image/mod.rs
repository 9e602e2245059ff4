// SPDX-License-Identifier: MPL-2.0

//! Pictures, planes and regions, shared by the tracker, the matte and the element.

mod components;
mod file;
mod plane;
mod planes;
mod samples;
mod source;

pub(crate) use self::components::{connected_components, neighbours};
pub(crate) use self::file::check_size;
pub use self::file::{MAX_PIXELS, MAX_SIDE, OwnedPicture};
#[cfg(test)]
pub(crate) use self::plane::mix;
pub(crate) use self::plane::product;
pub use self::planes::{Colors, Component, PlaneFormat, Planes};
pub use self::samples::SamplesMut;
pub use self::source::{FrameSource, Region};
use crate::{Error, Result};

/// A packed RGB picture, one byte per channel.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// `height` rows, the last of which may lack its padding.
    pub data: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least 3 * `width`.
    pub stride: usize,
}

impl Picture<'_> {
    pub(crate) fn check(&self) -> Result<()> {
        let Self { data, width, height, stride } = *self;
        let row = 3 * width;
        if width == 0 || height == 0 || stride < row || data.len() < stride * (height - 1) + row {
            return Err(Error::Config(format!(
                "a picture of {width}x{height} does not fit in {} bytes with a stride of {stride}",
                data.len()
            )));
        }
        Ok(())
    }
}

/// A writable 8-bit plane; bytes beyond `width` in a row are not changed.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// `height` rows, the last of which may lack its padding.
    pub data: &'a mut [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least `width`.
    pub stride: usize,
}
