// SPDX-License-Identifier: MPL-2.0

//! Clips per second of processor time on one thread, of 192x336 (height x width) with K = 3, as for the built-in
//! model.
//!
//! `cargo bench --bench clips` uses generated images; `-- FILE.toml` uses the section `[data]` of a configuration.

#[path = "../tests/util/mod.rs"]
mod util;

use std::path::{Path, PathBuf};

use cpu_time::ThreadTime;
use fastganseg_training::LabelMap;
use fastganseg_training::clips::{Data, Mix};
use image::{Rgb, RgbImage, imageops};

const BATCHES: u64 = 25;
const COMMON: &str = "window = 3\nbatch = 4\nsize = [192, 336]\n";
const ALL_EFFECTS: &str = "[synthetic]\nthin_plate = 1.0\nmotion_blur = 1.0\nlighting = 1.0\nshadow = 1.0\n";

fn main() {
    tch::set_num_threads(1);
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("the configuration");
        let config: toml::Table = text.parse().expect("TOML");
        time(file, config["data"].clone().try_into().expect("a section [data]"));
    }
    if !files.is_empty() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (small, large) = (video(folder.path(), 640, 360), video(folder.path(), 1280, 720));
    let stills = stills(folder.path());
    let source = |kind: &str, path: &Path, more: &str| {
        format!("{COMMON}cache = 0\n[sources.a]\nkind = {kind:?}\npath = {path:?}\n{more}\n")
    };
    let parsed = |text: String| toml::from_str::<Data>(&text).expect("a configuration");
    let preloaded = source("video", &small, "preload = true\nsize = [288, 512]");
    time("video of 288x512 in memory", parsed(preloaded));
    time("video of 640x360, decoded", parsed(source("video", &small, "size = [288, 512]")));
    time("video of 1280x720, decoded", parsed(source("video", &large, "size = [288, 512]")));
    time("stills", parsed(source("stills", &stills, "")));
    time("stills with splines, blur and light", parsed(source("stills", &stills, ALL_EFFECTS)));
}

fn time(name: &str, data: Data) {
    let mix = Mix::open(&data, 1, true).expect("clips");
    mix.batch(0).expect("a batch");
    // Processor time, since other programs may use the machine.
    let start = ThreadTime::now();
    for step in 1..=BATCHES {
        mix.batch(step).expect("a batch");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {:.1} clips/s", (BATCHES * data.batch as u64) as f64 / seconds);
}

/// A textured image with a disk as the object, and its labels.
fn draw(width: u32, height: u32, frame: u32) -> (RgbImage, LabelMap) {
    let (x, y, radius) = (width / 3 + frame * width / 60, height / 2, height / 4);
    let inside = |u: u32, v: u32| u.abs_diff(x).pow(2) + v.abs_diff(y).pow(2) < radius.pow(2);
    let noise = |u: u32, v: u32| (u.wrapping_mul(2_654_435_761) ^ v.wrapping_mul(40_503) ^ (u * v)) >> 3;
    let picture = RgbImage::from_fn(width, height, |u, v| {
        let base = if inside(u, v) { 150 } else { 60 };
        Rgb([base + (noise(u, v) % 90) as u8, (u * 255 / width) as u8, (v * 255 / height) as u8])
    });
    let picture = imageops::blur(&picture, 1.5);
    let ids = (0..height).flat_map(|v| (0..width).map(move |u| u8::from(inside(u, v)))).collect();
    (picture, LabelMap::new(width as usize, height as usize, ids).expect("labels"))
}

fn video(folder: &Path, width: u32, height: u32) -> PathBuf {
    let root = folder.join(format!("video{width}"));
    util::sequence(&root, "s", 20, |frame| draw(width, height, frame as u32));
    root
}

fn stills(folder: &Path) -> PathBuf {
    let root = folder.join("stills");
    for still in 0..8 {
        let path = |folder: &str, extension: &str| root.join(folder).join(format!("p{still}.{extension}"));
        let (picture, map) = draw(500, 400, still);
        util::write(&path("JPEGImages", "jpg"), &path("Annotations", "png"), &picture, &map);
    }
    root
}
