// SPDX-License-Identifier: MPL-2.0

//! Reference masks, which mark the objects in one picture, and mask files of object ids.

mod decode;
mod labels;
mod warning;

use std::io::Cursor;
use std::path::{Path, PathBuf};

pub use self::labels::Labels;
pub use self::warning::MaskWarning;
#[cfg(feature = "plugin")]
use crate::image::Region;
use crate::image::check_size;
pub use crate::image::{MAX_PIXELS, MAX_SIDE};
use crate::{Error, Result};

/// Maximum size in bytes of all object planes of one mask together.
const MAX_BYTES: usize = 160 << 20;
/// Grey values up to this one are object ids if the file has no larger value except void.
pub(crate) const MAX_GREY_ID: u8 = 16;
/// Value of pixels to be ignored, in masks of object ids.
const VOID: u8 = 255;
/// Substitute for a path in messages.
const IN_MEMORY: &str = "(in memory)";

/// A reference mask: one soft plane per object, all of the same size.
#[derive(Clone, Debug)]
pub struct ReferenceMask {
    width: usize,
    height: usize,
    objects: Vec<ObjectMask>,
    reading: Interpretation,
    origin: PathBuf,
}

/// Mask of one object.
#[derive(Clone, Debug)]
pub struct ObjectMask {
    /// Object id, 1 to 254.
    pub id: u8,
    /// `height` rows of `width` values, 0 (background) to 255 (object).
    pub alpha: Vec<u8>,
}

impl ObjectMask {
    /// Bounding box of the values above one half. `width` is that of the mask. `None` if there are none.
    #[cfg(feature = "plugin")]
    pub(crate) fn bounds(&self, width: usize) -> Option<Region> {
        Region::bounding(&self.alpha, width, |value| *value > 127)
    }
}

/// Interpretation of the values of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpretation {
    /// Grey is soft foreground.
    Soft,
    /// Grey values are object ids: no value except void is larger than 16.
    GreyIds,
    /// Palette indices, or values given as labels, are object ids.
    Ids,
    /// The alpha channel is soft foreground.
    Alpha,
}

impl ReferenceMask {
    /// Reads a PNG:
    /// - Grey: value / 255 is soft foreground of one object. If the file has values from 1 to 16, and apart from
    ///   these only 0 and 255, the values are object ids, and 255 is void.
    /// - Indexed: the palette index is the object id, 255 is void.
    /// - Grey or RGB with alpha: the alpha channel is soft foreground, unless it is opaque everywhere.
    ///
    /// The mask takes one byte per pixel and object, at most 160 MiB in total. The file is decoded row by row.
    ///
    /// # Errors
    /// [`Error::Mask`] with the path if the file is missing, not a PNG, truncated, larger than [`MAX_SIDE`] or
    /// [`MAX_PIXELS`] (checked in the header, before allocation), coloured, or without foreground.
    pub fn open(path: &Path) -> Result<Self> {
        decode::read(path).and_then(|values| values.into_mask(path)).map_err(|reason| bad(path, reason))
    }

    /// Reads a PNG from memory as [`open`](Self::open) does; `origin` replaces the path in messages.
    ///
    /// # Errors
    /// [`Error::Mask`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        decode::decode(Cursor::new(bytes))
            .and_then(|values| values.into_mask(origin))
            .map_err(|reason| bad(origin, reason))
    }

    /// Mask of one object, with id 1, from `height` rows of `width` values, 0 to 255.
    ///
    /// # Errors
    /// [`Error::Mask`] if `alpha` does not match the size or has no foreground.
    pub fn from_soft(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Soft, alpha)
    }

    /// Mask from the values of a greyscale PNG: soft foreground, or object ids.
    ///
    /// # Errors
    /// [`Error::Mask`] if `values` do not match the size or have no foreground.
    pub fn from_grey(width: usize, height: usize, values: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Grey, values)
    }

    /// Mask from the alpha channel of a PNG: one object, with id 1.
    ///
    /// # Errors
    /// [`Error::Mask`] if `alpha` does not match the size or is transparent everywhere.
    pub fn from_alpha(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Self::from_values(width, height, Kind::Alpha, alpha)
    }

    /// Mask with one object per id from `height` rows of `width` labels; 0 is background, 255 void.
    ///
    /// # Errors
    /// [`Error::Mask`] if `labels` do not match the size or have no object.
    pub fn from_labels(width: usize, height: usize, labels: &[u8]) -> Result<Self> {
        Self::from_values(width, height, Kind::Index, labels.to_vec())
    }

    /// Mask from soft planes of the objects, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is too large, if a plane does not match it, or if no plane has foreground.
    pub fn from_objects(width: usize, height: usize, objects: Vec<ObjectMask>) -> Result<Self> {
        let origin = Path::new(IN_MEMORY);
        check_size(width, height).map_err(|reason| bad(origin, reason))?;
        if let Some(object) = objects.iter().find(|object| object.alpha.len() != width * height) {
            let count = object.alpha.len();
            return Err(bad(origin, format!("{count} values do not match {width}x{height} pixels")));
        }
        let reading = Interpretation::Ids;
        let has_foreground = |object: &ObjectMask| object.alpha.iter().any(|&value| value > 0);
        let objects: Vec<ObjectMask> = objects.into_iter().filter(has_foreground).collect();
        if objects.is_empty() {
            return Err(bad(origin, no_foreground(reading)));
        }
        Ok(Self { width, height, objects, reading, origin: origin.to_owned() })
    }

    /// Checks that the mask has no object beside those of a reference, `ids`.
    ///
    /// # Errors
    /// [`Error::Mask`] with the id of another object.
    pub fn check_ids(&self, ids: &[u8]) -> Result<()> {
        match self.objects.iter().find(|object| !ids.contains(&object.id)) {
            None => Ok(()),
            Some(object) => Err(bad(
                &self.origin,
                format!(
                    "it has an object {} that the reference does not have ({ids:?}): set it as a new reference",
                    object.id
                ),
            )),
        }
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

    /// Objects in the order of their ids; never empty.
    pub fn objects(&self) -> &[ObjectMask] {
        &self.objects
    }

    /// Path of the file, or its substitute in messages.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Interpretation of the values.
    pub fn interpretation(&self) -> Interpretation {
        self.reading
    }
}

