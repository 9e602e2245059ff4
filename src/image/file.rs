// SPDX-License-Identifier: MPL-2.0

//! Picture files: the frame that a reference mask was drawn on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::Picture;
use crate::{Error, Result};

/// Maximum number of pixels along one side of a picture or mask.
pub const MAX_SIDE: usize = 16_384;
/// Maximum number of pixels in a picture or mask.
pub const MAX_PIXELS: usize = 1 << 26;
/// Maximum size of a picture file in bytes: that of the largest picture without compression.
const MAX_FILE_BYTES: u64 = 8 * MAX_PIXELS as u64;
/// First bytes of a JPEG file.
const JPEG: [u8; 2] = [0xff, 0xd8];

/// Checks the size limits of pictures and masks; called before memory for their pixels is allocated.
pub(crate) fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(too_large(&format!("{width}x{height} pixels are")));
    }
    Ok(())
}

fn too_large(what: &str) -> String {
    format!(
        "{what} too many: at most {MAX_SIDE} a side and {} million in total. Scale it down; it need not have \
         the size of the video",
        MAX_PIXELS / 1_000_000
    )
}

/// A packed RGB picture in memory.
#[derive(Clone, Debug)]
pub struct OwnedPicture {
    data: Vec<u8>,
    width: usize,
    height: usize,
}

impl OwnedPicture {
    /// Reads a PNG or JPEG and applies its EXIF orientation; transparency is dropped.
    ///
    /// # Errors
    /// [`Error::Picture`] with the path if the file is missing, of another format, damaged, truncated, or larger
    /// than [`MAX_SIDE`] or [`MAX_PIXELS`] (checked in the header, before allocation).
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::Picture {
            path: path.to_owned(),
            reason: format!("it cannot be opened ({error}): give the path of a PNG or JPEG"),
        })?;
        Self::read(BufReader::new(file), path)
    }

    /// Reads a picture from memory as [`open`](Self::open) does; `origin` replaces the path in messages.
    ///
    /// # Errors
    /// [`Error::Picture`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        Self::read(Cursor::new(bytes), origin)
    }

    fn read(source: impl BufRead + Seek, origin: &Path) -> Result<Self> {
        decode(source).map_err(|reason| Error::Picture { path: origin.to_owned(), reason })
    }

    /// Picture from `height` rows of `width` packed RGB pixels.
    ///
    /// # Errors
    /// [`Error::Picture`] if `data` does not match the size, or the size exceeds [`MAX_SIDE`] or [`MAX_PIXELS`].
    pub fn from_rgb(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let bad = |reason: String| Error::Picture { path: "(in memory)".into(), reason };
        check_size(width, height).map_err(bad)?;
        if 3 * width * height != data.len() {
            return Err(bad(format!("{} bytes do not match {width}x{height} pixels", data.len())));
        }
        Ok(Self { data, width, height })
    }

    /// Returns width, height, and `height` rows of `width` packed RGB pixels.
    pub fn into_rgb(self) -> (usize, usize, Vec<u8>) {
        (self.width, self.height, self.data)
    }

    /// Borrows the pixels.
    pub fn as_picture(&self) -> Picture<'_> {
        Picture { data: &self.data, width: self.width, height: self.height, stride: 3 * self.width }
    }
}

fn decode(mut source: impl BufRead + Seek) -> Result<OwnedPicture, String> {
    let broken = |error: &dyn std::fmt::Display| {
        format!("it cannot be decoded ({error}): save it again as PNG or JPEG")
    };
    let bad = |error: ImageError| match error {
        // The pixels take more bytes than can be addressed.
        ImageError::Limits(_) => too_large("its pixels are"),
        error => broken(&error),
    };
    let unreadable = |error: io::Error| broken(&error);

    let length = source.seek(SeekFrom::End(0)).map_err(unreadable)?;
    if length > MAX_FILE_BYTES {
        return Err(format!(
            "the file has {length} bytes, more than the maximum of {MAX_FILE_BYTES}: scale the picture down"
        ));
    }
    source.rewind().map_err(unreadable)?;
    if is_truncated(&mut source).map_err(unreadable)? {
        return Err(broken(&"the end of the JPEG file is missing"));
    }
    source.rewind().map_err(unreadable)?;
    let mut reader = ImageReader::new(source).with_guessed_format().map_err(unreadable)?;
    // `check_size` limits the size; the default limit of 512 MiB is less than the largest picture needs.
    reader.limits(Limits::no_limits());
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::ImageRgb8(DynamicImage::from_decoder(decoder).map_err(bad)?.into_rgb8());
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(OwnedPicture { data: image.into_raw(), width, height })
}

