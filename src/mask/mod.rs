//! Reference masks: which pixels of one picture are the object. And masks of object ids as files.

mod decode;
mod labels;
mod warning;

use std::io::Cursor;
use std::path::{Path, PathBuf};

pub use self::labels::Labels;
pub use self::warning::MaskWarning;
use crate::image::check_size;
pub use crate::image::{MAX_PIXELS, MAX_SIDE};
use crate::{Error, Result};

/// The planes of all objects of one mask together, in bytes, at the most.
const MAX_BYTES: usize = 160 << 20;
/// Grey values up to this one are object ids if no larger one but that of void is in the file.
const MAX_GREY_ID: u8 = 16;
/// Pixels to be left out, in masks of object ids.
const VOID: u8 = 255;
/// What messages say in place of a path.
const IN_MEMORY: &str = "(in memory)";

/// One soft plane per object, all of the mask's own size.
#[derive(Clone, Debug)]
pub struct ReferenceMask {
    width: usize,
    height: usize,
    objects: Vec<ObjectMask>,
    reading: Reading,
    origin: PathBuf,
}

/// Where one object is.
#[derive(Clone, Debug)]
pub struct ObjectMask {
    /// 1 to 254, as the mask has it.
    pub id: u8,
    /// height x width, 0 (background) to 255 (object).
    pub alpha: Vec<u8>,
}

/// How the values of a mask were understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Grey is soft foreground.
    Soft,
    /// Grey values are object ids: none but that of void is larger than 16.
    GreyIds,
    /// Palette indices, or values given as labels, are object ids.
    Ids,
    /// The alpha channel is soft foreground.
    Alpha,
}

impl ReferenceMask {
    /// Reads a PNG. Grey: value / 255 is soft foreground of one object, but a file that has values from 1
    /// to 16, and besides them none but 0 and 255, holds object ids, 255 being void. Indexed: the palette
    /// index is the object id, 255 is void. Grey or RGB with alpha: the alpha channel is soft foreground,
    /// unless it is opaque everywhere.
    ///
    /// Memory holds one byte a pixel and object, which is 160 MiB in all at the most; the file is decoded row
    /// by row.
    ///
    /// # Errors
    /// [`Error::Mask`] with the path for a file that is missing, no PNG, truncated, larger than
    /// [`MAX_SIDE`] or [`MAX_PIXELS`] (known from its header, before anything is allocated), coloured, or
    /// without foreground.
    pub fn open(path: &Path) -> Result<Self> {
        decode::read(path).and_then(|values| values.into_mask(path)).map_err(|reason| bad(path, reason))
    }

