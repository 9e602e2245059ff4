//! PNG files of every depth and colour type, interlaced ones too, as 8-bit samples.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{Kind, MAX_GREY_ID, Values, check_size};

/// For rows and text chunks; the picture itself is bounded by its size.
const LIMIT: usize = 1 << 27;

pub fn read(path: &Path) -> Result<Values, String> {
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    decode(BufReader::new(file))
}

pub fn decode(source: impl BufRead + Seek) -> Result<Values, String> {
    let mut decoder = Decoder::new_with_limits(source, Limits { bytes: LIMIT });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let (width, height) = decoder.read_header_info().map_err(|error| bad(&error))?.size();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;

    let mut reader = decoder.read_info().map_err(|error| bad(&error))?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(|error| bad(&error))?;
    let rows = data.chunks_exact(frame.line_size).take(height);
    let samples: Vec<u16> =
        rows.flat_map(|row| unpack(row, frame.bit_depth).take(width * frame.color_type.samples())).collect();
    drop(data);

    let (kind, values) = choose(frame.color_type, frame.bit_depth, &samples)?;
    Ok(Values { width, height, kind, values })
}

/// The samples of a row as they are stored.
fn unpack(row: &[u8], depth: BitDepth) -> Box<dyn Iterator<Item = u16> + '_> {
    match depth {
        BitDepth::Sixteen => Box::new(row.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))),
        BitDepth::Eight => Box::new(row.iter().map(|&byte| u16::from(byte))),
        _ => {
            let bits = depth as usize;
            let mask = (1u16 << bits) - 1;
            Box::new(row.iter().flat_map(move |&byte| {
                (0..8 / bits).map(move |i| (u16::from(byte) >> (8 - bits * (i + 1))) & mask)
            }))
        }
    }
}

/// Which of the samples are the mask.
fn choose(color: ColorType, depth: BitDepth, samples: &[u16]) -> Result<(Kind, Vec<u8>), String> {
    let scaled = |channels: usize, channel: usize| -> Vec<u8> {
        samples.iter().skip(channel).step_by(channels).map(|&sample| to_8_bits(sample, depth)).collect()
    };
    match color {
        ColorType::Indexed => Ok((Kind::Index, samples.iter().map(|&index| index as u8).collect())),
        ColorType::Grayscale => Ok((Kind::Grey, grey(samples, 1, depth))),
        ColorType::Rgb if is_grey(samples, 3) => Ok((Kind::Grey, grey(samples, 3, depth))),
        ColorType::Rgb => Err("it is in colour, which says nothing about objects: save it as greyscale, \
                               with a palette (index = object), or with an alpha channel"
            .into()),
        ColorType::GrayscaleAlpha | ColorType::Rgba => {
            let channels = color.samples();
            let alpha = scaled(channels, channels - 1);
            // An editor that saves a black and white mask as RGBA makes it opaque everywhere.
            if alpha.iter().any(|&value| value != 255) {
                Ok((Kind::Alpha, alpha))
            } else if is_grey(samples, channels) {
                Ok((Kind::Grey, grey(samples, channels, depth)))
            } else {
                Err("its alpha channel is opaque everywhere: cut the object out, or save a greyscale mask"
                    .into())
            }
        }
    }
}

fn is_grey(samples: &[u16], channels: usize) -> bool {
    channels < 3 || samples.chunks_exact(channels).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
}

/// A 16-bit file of ids would be all black as 8-bit grey, so its values are kept as they are.
fn grey(samples: &[u16], channels: usize, depth: BitDepth) -> Vec<u8> {
    let values = samples.iter().step_by(channels);
    if depth == BitDepth::Sixteen && values.clone().all(|&value| value <= u16::from(MAX_GREY_ID)) {
        return values.map(|&value| value as u8).collect();
    }
    values.map(|&value| to_8_bits(value, depth)).collect()
}

fn to_8_bits(sample: u16, depth: BitDepth) -> u8 {
    match depth {
        BitDepth::Sixteen => ((u32::from(sample) * 255 + 32_767) / 65_535) as u8,
        BitDepth::Eight => sample as u8,
        _ => (u32::from(sample) * 255 / ((1 << depth as u32) - 1)) as u8,
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("it cannot be opened ({error}): give the path of a PNG file")
}

fn bad(error: &DecodingError) -> String {
    match error {
        DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends too early: it is empty or truncated; save it again".into()
        }
        DecodingError::IoError(error) => format!("it cannot be read ({error}): give the path of a PNG file"),
        DecodingError::LimitsExceeded => "it is too large: scale it down".into(),
        DecodingError::Format(_) | DecodingError::Parameter(_) => {
            format!("it is no valid PNG ({error}): save it as PNG")
        }
    }
}
