// SPDX-License-Identifier: MPL-2.0

//! Checks that pixels, alpha and timestamp of a buffer belong to the same frame.
//!
//! Each frame has its number drawn into it and a timestamp that identifies the number. The expected alpha is that of
//! a separate tracker, which processes the same frames one by one.

use std::path::Path;

use gst::prelude::*;
use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::image::{Picture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::tracker::{Options, Roi, Tracker};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};

use crate::util::*;
use crate::{model, watchdog};

const FRAMES: u64 = 60;
/// Side of the squares in the first rows that encode the bits of the frame number, in pixels.
const BIT: usize = 6;
const BITS: usize = 16;
const WIDTH: usize = model::SIZE.0;
const HEIGHT: usize = model::SIZE.1;

/// Settings of a pipeline under test.
#[derive(Default)]
struct Case<'a> {
    format: Option<VideoFormat>,
    properties: &'a [(&'a str, &'a str)],
    /// Elements before and after `fastganseg`.
    around: (&'a str, &'a str),
    /// Whether QoS reports every tenth frame as late.
    late: bool,
    /// Whether frames may carry the mask of an earlier frame.
    holds: bool,
}

/// Whether a pixel belongs to the disc.
fn inside(number: u64, x: usize, y: usize) -> bool {
    let (dx, dy) = (x as i64 - 20 - number as i64, y as i64 - 36 - (number % 7) as i64);
    dx * dx + dy * dy < 144
}

/// A bright disc that moves over a dark, textured background, below the frame number; RGB.
fn pixels(number: u64) -> Vec<u8> {
    (0..WIDTH * HEIGHT)
        .flat_map(|i| {
            let (x, y) = (i % WIDTH, i / WIDTH);
            if y < BIT {
                return [if number >> (x / BIT) & 1 == 1 { 255 } else { 0 }; 3];
            }
            let texture = ((x / 3 * 7 + y / 3 * 13) % 40) as u8;
            if inside(number, x, y) {
                [200 + texture, 110 + texture, 30]
            } else {
                [20, 50 + texture, 80 + texture]
            }
        })
        .collect()
}

/// Reads the frame number from a buffer of any format.
fn number(buffer: &gst::BufferRef, info: &VideoInfo) -> u64 {
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    // The red or luma component.
    let plane = info.comp_plane(0);
    let stride = frame.plane_stride()[plane as usize] as usize;
    let (pixel, offset) = (info.comp_pstride(0) as usize, info.comp_poffset(0) as usize);
    let data = frame.plane_data(plane).unwrap();
    let at = |bit: usize| data[BIT / 2 * stride + (bit * BIT + BIT / 2) * pixel + offset];
    (0..BITS).filter(|&bit| at(bit) > 127).map(|bit| 1 << bit).sum()
}

fn time(number: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(number * 33_333_333 + number * number % 9_973)
}

fn rgb() -> VideoInfo {
    info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32)
}

/// The frame in the format of the stream.
fn buffer(number: u64, info: &VideoInfo) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(pixels(number));
    if info.format() != VideoFormat::Rgb {
        buffer = converted(&buffer, &rgb(), info);
    }
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(time(number));
    writable.set_duration(gst::ClockTime::from_mseconds(33));
    buffer
}

/// RGB pixels of a buffer, as the network gets them.
fn rgb_pixels(buffer: &gst::BufferRef, info: &VideoInfo) -> Vec<u8> {
    converted(buffer, info, &rgb()).map_readable().unwrap().to_vec()
}

fn picture(data: &[u8]) -> Picture<'_> {
    Picture { data, width: WIDTH, height: HEIGHT, stride: 3 * WIDTH }
}

fn alpha_of(matte: &Matte) -> Vec<u8> {
    let mut data = vec![0; WIDTH * HEIGHT];
    let mut plane = PlaneMut { data: &mut data, width: WIDTH, height: HEIGHT, stride: WIDTH };
    matte.write_alpha(None, &mut plane).unwrap();
    data
}

