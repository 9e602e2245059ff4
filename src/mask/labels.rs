// SPDX-License-Identifier: MPL-2.0

//! Mask files of object ids as in the DAVIS benchmark: PNG whose palette index is the object id.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use png::{BitDepth, ColorType, Encoder, EncodingError, Filter};

use super::{Interpretation, VOID, bad, decode};
use crate::mask::color;
use crate::{Error, Result};

/// Object ids, one per pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height` rows of `width` ids: 0 is background, 1 to 254 are objects, 255 is void.
    pub ids: Vec<u8>,
}

impl Labels {
    /// Reads a PNG as [`ReferenceMask::open`](super::ReferenceMask::open) does. A soft mask must be black and
    /// white; white becomes object 1, as in the masks of DAVIS 2016. The mask may have no object.
    ///
    /// # Errors
    /// [`Error::Mask`] as [`ReferenceMask::open`](super::ReferenceMask::open), and for soft masks with other
    /// values than 0 and 255.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || {
            let mut values = decode::read(path)?;
            if matches!(values.interpretation()?, Interpretation::Soft | Interpretation::Alpha) {
                let mut shades = values.values.iter().copied().filter(|&value| value != 0 && value != 255);
                if let Some(shade) = shades.next() {
                    return Err(format!(
                        "the value {shade} is neither black, white nor an object id up to {}: save the ids as a \
                         PNG with a palette (index = object), or reduce a soft mask to 0 and 255",
                        super::MAX_GREY_ID
                    ));
                }
                values.values.iter_mut().for_each(|value| *value = u8::from(*value != 0));
            }
            Ok(Self { width: values.width, height: values.height, ids: values.values })
        };
        read().map_err(|reason| bad(path, reason))
    }

    /// Writes `height` rows of `width` ids as an 8-bit PNG with the DAVIS palette.
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be written or `ids` do not match the size.
    pub fn save(path: &Path, width: usize, height: usize, ids: &[u8]) -> Result<()> {
        let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
        let bad = |error: EncodingError| match error {
            EncodingError::IoError(error) => failed(error),
            error => failed(io::Error::other(error)),
        };
        let side = |length: usize| u32::try_from(length).map_err(|error| failed(io::Error::other(error)));
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        let mut encoder = Encoder::new(&mut file, side(width)?, side(height)?);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_palette((0..=VOID).flat_map(color).collect::<Vec<u8>>());
        // Ids have no gradient that a filter could predict.
        encoder.set_filter(Filter::NoFilter);
        let mut writer = encoder.write_header().map_err(bad)?;
        writer.write_image_data(ids).map_err(bad)?;
        writer.finish().map_err(bad)?;
        file.flush().map_err(failed)
    }
}
