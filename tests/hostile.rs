// SPDX-License-Identifier: MPL-2.0

//! Corrupted and oversized files. Any input must decode or give an error, within bounded memory.
//!
//! The tests corrupt valid files at random; most rounds repair the checksums, so that the damage passes the first
//! check. `FASTGANSEG_FUZZ_SECONDS` runs each test for that time, with a new seed. `FASTGANSEG_CORPUS` writes the
//! valid files into a folder, for `make fuzz`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstfastganseg::image::OwnedPicture;
use gstfastganseg::mask::{Labels, MAX_PIXELS, ReferenceMask};
use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Config, Lite};
use png::{BitDepth, ColorType};
use tch::{Device, Kind, nn};

const ROUNDS: u64 = 3000;
/// Memory of a decoder besides pixels, in bytes.
const BUFFERS: usize = 1 << 20;
/// Peak memory of decoding a picture, in bytes per pixel: RGBA of 16 bits, and RGB.
const PICTURE_BYTES: usize = 11;

/// Allocator that counts bytes per thread, so that parallel tests do not count.
struct Counter;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees memory after its thread-locals are destroyed.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all calls are forwarded to the system allocator unchanged.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while bytes are copied.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTER: Counter = Counter;

/// Returns the result of `f` and its peak memory in bytes.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before) as usize)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }
}

/// Corrupts a file in one to six places.
fn corrupt(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const BOUNDARIES: [u8; 8] = [0, 1, 2, 3, 16, 127, 128, 255];
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        match random.below(8) {
            _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = BOUNDARIES[random.below(8)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len()))),
            4 => {
                let from = random.below(other.len());
                let part = &other[from..(from + random.below(64)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            5 => {
                // Replaces a four-byte number by a boundary value.
                let number = [0u32, 1, 0x7fff_ffff, 0xffff_ffff, 16_384, 65_536][random.below(6)];
                for (target, byte) in bytes[at..].iter_mut().zip(number.to_be_bytes()) {
                    *target = byte;
                }
            }
            6 => {
                // Changes a number in text.
                if bytes[at].is_ascii_digit() {
                    bytes.splice(at..at, *b"99");
                }
            }
            // The header is at the beginning.
            _ => {
                let at = random.below(bytes.len().min(64));
                bytes[at] = random.below(256) as u8;
            }
        }
    }
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    (!crc).to_be_bytes()
}

/// Corrects the checksums of a PNG, as far as its chunks are intact.
fn fix_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else { return };
        let sum = crc(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Corrects the header length of a safetensors file.
fn fix_header_length(bytes: &mut [u8]) {
    let end = bytes.iter().skip(8).rposition(|&byte| byte == b'}').map(|last| last + 1);
    if let (Some(length), Some(field)) = (end, bytes.get_mut(..8)) {
        field.copy_from_slice(&(length as u64).to_le_bytes());
    }
}

/// Limits for a set of corrupted files.
struct Bounds {
    /// Accepted files in a thousand. Fewer: the damage fails the first check. More: it is not detected.
    accepted: RangeInclusive<u64>,
    /// Peak memory of one file, in bytes.
    memory: usize,
}

/// Corrupts `seeds` and passes the results to `target`, which must not panic. Writes the file of a panic to disk.
fn check_corrupted(
    name: &str,
    seeds: &[Vec<u8>],
    repair: fn(&mut [u8]),
    bounds: Bounds,
    target: fn(&[u8]) -> bool,
) {
    if let Some(folder) = std::env::var_os("FASTGANSEG_CORPUS") {
        let folder = PathBuf::from(folder).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (index, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
        }
    }
    for seed in seeds {
        assert!(target(seed), "{name}: a valid file is refused");
    }
    let seconds = std::env::var("FASTGANSEG_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = match until {
        None => 1,
        Some(_) => u64::from(std::process::id()) << 32,
    };
    let (mut round, mut accepted, mut max_memory) = (0, 0, 0);
    while until.map_or(round < ROUNDS, |until| Instant::now() < until) {
        let seed = first + round;
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        corrupt(&mut bytes, &seeds[random.below(seeds.len())], &mut random);
        if random.below(4) > 0 {
            repair(&mut bytes);
        }
        match std::panic::catch_unwind(|| {
            let (good, memory) = peak(|| target(&bytes));
            assert!(memory <= bounds.memory, "{memory} bytes of memory for a file of {}", bytes.len());
            (good, memory)
        }) {
            Ok((good, memory)) => {
                accepted += u64::from(good);
                max_memory = max_memory.max(memory);
            }
            Err(panic) => {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
                std::fs::write(&path, &bytes).unwrap();
                println!("{name}: seed {seed}, written to {}", path.display());
                std::panic::resume_unwind(panic);
            }
        }
        round += 1;
    }
    let share = 1000 * accepted / round.max(1);
    println!(
        "{name}: {round} corrupted files, {share} in a thousand accepted, peak memory {max_memory} bytes"
    );
    assert!(bounds.accepted.contains(&share), "{name}: {share} in a thousand accepted");
}

fn png(size: (u32, u32), color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|i| [i, 255 - i, 0]).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// One PNG of each colour type and bit depth.
fn pngs() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (color, depths) in [
        (ColorType::Grayscale, &[1, 2, 4, 8, 16][..]),
        (ColorType::Indexed, &[8]),
        (ColorType::GrayscaleAlpha, &[8, 16]),
        (ColorType::Rgb, &[8, 16]),
        (ColorType::Rgba, &[8, 16]),
    ] {
        for &bits in depths {
            let depth = BitDepth::from_u8(bits).unwrap();
            let row = (9 * color.samples() * usize::from(bits)).div_ceil(8);
            // Equal channels: a colour mask is refused.
            let pixel = color.samples() * usize::from(bits).div_ceil(8);
            let data: Vec<u8> = (0..row * 7).map(|i| (i / pixel.max(1) * 37 % 251) as u8).collect();
            all.push(png((9, 7), color, depth, &data));
        }
    }
    all
}

