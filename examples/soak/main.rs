// SPDX-License-Identifier: MPL-2.0

//! Runs a pipeline for a long time and records its memory.
//!
//! ```sh
//! cargo run --release --example soak -- FRAMES OUT.csv OUT.png
//! ```
//!
//! The network is the smallest possible, so that the rest of the element dominates: queues, threads and buffer pools.
//! The mask changes every 5,000 frames.

mod chart;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use gst::prelude::*;
use gstfastganseg::torch::model::{Config, Lite, weights};
use gstreamer as gst;
use tch::{Device, Kind, nn};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Frames between two memory samples.
const EVERY: u64 = 100;
/// Frames between two mask changes.
const SWAP: u64 = 5_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [frames, csv, png] = arguments.as_slice() else {
        return Err("usage: soak FRAMES OUT.csv OUT.png".into());
    };
    gst::init()?;
    gstfastganseg::element::register_static()?;
    let samples = soak(frames.parse()?)?;

    let mut file = std::fs::File::create(csv)?;
    writeln!(file, "frame,resident_kib")?;
    for (frame, kib) in &samples {
        writeln!(file, "{frame},{kib}")?;
    }
    let change = change_percent(&samples).ok_or("too few frames for a result")?;
    chart::draw(&samples, Path::new(png))?;
    println!(
        "{} frames: {} KiB at the end; memory changed by {change:+.2} % from the second quarter to the last",
        samples.last().map_or(0, |sample| sample.0),
        samples.last().map_or(0, |sample| sample.1),
    );
    Ok(())
}

/// Plays `frames` frames. Returns samples of (frame, resident KiB).
fn soak(frames: u64) -> Result<Vec<(u64, u64)>> {
    let folder = std::env::temp_dir().join(format!("fastganseg-soak-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (model, masks) = (model(&folder)?, [mask(&folder, 40)?, mask(&folder, 80)?]);
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,width=128,height=96 ! \
         queue ! fastganseg name=cut device=cpu model-file={} ref-mask={} ! queue ! fakesink name=sink sync=false",
        model.display(),
        masks[0].display()
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "no pipeline")?;
    let cut = pipeline.by_name("cut").ok_or("no element")?;
    let sink = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink")).ok_or("no sink")?;
    let (send, sampled) = channel();
    let count = std::sync::atomic::AtomicU64::new(0);
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let frame = 1 + count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if frame.is_multiple_of(EVERY)
            && let Some(kib) = resident()
        {
            let _ = send.send((frame, kib));
        }
        if frame.is_multiple_of(SWAP) {
            cut.set_property("ref-mask", masks[(frame / SWAP % 2) as usize].to_str());
        }
        gst::PadProbeReturn::Ok
    });

    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    let ended = bus
        .iter_timed_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error])
        .next();
    pipeline.set_state(gst::State::Null)?;
    std::fs::remove_dir_all(&folder)?;
    match ended.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(sampled.try_iter().collect()),
        Some(gst::MessageView::Error(error)) => {
            Err(format!("the pipeline stopped: {}", error.error()).into())
        }
        _ => Err("the pipeline has not ended".into()),
    }
}

fn model(folder: &Path) -> Result<PathBuf> {
    let config = Config { width: 0.0625, network_size: [64, 96], ..Config::lite() };
    let store = nn::VarStore::new(Device::Cpu);
    Lite::new(&store.root(), &config)?;
    let path = folder.join("tiny.safetensors");
    weights::save(&path, &store, &config, &BTreeMap::new(), Kind::Float)?;
    Ok(path)
}

/// Writes a mask with a square of 30 pixels.
fn mask(folder: &Path, left: u32) -> Result<PathBuf> {
    let path = folder.join(format!("{left}.png"));
    let inside = |x: u32, y: u32| (left..left + 30).contains(&x) && (30..60).contains(&y);
    image::GrayImage::from_fn(128, 96, |x, y| image::Luma([if inside(x, y) { 255 } else { 0 }]))
        .save(&path)?;
    Ok(path)
}

/// Resident memory in KiB; `None` without /proc.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Change in percent from the median of the second quarter to that of the last. The first quarter is warm-up.
fn change_percent(samples: &[(u64, u64)]) -> Option<f64> {
    let quarter = samples.len() / 4;
    let median = |part: &[(u64, u64)]| {
        let mut part: Vec<u64> = part.iter().map(|sample| sample.1).collect();
        part.sort_unstable();
        part.get(part.len() / 2).copied().map(|kib| kib as f64)
    };
    let before = median(samples.get(quarter..2 * quarter)?)?;
    let after = median(samples.get(3 * quarter..)?)?;
    Some(100.0 * (after - before) / before)
}
