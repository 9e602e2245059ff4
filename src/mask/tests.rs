// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use png::{BitDepth, ColorType, Encoder};
use tempfile::TempDir;

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
    if color == ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|i| [i, 0, 255 - i]).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

fn reason(path: &Path) -> String {
    let message = ReferenceMask::open(path).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message:?} does not name the file");
    message
}

#[test]
fn grey_is_soft_foreground() {
    let files = Files::new();
    let path = files.png((3, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 128, 255]);
    let mask = ReferenceMask::open(&path).unwrap();
    assert_eq!((mask.width(), mask.height()), (3, 1));
    assert_eq!(mask.interpretation(), Interpretation::Soft);
    assert_eq!(mask.objects().len(), 1);
    assert_eq!(mask.objects()[0].alpha, [0, 128, 255]);
}

#[test]
fn small_grey_values_are_ids() {
    let files = Files::new();
    for depth in [BitDepth::Eight, BitDepth::Sixteen] {
        let data: &[u8] = if depth == BitDepth::Eight { &[0, 1, 16] } else { &[0, 0, 0, 1, 0, 16] };
        let mask = ReferenceMask::open(&files.png((3, 1), ColorType::Grayscale, depth, data)).unwrap();
        assert_eq!(mask.interpretation(), Interpretation::GreyIds);
        let ids: Vec<u8> = mask.objects().iter().map(|object| object.id).collect();
        assert_eq!(ids, [1, 16]);
        assert_eq!(mask.objects()[1].alpha, [0, 0, 255]);
    }
}

#[test]
fn grey_of_every_depth_is_scaled_to_8_bits() {
    let files = Files::new();
    let bits = files.png((9, 2), ColorType::Grayscale, BitDepth::One, &[0b1000_0001, 0x80, 0, 0]);
    let mask = ReferenceMask::open(&bits).unwrap();
    assert_eq!(mask.objects()[0].alpha[..10], [255, 0, 0, 0, 0, 0, 0, 255, 255, 0]);

    let nibbles = files.png((3, 1), ColorType::Grayscale, BitDepth::Four, &[0x0f, 0x80]);
    assert_eq!(ReferenceMask::open(&nibbles).unwrap().objects()[0].alpha, [0, 255, 136]);

    let words = files.png((2, 1), ColorType::Grayscale, BitDepth::Sixteen, &[255, 255, 128, 0]);
    assert_eq!(ReferenceMask::open(&words).unwrap().objects()[0].alpha, [255, 128]);
}

/// Such masks were once read as soft: 255 became the object, and object 1 nearly transparent.
#[test]
fn void_beside_small_grey_values_is_void() {
    let files = Files::new();
    let ids = |mask: &ReferenceMask| mask.objects().iter().map(|object| object.id).collect::<Vec<_>>();
    for (depth, data) in [
        (BitDepth::Eight, &[0, 1, 255, 3][..]),
        (BitDepth::Sixteen, &[0, 0, 0, 1, 0, 255, 0, 3]),
        (BitDepth::Sixteen, &[0, 0, 1, 1, 255, 255, 3, 3]),
    ] {
        let mask = ReferenceMask::open(&files.png((4, 1), ColorType::Grayscale, depth, data)).unwrap();
        assert_eq!((mask.interpretation(), ids(&mask)), (Interpretation::GreyIds, vec![1, 3]), "{data:?}");
        assert_eq!(mask.objects()[0].alpha, [0, 255, 0, 0]);
        assert_eq!(mask.objects()[1].alpha, [0, 0, 0, 255]);
    }
    let sample = ReferenceMask::from_grey(3, 1, vec![0, 1, 255]).unwrap();
    assert_eq!((sample.interpretation(), ids(&sample)), (Interpretation::GreyIds, vec![1]));
}

#[test]
fn black_and_white_alone_is_one_soft_object() {
    let files = Files::new();
    for (depth, data) in [
        (BitDepth::Eight, &[0, 255][..]),
        (BitDepth::Sixteen, &[0, 0, 255, 255]),
        (BitDepth::Sixteen, &[0, 0, 0, 255]),
    ] {
        let mask = ReferenceMask::open(&files.png((2, 1), ColorType::Grayscale, depth, data)).unwrap();
        assert_eq!(mask.interpretation(), Interpretation::Soft, "{data:?}");
        assert_eq!(mask.objects()[0].alpha, [0, 255]);
    }
}

/// Scaled to 8 bits, its values are 0 to 16.
#[test]
fn a_dark_16_bit_mask_holds_no_ids() {
    let files = Files::new();
    let data = [0, 0, 4, 0, 8, 8, 16, 5];
    let mask =
        ReferenceMask::open(&files.png((4, 1), ColorType::Grayscale, BitDepth::Sixteen, &data)).unwrap();
    assert_eq!((mask.interpretation(), mask.objects().len()), (Interpretation::Soft, 1));
    assert_eq!(mask.objects()[0].alpha, [0, 4, 8, 16]);
}