    /// The same from memory; messages call it `origin`.
    ///
    /// # Errors
    /// [`Error::Mask`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        decode::decode(Cursor::new(bytes))
            .and_then(|values| values.into_mask(origin))
            .map_err(|reason| bad(origin, reason))
    }

    /// One object, with id 1, from `height` rows of `width` values, 0 to 255.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `alpha` or all is background.
    pub fn from_soft(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Soft, alpha)
    }

    /// As the values of a greyscale PNG are read: soft foreground, or object ids.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `values` or all is background.
    pub fn from_grey(width: usize, height: usize, values: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Grey, values)
    }

    /// As the alpha channel of a PNG is read: one object, with id 1.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `alpha` or all is transparent.
    pub fn from_alpha(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Alpha, alpha)
    }

    /// One object for each id in `height` rows of `width` labels; 0 is background, 255 void.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `labels` or no label is an object.
    pub fn from_labels(width: usize, height: usize, labels: &[u8]) -> Result<Self> {
        Self::from_values(width, height, Kind::Index, labels.to_vec())
    }

    fn from_values(width: usize, height: usize, kind: Kind, values: Vec<u8>) -> Result<Self> {
        let origin = Path::new(IN_MEMORY);
        Values { width, height, kind, values }.into_mask(origin).map_err(|reason| bad(origin, reason))
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// In the order of their ids; never empty.
    pub fn objects(&self) -> &[ObjectMask] {
        &self.objects
    }

    /// Its file, or what messages say in place of it.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// How the values of the file were understood.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

/// One byte a pixel, before it is decided what they mean.
struct Values {
    width: usize,
    height: usize,
    kind: Kind,
    values: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Soft foreground or object ids, as the values tell.
    Grey,
    /// Soft foreground, whatever the values.
    Soft,
    Index,
    Alpha,
}

/// Whether a grey value can be the id of an object.
fn is_grey_id(value: u8) -> bool {
    (1..=MAX_GREY_ID).contains(&value)
}

impl Values {
    /// # Errors
    /// A size that is too large, or not that of the values.
    fn reading(&self) -> Result<Reading, String> {
        let Self { width, height, .. } = *self;
        check_size(width, height)?;
        if width * height != self.values.len() {
            return Err(format!("{} values do not make {width}x{height} pixels", self.values.len()));
        }
        Ok(match self.kind {
            Kind::Index => Reading::Ids,
            Kind::Alpha => Reading::Alpha,
            Kind::Soft => Reading::Soft,
            Kind::Grey => {
                let mut present = self.present();
                (present[0], present[usize::from(VOID)]) = (false, false);
                let ids = (0..=255u8).filter(|&value| present[usize::from(value)]);
                // Black and white alone are one object.
                let (mut any, mut all) = (false, true);
                ids.for_each(|value| (any, all) = (true, all && is_grey_id(value)));
                if any && all { Reading::GreyIds } else { Reading::Soft }
            }
        })
    }

    /// Which values occur.
    fn present(&self) -> [bool; 256] {
        let mut present = [false; 256];
        self.values.iter().for_each(|&value| present[usize::from(value)] = true);
        present
    }

    fn into_mask(self, origin: &Path) -> Result<ReferenceMask, String> {
        let reading = self.reading()?;
        let present = self.present();
        let Self { width, height, mut values, .. } = self;
        let objects = match reading {
            Reading::Soft | Reading::Alpha if present[1..].contains(&true) => {
                vec![ObjectMask { id: 1, alpha: values }]
            }
            Reading::Soft | Reading::Alpha => return Err(no_foreground(reading)),
            Reading::Ids | Reading::GreyIds => {
                let ids: Vec<u8> = (1..VOID).filter(|&id| present[usize::from(id)]).collect();
                let Some((&last, others)) = ids.split_last() else { return Err(no_foreground(reading)) };
                if ids.len() * values.len() > MAX_BYTES {
                    return Err(format!(
                        "{} objects of {width}x{height} pixels are too many to hold: scale the mask down",
                        ids.len()
                    ));
                }
                let alpha = |value: u8, id: u8| if value == id { 255 } else { 0 };
                let plane = |id: u8| values.iter().map(|&value| alpha(value, id)).collect();
                let mut objects: Vec<_> =
                    others.iter().map(|&id| ObjectMask { id, alpha: plane(id) }).collect();
                values.iter_mut().for_each(|value| *value = alpha(*value, last));
                objects.push(ObjectMask { id: last, alpha: values });
                objects
            }
        };
        Ok(ReferenceMask { width, height, objects, reading, origin: origin.to_owned() })
    }
}

fn no_foreground(reading: Reading) -> String {
    match reading {
        Reading::Alpha => "its alpha channel is transparent everywhere: the object must be opaque".into(),
        Reading::Ids => "every pixel is background (0) or void (255): the object must have an index from 1 \
                         to 254"
            .into(),
        Reading::Soft | Reading::GreyIds => {
            "every pixel is black, so there is no object: paint the object white".into()
        }
    }
}

fn bad(path: &Path, reason: String) -> Error {
    Error::Mask { path: path.to_owned(), reason }
}

/// The colour (R, G, B) of an object, by the palette of the DAVIS and PASCAL VOC masks: the bits of the
/// id are dealt to the three channels, highest first.
pub fn color(object: u8) -> [u8; 3] {
    let mut color = [0; 3];
    for bit in 0..8 {
        let channel = bit % 3;
        color[channel] |= (object >> bit & 1) << (7 - bit / 3);
    }
    color
}

#[cfg(test)]
mod tests;
