//! Masks as the DAVIS benchmark keeps them: PNG whose palette index is the object id.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};

use crate::{Error, LabelMap, Result};

/// The largest value that a greyscale PNG may use as an object id. Larger ones are shades of grey.
const LARGEST_GREY_ID: u8 = 16;

/// The colours of the DAVIS and Pascal VOC palette: the bits of the id dealt out to red, green and
/// blue from the most significant bit down, so that neighbouring ids look different.
pub const PALETTE: [[u8; 3]; 256] = palette();

const fn palette() -> [[u8; 3]; 256] {
    let mut colours = [[0; 3]; 256];
    let mut id = 0;
    while id < 256 {
        let mut rest = id;
        let mut shift = 7;
        while rest > 0 {
            let mut channel = 0;
            while channel < 3 {
                colours[id][channel] |= (((rest >> channel) & 1) << shift) as u8;
                channel += 1;
            }
            rest >>= 3;
            shift -= 1;
        }
        id += 1;
    }
    colours
}

/// Reads the object ids of one mask.
///
/// | PNG | meaning |
/// |---|---|
/// | indexed, 1 to 8 bits | palette index = id, 255 is void |
/// | grey, 1 to 8 bits, only black and white | DAVIS-2016: white is object 1 |
/// | grey, 8 bits, values up to 16 (and 255) | value = id, 255 is void |
///
/// # Errors
///
/// When the file cannot be read, is no PNG, is cut short, or has colours or shades of grey from
/// which no ids can be told. The message names the file and the remedy.
pub fn read(path: &Path) -> Result<LabelMap> {
    let file = File::open(path).map_err(|source| Error::read(path, source))?;
    let broken = |source: png::DecodingError| {
        let reason = format!("not a readable PNG ({source}); write or download it again");
        Error::mask(path, reason)
    };
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let (colour, depth) = (info.color_type, info.bit_depth);
    if !matches!(colour, ColorType::Indexed | ColorType::Grayscale) {
        return Err(Error::mask(
            path,
            format!(
                "it is a {} picture, so its object ids cannot be told; save it as an indexed PNG \
                 whose palette index is the object id, or as black and white",
                match colour {
                    ColorType::Rgb => "colour (RGB)",
                    ColorType::Rgba => "colour (RGBA)",
                    _ => "grey-with-alpha",
                }
            ),
        ));
    }
    if depth == BitDepth::Sixteen {
        return Err(Error::mask(
            path,
            "it has 16 bits a pixel; save it as an indexed PNG, or grey with 8 bits",
        ));
    }
    let too_large = || Error::mask(path, format!("{width}x{height} pixels do not fit in memory"));
    let mut packed = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let frame = reader.next_frame(&mut packed).map_err(broken)?;
    let ids = unpack(&packed, width, height, frame.line_size, depth);
    let mut map = LabelMap::new(width, height, ids)?;
    if colour == ColorType::Grayscale {
        ids_from_grey(path, map.ids_mut(), depth)?;
    }
    Ok(map)
}

/// One byte a pixel from rows of `line_size` bytes in which a pixel has `depth` bits.
fn unpack(packed: &[u8], width: usize, height: usize, line_size: usize, depth: BitDepth) -> Vec<u8> {
    let bits = depth as usize;
    if bits == 8 && line_size == width {
        return packed[..width * height].to_vec();
    }
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    let mut ids = Vec::with_capacity(width * height);
    for line in packed.chunks_exact(line_size).take(height) {
        ids.extend((0..width).map(|x| {
            let shift = 8 - bits * (x % per_byte + 1);
            (line[x / per_byte] >> shift) & mask
        }));
    }
    ids
}

