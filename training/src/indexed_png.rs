// SPDX-License-Identifier: MPL-2.0

//! Masks in the format of the DAVIS benchmark: PNG whose palette index is the object id.

use std::path::Path;

use gstfastganseg::mask::Labels;

use crate::{LabelMap, Result};

/// Reads the object ids of one mask, as [`Labels::open`] does.
///
/// | PNG | meaning |
/// |---|---|
/// | indexed, 1 to 8 bits | palette index = id, 255 is void |
/// | grey, only black and white | DAVIS-2016: white is object 1 |
/// | grey, values up to 16 (and 255) | value = id, 255 is void |
/// | grey or RGB with alpha, transparent or opaque | opaque is object 1 |
///
/// # Errors
/// If the file is unreadable, not a PNG or truncated, or if its colours or shades of grey do not encode ids. The
/// message names the file and the remedy.
pub fn read(path: &Path) -> Result<LabelMap> {
    let Labels { width, height, ids } = Labels::open(path)?;
    LabelMap::new(width, height, ids)
}

/// Writes `map` as an 8-bit indexed PNG with the DAVIS palette.
///
/// # Errors
/// If the file cannot be written, or if the map has no pixels.
pub fn write(path: &Path, map: &LabelMap) -> Result<()> {
    Ok(Labels::save(path, map.width(), map.height(), map.ids())?)
}
