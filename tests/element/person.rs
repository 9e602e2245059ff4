// SPDX-License-Identifier: MPL-2.0

//! The person in front of the camera as the reference.

use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_check::Harness;
use gstreamer_video::VideoFormat;

use crate::person_picture;
use crate::util::*;

const SIZE: (u32, u32) = (256, 144);

/// A head and shoulders on a gradient, `shift` pixels to the right; without them from a shift of a whole picture on.
fn picture(number: u64, shift: i64) -> gst::Buffer {
    let pixel = |i: i64| person_picture::pixel(i % 256, i / 256, shift);
    let mut buffer = gst::Buffer::from_mut_slice((0..256 * 144).flat_map(pixel).collect::<Vec<u8>>());
    stamp(&mut buffer, number);
    buffer
}

fn start(element: &gst::Element, live: bool) -> Harness {
    let mut harness = harness(element, &info(VideoFormat::Rgb, SIZE.0, SIZE.1).to_caps().unwrap());
    harness.set_live(live);
    harness
}

fn new_element() -> gst::Element {
    let element = element();
    element.set_property("device", "cpu");
    element.set_property_from_str("ref-auto", "person");
    element
}

/// Alpha of a frame with the person at a shift: of the middle of the face, and of the top left corner.
fn face_and_corner(harness: &mut Harness, number: u64, shift: i64) -> (u8, u8) {
    harness.push(picture(number, shift)).unwrap();
    let alpha = alpha(&harness.pull().unwrap(), &src_info(harness));
    (alpha[60 * 256 + (120 + shift).min(255) as usize], alpha[5 * 256 + 5])
}

/// It ended the stream.
#[test]
fn a_device_that_is_set_while_playing_applies_from_the_next_start_on() {
    let element = new_element();
    let mut harness = start(&element, false);
    assert_eq!(face_and_corner(&mut harness, 0, 1000), (255, 255));
    element.set_property("device", "no such device");
    // Frames are searched five times a second.
    let (face, corner) = face_and_corner(&mut harness, 10, 0);
    assert!(face > 200 && corner < 50, "{face} {corner}");
}

#[test]
fn the_first_frame_with_a_person_becomes_the_reference() {
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element, false);
    for number in 0..8 {
        assert_eq!(face_and_corner(&mut harness, number, 300), (255, 255), "nobody is there");
    }
    for number in 8..18 {
        let (face, corner) = face_and_corner(&mut harness, number, 0);
        // Searched five times a second.
        if number >= 14 {
            assert!(face > 200 && corner < 20, "frame {number}: {face} {corner}");
        }
    }
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    assert_no_messages(&bus);
}

#[test]
fn live_frames_pass_until_the_person_is_confirmed() {
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element, true);
    assert_eq!(face_and_corner(&mut harness, 0, 0), (255, 255));
    let begun = Instant::now();
    for number in 1.. {
        std::thread::sleep(Duration::from_millis(30));
        let (face, corner) = face_and_corner(&mut harness, number, 0);
        if face > 200 && corner < 20 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{face} {corner}");
    }
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
}

/// The room behind the person was visible until the person was found.
#[test]
fn the_background_covers_the_frame_until_the_person_is_found() {
    let element = new_element();
    element.set_property("background", "color:#ffffff");
    let mut harness = start(&element, true);
    let mut covered_and_corner = |number: u64| {
        harness.push(picture(number, 0)).unwrap();
        let buffer = harness.pull().unwrap();
        let map = buffer.map_readable().unwrap();
        (map.iter().all(|&value| value == 255), map[3 * (5 * 256 + 5)])
    };
    assert_eq!(covered_and_corner(0), (true, 255), "nothing of the first frame is seen");
    let begun = Instant::now();
    for number in 1.. {
        std::thread::sleep(Duration::from_millis(30));
        let (covered, corner) = covered_and_corner(number);
        assert!(corner > 250, "the room is never seen");
        if !covered {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_mask_takes_precedence_over_the_person() {
    let files = Files::new();
    let element =
        with_mask(&files.mask("mask.png", (256, 144), |x, y| if x < 40 && y < 40 { 255 } else { 0 }));
    element.set_property_from_str("ref-auto", "person");
    let (face, corner) = face_and_corner(&mut start(&element, false), 0, 0);
    assert_eq!((face, corner), (0, 255));
}