/// Whether a JPEG has no end marker. The decoder would fill the missing part with grey. Bytes after the end are ignored.
fn is_truncated(source: &mut impl BufRead) -> io::Result<bool> {
    if !source.fill_buf()?.starts_with(&JPEG) {
        return Ok(false);
    }
    loop {
        source.skip_until(0xff)?;
        let mut marker = [0xff];
        while marker == [0xff] {
            if source.read(&mut marker)? == 0 {
                return Ok(true);
            }
        }
        match marker[0] {
            0xd9 => return Ok(false),
            // Data of a scan, and markers without a segment.
            0x00 | 0x01 | 0xd0..=0xd8 => (),
            _ => {
                let mut length = [0; 2];
                match source.read_exact(&mut length) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                    result => result?,
                }
                let length = u64::from(u16::from_be_bytes(length).saturating_sub(2));
                io::copy(&mut source.take(length), &mut io::sink())?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_and_jpeg_files_are_read() {
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

    /// A white JPEG whose right quarter is black, with an EXIF orientation.
    fn oriented(orientation: u8) -> Vec<u8> {
        let picture = image::RgbImage::from_fn(32, 24, |x, _| image::Rgb([if x < 24 { 255 } else { 0 }; 3]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        let mut bytes = bytes.into_inner();
        let mut exif =
            *b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
        exif[29] = orientation;
        bytes.splice(2..2, exif);
        bytes
    }

    #[test]
    fn the_exif_orientation_of_a_jpeg_is_applied() {
        // Orientation, size, and the black border: left, right, top, bottom.
        for (orientation, size, black) in [
            (1, (32, 24), 1),
            (2, (32, 24), 0),
            (3, (32, 24), 0),
            (4, (32, 24), 1),
            (5, (24, 32), 3),
            (6, (24, 32), 3),
            (7, (24, 32), 2),
            (8, (24, 32), 2),
            (99, (32, 24), 1),
        ] {
            let picture = OwnedPicture::from_bytes(&oriented(orientation), Path::new("a.jpg")).unwrap();
            let view = picture.as_picture();
            let (width, height) = size;
            assert_eq!((view.width, view.height, view.stride), (width, height, 3 * width));
            let at = |x: usize, y: usize| view.data[y * view.stride + 3 * x];
            let borders =
                [at(0, height / 2), at(width - 1, height / 2), at(width / 2, 0), at(width / 2, height - 1)];
            for (border, value) in borders.into_iter().enumerate() {
                assert_eq!(value < 128, border == black, "orientation {orientation}: {borders:?}");
            }
        }
    }

    #[test]
    fn a_truncated_jpeg_is_refused() {
        let whole = oriented(1);
        for length in [0, 1, 2, 100, whole.len() / 2, whole.len() - 2] {
            let error =
                OwnedPicture::from_bytes(&whole[..length], Path::new("a.jpg")).unwrap_err().to_string();
            assert!(error.contains("a.jpg") && error.contains("again"), "{length}: {error}");
        }
        // Such as the video of a motion photo, which has all pairs of bytes.
        let longer = [&whole[..], &[0, 0xff, 0xda, 0, 0xff, 0xd9, 0xff, 0xda]].concat();
        assert!(OwnedPicture::from_bytes(&longer, Path::new("a.jpg")).is_ok(), "trailing bytes are ignored");
        // A thumbnail in a segment has an end marker, too.
        let mut thumbnail = vec![0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xda];
        thumbnail.extend(&whole[2..whole.len() - 2]);
        assert!(OwnedPicture::from_bytes(&thumbnail, Path::new("a.jpg")).is_err());
        thumbnail.extend([0xff, 0xd9]);
        assert!(OwnedPicture::from_bytes(&thumbnail, Path::new("a.jpg")).is_ok());
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
