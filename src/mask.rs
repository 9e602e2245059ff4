//! Reference masks: which pixels of one picture are the object.

mod decode;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The largest number of pixels along one side of a mask.
pub const MAX_SIDE: usize = 16_384;
/// The largest number of pixels in a mask.
pub const MAX_PIXELS: usize = 100_000_000;
/// The planes of all objects of one mask together, in bytes, at the most.
const MAX_BYTES: usize = 160 << 20;
/// Grey values up to this one are object ids if no larger one is in the file.
const MAX_GREY_ID: u8 = 16;
/// Pixels to be left out, in masks of object ids.
const VOID: u8 = 255;

/// One soft plane per object, all of the mask's own size.
#[derive(Clone, Debug)]
pub struct ReferenceMask {
    width: usize,
    height: usize,
    objects: Vec<ObjectMask>,
    reading: Reading,
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
    /// Grey values are object ids, for none is larger than 16.
    GreyIds,
    /// Palette indices, or values given as labels, are object ids.
    Ids,
    /// The alpha channel is soft foreground.
    Alpha,
}

impl ReferenceMask {
    /// Reads a PNG. Grey: value / 255 is soft foreground of one object, but a file whose largest value is
    /// at most 16 holds object ids. Indexed: the palette index is the object id, 255 is void. Grey or RGB
    /// with alpha: the alpha channel is soft foreground.
    ///
    /// # Errors
    /// [`Error::Mask`] with the path for a file that is missing, no PNG, truncated, larger than
    /// [`MAX_SIDE`] or [`MAX_PIXELS`] (known from its header, before anything is allocated), coloured, or
    /// without foreground.
    pub fn open(path: &Path) -> Result<Self> {
        decode::read(path)
            .and_then(|values| values.into_mask())
            .map_err(|reason| Error::Mask { path: path.to_owned(), reason })
    }

    /// The same from memory; messages call it `origin`.
    ///
    /// # Errors
    /// [`Error::Mask`] as [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], origin: &Path) -> Result<Self> {
        decode::decode(Cursor::new(bytes))
            .and_then(|values| values.into_mask())
            .map_err(|reason| Error::Mask { path: origin.to_owned(), reason })
    }

    /// One object, with id 1, from `height` rows of `width` values, 0 to 255.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `alpha` or all is background.
    pub fn from_soft(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        soft(width, height, alpha, Reading::Soft).map_err(in_memory)
    }

    /// As the values of a greyscale PNG are read: soft foreground, or object ids if none is larger than 16.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `values` or all is background.
    pub fn from_grey(width: usize, height: usize, values: Vec<u8>) -> Result<Self> {
        Values { width, height, kind: Kind::Grey, values }.into_mask().map_err(in_memory)
    }

    /// As the alpha channel of a PNG is read: one object, with id 1.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `alpha` or all is transparent.
    pub fn from_alpha(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Values { width, height, kind: Kind::Alpha, values: alpha }.into_mask().map_err(in_memory)
    }

    /// One object for each id in `height` rows of `width` labels; 0 is background, 255 void.
    ///
    /// # Errors
    /// [`Error::Mask`] if the size is not that of `labels` or no label is an object.
    pub fn from_labels(width: usize, height: usize, labels: &[u8]) -> Result<Self> {
        ids(width, height, labels, Reading::Ids).map_err(in_memory)
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

    /// How the values of the file were understood.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

/// Samples of a picture file, before anyone decides what they mean.
struct Values {
    width: usize,
    height: usize,
    kind: Kind,
    values: Vec<u8>,
}

enum Kind {
    /// With the largest sample as stored, which a deep file needs to be recognised as one of ids.
    Grey,
    Index,
    Alpha,
}

impl Values {
    fn into_mask(self) -> Result<ReferenceMask, String> {
        let Self { width, height, kind, values } = self;
        match kind {
            Kind::Index => ids(width, height, &values, Reading::Ids),
            Kind::Alpha => soft(width, height, values, Reading::Alpha),
            Kind::Grey if values.iter().all(|&value| value <= MAX_GREY_ID) => {
                ids(width, height, &values, Reading::GreyIds)
            }
            Kind::Grey => soft(width, height, values, Reading::Soft),
        }
    }
}

fn soft(width: usize, height: usize, alpha: Vec<u8>, reading: Reading) -> Result<ReferenceMask, String> {
    check_size(width, height)?;
    check_length(width, height, alpha.len())?;
    if alpha.iter().all(|&value| value == 0) {
        return Err(no_foreground(reading));
    }
    Ok(ReferenceMask { width, height, objects: vec![ObjectMask { id: 1, alpha }], reading })
}

fn ids(width: usize, height: usize, labels: &[u8], reading: Reading) -> Result<ReferenceMask, String> {
    check_size(width, height)?;
    check_length(width, height, labels.len())?;
    let mut present = [false; 256];
    for &label in labels {
        present[usize::from(label)] = true;
    }
    let ids: Vec<u8> = (1..VOID).filter(|&id| present[usize::from(id)]).collect();
    if ids.is_empty() {
        return Err(no_foreground(reading));
    }
    if ids.len() * labels.len() > MAX_BYTES {
        return Err(format!(
            "{} objects of {width}x{height} pixels are too many to hold: scale the mask down",
            ids.len()
        ));
    }
    let plane = |id: u8| labels.iter().map(|&label| if label == id { 255 } else { 0 }).collect();
    let objects = ids.iter().map(|&id| ObjectMask { id, alpha: plane(id) }).collect();
    Ok(ReferenceMask { width, height, objects, reading })
}

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(format!(
            "{width}x{height} pixels are too many: at most {MAX_SIDE} a side and {} million altogether. \
             Scale the mask down; it need not have the size of the video",
            MAX_PIXELS / 1_000_000
        ));
    }
    Ok(())
}

fn check_length(width: usize, height: usize, length: usize) -> Result<(), String> {
    if width * height != length {
        return Err(format!("{length} values do not make {width}x{height} pixels"));
    }
    Ok(())
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

fn in_memory(reason: String) -> Error {
    Error::Mask { path: PathBuf::from("(in memory)"), reason }
}

#[cfg(test)]
mod tests;
