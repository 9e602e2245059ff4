//! Files that are broken on purpose: whatever the bytes, there is a mask, a picture, weights or an error.
//!
//! Good files, made here, are spoiled in every way that comes to mind, checksums mended so that the damage
//! gets further in than the first check. `FASTGANSEG_FUZZ_SECONDS` makes it go on for longer, with another
//! seed each round; `FASTGANSEG_CORPUS` writes the good files into a folder, for `make fuzz`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::model::{Config, Lite};
use gstfastganseg::picture::OwnedPicture;
use png::{BitDepth, ColorType};
use tch::{Device, Kind, nn};

const ROUNDS: u64 = 3000;

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

/// Spoils a file in a few places.
fn spoil(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const TELLING: [u8; 8] = [0, 1, 2, 3, 16, 127, 128, 255];
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        match random.below(8) {
            _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = TELLING[random.below(8)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len()))),
            4 => {
                let from = random.below(other.len());
                let part = &other[from..(from + random.below(64)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            5 => {
                // A number of four bytes becomes a telling one.
                let number = [0u32, 1, 0x7fff_ffff, 0xffff_ffff, 16_384, 65_536][random.below(6)];
                for (target, byte) in bytes[at..].iter_mut().zip(number.to_be_bytes()) {
                    *target = byte;
                }
            }
            6 => {
                // Text that is almost right.
                if bytes[at].is_ascii_digit() {
                    bytes.splice(at..at, *b"99");
                }
            }
            // Most of what matters lies at the beginning.
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

/// Makes the checksums of a PNG right, as far as its chunks can be told apart.
fn mend(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else { return };
        let sum = crc(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Keeps the header's length of a safetensors file true.
fn relength(bytes: &mut [u8]) {
    let end = bytes.iter().skip(8).rposition(|&byte| byte == b'}').map(|last| last + 1);
    if let (Some(length), Some(field)) = (end, bytes.get_mut(..8)) {
        field.copy_from_slice(&(length as u64).to_le_bytes());
    }
}

/// Spoils `seeds` and gives the results to `target`, which must not panic; a panic prints how to repeat it.
fn bombard(name: &str, seeds: &[Vec<u8>], mend: fn(&mut [u8]), target: fn(&[u8]) -> bool) {
    if let Some(folder) = std::env::var_os("FASTGANSEG_CORPUS") {
        let folder = PathBuf::from(folder).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (index, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
        }
    }
    for seed in seeds {
        assert!(target(seed), "{name}: a good file is refused");
    }
    let seconds = std::env::var("FASTGANSEG_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = match until {
        None => 1,
        Some(_) => u64::from(std::process::id()) << 32,
    };
    let (mut round, mut accepted) = (0, 0);
    while until.map_or(round < ROUNDS, |until| Instant::now() < until) {
        let seed = first + round;
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        spoil(&mut bytes, &seeds[random.below(seeds.len())], &mut random);
        if random.below(4) > 0 {
            mend(&mut bytes);
        }
        match std::panic::catch_unwind(|| target(&bytes)) {
            Ok(good) => accepted += u64::from(good),
            Err(panic) => {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
                std::fs::write(&path, &bytes).unwrap();
                println!("{name}: seed {seed}, written to {}", path.display());
                std::panic::resume_unwind(panic);
            }
        }
        round += 1;
    }
    println!("{name}: {round} spoiled files, {accepted} of them still good");
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

/// Every kind of PNG there is.
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
            // Grey in every channel, for a mask in colour is refused.
            let pixel = color.samples() * usize::from(bits).div_ceil(8);
            let data: Vec<u8> = (0..row * 7).map(|i| (i / pixel.max(1) * 37 % 251) as u8).collect();
            all.push(png((9, 7), color, depth, &data));
        }
    }
    all
}

#[test]
fn masks() {
    bombard("mask", &pngs(), mend, |bytes| match ReferenceMask::from_bytes(bytes, Path::new("fuzz")) {
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
    });
}

#[test]
fn pictures() {
    let mut seeds = pngs();
    let picture = image::RgbImage::from_fn(19, 13, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 50]));
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    seeds.extend(std::iter::repeat_n(jpeg.into_inner(), 4));
    bombard("picture", &seeds, mend, |bytes| match OwnedPicture::from_bytes(bytes, Path::new("fuzz")) {
        Ok(picture) => {
            let view = picture.as_picture();
            assert_eq!(view.data.len(), 3 * view.width * view.height);
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("fuzz"), "{error}");
            false
        }
    });
}

#[test]
fn weights_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let seeds: Vec<Vec<u8>> = [Kind::Float, Kind::Half]
        .into_iter()
        .map(|kind| {
            let config = Config { width: 0.01, network_size: [32, 32], ..Config::lite() };
            let store = nn::VarStore::new(Device::Cpu);
            Lite::new(&store.root(), &config).unwrap();
            weights::save(&path, &store, &config, &BTreeMap::new(), kind).unwrap();
            std::fs::read(&path).unwrap()
        })
        .collect();
    bombard("weights", &seeds, relength, |bytes| {
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
