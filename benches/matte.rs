//! Time of a matte's way into an 8-bit plane.
//!
//! `cargo bench --bench matte`. The least of many runs, since other programs may use the machine as well.

use std::time::Instant;

use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::tracker::{Matte, PlaneMut};

const SIZES: [(&str, usize, usize); 3] = [("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)];

fn main() {
    let (width, height) = (336, 192);
    let values: Vec<u8> = (0..width * height)
        .map(|i| {
            let (x, y) = ((i % width) as f64 / width as f64 - 0.5, (i / width) as f64 / height as f64 - 0.5);
            let edge = 0.3 + 0.03 * (9.0 * y.atan2(x)).sin();
            (128.0 + (edge - x.hypot(y)) * 255.0 * 60.0).clamp(0.0, 255.0) as u8
        })
        .collect();
    let mask = ReferenceMask::from_soft(width, height, values).unwrap();
    let matte = Matte::from_mask(&mask).unwrap();
    for (name, width, height) in SIZES {
        let mut data = vec![0; width * height];
        let mut best = f64::MAX;
        for _ in 0..200 {
            let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
            let begin = Instant::now();
            matte.write_alpha(None, &mut plane).unwrap();
            best = best.min(1e3 * begin.elapsed().as_secs_f64());
        }
        println!("{name:>6} {best:.3}");
    }
}
