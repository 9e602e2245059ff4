// SPDX-License-Identifier: MPL-2.0

//! The action signals.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFormat;

use crate::util::*;

#[test]
fn a_sample_becomes_the_reference_while_playing() {
    let (_files, element) = masked(disc);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);

    let rgba = pixels(ramp).into_iter().flat_map(|alpha| [7, 8, 9, alpha]).collect();
    for (number, mask) in [(1, grey(ramp)), (2, sample(VideoFormat::Rgba, rgba))] {
        assert!(set_reference(&element, &mask, None));
        assert_eq!((next_message(&bus), reference_state(&element)), ("armed".into(), "armed".into()));
        assert_eq!(values(&mut harness, frame(&info, number)), pixels(ramp));
        assert_eq!((next_message(&bus), reference_state(&element)), ("seeded".into(), "seeded".into()));
    }
    assert_no_messages(&bus);
    // A new stream arms the sample again.
    harness.push_event(gst::event::StreamStart::builder("first").build());
    harness.push_event(gst::event::StreamStart::builder("another").build());
    assert_eq!(values(&mut harness, frame(&info, 3)), pixels(ramp));
}

#[test]
fn with_an_image_the_next_frame_is_tracked() {
    let element = element();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    let yuy2 = (0..64 * 48).flat_map(|i| [i as u8, 128]).collect();
    assert!(set_reference(&element, &grey(disc), Some(&sample(VideoFormat::Yuy2, yuy2))));
    let values = values(&mut harness, frame(&info, 0));
    assert!(values != pixels(disc) && values.iter().any(|&value| value < 255));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
}

#[test]
fn ids_in_a_grey_sample_are_objects() {
    let element = element();
    element.set_property_from_str("output", "labels");
    let (mut harness, info) = small(&element, VideoFormat::I420);
    assert!(set_reference(&element, &grey(|x, _| (x / 16) as u8), None));
    let labels = values(&mut harness, frame(&info, 0));
    assert_eq!([labels[0], labels[16], labels[32], labels[63]], [0, 1, 2, 3]);
}

#[test]
fn the_reference_set_last_wins() {
    let files = Files::new();
    let file = files.mask("mask.png", (64, 48), disc);

    // A sample set before the start replaces the file, which need not exist.
    let element = element();
    element.set_property("ref-mask", "/nowhere.png");
    let bus_of_element = bus(&element);
    assert!(set_reference(&element, &grey(ramp), None));
    element.set_state(gst::State::Ready).unwrap();
    assert_no_messages(&bus_of_element);
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    assert_eq!([next_message(&bus_of_element), next_message(&bus_of_element)], ["armed", "seeded"]);

    // A file set afterwards replaces the sample.
    let element = crate::util::element();
    assert!(set_reference(&element, &grey(ramp), None));
    element.set_property("ref-mask", file.to_str().unwrap());
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(disc));

    // So does a file set while playing.
    let bus_of_element = bus(&element);
    assert!(set_reference(&element, &grey(ramp), None));
    assert_eq!(next_message(&bus_of_element), "armed");
    element.set_property("ref-mask", file.to_str().unwrap());
    assert_eq!(next_message(&bus_of_element), "armed");
    assert_eq!(values(&mut harness, frame(&info, 1)), pixels(disc));

    // Stopping drops the sample.
    assert!(set_reference(&element, &grey(ramp), None));
    drop(harness);
    element.set_state(gst::State::Ready).unwrap();
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(disc));
}

#[test]
fn setting_only_ref_image_keeps_the_reference() {
    let files = Files::new();
    let image = files.png("image.png", (1, 1), png::ColorType::Rgb, png::BitDepth::Eight, &[9, 9, 9]);
    let element = element();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert!(set_reference(&element, &grey(ramp), None));
    element.set_property("ref-image", image.to_str().unwrap());
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
    assert_no_messages(&bus);
}

#[test]
fn bad_samples_keep_the_old_reference() {
    let element = element();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert!(set_reference(&element, &grey(ramp), None));
    values(&mut harness, frame(&info, 0));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);

    let png = gst::Caps::new_empty_simple("image/png");
    let good = grey(ramp);
    let other = gst::Sample::builder().buffer(&good.buffer_owned().unwrap()).caps(&png).build();
    let caps = good.caps_owned().unwrap();
    let short = gst::Sample::builder().buffer(&gst::Buffer::with_size(9).unwrap()).caps(&caps).build();
    let with_caps = |caps: &str| {
        let caps: gst::Caps = caps.parse().unwrap();
        gst::Sample::builder().buffer(&good.buffer_owned().unwrap()).caps(&caps).build()
    };
    let many = sample(VideoFormat::Gray8, pixels(|x, _| (x % 17) as u8));
    let with_stride = |offset: usize, stride: i32| {
        let mut buffer = gst::Buffer::from_slice(vec![0; 64 * 48 * 4]);
        let inner = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        let info = crate::util::info(VideoFormat::Rgba, 64, 48);
        let added = gst_video::VideoMeta::add_full(inner, flags, info.format(), 64, 48, &[offset], &[stride]);
        added.unwrap();
        gst::Sample::builder().buffer(&buffer).caps(&info.to_caps().unwrap()).build()
    };
    assert!(set_reference(&element, &many, None), "16 objects, the maximum");
    assert_eq!(next_message(&bus), "armed");
    values(&mut harness, frame(&info, 1));
    assert_eq!(next_message(&bus), "seeded");
    for (mask, image, part) in [
        (grey(|_, _| 0), None, "paint the object white"),
        (other.clone(), None, "give raw video"),
        (short, None, "cannot be mapped"),
        (with_caps("video/x-raw,format={RGBA,GRAY8},width=64,height=48"), None, "not fixed"),
        (with_caps("video/x-raw,format=GRAY8,width=100000,height=100000"), None, "too many"),
        (gst::Sample::builder().build(), None, "no caps"),
        (with_stride(0, 0), None, "do not fit"),
        (with_stride(0, 65536), None, "do not fit"),
        (with_stride(47 * 64 * 4, -64 * 4), None, "upside down"),
        (good, Some(other), "picture"),
    ] {
        assert!(!set_reference(&element, &mask, image.as_ref()), "{part}");
        let message = next_message(&bus);
        assert!(message.starts_with("warning: set-reference") && message.contains(part), "{message}");
    }
    assert!(!element.emit_by_name::<bool>("set-reference", &[&None::<gst::Sample>, &None::<gst::Sample>]));
    assert!(next_message(&bus).contains("without a mask"));
    values(&mut harness, frame(&info, 2));
    assert_eq!(reference_state(&element), "seeded");
    assert_no_messages(&bus);
}

#[test]
fn reset_restarts_from_the_reference() {
    let (_files, element) = masked(disc);
    element.emit_by_name::<()>("reset", &[]);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
    let first = values(&mut harness, frame(&info, 1));
    for number in 2..5 {
        let mut noise = gst::Buffer::from_mut_slice(vec![number as u8 * 40; info.size()]);
        stamp(&mut noise, number);
        values(&mut harness, noise);
    }
    element.set_property("inference-interval", 1000u32);
    element.emit_by_name::<()>("reset", &[]);
    let mut again = frame(&info, 1);
    stamp(&mut again, 5);
    assert_eq!(values(&mut harness, again), first);
    assert_no_messages(&bus);
}
