//! Pictures from files: the frame that a reference mask was drawn on.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{ImageError, ImageReader, Limits};

use crate::mask::{MAX_PIXELS, MAX_SIDE};
use crate::tracker::Picture;
use crate::{Error, Result};

/// A picture in memory, packed RGB.
#[derive(Clone, Debug)]
pub struct OwnedPicture {
    data: Vec<u8>,
    width: usize,
    height: usize,
}

impl OwnedPicture {
    /// Reads a PNG or JPEG; transparency is dropped.
    ///
    /// # Errors
    /// [`Error::Picture`] with the path for a file that is missing, of another kind, broken, or larger
    /// than [`MAX_SIDE`] or [`MAX_PIXELS`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::Picture {
            path: path.to_owned(),
            reason: format!("it cannot be opened ({error}): give the path of a PNG or JPEG"),
        })?;
        Self::read(BufReader::new(file), path)
    }

    /// The same from memory; messages call it `origin`.
    ///
    /// # Errors
    /// [`Error::Picture`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        Self::read(Cursor::new(bytes), origin)
    }

    fn read(source: impl BufRead + Seek, origin: &Path) -> Result<Self> {
        let bad = |error: ImageError| Error::Picture {
            path: origin.to_owned(),
            reason: format!("it cannot be decoded ({error}): give a PNG or JPEG"),
        };
        let mut reader = ImageReader::new(source)
            .with_guessed_format()
            .map_err(|error| bad(ImageError::IoError(error)))?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE as u32);
        limits.max_image_height = Some(MAX_SIDE as u32);
        limits.max_alloc = Some(8 * MAX_PIXELS as u64);
        reader.limits(limits);
        let image = reader.decode().map_err(bad)?.into_rgb8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        Ok(Self { data: image.into_raw(), width, height })
    }

    /// From `height` rows of `width` packed RGB pixels.
    ///
    /// # Errors
    /// [`Error::Picture`] if there is none, or if the size is not that of `data`.
    pub fn from_rgb(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        if data.is_empty() || 3 * width * height != data.len() {
            let reason = format!("{} bytes do not make {width}x{height} pixels", data.len());
            return Err(Error::Picture { path: "(in memory)".into(), reason });
        }
        Ok(Self { data, width, height })
    }

    /// A view of its pixels.
    pub fn as_picture(&self) -> Picture<'_> {
        Picture { data: &self.data, width: self.width, height: self.height, stride: 3 * self.width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_and_jpeg() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.jpg"] {
            let path = folder.path().join(name);
            image::RgbImage::from_pixel(5, 3, image::Rgb([200, 100, 50])).save(&path).unwrap();
            let picture = OwnedPicture::open(&path).unwrap();
            let view = picture.as_picture();
            assert_eq!((view.width, view.height, view.stride, view.data.len()), (5, 3, 15, 45));
            assert!(view.data[0].abs_diff(200) < 6 && view.data[44].abs_diff(50) < 6);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(OwnedPicture::open(&path).unwrap_err().to_string().contains("a.png"));
        std::fs::write(&path, b"nothing").unwrap();
        assert!(OwnedPicture::open(&path).unwrap_err().to_string().contains("a.png"));
    }
}