/// Encodes a PNG row by row, without all its pixels in memory. `byte` returns the byte at a column and row.
fn large_png(
    (width, height): (u32, u32),
    color: ColorType,
    depth: BitDepth,
    byte: impl Fn(usize, usize) -> u8,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Fast);
    if color == ColorType::Indexed {
        encoder.set_palette([0; 768].as_slice());
    }
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = (width as usize * color.samples() * depth as usize).div_ceil(8);
    for y in 0..height as usize {
        let row: Vec<u8> = (0..row).map(|x| byte(x, y)).collect();
        std::io::Write::write_all(&mut stream, &row).unwrap();
    }
    stream.finish().unwrap();
    drop(writer);
    bytes
}

/// A PNG of one pixel whose header declares `size`.
fn png_declaring(size: (u32, u32), (color, depth): (ColorType, BitDepth)) -> Vec<u8> {
    let mut bytes = png((1, 1), color, depth, &vec![255; color.samples() * (depth as usize).div_ceil(8)]);
    bytes[16..20].copy_from_slice(&size.0.to_be_bytes());
    bytes[20..24].copy_from_slice(&size.1.to_be_bytes());
    fix_checksums(&mut bytes);
    bytes
}

fn jpeg((width, height): (u32, u32)) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 50]));
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    jpeg.into_inner()
}

