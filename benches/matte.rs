// SPDX-License-Identifier: MPL-2.0

//! Time to write a matte into an 8-bit plane, by post-processing step; and time of `foreground=estimate` and
//! `background=blur` after that.
//!
//! Run with `cargo bench --bench matte`. Prints the minimum of many runs, as other programs may use the machine.

use std::time::Instant;

use gstfastganseg::image::{Picture, PlaneMut, SamplesMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::matte::{
    BackgroundBlur, Edges, ForegroundEstimator, Guide, MaskView, MatteSettings, PostProcessor, subsample,
};
use gstfastganseg::tracker::{Options, Tracker};

const SIZES: [(&str, usize, usize); 3] = [("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)];
const RUNS: usize = 40;

fn main() {
    let matte = matte();
    let bilinear = MatteSettings { edges: Edges::Bilinear, ..MatteSettings::default() };
    let cases = [
        ("bilinear", bilinear),
        ("refine", MatteSettings { edges: Edges::Refine, ..bilinear }),
        ("expand 2.5", MatteSettings { expand: 2.5, ..bilinear }),
        ("expand -5", MatteSettings { expand: -5.0, ..bilinear }),
        ("expand 30", MatteSettings { expand: 30.0, ..bilinear }),
        ("feather 5", MatteSettings { feather: 5.0, ..bilinear }),
        ("feather 30", MatteSettings { feather: 30.0, ..bilinear }),
        ("all of them", MatteSettings { edges: Edges::Refine, expand: 2.5, feather: 5.0, ..bilinear }),
    ];
    println!("minimum ms of {RUNS} runs, one thread; every line includes enlargement");
    for (size, width, height) in SIZES {
        let lumas = [luma(width, height, 0), luma(width, height, 1)];
        let mut data = vec![0; width * height];
        for (name, settings) in cases {
            let mut post_processor = PostProcessor::default();
            let mut min_ms = f64::MAX;
            for run in 0..RUNS {
                let guide = Guide::bytes(&lumas[run % 2], (width, height), width, 1);
                let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
                let begin = Instant::now();
                post_processor
                    .write_alpha(&settings, Some(&matte), guide.as_ref(), &mut plane)
                    .expect("a plane");
                min_ms = min_ms.min(1e3 * begin.elapsed().as_secs_f64());
            }
            println!("{size:>6} {name:<12} {min_ms:>7.2}");
        }
        let mut plane = PlaneMut { data: &mut data, width, height, stride: width };
        let mut post_processor = PostProcessor::default();
        post_processor.write_alpha(&bilinear, Some(&matte), None, &mut plane).expect("a plane");
        let alpha = MaskView { values: &data, width, height };
        for (format, step, subsampling) in [("I420", 1, 1), ("RGBx", 4, 0)] {
            let [estimate_ms, blur_ms] = colours(alpha, &lumas[0], step, subsampling);
            println!("{size:>6} foreground=estimate, {format} {estimate_ms:>7.2}");
            println!("{size:>6} background=blur, {format} {blur_ms:>7.2}");
        }
    }
}

/// Minimum ms of the estimate of three components, and of the blur with its blending. The last two components have half
/// the size if `subsampling` is 1; all have `step` bytes from sample to sample.
fn colours(alpha: MaskView, luma: &[u8], step: usize, subsampling: u32) -> [f64; 2] {
    let MaskView { width, height, .. } = alpha;
    let (mut estimator, mut blur) = (ForegroundEstimator::default(), BackgroundBlur::default());
    let mut reduced = Vec::new();
    let mut min_ms = [f64::MAX; 2];
    for _ in 0..RUNS {
        let mut times_ms = [0.0; 2];
        for component in 0..3 {
            let begin = Instant::now();
            let alpha = match component {
                1.. if subsampling > 0 => subsample(alpha, (subsampling, subsampling), &mut reduced),
                _ => alpha,
            };
            // Both need it, in turn or together.
            let subsample_ms = 1e3 * begin.elapsed().as_secs_f64();
            let mut data: Vec<u8> =
                luma.iter().cycle().take(step * alpha.width * alpha.height).copied().collect();
            let stride = step * alpha.width;
            let mut samples =
                SamplesMut { data: &mut data, width: alpha.width, height: alpha.height, stride, step };
            let begin = Instant::now();
            estimator.estimate(&mut samples, alpha).expect("samples");
            times_ms[0] += subsample_ms + 1e3 * begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            // The default of the element.
            let sigma = width.min(height) as f64 / 40.0 * alpha.width as f64 / width as f64;
            let under = blur.blur(&samples, alpha, (sigma, sigma)).expect("samples");
            samples.lay_over(alpha.values, |y| &under.data[y * under.stride..]).expect("samples");
            times_ms[1] += subsample_ms + 1e3 * begin.elapsed().as_secs_f64();
        }
        min_ms.iter_mut().zip(times_ms).for_each(|(min, time)| *min = min.min(time));
    }
    min_ms
}

/// Matte of the network for a bright disk on a dark background.
fn matte() -> Matte {
    let mut tracker = Tracker::new(&Options::default()).expect("a tracker");
    let (width, height) = tracker.network_size();
    let inside: Vec<bool> = (0..width * height).map(|i| is_inside(i, width, height)).collect();
    let colour = |&inside: &bool| if inside { [210, 110, 30] } else { [30, 60, 140] };
    let pixels: Vec<u8> = inside.iter().flat_map(colour).collect();
    let mask = inside.iter().map(|&inside| if inside { 255 } else { 0 }).collect();
    let mask = ReferenceMask::from_soft(width, height, mask).expect("a mask");
    let picture = Picture { data: &pixels, width, height, stride: 3 * width };
    tracker.set_reference(&mut { picture }, &mask).expect("a reference");
    tracker.step(&mut { picture }).expect("a step")
}

fn is_inside(index: usize, width: usize, height: usize) -> bool {
    let (x, y) = ((index % width) as f64 - width as f64 / 2.0, (index / width) as f64 - height as f64 / 2.0);
    x.hypot(y) < height as f64 * 0.3
}

/// Luma of the textured disk. The texture depends slightly on `phase`.
fn luma(width: usize, height: usize, phase: usize) -> Vec<u8> {
    let texture = |i: usize| (i % width / 3 * 7 + i / width / 3 * 13) as u8 % 40 + (phase * (i % 3)) as u8;
    let level = |i: usize| if is_inside(i, width, height) { 150 } else { 40 };
    (0..width * height).map(|i| level(i) + texture(i)).collect()
}
