// SPDX-License-Identifier: MPL-2.0

//! Time of one frame on one thread in the element, from input buffer to output buffer, and in the network alone, and the
//! interval between frames of a pipeline with default settings.
//!
//! Run with `cargo bench --bench element`, or `-- lite` for one of the two networks. I420 in, A420 out. Results are
//! appended to the file named by `BENCH_HISTORY` (an absolute path), for instance `benches/history.csv`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gstfastganseg::image::Picture;
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::torch::model::{Config, Resnet50, weights};
use gstfastganseg::tracker::{Options, Tracker};
use gstreamer::prelude::*;
use gstreamer_check::Harness;
use tch::{Device, Kind, nn};

const SIZES: [(&str, usize, usize); 4] =
    [("480p", 854, 480), ("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)];

fn main() {
    gstreamer::init().expect("GStreamer");
    gstfastganseg::element::register_static().expect("the plugin");
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    println!(
        "median ms per frame: the network alone, the element, their difference, a pipeline with a queue"
    );
    println!("{:<24} {:>6} {:>9} {:>9} {:>9} {:>9}", "", "", "network", "element", "overhead", "pipeline");
    for (name, config, frames) in [("lite", Config::lite(), 100), ("resnet50", Config::resnet50(), 12)] {
        if !chosen.is_empty() && !chosen.iter().any(|item| item == name) {
            continue;
        }
        let model = weights_of(folder.path(), name, &config);
        let options = Options { model: model.clone(), ..Options::default() };
        let mut tracker = Tracker::new(&options).expect("a tracker");
        let label = format!("{name} {} {}", tracker.active_precision(), tracker.active_device());
        tracker.set_threads(1);
        let mut network = network(&mut tracker);
        for (size, width, height) in SIZES {
            let mut element = element(folder.path(), model.as_deref(), width, height);
            for _ in 0..frames / 10 + 2 {
                network();
                element();
            }
            // In turn, so that both have the same conditions.
            let times: Vec<(f64, f64)> = (0..frames).map(|_| (network(), element())).collect();
            let network_ms = median(times.iter().map(|pair| pair.0).collect());
            let element_ms = median(times.iter().map(|pair| pair.1).collect());
            let overhead_ms = median(times.iter().map(|pair| pair.1 - pair.0).collect());
            let pipeline_ms = pipeline(folder.path(), model.as_deref(), width, height, frames);
            println!(
                "{label:<24} {size:>6} {network_ms:>9.2} {element_ms:>9.2} {overhead_ms:>9.2} {pipeline_ms:>9.2}"
            );
            record(&format!(
                "{label},{size},{network_ms:.2},{element_ms:.2},{overhead_ms:.2},{pipeline_ms:.2}"
            ));
        }
    }
}

/// Appends date, commit and results to the file named by `BENCH_HISTORY`, if it is set.
fn record(line: &str) {
    let Some(path) = std::env::var_os("BENCH_HISTORY") else { return };
    let ask = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("date and git");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (date, commit) = (ask("date", &["-I"]), ask("git", &["rev-parse", "--short", "HEAD"]));
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("the history");
    writeln!(file, "{date},{commit},{line}").expect("the history");
}

/// Weights to measure with. lite uses its built-in weights (`None`): its memory bank fills only if it detects the
/// object. The time of resnet50 does not depend on its weights.
fn weights_of(folder: &Path, name: &str, config: &Config) -> Option<PathBuf> {
    if name == "lite" {
        return None;
    }
    let path = folder.join(name).with_extension("safetensors");
    let store = nn::VarStore::new(Device::Cpu);
    Resnet50::new(&store.root(), config).expect("resnet50");
    weights::save(&path, &store, config, &BTreeMap::new(), Kind::Half).expect("weights");
    Some(path)
}

/// Mask of a disk in the middle.
fn mask(width: usize, height: usize) -> Vec<u8> {
    let (x, y, r) = (width as f64 / 2.0, height as f64 / 2.0, height as f64 / 4.0);
    let inside = |i: usize| ((i % width) as f64 - x).hypot((i / width) as f64 - y) < r;
    (0..width * height).map(|i| if inside(i) { 255 } else { 0 }).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One plane of a textured disk on a textured background, with their values.
fn plane(width: usize, height: usize, (object, ground): (u8, u8)) -> Vec<u8> {
    let texture = |i: usize| (i % width / 3 * 7 + i / width / 3 * 13) as u8 % 40;
    mask(width, height)
        .iter()
        .enumerate()
        .map(|(i, &inside)| if inside == 255 { object } else { ground } + texture(i))
        .collect()
}

const ORANGE: [u8; 3] = [210, 110, 30];
const BLUE: [u8; 3] = [30, 60, 140];

fn rgb(width: usize, height: usize) -> Vec<u8> {
    let planes: Vec<Vec<u8>> =
        ORANGE.into_iter().zip(BLUE).map(|colours| plane(width, height, colours)).collect();
    (0..3 * width * height).map(|i| planes[i % 3][i / 3]).collect()
}

fn i420(info: &gstreamer_video::VideoInfo) -> Vec<u8> {
    let (width, height) = (info.width() as usize, info.height() as usize);
    let mut data = vec![0; info.size()];
    let sizes =
        [(width, height, (130, 60)), (width / 2, height / 2, (70, 150)), (width / 2, height / 2, (170, 90))];
    for (index, (width, height, colours)) in sizes.into_iter().enumerate() {
        let stride = info.stride()[index] as usize;
        let rows = data[info.offset()[index]..].chunks_mut(stride);
        for (row, values) in rows.zip(plane(width, height, colours).chunks(width)) {
            row[..width].copy_from_slice(values);
        }
    }
    data
}

/// Returns a function that runs one frame at the network size and returns its time in ms.
fn network(tracker: &mut Tracker) -> impl FnMut() -> f64 {
    let (width, height) = tracker.network_size();
    let pixels = rgb(width, height);
    let mask = ReferenceMask::from_soft(width, height, mask(width, height)).expect("a mask");
    let picture = Picture { data: &pixels, width, height, stride: 3 * width };
    tracker.set_reference(&mut { picture }, &mask).expect("a reference");
    move || {
        let picture = Picture { data: &pixels, width, height, stride: 3 * width };
        let begin = Instant::now();
        tracker.step(&mut { picture }).expect("a step");
        1e3 * begin.elapsed().as_secs_f64()
    }
}

/// Median time in ms between output frames of a pipeline that is not synchronised to a clock.
fn pipeline(folder: &Path, model: Option<&Path>, width: usize, height: usize, frames: usize) -> f64 {
    let scene = folder.join("scene.png");
    image::save_buffer(&scene, &rgb(width, height), width as u32, height as u32, image::ColorType::Rgb8)
        .expect("a picture");
    let model = model.map_or(String::new(), |path| format!("model-file={path:?}"));
    let description = format!(
        "filesrc location={scene:?} ! pngdec ! imagefreeze num-buffers={frames} ! videoconvert
         ! video/x-raw,format=I420 ! queue ! fastganseg ref-mask={:?} {model} ! fakesink name=sink",
        folder.join("mask.png")
    );
    let pipeline = gstreamer::parse::launch(&description).expect("a pipeline");
    let pipeline = pipeline.downcast::<gstreamer::Pipeline>().expect("a pipeline");
    let sink = pipeline.by_name("sink").expect("the sink");
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&arrivals);
    sink.static_pad("sink").expect("its pad").add_probe(gstreamer::PadProbeType::BUFFER, move |_, _| {
        times.lock().expect("the times").push(Instant::now());
        gstreamer::PadProbeReturn::Ok
    });
    pipeline.set_state(gstreamer::State::Playing).expect("it plays");
    let end = [gstreamer::MessageType::Eos, gstreamer::MessageType::Error];
    let message = pipeline.bus().expect("a bus").timed_pop_filtered(None, &end).expect("an end");
    assert_eq!(message.type_(), gstreamer::MessageType::Eos, "{message:?}");
    pipeline.set_state(gstreamer::State::Null).expect("it stops");
    let arrivals = arrivals.lock().expect("the times");
    median(arrivals.windows(2).map(|pair| 1e3 * (pair[1] - pair[0]).as_secs_f64()).collect())
}

/// Returns a function that sends one frame through the element and returns its time in ms.
fn element(folder: &Path, model: Option<&Path>, width: usize, height: usize) -> impl FnMut() -> f64 {
    let reference = folder.join("mask.png");
    image::save_buffer(&reference, &mask(width, height), width as u32, height as u32, image::ColorType::L8)
        .expect("a mask file");
    let element = gstreamer::ElementFactory::make("fastganseg")
        .property("ref-mask", reference.to_str().expect("a path"))
        .property("threads", 1u32)
        .build()
        .expect("the element");
    if let Some(model) = model {
        element.set_property("model-file", model.to_str().expect("a path"));
    }
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness
        .set_src_caps_str(&format!("video/x-raw,format=I420,width={width},height={height},framerate=30/1"));
    harness.set_sink_caps_str("video/x-raw,format=A420");
    harness.play();
    let info =
        gstreamer_video::VideoInfo::builder(gstreamer_video::VideoFormat::I420, width as u32, height as u32)
            .build()
            .expect("video info");
    let template = gstreamer::Buffer::from_slice(i420(&info));
    let mut index = 0u64;
    move || {
        let mut buffer = template.copy();
        buffer.make_mut().set_pts(gstreamer::ClockTime::from_mseconds(33 * index));
        index += 1;
        let begin = Instant::now();
        harness.push(buffer).expect("a buffer goes in");
        harness.pull().expect("a buffer comes out");
        1e3 * begin.elapsed().as_secs_f64()
    }
}