#[test]
fn a_later_row_can_change_the_reading_of_earlier_rows() {
    let files = Files::new();
    let words = [0, 5, 0, 255, 0, 0, 0xff, 0xff];
    let mask =
        ReferenceMask::open(&files.png((1, 4), ColorType::Grayscale, BitDepth::Sixteen, &words)).unwrap();
    assert_eq!(
        (mask.interpretation(), &mask.objects()[0].alpha[..]),
        (Interpretation::Soft, &[0, 1, 0, 255][..])
    );
    let rgba = [9, 9, 9, 255, 0, 7, 0, 255, 5, 5, 5, 128];
    let mask = ReferenceMask::open(&files.png((1, 3), ColorType::Rgba, BitDepth::Eight, &rgba)).unwrap();
    assert_eq!(
        (mask.interpretation(), &mask.objects()[0].alpha[..]),
        (Interpretation::Alpha, &[255, 255, 128][..])
    );
}

#[test]
fn palette_index_is_the_id_and_255_void() {
    let files = Files::new();
    let path = files.png((4, 1), ColorType::Indexed, BitDepth::Eight, &[0, 2, 255, 254]);
    let mask = ReferenceMask::open(&path).unwrap();
    let ids: Vec<u8> = mask.objects().iter().map(|object| object.id).collect();
    assert_eq!(ids, [2, 254]);
    assert_eq!(mask.objects()[0].alpha, [0, 255, 0, 0]);

    let two_bits = files.png((3, 1), ColorType::Indexed, BitDepth::Two, &[0b00_01_11_00]);
    let ids: Vec<u8> =
        ReferenceMask::open(&two_bits).unwrap().objects().iter().map(|object| object.id).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn alpha_channel_is_soft() {
    let files = Files::new();
    let rgba = files.png((2, 1), ColorType::Rgba, BitDepth::Eight, &[9, 8, 7, 0, 1, 2, 3, 200]);
    let mask = ReferenceMask::open(&rgba).unwrap();
    assert_eq!(mask.interpretation(), Interpretation::Alpha);
    assert_eq!(mask.objects()[0].alpha, [0, 200]);

    let grey_alpha =
        files.png((2, 1), ColorType::GrayscaleAlpha, BitDepth::Sixteen, &[0, 0, 255, 255, 1, 1, 0, 0]);
    assert_eq!(ReferenceMask::open(&grey_alpha).unwrap().objects()[0].alpha, [255, 0]);
}

#[test]
fn black_and_white_saved_in_colour_is_accepted() {
    let files = Files::new();
    let rgb = files.png((2, 1), ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 255, 255, 255]);
    assert_eq!(ReferenceMask::open(&rgb).unwrap().objects()[0].alpha, [0, 255]);
    let rgba = files.png((2, 1), ColorType::Rgba, BitDepth::Eight, &[0, 0, 0, 255, 255, 255, 255, 255]);
    assert_eq!(ReferenceMask::open(&rgba).unwrap().objects()[0].alpha, [0, 255]);
}

#[test]
fn colour_masks_are_refused() {
    let files = Files::new();
    let rgb = files.png((2, 1), ColorType::Rgb, BitDepth::Eight, &[0, 0, 0, 255, 0, 0]);
    assert!(reason(&rgb).contains("in colour"));
    let opaque = files.png((2, 1), ColorType::Rgba, BitDepth::Eight, &[0, 0, 0, 255, 255, 0, 0, 255]);
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
    let mut bytes = encode((5, 5), ColorType::Grayscale, BitDepth::Eight, &[0; 25]);
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
fn a_mask_of_one_pixel_is_read() {
    let files = Files::new();
    let path = files.png((1, 1), ColorType::Grayscale, BitDepth::Eight, &[255]);
    assert_eq!(ReferenceMask::open(&path).unwrap().objects()[0].alpha, [255]);
}

#[test]
fn masks_without_foreground_are_refused() {
    let files = Files::new();
    let black = files.png((2, 2), ColorType::Grayscale, BitDepth::Eight, &[0; 4]);
    assert!(reason(&black).contains("paint the object white"));
    let void = files.png((2, 1), ColorType::Indexed, BitDepth::Eight, &[0, 255]);
    assert!(reason(&void).contains("1 to 254"), "{}", reason(&void));
    let clear = files.png((1, 1), ColorType::GrayscaleAlpha, BitDepth::Eight, &[255, 0]);
    assert!(reason(&clear).contains("transparent everywhere"));
}

#[test]
fn missing_empty_truncated_and_non_png_files_are_refused() {
    let files = Files::new();
    assert!(reason(&files.0.path().join("nowhere.png")).contains("cannot be opened"));
    assert!(reason(files.0.path()).contains("cannot be read"));
    assert!(reason(&files.bytes(b"")).contains("truncated"));
    assert!(reason(&files.bytes(b"not a picture at all, but text")).contains("not a valid PNG"));
    let whole = encode((64, 64), ColorType::Grayscale, BitDepth::Eight, &[255; 4096]);
    for length in 1..whole.len() - 12 {
        ReferenceMask::open(&files.bytes(&whole[..length])).unwrap_err();
    }
}

#[test]
fn a_huge_size_in_the_header_is_refused() {
    let files = Files::new();
    let mut bytes = encode((1, 1), ColorType::Grayscale, BitDepth::Eight, &[255]);
    for (width, height) in [(20_000u32, 20_000u32), (8193, 8192), (1, 20_000), (u32::MAX >> 1, 1)] {
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum);
        let message = reason(&files.bytes(&bytes));
        assert!(message.contains("too many") && message.contains("Scale it down"), "{message}");
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
