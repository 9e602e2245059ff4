// SPDX-License-Identifier: MPL-2.0

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::util::*;

/// A bright disc on a dark, textured background, at the place of [`disc`].
fn scene(info: &VideoInfo, number: u64) -> gst::Buffer {
    let luma = (0..64 * 48).map(|i| match disc(i % 64, i / 64) {
        0 => 40 + (i % 64 * 3 + i / 64 * 7) as u8 % 40,
        _ => 220,
    });
    let mut bytes: Vec<u8> = luma.collect();
    bytes.resize(info.size(), 128);
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    stamp(&mut buffer, number);
    buffer
}

#[test]
fn the_armed_frame_carries_the_mask_itself() {
    let (_files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 5)), pixels(ramp));
    assert_eq!(next_message(&bus), "armed");
    let message = bus.pop_filtered(&[gst::MessageType::Element]).unwrap();
    let structure = message.structure().unwrap();
    assert_eq!(structure.get::<&str>("state").unwrap(), "seeded");
    let pts = structure.get::<Option<gst::ClockTime>>("pts").unwrap();
    assert_eq!(pts, Some(gst::ClockTime::SECOND * 5 / 30));
    assert_eq!(element.property::<Option<String>>("active-device").as_deref(), Some("cpu"));
}

#[test]
fn a_mask_of_another_size_is_scaled() {
    let files = Files::new();
    let element = with_mask(&files.mask("mask.png", (640, 480), |x, _| if x < 320 { 255 } else { 0 }));
    let (mut harness, info) = mask_output(&element);
    let values = values(&mut harness, frame(&info, 0));
    assert_eq!((values[0], values[30], values[33], values[63]), (255, 255, 0, 0));
}

