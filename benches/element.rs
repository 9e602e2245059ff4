//! Time of one frame in the element, buffer in to buffer out, beside that of the network alone.
//!
//! `cargo bench --bench element`, or `-- lite` for one of the two networks. I420 in, A420 out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::model::{Config, Lite, Resnet50, weights};
use gstfastganseg::tracker::{Options, Picture, Tracker};
use gstreamer_check::Harness;
use tch::{Device, Kind, nn};

const SIZES: [(&str, usize, usize); 3] = [("480p", 854, 480), ("720p", 1280, 720), ("1080p", 1920, 1080)];

fn main() {
    gstreamer::init().expect("GStreamer");
    gstfastganseg::fastganseg::register_static().expect("the plugin");
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    println!("median ms a frame: the network alone, the element, what the element adds");
    println!("{:<24} {:>6} {:>9} {:>9} {:>9}", "", "", "network", "element", "adds");
    for (name, config, frames) in [("lite", Config::lite(), 100), ("resnet50", Config::resnet50(), 12)] {
        if !chosen.is_empty() && !chosen.iter().any(|item| item == name) {
            continue;
        }
        let model = random_weights(folder.path(), name, &config);
        let options =
            Options { model: Some(model.clone()), device: DeviceChoice::Auto, precision: Precision::Auto };
        let mut tracker = Tracker::new(&options).expect("a tracker");
        let label = format!("{name} {} {}", tracker.active_precision(), tracker.active_device());
        let network = network_time(&mut tracker, frames);
        drop(tracker);
        for (size, width, height) in SIZES {
            let element = element_time(folder.path(), &model, width, height, frames);
            println!("{label:<24} {size:>6} {network:>9.2} {element:>9.2} {:>9.2}", element - network);
        }
    }
}

/// What a network computes does not depend on how well it is trained.
fn random_weights(folder: &Path, name: &str, config: &Config) -> PathBuf {
    let path = folder.join(name).with_extension("safetensors");
    let store = nn::VarStore::new(Device::Cpu);
    match name {
        "lite" => drop(Lite::new(&store.root(), config).expect("lite")),
        _ => drop(Resnet50::new(&store.root(), config).expect("resnet50")),
    }
    weights::save(&path, &store, config, &BTreeMap::new(), Kind::Half).expect("weights");
    path
}

/// A disk in the middle.
fn mask(width: usize, height: usize) -> Vec<u8> {
    let (x, y, r) = (width as f64 / 2.0, height as f64 / 2.0, height as f64 / 4.0);
    let inside = |i: usize| ((i % width) as f64 - x).hypot((i / width) as f64 - y) < r;
    (0..width * height).map(|i| if inside(i) { 255 } else { 0 }).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn network_time(tracker: &mut Tracker, frames: usize) -> f64 {
    let (width, height) = tracker.network_size();
    let pixels = noise(3 * width * height, 1);
    let picture = Picture { data: &pixels, width, height, stride: 3 * width };
    let mask = ReferenceMask::from_soft(width, height, mask(width, height)).expect("a mask");
    tracker.set_reference(&picture, &mask).expect("a reference");
    let mut step = || {
        let begin = Instant::now();
        tracker.step(&picture).expect("a step");
        1e3 * begin.elapsed().as_secs_f64()
    };
    for _ in 0..frames / 10 + 2 {
        step();
    }
    median((0..frames).map(|_| step()).collect())
}

fn element_time(folder: &Path, model: &Path, width: usize, height: usize, frames: usize) -> f64 {
    let reference = folder.join("mask.png");
    image::save_buffer(&reference, &mask(width, height), width as u32, height as u32, image::ColorType::L8)
        .expect("a mask file");
    let element = gstreamer::ElementFactory::make("fastganseg")
        .property("ref-mask", reference.to_str().expect("a path"))
        .property("model-file", model.to_str().expect("a path"))
        .build()
        .expect("the element");
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness
        .set_src_caps_str(&format!("video/x-raw,format=I420,width={width},height={height},framerate=30/1"));
    harness.set_sink_caps_str("video/x-raw,format=A420");
    harness.play();
    let info =
        gstreamer_video::VideoInfo::builder(gstreamer_video::VideoFormat::I420, width as u32, height as u32)
            .build()
            .expect("video info");
    let template = gstreamer::Buffer::from_slice(noise(info.size(), 2));
    let mut index = 0u64;
    let mut step = || {
        let mut buffer = template.copy();
        buffer.make_mut().set_pts(gstreamer::ClockTime::from_mseconds(33 * index));
        index += 1;
        let begin = Instant::now();
        harness.push(buffer).expect("a buffer goes in");
        harness.pull().expect("a buffer comes out");
        1e3 * begin.elapsed().as_secs_f64()
    };
    for _ in 0..frames / 10 + 2 {
        step();
    }
    median((0..frames).map(|_| step()).collect())
}