fn jpeg_declaring((width, height): (u16, u16)) -> Vec<u8> {
    let mut bytes = jpeg((8, 8));
    let frame = bytes.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// Regression: a PNG of 0.7 MB took 4.9 GB.
#[test]
fn oversized_images_are_refused_before_allocation() {
    let refused = |kind: &str, result: Result<(), gstfastganseg::Error>, memory: usize| {
        let message = result.unwrap_err().to_string();
        for part in ["fuzz", "too many: at most 16384 a side and 67 million", "Scale it down"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(memory < BUFFERS, "{kind}: {memory} bytes");
    };
    let origin = Path::new("fuzz");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fuzz.png");
    for size in [(8193, 8192), (12_650, 12_650), (16_385, 1), (1, 16_385), (u32::MAX >> 1, u32::MAX >> 1)] {
        for format in [
            (ColorType::Grayscale, BitDepth::Eight),
            (ColorType::Indexed, BitDepth::Eight),
            (ColorType::Rgba, BitDepth::Sixteen),
        ] {
            let bytes = png_declaring(size, format);
            let (result, memory) = peak(|| ReferenceMask::from_bytes(&bytes, origin).map(drop));
            refused("mask", result, memory);
            std::fs::write(&path, &bytes).unwrap();
            let (result, memory) = peak(|| Labels::open(&path).map(drop));
            refused("labels", result, memory);
            let (result, memory) = peak(|| OwnedPicture::from_bytes(&bytes, origin).map(drop));
            refused("picture", result, memory);
        }
    }
    for size in [(8193, 8192), (12_650, 12_650), (65_535, 65_535), (16_385, 1)] {
        let bytes = jpeg_declaring(size);
        let (result, memory) = peak(|| OwnedPicture::from_bytes(&bytes, origin).map(drop));
        refused("JPEG", result, memory);
    }
}

/// A mask takes one byte per pixel and object, for any format of the file.
#[test]
fn decoding_holds_one_copy_of_a_mask() {
    let formats = [
        (ColorType::Grayscale, BitDepth::One),
        (ColorType::Grayscale, BitDepth::Eight),
        (ColorType::Grayscale, BitDepth::Sixteen),
        (ColorType::Indexed, BitDepth::Eight),
        (ColorType::GrayscaleAlpha, BitDepth::Eight),
        (ColorType::Rgb, BitDepth::Sixteen),
        (ColorType::Rgba, BitDepth::Eight),
        (ColorType::Rgba, BitDepth::Sixteen),
    ];
    let small = formats.map(|format| ((2000, 1000), format));
    let largest = [((8192, 8192), (ColorType::Grayscale, BitDepth::Eight))];
    for (size @ (width, height), (color, depth)) in small.into_iter().chain(largest) {
        let bytes = large_png(size, color, depth, |_, y| if y % 2 == 0 { 0xff } else { 0 });
        let bytes = match color {
            // Indices 0 to 2, none of them void.
            ColorType::Indexed => large_png(size, color, depth, |x, _| (x % 3) as u8),
            _ => bytes,
        };
        let pixels = width as usize * height as usize;
        let (mask, memory) = peak(|| ReferenceMask::from_bytes(&bytes, Path::new("fuzz")).unwrap());
        let bound = mask.objects().len() * pixels + BUFFERS;
        println!(
            "{width}x{height} {color:?} {depth:?}: {:.2} bytes per pixel",
            memory as f64 / pixels as f64
        );
        assert!(memory <= bound, "{color:?} {depth:?}: {memory} bytes for {pixels} pixels");
        drop(mask);

        let (picture, memory) = peak(|| OwnedPicture::from_bytes(&bytes, Path::new("fuzz")));
        println!("as a picture: {:.2} bytes per pixel", memory as f64 / pixels as f64);
        assert!(
            picture.is_ok() && memory <= PICTURE_BYTES * pixels + BUFFERS,
            "{color:?} {depth:?}: {memory}"
        );
    }
}

#[test]
fn masks() {
    let bounds = Bounds { accepted: 40..=110, memory: MAX_PIXELS + BUFFERS };
    check_corrupted("mask", &pngs(), fix_checksums, bounds, |bytes| {
        match ReferenceMask::from_bytes(bytes, Path::new("fuzz")) {
            Ok(mask) => {
                assert!(!mask.objects().is_empty());
                for object in mask.objects() {
                    assert_eq!(object.alpha.len(), mask.width() * mask.height());
                    assert!(object.alpha.iter().any(|&alpha| alpha > 0));
                }
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("fuzz"), "{error}");
                false
            }
        }
    });
}

#[test]
fn pictures() {
    let mut seeds = pngs();
    seeds.extend(std::iter::repeat_n(jpeg((19, 13)), 4));
    let bounds = Bounds { accepted: 80..=180, memory: PICTURE_BYTES * MAX_PIXELS + BUFFERS };
    check_corrupted("picture", &seeds, fix_checksums, bounds, |bytes| {
        match OwnedPicture::from_bytes(bytes, Path::new("fuzz")) {
            Ok(picture) => {
                let view = picture.as_picture();
                assert_eq!(view.data.len(), 3 * view.width * view.height);
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("fuzz"), "{error}");
                false
            }
        }
    });
}

#[test]
fn weights_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let seeds: Vec<Vec<u8>> = [Kind::Float, Kind::Half, Kind::Int8]
        .into_iter()
        .map(|kind| {
            let config = Config { width: 0.01, network_size: [32, 32], ..Config::lite() };
            let store = nn::VarStore::new(Device::Cpu);
            Lite::new(&store.root(), &config).unwrap();
            weights::save(&path, &store, &config, &BTreeMap::new(), kind).unwrap();
            std::fs::read(&path).unwrap()
        })
        .collect();
    let bounds = Bounds { accepted: 8..=40, memory: 1 << 20 };
    check_corrupted("weights", &seeds, fix_header_length, bounds, |bytes| {
        let Ok(weights) = Weights::from_bytes(bytes, Path::new("fuzz")) else { return false };
        let config = weights.config();
        config.validate().unwrap();
        if config.width > 0.0625 || config.architecture != Config::lite().architecture {
            return false;
        }
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), config).unwrap();
        weights.fill(&store).is_ok()
    });
}
