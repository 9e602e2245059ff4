// SPDX-License-Identifier: MPL-2.0

//! Input size of the network.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check::Harness;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::model::{SIZE, small};
use crate::util::*;

const WIDTH: usize = 192;
const HEIGHT: usize = 128;

fn in_disc(x: usize, y: usize, number: u64) -> bool {
    let (cx, cy) = (60.0 + 40.0 * (number as f64 / 15.0).sin(), 64.0);
    (x as f64 - cx).hypot(y as f64 - cy) < 24.0
}

/// A bright disc that moves over a dark pattern.
fn scene(info: &VideoInfo, number: u64) -> gst::Buffer {
    let mut bytes = vec![128; info.size()];
    for (i, luma) in bytes[..WIDTH * HEIGHT].iter_mut().enumerate() {
        let (x, y) = (i % WIDTH, i / WIDTH);
        *luma = if in_disc(x, y, number) { 210 } else { (40 + (x / 9 + y / 7) % 3 * 15) as u8 };
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let frame = gst::ClockTime::SECOND * info.fps().denom() as u64 / info.fps().numer() as u64;
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(frame * number);
    writable.set_duration(frame);
    buffer
}

fn info_at(rate: i32) -> VideoInfo {
    init();
    VideoInfo::builder(VideoFormat::I420, WIDTH as u32, HEIGHT as u32)
        .fps(gst::Fraction::new(rate, 1))
        .build()
        .unwrap()
}

fn disc_element(files: &Files, quality: &str) -> gst::Element {
    let mask = files.mask("mask.png", (WIDTH, HEIGHT), |x, y| u8::from(in_disc(x, y, 0)) * 255);
    let element = with_mask(&mask);
    element.set_property("model-file", small());
    element.set_property_from_str("quality", quality);
    element.set_property_from_str("output", "mask");
    element
}

fn network_size(element: &gst::Element) -> (u32, u32) {
    let stats: gst::Structure = element.property("stats");
    (stats.get("network-width").unwrap(), stats.get("network-height").unwrap())
}

/// Intersection over union of the mask of a frame with the disc.
fn overlap(mask: &gst::BufferRef, number: u64) -> f64 {
    let map = mask.map_readable().unwrap();
    let (mut both, mut either) = (0.0, 0.0);
    for (i, value) in map.iter().enumerate().take(WIDTH * HEIGHT) {
        let (found, truth) = (*value > 127, in_disc(i % WIDTH, i / WIDTH, number));
        both += f64::from(u8::from(found && truth));
        either += f64::from(u8::from(found || truth));
    }
    both / either
}

/// Pushes frames and returns the lowest overlap of their masks.
fn push(harness: &mut Harness, info: &VideoInfo, numbers: std::ops::Range<u64>) -> f64 {
    numbers
        .map(|number| overlap(&harness.push_and_pull(scene(info, number)).unwrap(), number))
        .fold(1.0, f64::min)
}

fn changes(bus: &gst::Bus) -> Vec<String> {
    std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Element]))
        .filter_map(|message| message.structure().map(ToOwned::to_owned))
        .filter(|structure| structure.name() == "fastganseg-quality")
        .map(|structure| structure.get("quality").unwrap())
        .collect()
}

#[test]
fn each_quality_tracks_at_its_size() {
    let files = Files::new();
    for (quality, size) in
        [("fast", (80, 64)), ("balanced", (96, 64)), ("fine", (128, 80)), ("finest", (192, 128))]
    {
        let element = disc_element(&files, quality);
        let info = info_at(30);
        let mut harness = harness(&element, &info.to_caps().unwrap());
        let worst = push(&mut harness, &info, 0..12);
        assert!(worst > 0.85, "{quality}: {worst}");
        assert_eq!(network_size(&element), size, "{quality}");
    }
    assert_eq!(SIZE, (96, 64), "the model's own size");
}

#[test]
fn network_width_and_height_win_over_the_quality() {
    let files = Files::new();
    for quality in ["finest", "auto"] {
        let element = disc_element(&files, quality);
        element.set_property("network-width", 112u32);
        element.set_property("network-height", 64u32);
        let info = info_at(30);
        let mut harness = harness(&element, &info.to_caps().unwrap());
        push(&mut harness, &info, 0..2);
        assert_eq!(network_size(&element), (112, 64), "{quality}");
    }
}

#[test]
fn auto_raises_the_size_while_a_live_source_leaves_time_and_keeps_the_track() {
    for frame_threading in [false, true] {
        let files = Files::new();
        let element = disc_element(&files, "auto");
        element.set_property("frame-threading", frame_threading);
        let bus = bus(&element);
        // A frame lasts a second.
        let info = info_at(1);
        let mut harness = harness(&element, &info.to_caps().unwrap());
        let mut worst = 1.0f64;
        for number in 0..80 {
            harness.push(scene(&info, number)).unwrap();
            while let Some(mask) = harness.try_pull() {
                let number = mask.pts().unwrap().seconds();
                worst = worst.min(overlap(&mask, number));
            }
        }
        assert!(worst > 0.85, "{worst}");
        assert_eq!(changes(&bus), ["fine"]);
        assert_eq!(network_size(&element), (128, 80));
        assert_eq!(count(&element, "frames"), 80 - u64::from(frame_threading), "no frame is lost");
    }
}

#[test]
fn auto_reduces_the_size_when_frames_are_late() {
    let files = Files::new();
    let element = disc_element(&files, "auto");
    let bus = bus(&element);
    let info = info_at(1);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    push(&mut harness, &info, 0..10);
    let late = gst::ClockTime::from_seconds(2).nseconds() as i64;
    for number in 10..20 {
        let time = gst::ClockTime::from_seconds(number);
        harness.push_upstream_event(gst::event::Qos::new(gst::QOSType::Underflow, 1.5, late, time));
        push(&mut harness, &info, number..number + 1);
    }
    assert_eq!(changes(&bus), ["fast"]);
}

#[test]
fn auto_is_fine_without_a_live_source() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48 ! \
         fastganseg name=f device=cpu quality=auto model-file={} ref-mask={} ! fakesink",
        small(),
        mask.display()
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(pipeline.ends());
    assert_eq!(network_size(&pipeline.by_name("f").unwrap()), (128, 80));
}
