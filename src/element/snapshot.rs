// SPDX-License-Identifier: MPL-2.0

//! Saves a frame and its mask as files for `ref-image` and `ref-mask`.

use std::io;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageFormat};

use super::frame::Frame;
use super::sample;
use crate::image::{OwnedPicture, PlaneMut};
use crate::mask::{Labels, MAX_GREY_ID};
use crate::matte::Matte;
use crate::{Error, Result};

/// A frame and its mask.
pub struct Snapshot {
    picture: OwnedPicture,
    mask: Mask,
}

/// Values of a mask, with the size of the picture.
enum Mask {
    /// Alpha of a single object.
    Soft(Vec<u8>),
    /// Ids of several objects.
    Labels(Vec<u8>),
}

/// Removes faint values of a mask that has no others but 255: readers would take them for ids.
fn unlike_ids(alpha: &mut [u8]) {
    if alpha.iter().all(|&value| value <= MAX_GREY_ID || value == u8::MAX) {
        alpha.iter_mut().filter(|value| **value <= MAX_GREY_ID).for_each(|value| *value = 0);
    }
}

impl Snapshot {
    /// Copies a frame and its matte. Returns `None` if no object is visible: as a reference, such a mask is refused.
    ///
    /// # Errors
    /// The frame cannot be converted or is too large for a picture, and errors of libtorch.
    pub fn new(frame: &Frame, matte: &Matte) -> Result<Option<Self>> {
        let bad = |error: glib::BoolError| Error::Config(format!("the frame cannot be converted: {error}"));
        let picture = sample::read_image(frame).map_err(bad)??;
        let (width, height) = (picture.as_picture().width, picture.as_picture().height);
        let mut data = vec![0; width * height];
        let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
        let mask = match matte.object_ids() {
            // Soft masks have no id, which is that of the first object then.
            [1] => {
                matte.write_alpha(None, &mut plane)?;
                unlike_ids(&mut data);
                Mask::Soft(data)
            }
            _ => {
                matte.write_labels(&mut plane)?;
                Mask::Labels(data)
            }
        };
        let is_visible = match &mask {
            Mask::Soft(alpha) => alpha.iter().any(|&alpha| alpha >= 128),
            Mask::Labels(ids) => ids.iter().any(|&id| id != 0),
        };
        Ok(is_visible.then_some(Self { picture, mask }))
    }

    /// Writes the mask to `path`, and the frame beside it. Returns the path of the frame.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(self, path: &Path) -> Result<PathBuf> {
        let (width, height, rgb) = self.picture.into_rgb();
        let write = |path: &Path, data: &[u8], color: ExtendedColorType| {
            image::save_buffer_with_format(path, data, width as u32, height as u32, color, ImageFormat::Png)
                .map_err(|error| Error::Write { path: path.to_owned(), source: io::Error::other(error) })
        };
        match &self.mask {
            Mask::Soft(alpha) => write(path, alpha, ExtendedColorType::L8)?,
            Mask::Labels(ids) => Labels::save(path, width, height, ids)?,
        }
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push("-frame.png");
        let frame = path.with_file_name(name);
        write(&frame, &rgb, ExtendedColorType::Rgb8)?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The object was read as void, and the faint values as objects.
    #[test]
    fn masks_are_not_like_ids() {
        let written = |values: &[u8]| {
            let mut values = values.to_vec();
            unlike_ids(&mut values);
            values
        };
        assert_eq!(written(&[0, 3, 16, 255, 1]), [0, 0, 0, 255, 0]);
        assert_eq!(written(&[0, 3, 17, 255]), [0, 3, 17, 255]);
    }
}