fn ids_from_grey(path: &Path, ids: &mut [u8], depth: BitDepth) -> Result<()> {
    let white = ((1u16 << depth as u16) - 1) as u8;
    if ids.iter().all(|&value| value == 0 || value == white) {
        ids.iter_mut().for_each(|id| *id = u8::from(*id != 0));
        return Ok(());
    }
    let shade = |value: u8| value > LARGEST_GREY_ID && value != LabelMap::VOID;
    if let Some(value) = ids.iter().copied().find(|&value| shade(value)) {
        return Err(Error::mask(
            path,
            format!(
                "the grey value {value} is neither black, white nor an object id up to \
                 {LARGEST_GREY_ID}; save the ids as an indexed PNG, or binarise a soft mask to \
                 0 and 255"
            ),
        ));
    }
    Ok(())
}

/// Writes `map` as an 8-bit indexed PNG with the DAVIS palette.
///
/// # Errors
///
/// When the file cannot be written, or the map has no pixels.
pub fn write(path: &Path, map: &LabelMap) -> Result<()> {
    let io = |source: std::io::Error| Error::write(path, source);
    let encode = |source: png::EncodingError| match source {
        png::EncodingError::IoError(source) => io(source),
        other => io(std::io::Error::other(other)),
    };
    let size = |length: usize| {
        u32::try_from(length).map_err(|_| io(std::io::Error::other("too many pixels for a PNG")))
    };
    let (width, height) = (size(map.width())?, size(map.height())?);
    let mut file = BufWriter::new(File::create(path).map_err(io)?);
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(PALETTE.as_flattened());
    // Indices have no gradient for a filter to predict.
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().map_err(encode)?;
    writer.write_image_data(map.ids()).map_err(encode)?;
    writer.finish().map_err(encode)?;
    file.flush().map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(path: &Path, size: (u32, u32), colour: ColorType, depth: BitDepth, data: &[u8]) {
        let file = File::create(path).unwrap();
        let mut encoder = png::Encoder::new(file, size.0, size.1);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette(PALETTE.as_flattened()[..3 << depth as usize].to_vec());
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
    fn the_palette_is_that_of_davis() {
        assert_eq!(PALETTE[..4], [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]);
        assert_eq!(PALETTE[8], [64, 0, 0]);
        assert_eq!(PALETTE[22], [0, 192, 128]);
        assert_eq!(PALETTE[255], [224, 224, 192]);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let ids = (0..7 * 5).map(|i| if i == 20 { 255 } else { i % 5 }).collect();
        let map = LabelMap::new(7, 5, ids).unwrap();
        write(&path, &map).unwrap();
        assert_eq!(read(&path).unwrap(), map);
    }

    #[test]
    fn palette_indices_of_every_depth() {
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
    fn refuses_what_holds_no_ids() {
        let reason = |colour, depth, data: &[u8]| {
            let error = read_back((2, 1), colour, depth, data).unwrap_err().to_string();
            assert!(error.contains("mask.png"), "{error}");
            assert!(error.contains("save"), "no remedy: {error}");
            error
        };
        let rgb = reason(ColorType::Rgb, BitDepth::Eight, &[0; 6]);
        assert!(rgb.contains("RGB"), "{rgb}");
        reason(ColorType::Rgba, BitDepth::Eight, &[0; 8]);
        reason(ColorType::GrayscaleAlpha, BitDepth::Eight, &[0; 4]);
        let deep = reason(ColorType::Grayscale, BitDepth::Sixteen, &[0; 4]);
        assert!(deep.contains("16 bits"), "{deep}");
        let soft = reason(ColorType::Grayscale, BitDepth::Eight, &[0, 130]);
        assert!(soft.contains("130"), "{soft}");
    }

    #[test]
    fn names_missing_foreign_and_truncated_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("mask.png"), "{error}");
        std::fs::write(&path, b"\xff\xd8\xff\xe0 JPEG").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("mask.png") && error.contains("PNG"), "{error}");
        let noise = (0..64 * 64).map(|i: usize| (i * i / 7 % 5) as u8).collect();
        write(&path, &LabelMap::new(64, 64, noise).unwrap()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2 + 400]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("mask.png"), "{error}");
    }

    #[test]
    fn writing_names_the_file() {
        let path = Path::new("/nonexistent-folder/mask.png");
        let error = write(path, &LabelMap::background(1, 1)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/mask.png"));
    }
}
