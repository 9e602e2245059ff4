// SPDX-License-Identifier: MPL-2.0

//! Decoding of PNG files of every bit depth and colour type, interlaced or not, to one byte per pixel.
//!
//! Rows are reduced to one byte per pixel as they are decoded, so that memory holds the mask only once, whatever
//! the depth and the number of channels of the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, InterlaceInfo, Limits, Transformations};

use super::{Kind, VOID, Values, is_grey_id};
use crate::image::check_size;

/// Memory limit of the decoder in bytes: a few rows and chunks, without the decoded pixels.
const MAX_DECODER_BYTES: usize = 1 << 24;

pub fn read(path: &Path) -> Result<Values, String> {
    let file = File::open(path)
        .map_err(|error| format!("it cannot be opened ({error}): give the path of a PNG file"))?;
    decode(BufReader::new(file))
}

pub fn decode(source: impl BufRead + Seek) -> Result<Values, String> {
    let mut decoder = Decoder::new_with_limits(source, Limits { bytes: MAX_DECODER_BYTES });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let size = decoder.read_header_info().map_err(|error| bad(&error))?.size();
    let (width, height) = (size.0 as usize, size.1 as usize);
    check_size(width, height)?;

    let mut reader = decoder.read_info().map_err(|error| bad(&error))?;
    let info = reader.info();
    if info.frame_control.is_some_and(|frame| (frame.width, frame.height) != size) {
        return Err("it is an animation whose first frame is not full-size: save it as a still PNG".into());
    }
    let mut reducer = Reducer::new(info.color_type, info.bit_depth);
    let mut values = vec![0; width * height];
    let (mut line, mut y) = (vec![0; width], 0);
    while let Some(row) = reader.next_interlaced_row().map_err(|error| bad(&error))? {
        let count = reducer.reduce(row.data(), &mut line, &mut values);
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                if let Some(target) = values.chunks_exact_mut(width).nth(y) {
                    target.copy_from_slice(&line);
                }
                y += 1;
            }
            InterlaceInfo::Adam7(pass) => {
                png::expand_interlaced_row(&mut values, width, &line[..count], pass, 8);
            }
        }
    }
    Ok(Values { width, height, kind: reducer.kind()?, values })
}

/// Reduces each pixel to one byte. Any pixel can change the meaning of the bytes; earlier ones are then converted.
struct Reducer {
    color: ColorType,
    depth: BitDepth,
    samples: Vec<u16>,
    /// At least one pixel is not opaque: the bytes are alpha. Until then they are grey, because editors that save
    /// a black and white mask with alpha make it opaque everywhere.
    transparent: bool,
    /// At least one pixel so far is not grey.
    coloured: bool,
    /// All 16-bit grey values so far can be object ids. They are stored unscaled; scaled to 8 bits, they would be
    /// 0.
    small: bool,
    /// All 16-bit grey values so far are scaled 8-bit values.
    scaled: bool,
}

impl Reducer {
    fn new(color: ColorType, depth: BitDepth) -> Self {
        let small = depth == BitDepth::Sixteen;
        Self { color, depth, samples: Vec::new(), transparent: false, coloured: false, small, scaled: true }
    }

    /// Writes the pixels of a row to the beginning of `line` and returns their number. `earlier` holds the bytes
    /// of the earlier rows.
    fn reduce(&mut self, row: &[u8], line: &mut [u8], earlier: &mut [u8]) -> usize {
        let channels = self.color.samples();
        self.samples.clear();
        unpack(row, self.depth, &mut self.samples);
        let count = line.len().min(self.samples.len() / channels);
        let (depth, samples) = (self.depth, &self.samples);
        let channel = |channel: usize| samples.iter().skip(channel).step_by(channels).copied();

        if self.color == ColorType::Indexed {
            line.iter_mut().zip(channel(0)).for_each(|(value, sample)| *value = sample as u8);
            return count;
        }
        if self.has_alpha() {
            let alpha = || channel(channels - 1).map(|sample| to_8_bits(sample, depth)).take(count);
            if !self.transparent && alpha().any(|value| value != 255) {
                self.transparent = true;
                earlier.fill(255);
            }
            if self.transparent {
                line.iter_mut().zip(alpha()).for_each(|(value, alpha)| *value = alpha);
                return count;
            }
        }
        self.coloured |= channels >= 3
            && samples
                .chunks_exact(channels)
                .take(count)
                .any(|pixel| pixel[0] != pixel[1] || pixel[1] != pixel[2]);
        let grey = || channel(0).take(count);
        if depth == BitDepth::Sixteen {
            self.scaled &= grey().all(|sample| sample % 257 == 0);
            let is_small = |sample: u16| {
                u8::try_from(sample).is_ok_and(|value| value == VOID || value == 0 || is_grey_id(value))
            };
            if self.small && !grey().all(is_small) {
                self.small = false;
                earlier.iter_mut().for_each(|value| *value = to_8_bits(u16::from(*value), depth));
            }
        }
        let small = self.small;
        let byte = |sample: u16| if small { sample as u8 } else { to_8_bits(sample, depth) };
        line.iter_mut().zip(grey()).for_each(|(value, sample)| *value = byte(sample));
        count
    }

    fn has_alpha(&self) -> bool {
        matches!(self.color, ColorType::GrayscaleAlpha | ColorType::Rgba)
    }

    /// The meaning of the bytes, after all rows.
    fn kind(&self) -> Result<Kind, String> {
        if self.color == ColorType::Indexed {
            return Ok(Kind::Index);
        }
        if self.transparent {
            return Ok(Kind::Alpha);
        }
        match (self.coloured, self.has_alpha()) {
            (true, true) => {
                Err("its alpha channel is opaque everywhere: cut the object out, or save a greyscale mask"
                    .into())
            }
            (true, false) => {
                Err("it is in colour, which does not identify objects: save it as greyscale, with \
                                  a palette (index = object), or with an alpha channel"
                    .into())
            }
            // A dark 16-bit mask does not hold ids.
            _ if self.depth == BitDepth::Sixteen && !self.small && !self.scaled => Ok(Kind::Soft),
            _ => Ok(Kind::Grey),
        }
    }
}

/// Unpacks the samples of a row at their stored depth.
fn unpack(row: &[u8], depth: BitDepth, samples: &mut Vec<u16>) {
    match depth {
        BitDepth::Sixteen => {
            samples.extend(row.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
        }
        BitDepth::Eight => samples.extend(row.iter().map(|&byte| u16::from(byte))),
        _ => {
            let bits = depth as usize;
            let mask = (1u16 << bits) - 1;
            let pixels = |byte: u8| (1..=8 / bits).map(move |i| (u16::from(byte) >> (8 - bits * i)) & mask);
            samples.extend(row.iter().flat_map(|&byte| pixels(byte)));
        }
    }
}

fn to_8_bits(sample: u16, depth: BitDepth) -> u8 {
    match depth {
        BitDepth::Sixteen => ((u32::from(sample) * 255 + 32_767) / 65_535) as u8,
        BitDepth::Eight => sample as u8,
        _ => (u32::from(sample) * 255 / ((1 << depth as u32) - 1)) as u8,
    }
}

fn bad(error: &DecodingError) -> String {
    match error {
        DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the file ends too early: it is empty or truncated; save it again".into()
        }
        DecodingError::IoError(error) => format!("it cannot be read ({error}): give the path of a PNG file"),
        DecodingError::LimitsExceeded => "it is too large: scale it down".into(),
        DecodingError::Format(_) | DecodingError::Parameter(_) => {
            format!("it is not a valid PNG ({error}): save it as PNG")
        }
    }
}
