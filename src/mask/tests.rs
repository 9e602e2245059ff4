// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use png::BitDepth::{Eight, Four, One, Sixteen, Two};
use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
use png::{BitDepth, ColorType, Encoder};
use tempfile::TempDir;

use super::Interpretation::{Alpha, GreyIds, Ids, Soft};
use super::*;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn bytes(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("mask.png");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn png(&self, size: (u32, u32), color: ColorType, depth: BitDepth, data: &[u8]) -> PathBuf {
        self.bytes(&encode(size, color, depth, data))
    }
}

fn encode((width, height): (u32, u32), color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == Indexed {
        let palette = (0..=255).flat_map(|i| [i, 0, 255 - i]);
        encoder.set_palette(palette.take(3 << depth as usize).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// Reads a PNG of one row as a mask: how it is read, and the id and alpha of each object.
fn mask(width: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> (Interpretation, Vec<(u8, Vec<u8>)>) {
    let bytes = encode((width, 1), color, depth, data);
    let mask = ReferenceMask::from_bytes(&bytes, Path::new("mask.png")).unwrap();
    assert_eq!((mask.width(), mask.height()), (width as usize, 1));
    let objects = mask.objects().iter().map(|object| (object.id, object.alpha.clone()));
    (mask.interpretation(), objects.collect())
}

/// As [`mask`], for one object with id 1.
fn alpha(width: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> (Interpretation, Vec<u8>) {
    let (reading, mut objects) = mask(width, color, depth, data);
    assert_eq!((objects.len(), objects[0].0), (1, 1));
    (reading, objects.remove(0).1)
}

fn reason(path: &Path) -> String {
    let message = ReferenceMask::open(path).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message:?} does not name the file");
    message
}

#[test]
fn grey_is_soft_foreground() {
    assert_eq!(alpha(3, Grayscale, Eight, &[0, 128, 255]), (Soft, vec![0, 128, 255]));
    assert_eq!(alpha(1, Grayscale, Eight, &[255]), (Soft, vec![255]), "a single pixel");
}

#[test]
fn small_grey_values_are_ids() {
    let expected = (GreyIds, vec![(1, vec![0, 255, 0]), (16, vec![0, 0, 255])]);
    assert_eq!(mask(3, Grayscale, Eight, &[0, 1, 16]), expected);
    assert_eq!(mask(3, Grayscale, Sixteen, &[0, 0, 0, 1, 0, 16]), expected);
}

#[test]
fn grey_of_every_depth_is_scaled_to_8_bits() {
    let bits = alpha(9, Grayscale, One, &[0b1000_0001, 0x80]).1;
    assert_eq!(bits, [255, 0, 0, 0, 0, 0, 0, 255, 255]);
    assert_eq!(alpha(3, Grayscale, Four, &[0x0f, 0x80]).1, [0, 255, 136]);
    assert_eq!(alpha(2, Grayscale, Sixteen, &[255, 255, 128, 0]).1, [255, 128]);
}

/// Such masks were once read as soft: 255 became the object, and object 1 nearly transparent.
#[test]
fn void_beside_small_grey_values_is_void() {
    let expected = (GreyIds, vec![(1, vec![0, 255, 0, 0]), (3, vec![0, 0, 0, 255])]);
    assert_eq!(mask(4, Grayscale, Eight, &[0, 1, 255, 3]), expected);
    assert_eq!(mask(4, Grayscale, Sixteen, &[0, 0, 0, 1, 0, 255, 0, 3]), expected);
    assert_eq!(mask(4, Grayscale, Sixteen, &[0, 0, 1, 1, 255, 255, 3, 3]), expected);
    let sample = ReferenceMask::from_grey(3, 1, vec![0, 1, 255]).unwrap();
    assert_eq!((sample.interpretation(), sample.objects().len()), (GreyIds, 1));
}

#[test]
fn black_and_white_alone_is_one_soft_object() {
    let expected = (Soft, vec![0, 255]);
    assert_eq!(alpha(2, Grayscale, Eight, &[0, 255]), expected);
    assert_eq!(alpha(2, Grayscale, Sixteen, &[0, 0, 255, 255]), expected);
    assert_eq!(alpha(2, Grayscale, Sixteen, &[0, 0, 0, 255]), expected);
    assert_eq!(alpha(2, Rgb, Eight, &[0, 0, 0, 255, 255, 255]).1, [0, 255], "saved in colour");
    assert_eq!(alpha(2, Rgba, Eight, &[0, 0, 0, 255, 255, 255, 255, 255]).1, [0, 255]);
}

/// Scaled to 8 bits, its values are 0 to 16.
#[test]
fn a_dark_16_bit_mask_holds_no_ids() {
    assert_eq!(alpha(4, Grayscale, Sixteen, &[0, 0, 4, 0, 8, 8, 16, 5]), (Soft, vec![0, 4, 8, 16]));
}

#[test]
fn a_later_row_can_change_the_reading_of_earlier_rows() {
    let first = |size, color, depth, data: &[u8]| {
        let mask =
            ReferenceMask::from_bytes(&encode(size, color, depth, data), Path::new("mask.png")).unwrap();
        (mask.interpretation(), mask.objects()[0].alpha.clone())
    };
    let words = [0, 5, 0, 255, 0, 0, 0xff, 0xff];
    assert_eq!(first((1, 4), Grayscale, Sixteen, &words), (Soft, vec![0, 1, 0, 255]));
    let rgba = [9, 9, 9, 255, 0, 7, 0, 255, 5, 5, 5, 128];
    assert_eq!(first((1, 3), Rgba, Eight, &rgba), (Alpha, vec![255, 255, 128]));
}

#[test]
fn palette_index_is_the_id_and_255_void() {
    let (reading, objects) = mask(4, Indexed, Eight, &[0, 2, 255, 254]);
    assert_eq!((reading, objects.len()), (Ids, 2));
    assert_eq!((&objects[0], objects[1].0), (&(2, vec![0, 255, 0, 0]), 254));
    let two_bits = mask(3, Indexed, Two, &[0b00_01_11_00]).1;
    assert_eq!(two_bits.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn alpha_channel_is_soft() {
    assert_eq!(alpha(2, Rgba, Eight, &[9, 8, 7, 0, 1, 2, 3, 200]), (Alpha, vec![0, 200]));
    assert_eq!(alpha(2, GrayscaleAlpha, Sixteen, &[0, 0, 255, 255, 1, 1, 0, 0]).1, [255, 0]);
}

#[test]
fn colour_masks_are_refused() {
    let files = Files::new();
    assert!(reason(&files.png((2, 1), Rgb, Eight, &[0, 0, 0, 255, 0, 0])).contains("in colour"));
    let opaque = files.png((2, 1), Rgba, Eight, &[0, 0, 0, 255, 255, 0, 0, 255]);
    assert!(reason(&opaque).contains("opaque everywhere"));
}

#[test]
fn interlaced_masks_are_read() {
    // 5x5, 8-bit grey, Adam7, pixel (x, y) = 50 * y + x: the png crate does not write interlaced files.
    let mut passes = Vec::new();
    for (x0, y0, dx, dy) in
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    {
        for y in (y0..5).step_by(dy) {
            let row: Vec<u8> = (x0..5).step_by(dx).map(|x| (50 * y + x) as u8).collect();
            if !row.is_empty() {
                passes.push(0);
                passes.extend(row);
            }
        }
    }
    let mut bytes = encode((5, 5), Grayscale, Eight, &[0; 25]);
    bytes[28] = 1;
    let header_crc = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&header_crc);
    bytes.truncate(33);
    let mut zlib = vec![0x78, 0x01, 1];
    zlib.extend((passes.len() as u16).to_le_bytes());
    zlib.extend((!(passes.len() as u16)).to_le_bytes());
    zlib.extend(&passes);
    let (a, b) = passes.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    zlib.extend((b << 16 | a).to_be_bytes());
    for (name, data) in [(b"IDAT", zlib.as_slice()), (b"IEND", &[])] {
        bytes.extend((data.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend(name);
        bytes.extend(data);
        bytes.extend(crc(&bytes[start..]));
    }

    let files = Files::new();
    let mask = ReferenceMask::open(&files.bytes(&bytes)).unwrap();
    let expected: Vec<u8> = (0..25).map(|i| (50 * (i / 5) + i % 5) as u8).collect();
    assert_eq!(mask.objects()[0].alpha, expected);
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_be_bytes()
}

#[test]
fn masks_without_foreground_are_refused() {
    let files = Files::new();
    let black = files.png((2, 2), Grayscale, Eight, &[0; 4]);
    assert!(reason(&black).contains("paint the object white"));
    let void = files.png((2, 1), Indexed, Eight, &[0, 255]);
    assert!(reason(&void).contains("1 to 254"), "{}", reason(&void));
    let clear = files.png((1, 1), GrayscaleAlpha, Eight, &[255, 0]);
    assert!(reason(&clear).contains("transparent everywhere"));
}

#[test]
fn missing_empty_truncated_and_non_png_files_are_refused() {
    let files = Files::new();
    assert!(reason(&files.0.path().join("nowhere.png")).contains("cannot be opened"));
    assert!(reason(files.0.path()).contains("cannot be read"));
    assert!(reason(&files.bytes(b"")).contains("truncated"));
    assert!(reason(&files.bytes(b"not a picture at all, but text")).contains("not a valid PNG"));
    let whole = encode((64, 64), Grayscale, Eight, &[255; 4096]);
    for length in 1..whole.len() - 12 {
        ReferenceMask::open(&files.bytes(&whole[..length])).unwrap_err();
    }
}

#[test]
fn too_many_objects_for_the_size_are_refused() {
    let labels: Vec<u8> = (0..3_000_000u32).map(|i| (i % 254 + 1) as u8).collect();
    assert!(ReferenceMask::from_labels(3_000, 1_000, &labels).is_err());
}

#[test]
fn masks_from_memory_are_checked() {
    assert!(ReferenceMask::from_soft(2, 2, vec![255; 3]).is_err());
    assert!(ReferenceMask::from_soft(0, 0, vec![]).is_err());
    assert!(ReferenceMask::from_soft(1, 1, vec![0]).is_err());
    assert_eq!(ReferenceMask::from_labels(2, 1, &[3, 255]).unwrap().objects()[0].id, 3);
}

/// Reads a PNG of one row as ids; the error is that of [`Labels::open`].
fn labels(width: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Result<Vec<u8>, String> {
    let labels = Labels::open(&Files::new().png((width, 1), color, depth, data));
    labels.map(|labels| labels.ids).map_err(|error| error.to_string())
}

#[test]
fn saved_labels_are_read_back() {
    let files = Files::new();
    let path = files.0.path().join("labels.png");
    let ids: Vec<u8> = (0..7 * 5).map(|i| if i == 20 { 255 } else { i % 5 }).collect();
    Labels::save(&path, 7, 5, &ids).unwrap();
    assert_eq!(Labels::open(&path).unwrap(), Labels { width: 7, height: 5, ids });
    let nowhere = Path::new("/nonexistent-folder/mask.png");
    let error = Labels::save(nowhere, 1, 1, &[0]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent-folder/mask.png"), "{error}");
}

#[test]
fn labels_are_palette_indices_small_greys_or_black_and_white() {
    for (width, color, depth, data, ids) in [
        (10, Indexed, One, &[0b1010_0000, 0b1100_0000][..], &[1, 0, 1, 0, 0, 0, 0, 0, 1, 1][..]),
        (5, Indexed, Two, &[0b00_01_10_11, 0b10_00_00_00], &[0, 1, 2, 3, 2]),
        (3, Indexed, Four, &[0x1f, 0x20], &[1, 15, 2]),
        (3, Indexed, Eight, &[1, 255, 20], &[1, 255, 20]),
        (4, Grayscale, Eight, &[0, 2, 1, 255], &[0, 2, 1, 255]),
        (3, Grayscale, Sixteen, &[0, 0, 0, 2, 0, 255], &[0, 2, 255]),
        (4, Grayscale, Eight, &[0, 255, 255, 0], &[0, 1, 1, 0]),
        (3, Grayscale, One, &[0b0110_0000], &[0, 1, 1]),
        (2, Grayscale, Four, &[0xf0], &[1, 0]),
        (2, Rgb, Eight, &[0, 0, 0, 255, 255, 255], &[0, 1]),
        (2, GrayscaleAlpha, Eight, &[9, 0, 9, 255], &[0, 1]),
        // A frame without objects is valid.
        (2, Grayscale, Eight, &[0, 0], &[0, 0]),
    ] {
        assert_eq!(labels(width, color, depth, data).unwrap(), ids, "{color:?} {depth:?} {data:?}");
    }
}

#[test]
fn pictures_without_ids_are_no_labels() {
    for (color, depth, data, word) in [
        (Rgb, Eight, &[0, 0, 0, 255, 0, 0][..], "in colour"),
        (GrayscaleAlpha, Eight, &[0, 0, 0, 99], "99"),
        (Grayscale, Sixteen, &[0, 0, 200, 0], "199"),
        (Grayscale, Eight, &[0, 130], "130"),
    ] {
        let error = labels(2, color, depth, data).unwrap_err();
        assert!(["mask.png", "save", word].iter().all(|word| error.contains(word)), "{error}");
    }
}
