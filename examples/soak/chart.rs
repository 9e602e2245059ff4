// SPDX-License-Identifier: MPL-2.0

//! Draws a chart of memory over frames.

use std::path::Path;

use image::{Rgb, RgbImage};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 360;
const LEFT: u32 = 90;
const RIGHT: u32 = 20;
const TOP: u32 = 30;
const BOTTOM: u32 = 50;
const INK: Rgb<u8> = Rgb([40, 40, 40]);
const GRID: Rgb<u8> = Rgb([220, 220, 220]);
const CURVE: Rgb<u8> = Rgb([30, 90, 200]);
/// Size of a letter's dot, in pixels.
const SCALE: u32 = 2;

/// Bitmaps of the available letters: three columns of five rows, the lowest bit at the top.
const LETTERS: [(char, [u8; 3]); 19] = [
    ('0', [31, 17, 31]),
    ('1', [0, 31, 0]),
    ('2', [29, 21, 23]),
    ('3', [21, 21, 31]),
    ('4', [7, 4, 31]),
    ('5', [23, 21, 29]),
    ('6', [31, 21, 29]),
    ('7', [1, 1, 31]),
    ('8', [31, 21, 31]),
    ('9', [23, 21, 31]),
    ('.', [0, 16, 0]),
    ('A', [30, 5, 30]),
    ('B', [31, 21, 10]),
    ('E', [31, 21, 17]),
    ('F', [31, 5, 1]),
    ('I', [17, 31, 17]),
    ('M', [31, 6, 31]),
    ('R', [31, 5, 26]),
    ('S', [18, 21, 9]),
];

/// Draws `samples` of (frame, resident KiB) into the PNG file `path`. The memory axis starts at zero.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(samples: &[(u64, u64)], path: &Path) -> image::ImageResult<()> {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([255; 3]));
    let frames = samples.iter().map(|sample| sample.0).max().unwrap_or(1).max(1);
    let max_mib = samples.iter().map(|sample| sample.1).max().unwrap_or(1) as f64 / 1024.0;
    let step =
        [10.0, 20.0, 50.0, 100.0, 200.0, 500.0].into_iter().find(|step| max_mib / step < 6.0).unwrap_or(1e3);
    let top = (max_mib / step).ceil() * step;
    let x = |frame: u64| LEFT + (u64::from(WIDTH - LEFT - RIGHT) * frame / frames) as u32;
    let y = |mib: f64| HEIGHT - BOTTOM - (f64::from(HEIGHT - TOP - BOTTOM) * mib / top) as u32;

    for line in 0..=(top / step) as u32 {
        let mib = f64::from(line) * step;
        for column in LEFT..WIDTH - RIGHT {
            picture.put_pixel(column, y(mib), GRID);
        }
        write(&mut picture, &format!("{mib:.0}"), LEFT - 10, y(mib) - 5, true);
    }
    write(&mut picture, "MIB", LEFT, 8, true);
    for part in 0..=4 {
        write(
            &mut picture,
            &(frames * part / 4).to_string(),
            x(frames * part / 4),
            HEIGHT - BOTTOM + 12,
            part == 4,
        );
    }
    write(&mut picture, "FRAMES", (LEFT + WIDTH) / 2, HEIGHT - 18, false);

    for pair in samples.windows(2) {
        let ends = [pair[0], pair[1]].map(|(frame, kib)| (x(frame), y(kib as f64 / 1024.0)));
        for column in ends[0].0..=ends[1].0 {
            let (low, high) = (ends[0].1.min(ends[1].1), ends[0].1.max(ends[1].1));
            for row in low..=high + 1 {
                picture.put_pixel(column, row, CURVE);
            }
        }
    }
    picture.save(path)
}

/// Writes text that starts at `x`, or ends there with `right`.
fn write(picture: &mut RgbImage, text: &str, x: u32, y: u32, right: bool) {
    let pitch = 4 * SCALE;
    let start = if right { x.saturating_sub(pitch * text.len() as u32) } else { x };
    for (index, letter) in text.chars().enumerate() {
        let Some((_, columns)) = LETTERS.iter().find(|(known, _)| *known == letter) else { continue };
        for (column, bits) in columns.iter().enumerate() {
            for row in (0..5).filter(|row| bits >> row & 1 == 1) {
                for dot in 0..SCALE * SCALE {
                    let left = start + pitch * index as u32 + SCALE * column as u32;
                    picture.put_pixel(left + dot % SCALE, y + SCALE * row + dot / SCALE, INK);
                }
            }
        }
    }
}
