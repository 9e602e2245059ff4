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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use gstfastganseg::mask::color;
    use png::{BitDepth, ColorType};

    use super::*;

    fn save(path: &Path, size: (u32, u32), colour: ColorType, depth: BitDepth, data: &[u8]) {
        let file = File::create(path).unwrap();
        let mut encoder = png::Encoder::new(file, size.0, size.1);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette((0..=255).flat_map(color).take(3 << depth as usize).collect::<Vec<u8>>());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
    }

    fn read_back(size: (u32, u32), colour: ColorType, depth: BitDepth, data: &[u8]) -> Result<LabelMap> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        save(&path, size, colour, depth, data);
        read(&path)
    }

    #[test]
    fn written_masks_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let ids = (0..7 * 5).map(|i| if i == 20 { 255 } else { i % 5 }).collect();
        let map = LabelMap::new(7, 5, ids).unwrap();
        write(&path, &map).unwrap();
        assert_eq!(read(&path).unwrap(), map);
    }

    #[test]
    fn palette_indices_of_every_depth_are_ids() {
        let ids = |size, depth, data: &[u8]| {
            let map = read_back(size, ColorType::Indexed, depth, data).unwrap();
            map.ids().to_vec()
        };
        let one = ids((10, 2), BitDepth::One, &[0b1010_0000, 0b1100_0000, 0b0111_1111, 0]);
        assert_eq!(one, [1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        let two = ids((5, 1), BitDepth::Two, &[0b00_01_10_11, 0b10_00_00_00]);
        assert_eq!(two, [0, 1, 2, 3, 2]);
        assert_eq!(ids((3, 1), BitDepth::Four, &[0x1f, 0x20]), [1, 15, 2]);
        assert_eq!(ids((3, 1), BitDepth::Eight, &[1, 255, 20]), [1, 255, 20]);
    }

    #[test]
    fn black_and_white_is_object_one() {
        let map = read_back((4, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 255, 255, 0]);
        assert_eq!(map.unwrap().ids(), [0, 1, 1, 0]);
        let map = read_back((3, 1), ColorType::Grayscale, BitDepth::One, &[0b0110_0000]);
        assert_eq!(map.unwrap().ids(), [0, 1, 1]);
        let map = read_back((2, 1), ColorType::Grayscale, BitDepth::Four, &[0xf0]);
        assert_eq!(map.unwrap().ids(), [1, 0]);
    }

    #[test]
    fn small_greys_are_ids() {
        let map = read_back((4, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 2, 1, 255]);
        assert_eq!(map.unwrap().ids(), [0, 2, 1, 255]);
    }

    #[test]
    fn sixteen_bit_grey_and_grey_in_rgb_are_read() {
        let words = [0, 0, 0, 2, 0, 255];
        let map = read_back((3, 1), ColorType::Grayscale, BitDepth::Sixteen, &words);
        assert_eq!(map.unwrap().ids(), [0, 2, 255]);
        let map = read_back((2, 1), ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 255, 255, 255]);
        assert_eq!(map.unwrap().ids(), [0, 1]);
        let map = read_back((2, 1), ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 0, 9, 255]);
        assert_eq!(map.unwrap().ids(), [0, 1]);
        let map = read_back((2, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 0]);
        assert_eq!(map.unwrap().ids(), [0, 0], "a frame without objects is valid");
    }

    #[test]
    fn pictures_without_ids_are_refused() {
        let reason = |colour, depth, data: &[u8]| {
            let error = read_back((2, 1), colour, depth, data).unwrap_err().to_string();
            assert!(error.contains("mask.png"), "{error}");
            assert!(error.contains("save"), "no remedy: {error}");
            error
        };
        let rgb = reason(ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 255, 0, 0]);
        assert!(rgb.contains("in colour"), "{rgb}");
        reason(ColorType::GrayscaleAlpha, BitDepth::Eight, &[0, 0, 0, 99]);
        let deep = reason(ColorType::Grayscale, BitDepth::Sixteen, &[0, 0, 200, 0]);
        assert!(deep.contains("199"), "{deep}");
        let soft = reason(ColorType::Grayscale, BitDepth::Eight, &[0, 130]);
        assert!(soft.contains("130"), "{soft}");
    }

    #[test]
    fn write_errors_name_the_file() {
        let path = Path::new("/nonexistent-folder/mask.png");
        let error = write(path, &LabelMap::background(1, 1)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/mask.png"));
    }
}