/// One byte per pixel, not yet interpreted.
struct Values {
    width: usize,
    height: usize,
    kind: Kind,
    values: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Soft foreground or object ids, depending on the values.
    Grey,
    /// Soft foreground, whatever the values.
    Soft,
    Index,
    Alpha,
}

fn is_grey_id(value: u8) -> bool {
    (1..=MAX_GREY_ID).contains(&value)
}

impl Values {
    fn interpretation(&self) -> Result<Interpretation, String> {
        let Self { width, height, .. } = *self;
        check_size(width, height)?;
        if width * height != self.values.len() {
            return Err(format!("{} values do not match {width}x{height} pixels", self.values.len()));
        }
        Ok(match self.kind {
            Kind::Index => Interpretation::Ids,
            Kind::Alpha => Interpretation::Alpha,
            Kind::Soft => Interpretation::Soft,
            Kind::Grey => {
                let mut present = self.present();
                (present[0], present[usize::from(VOID)]) = (false, false);
                let ids = (0..=255u8).filter(|&value| present[usize::from(value)]);
                // Black and white alone are one soft object.
                let (mut any, mut all) = (false, true);
                ids.for_each(|value| (any, all) = (true, all && is_grey_id(value)));
                if any && all { Interpretation::GreyIds } else { Interpretation::Soft }
            }
        })
    }

    /// Whether each value occurs.
    fn present(&self) -> [bool; 256] {
        let mut present = [false; 256];
        self.values.iter().for_each(|&value| present[usize::from(value)] = true);
        present
    }

    fn into_mask(self, origin: &Path) -> Result<ReferenceMask, String> {
        let reading = self.interpretation()?;
        let present = self.present();
        let Self { width, height, mut values, .. } = self;
        let objects = match reading {
            Interpretation::Soft | Interpretation::Alpha if present[1..].contains(&true) => {
                vec![ObjectMask { id: 1, alpha: values }]
            }
            Interpretation::Soft | Interpretation::Alpha => return Err(no_foreground(reading)),
            Interpretation::Ids | Interpretation::GreyIds => {
                let ids: Vec<u8> = (1..VOID).filter(|&id| present[usize::from(id)]).collect();
                let Some((&last, others)) = ids.split_last() else { return Err(no_foreground(reading)) };
                if ids.len() * values.len() > MAX_BYTES {
                    return Err(format!(
                        "{} objects of {width}x{height} pixels need too much memory: scale the mask down",
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

fn no_foreground(reading: Interpretation) -> String {
    match reading {
        Interpretation::Alpha => {
            "its alpha channel is transparent everywhere: the object must be opaque".into()
        }
        Interpretation::Ids => {
            "every pixel is background (0) or void (255): the object must have an index from 1 \
                         to 254"
                .into()
        }
        Interpretation::Soft | Interpretation::GreyIds => {
            "every pixel is black, so there is no object: paint the object white".into()
        }
    }
}

fn bad(path: &Path, reason: String) -> Error {
    Error::Mask { path: path.to_owned(), reason }
}

/// Colour (R, G, B) of an object in the palette of the DAVIS and PASCAL VOC masks: the bits of the id are
/// distributed over the three channels, the most significant bits first.
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
