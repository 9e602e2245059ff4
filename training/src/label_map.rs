// SPDX-License-Identifier: MPL-2.0

use std::path::Path;

use gstfastganseg::mask::Labels;

use crate::{Error, Result};

/// Object ids of one frame, one byte per pixel, rows without padding: 0 is background, 1..=254 are objects, 255 is
/// void, which is scored as background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    width: usize,
    height: usize,
    ids: Vec<u8>,
}

impl LabelMap {
    /// Id of void pixels, which belong neither to an object nor to the background.
    pub const VOID: u8 = 255;

    /// Wraps `ids`, `height` rows of `width` bytes.
    ///
    /// # Errors
    /// If the number of ids is not `width * height`.
    pub fn new(width: usize, height: usize, ids: Vec<u8>) -> Result<Self> {
        if width.checked_mul(height) != Some(ids.len()) {
            return Err(Error::score(
                format!("a label map of {width}x{height}"),
                format!("it has {} ids, but needs one per pixel", ids.len()),
            ));
        }
        Ok(Self { width, height, ids })
    }

    /// Reads a mask in the format of the DAVIS benchmark, PNG whose palette index is the object id, as [`Labels::open`]
    /// does.
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
    pub fn open(path: &Path) -> Result<Self> {
        let Labels { width, height, ids } = Labels::open(path)?;
        Self::new(width, height, ids)
    }

    /// Writes an 8-bit indexed PNG with the DAVIS palette.
    ///
    /// # Errors
    /// If the file cannot be written, or if the map has no pixels.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(Labels::save(path, self.width, self.height, &self.ids)?)
    }

    /// Creates a map of background only.
    pub fn background(width: usize, height: usize) -> Self {
        Self { width, height, ids: vec![0; width * height] }
    }

    /// Returns the width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the width and height in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Returns the ids, row by row.
    pub fn ids(&self) -> &[u8] {
        &self.ids
    }

    /// Returns the ids for modification in place.
    pub fn ids_mut(&mut self) -> &mut [u8] {
        &mut self.ids
    }

    /// Returns the id at column `x` of row `y`.
    pub fn at(&self, x: usize, y: usize) -> u8 {
        self.ids[y * self.width + x]
    }

    /// Returns the largest object id, 0 if there is none. Void does not count.
    pub fn largest(&self) -> u8 {
        let objects = self.ids.iter().copied().filter(|&id| id != Self::VOID);
        objects.max().unwrap_or(0)
    }

    /// Returns the number of pixels of each id, including background and void.
    pub fn counts(&self) -> [usize; 256] {
        let mut counts = [0; 256];
        self.ids.iter().for_each(|&id| counts[usize::from(id)] += 1);
        counts
    }

    /// Returns the map with void replaced by background.
    pub fn without_void(&self) -> Self {
        let ids = self.ids.iter();
        Self { ids: ids.map(|&id| if id == Self::VOID { 0 } else { id }).collect(), ..*self }
    }

    /// Returns the map resized by nearest neighbour.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        if (width, height) == self.size() {
            return self.clone();
        }
        let mut ids = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = (2 * y + 1) * self.height / (2 * height);
            for x in 0..width {
                ids.push(self.at((2 * x + 1) * self.width / (2 * width), row));
            }
        }
        Self { width, height, ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_the_wrong_number_of_ids() {
        let error = LabelMap::new(3, 2, vec![0; 5]).unwrap_err().to_string();
        assert!(error.contains("3x2") && error.contains("5 ids"), "{error}");
        assert!(LabelMap::new(usize::MAX, 2, vec![]).is_err());
    }

    #[test]
    fn void_is_not_an_object() {
        let map = LabelMap::new(2, 2, vec![0, 3, 255, 1]).unwrap();
        assert_eq!(map.largest(), 3);
        assert_eq!(map.without_void().ids(), [0, 3, 0, 1]);
        assert_eq!(LabelMap::background(4, 1).largest(), 0);
        let counts = map.counts();
        assert_eq!((counts[0], counts[1], counts[2], counts[255]), (1, 1, 0, 1));
    }

    #[test]
    fn resizes_to_the_nearest_pixel() {
        let map = LabelMap::new(2, 2, vec![1, 2, 3, 4]).unwrap();
        assert_eq!(map.resized(4, 2).ids(), [1, 1, 2, 2, 3, 3, 4, 4], "each pixel doubled");
        assert_eq!(map.resized(4, 4).resized(2, 2), map);
        assert_eq!(map.resized(1, 1).ids(), [4]);
    }
}