/// Plays the frames through a pipeline and compares every output with the expected one. Returns the number of frames
/// that carried the mask of an earlier frame.
fn check(case: &Case) -> usize {
    let files = Files::new();
    let data: Vec<u8> =
        (0..WIDTH * HEIGHT).map(|i| if inside(0, i % WIDTH, i / WIDTH) { 255 } else { 0 }).collect();
    let (color, depth) = (png::ColorType::Grayscale, png::BitDepth::Eight);
    let path = files.png("mask.png", (WIDTH, HEIGHT), color, depth, &data);

    let (before, after) = case.around;
    let pipeline = Pipeline::new(&format!(
        "appsrc name=in ! {before} fastganseg name=f ! {after} appsink name=out sync=false"
    ));
    let element = pipeline.by_name("f").unwrap();
    element.set_property("ref-mask", path.to_str().unwrap());
    // Fixed settings, so that a mask depends only on the frames before it.
    let always = [
        ("device", "cpu"),
        ("precision", "float32"),
        ("model-file", model::small()),
        ("roi", "off"),
        ("edges", "bilinear"),
    ];
    for (name, value) in always.iter().chain(case.properties) {
        element.set_property_from_str(name, value);
    }
    let info = info(case.format.unwrap_or(VideoFormat::Rgb), WIDTH as u32, HEIGHT as u32);
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    source.set_caps(Some(&info.to_caps().unwrap()));
    source.set_format(gst::Format::Time);
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    if case.late {
        let pad = element.static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, |pad, probe| {
            let (time, duration) = probe.buffer().map(|buffer| (buffer.pts(), buffer.duration())).unwrap();
            let (Some(time), Some(late)) = (time, duration) else { return gst::PadProbeReturn::Ok };
            if time.mseconds() / 33 % 10 == 9 {
                let late = late.nseconds() as i64;
                pad.send_event(gst::event::Qos::new(gst::QOSType::Underflow, 1.5, late, time));
            }
            gst::PadProbeReturn::Ok
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    let pusher = {
        let info = info.clone();
        std::thread::spawn(move || {
            for number in 0..FRAMES {
                source.push_buffer(buffer(number, &info)).unwrap();
            }
            source.end_of_stream().unwrap();
        })
    };

    let mut follower = follower();
    let mask = ReferenceMask::open(&path).unwrap();
    let (mut last, mut held) = (Vec::new(), 0);
    for expected in 0..FRAMES {
        let sample = sink.pull_sample().unwrap_or_else(|_| panic!("frame {expected} is lost"));
        let out_info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let out = sample.buffer_owned().unwrap();
        assert_eq!(number(&out, &out_info), expected, "the pixels belong to another frame");
        assert_eq!(out.pts(), Some(time(expected)), "the timestamp belongs to another frame");
        let found = alpha(&out, &out_info);
        if case.holds && found == last {
            held += 1;
            continue;
        }
        let view = rgb_pixels(&buffer(expected, &info), &info);
        let matte = if expected == 0 {
            follower.set_reference(&mut picture(&view), &mask).unwrap();
            Matte::from_mask(&mask).unwrap()
        } else {
            follower.step(&mut picture(&view)).unwrap()
        };
        let wanted = alpha_of(&matte);
        assert_ne!(wanted, last, "frame {expected} has the mask of the frame before it");
        assert!(found == wanted, "the alpha of frame {expected} belongs to another frame");
        last = wanted;
    }
    assert!(sink.pull_sample().is_err(), "more frames out than in");
    pusher.join().unwrap();
    held
}

fn follower() -> Tracker {
    #[allow(clippy::needless_update, reason = "future options get their defaults, as in the element")]
    let options = Options {
        model: Some(Path::new(model::small()).to_owned()),
        device: DeviceChoice::Cpu,
        precision: Precision::Float32,
        roi: Roi::Off,
        ..Options::default()
    };
    Tracker::new(&options).unwrap()
}

#[test]
fn pixels_alpha_and_time_are_of_one_frame() {
    watchdog::ends(|| {
        assert_eq!(check(&Case::default()), 0);
    });
}

#[test]
fn pixels_alpha_and_time_are_of_one_frame_behind_queues() {
    watchdog::ends(|| {
        let queue = "queue max-size-buffers=5 !";
        for format in [VideoFormat::I420, VideoFormat::Bgrx, VideoFormat::Ayuv] {
            let case = Case { format: Some(format), around: (queue, queue), ..Case::default() };
            assert_eq!(check(&case), 0);
        }
    });
}

/// Held frames carry the mask of the last inference, which is less than an interval old.
#[test]
fn with_an_interval_only_the_mask_is_older() {
    watchdog::ends(|| {
        for interval in [2, 3, 5] {
            let value = interval.to_string();
            let properties = [("inference-interval", value.as_str())];
            let held = check(&Case { properties: &properties, holds: true, ..Case::default() });
            let inferences = FRAMES as usize - held;
            let wanted = (FRAMES as usize).div_ceil(interval);
            // The frame that seeds may be the first of an interval or not.
            assert!(
                (wanted..=wanted + 1).contains(&inferences),
                "{inferences} of {FRAMES} frames, interval {interval}"
            );
        }
    });
}

#[test]
fn when_late_only_the_mask_is_older() {
    watchdog::ends(|| {
        let properties = [("late-policy", "hold")];
        let held = check(&Case { properties: &properties, late: true, holds: true, ..Case::default() });
        println!("{held} of {FRAMES} frames held their mask");
        assert!(held > 0);
    });
}

/// Checks that the tests above would detect a mask that is one frame late.
#[test]
fn consecutive_frames_have_different_masks() {
    let mut tracker = follower();
    let data: Vec<u8> =
        (0..WIDTH * HEIGHT).map(|i| if inside(0, i % WIDTH, i / WIDTH) { 255 } else { 0 }).collect();
    let mask = ReferenceMask::from_soft(WIDTH, HEIGHT, data).unwrap();
    tracker.set_reference(&mut picture(&pixels(0)), &mask).unwrap();
    let alphas: Vec<Vec<u8>> =
        (1..FRAMES).map(|n| alpha_of(&tracker.step(&mut picture(&pixels(n))).unwrap())).collect();
    let differences = alphas.windows(2).map(|pair| {
        let difference = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b));
        pair[0].iter().zip(&pair[1]).map(difference).sum::<f64>() / (WIDTH * HEIGHT) as f64
    });
    let min = differences.fold(f64::INFINITY, f64::min);
    println!("consecutive masks differ by at least {min:.3} levels of 255 per pixel");
    assert!(min > 0.05);
}