#[test]
fn later_frames_are_tracked() {
    let (_files, element) = masked(disc);
    let (mut harness, info) = mask_output(&element);
    for number in 0..4 {
        let values = values(&mut harness, scene(&info, number));
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for (value, wanted) in values.iter().zip(pixels(disc)) {
            if wanted > 0 { inside.push(f64::from(*value)) } else { outside.push(f64::from(*value)) }
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!(
            mean(&inside) > mean(&outside) + 60.0,
            "frame {number}: {} inside, {} outside",
            mean(&inside),
            mean(&outside)
        );
    }
}

#[test]
fn with_an_image_the_first_frame_is_tracked() {
    let (files, mask) = mask_file(ramp);
    let rgb: Vec<u8> = (0..64 * 48).flat_map(|i| [i as u8, (i / 7) as u8, 90]).collect();
    let image = files.png("image.png", (64, 48), png::ColorType::Rgb, png::BitDepth::Eight, &rgb);
    let element = with_mask(&mask);
    element.set_property("ref-image", image.to_str().unwrap());
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert_ne!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
}

#[test]
fn without_a_reference_frames_pass_opaque_with_one_warning() {
    let element = element();
    element.set_property("invert", true);
    let bus = bus(&element);
    let (mut harness, info) = small(&element, VideoFormat::I420);
    for number in 0..3 {
        harness.push(frame(&info, number)).unwrap();
        let out = harness.pull().unwrap();
        assert!(plane(&out, &src_info(&harness), 3, 1).iter().all(|&alpha| alpha == 255));
    }
    assert!(next_message(&bus).contains("set ref-mask"));
    assert_no_messages(&bus);
}

#[test]
fn a_mask_set_while_playing_takes_over() {
    let files = Files::new();
    let element = element();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert!(values(&mut harness, frame(&info, 0)).iter().all(|&value| value == 255));
    assert!(next_message(&bus).starts_with("warning"));

    for (number, value) in [(1, ramp as fn(usize, usize) -> u8), (2, disc)] {
        let mask = files.mask("mask.png", (64, 48), value);
        element.set_property("ref-mask", mask.to_str().unwrap());
        assert_eq!(next_message(&bus), "armed");
        assert_eq!(values(&mut harness, frame(&info, number)), pixels(value));
        assert_eq!(next_message(&bus), "seeded");
    }
}

#[test]
fn a_bad_mask_set_while_playing_keeps_the_old_one() {
    let (files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);

    let good = encode((64, 48), png::ColorType::Grayscale, png::BitDepth::Eight, &[200; 64 * 48]);
    for path in [
        files.path("nowhere.png"),
        files.write("text.png", b"text"),
        files.write("truncated.png", &good[..good.len() - 20]),
        files.mask("black.png", (8, 8), |_, _| 0),
    ] {
        element.set_property("ref-mask", path.to_str().unwrap());
        let message = next_message(&bus);
        assert!(message.starts_with("warning") && message.contains(path.to_str().unwrap()), "{message}");
        values(&mut harness, frame(&info, 1));
    }
    assert_no_messages(&bus);
    // A new stream arms the old mask again.
    harness.push_event(gst::event::StreamStart::builder("first").build());
    harness.push_event(gst::event::StreamStart::builder("another").build());
    assert_eq!(values(&mut harness, frame(&info, 2)), pixels(ramp));
}

/// Only the last of all requests reported that it failed.
#[test]
fn a_missing_mask_is_a_warning_also_if_another_one_is_given_at_once() {
    let (_files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    element.set_property("ref-mask", "/nowhere.png");
    assert!(set_reference(&element, &grey(disc), None));
    let text = warning(&bus);
    assert!(text.contains("/nowhere.png"), "{text}");
    assert_eq!(values(&mut harness, frame(&info, 1)), pixels(disc));
}

#[test]
fn mask_and_image_set_in_one_call_belong_together() {
    let files = Files::new();
    let element = element();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    assert!(next_message(&bus).starts_with("warning"));
    let mask = files.mask("mask.png", (64, 48), disc);
    let image = files.png("image.png", (4, 3), png::ColorType::Rgb, png::BitDepth::Eight, &[9; 36]);
    element.set_properties(&[("ref-mask", &mask.to_str().unwrap()), ("ref-image", &image.to_str().unwrap())]);
    assert_eq!(next_message(&bus), "armed");
    assert_no_messages(&bus);
    assert_ne!(values(&mut harness, frame(&info, 1)), pixels(disc));
}

#[test]
fn unsetting_the_mask_makes_frames_opaque() {
    let (_files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    element.set_property("ref-mask", None::<String>);
    for _ in 0..100 {
        if values(&mut harness, frame(&info, 1)).iter().all(|&value| value == 255) {
            assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
            assert!(next_message(&bus).starts_with("warning"));
            return;
        }
    }
    panic!("the mask is still there");
}

#[test]
fn another_stream_arms_again_and_the_same_does_not() {
    let (_files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    harness.push_event(gst::event::StreamStart::builder("one").build());
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    harness.push_event(gst::event::StreamStart::builder("one").build());
    assert_ne!(values(&mut harness, frame(&info, 1)), pixels(ramp));
    while bus.pop().is_some() {}
    harness.push_event(gst::event::StreamStart::builder("two").build());
    assert_eq!(values(&mut harness, frame(&info, 2)), pixels(ramp));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
}

#[test]
fn discont_and_flush_restart_from_the_reference() {
    let (_files, element) = masked(disc);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, scene(&info, 0));
    let first = values(&mut harness, scene(&info, 1));
    for number in 2..6 {
        values(&mut harness, frame(&info, number));
    }
    // Two seconds later.
    let mut buffer = scene(&info, 66);
    buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
    assert_eq!(values(&mut harness, buffer), first, "after DISCONT");

    for number in 67..70 {
        values(&mut harness, frame(&info, number));
    }
    flush(&mut harness);
    assert_eq!(values(&mut harness, scene(&info, 0)), first, "after a flush");

    for number in 1..4 {
        values(&mut harness, frame(&info, number));
    }
    harness.push_event(crate::rig::segment());
    let mut earlier = scene(&info, 1);
    earlier.get_mut().unwrap().unset_flags(gst::BufferFlags::DISCONT);
    assert_eq!(values(&mut harness, earlier), first, "after a loop without a flush");
}

#[test]
fn dropped_live_frames_do_not_restart_tracking() {
    let files = Files::new();
    let run = |flags: gst::BufferFlags| {
        let element = with_mask(&files.mask("mask.png", (64, 48), disc));
        let (mut harness, info) = mask_output(&element);
        values(&mut harness, scene(&info, 0));
        for number in 1..5 {
            values(&mut harness, frame(&info, 3 * number));
        }
        let mut buffer = scene(&info, 18);
        buffer.get_mut().unwrap().set_flags(flags);
        values(&mut harness, buffer)
    };
    assert_eq!(run(gst::BufferFlags::DISCONT), run(gst::BufferFlags::empty()));
}

#[test]
fn eos_keeps_the_tracking_state_and_ready_clears_it() {
    let (_files, element) = masked(ramp);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    harness.push_event(gst::event::Eos::new());
    flush(&mut harness);
    assert_ne!(values(&mut harness, frame(&info, 0)), pixels(ramp), "tracked, not armed");
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
    assert_no_messages(&bus);

    element.set_state(gst::State::Ready).unwrap();
    assert_eq!(element.property::<Option<String>>("active-device"), None);
}
