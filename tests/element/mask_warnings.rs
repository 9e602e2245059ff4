// SPDX-License-Identifier: MPL-2.0

//! Masks that are probably mistakes: they are used, with a warning that names a remedy.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::VideoFormat;

use crate::model;
use crate::util::*;

/// Plays three frames of 64x48 and returns the warnings.
#[track_caller]
fn warnings_on(caps: &str, properties: &str) -> Vec<String> {
    let outcome = play(&format!(
        "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=64,height=48{caps} ! fastganseg device=cpu \
         model-file={} {properties} ! appsink name=out",
        model::tiny()
    ))
    .ok();
    assert_eq!(outcome.samples.len(), 3);
    outcome.warnings
}

#[track_caller]
fn warnings(properties: &str) -> Vec<String> {
    warnings_on("", properties)
}

/// Asserts that there is one warning and that it names the mask; returns it.
#[track_caller]
fn warning(mask: &std::path::Path, more: &str) -> String {
    let mut warnings = warnings(&format!("ref-mask={} {more}", mask.display()));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(mask.to_str().unwrap()), "{warnings:?} does not name the mask");
    warnings.remove(0)
}

/// Writes a mask of the given width and height with a rectangle in its middle.
fn middle(files: &Files, (width, height): (usize, usize)) -> std::path::PathBuf {
    let inside = |at: usize, length: usize| (length / 4..3 * length / 4).contains(&at);
    let data: Vec<u8> = (0..width * height)
        .map(|i| if inside(i % width, width) && inside(i / width, height) { 255 } else { 0 })
        .collect();
    let name = format!("{width}x{height}.png");
    files.png(&name, (width, height), png::ColorType::Grayscale, png::BitDepth::Eight, &data)
}

fn faint_disc(x: usize, y: usize) -> u8 {
    disc(x, y) / 255 * 38
}

fn surroundings(x: usize, y: usize) -> u8 {
    255 - disc(x, y)
}

#[test]
fn a_palette_mask_turned_grey_is_used_as_it_is_with_a_warning() {
    let (files, mask) = mask_file(faint_disc);
    let message = warning(&mask, "");
    assert!(message.contains("38 of 255") && message.contains("255 and the rest as 0"), "{message}");
    assert!(message.contains("palette"), "{message}");
    let element = with_mask(&mask);
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(faint_disc));

    let bright = files.mask("bright.png", (64, 48), |x, y| disc(x, y) / 255 * 128);
    assert_eq!(warnings(&format!("ref-mask={}", bright.display())), [""; 0]);
}

#[test]
fn a_mask_of_the_surroundings_is_used_with_a_warning() {
    let files = Files::new();
    let message = warning(&files.mask("mask.png", (64, 48), surroundings), "");
    assert!(message.contains("inverted") && message.contains("-negate"), "{message}");

    // No warning for a large mask with background on two sides, nor for a small one along all borders.
    let bust = files.mask("bust.png", (64, 48), |x, y| if x > 5 && y > 5 { 255 } else { 0 });
    assert_eq!(warnings(&format!("ref-mask={}", bust.display())), [""; 0]);
    let frame = files.mask("frame.png", (64, 48), |x, y| if x % 63 == 0 || y % 47 == 0 { 255 } else { 0 });
    assert_eq!(warnings(&format!("ref-mask={}", frame.display())), [""; 0]);
}

#[test]
fn a_mask_of_another_shape_than_the_frame_names_both_sizes() {
    let files = Files::new();
    let message = warning(&middle(&files, (48, 64)), "");
    assert!(message.contains("48x64") && message.contains("frame 64x48"), "{message}");
    assert!(message.contains("videoflip video-direction=auto"), "{message}");
    let message = warning(&middle(&files, (64, 32)), "");
    assert!(message.contains("64x32") && message.contains("frame 64x48"), "{message}");
    assert!(!message.contains("videoflip"), "{message}");

    for size in [(64, 48), (32, 24), (640, 480), (65, 48), (21, 16)] {
        assert_eq!(warnings(&format!("ref-mask={}", middle(&files, size).display())), [""; 0], "{size:?}");
    }
    // A mask of the frame's display size, drawn on a player's screenshot.
    let wide = format!("ref-mask={}", middle(&files, (96, 48)).display());
    assert_eq!(warnings_on(",pixel-aspect-ratio=3/2", &wide), [""; 0]);
    assert_eq!(warnings(&wide).len(), 1);
}

#[test]
fn a_mask_of_another_shape_than_its_image_names_both_sizes() {
    let files = Files::new();
    let image = files.path("image.png");
    image::RgbImage::new(48, 64).save(&image).unwrap();
    let with_image = format!("ref-image={}", image.display());
    let message = warning(&middle(&files, (64, 48)), &with_image);
    assert!(message.contains("64x48") && message.contains("ref-image 48x64"), "{message}");
    // The image need not have the shape of the frame.
    let upright = format!("ref-mask={} {with_image}", middle(&files, (96, 128)).display());
    assert_eq!(warnings(&upright), [""; 0]);
}

/// The mask must fit the image as viewers show it, not as it is stored.
#[test]
fn a_jpeg_with_a_rotation_tag_is_turned() {
    let files = Files::new();
    let mut jpeg = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 48).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let mut bytes = jpeg.into_inner();
    let stored = files.write("stored.jpg", &bytes);
    // Orientation 6: to be rotated by 90 degrees.
    bytes.splice(
        2..2,
        *b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    );
    let tagged = files.write("tagged.jpg", &bytes);
    let mask = middle(&files, (48, 64));
    assert_eq!(warnings(&format!("ref-mask={} ref-image={}", mask.display(), tagged.display())), [""; 0]);
    warning(&mask, &format!("ref-image={}", stored.display()));
}

#[test]
fn each_mask_is_warned_about_once_while_playing_and_by_signal() {
    let files = Files::new();
    let element = with_mask(&files.mask("good.png", (64, 48), disc));
    element.set_property("model-file", model::tiny());
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    values(&mut harness, frame(&info, 0));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);

    // Values are checked when the mask is loaded, its shape with the first frame.
    let faint = files.mask("faint.png", (48, 64), faint_disc);
    element.set_property("ref-mask", faint.to_str().unwrap());
    let message = next_message(&bus);
    assert!(
        message.contains("warning") && message.contains("faint.png") && message.contains("38"),
        "{message}"
    );
    assert_eq!(next_message(&bus), "armed");
    values(&mut harness, frame(&info, 1));
    let message = next_message(&bus);
    assert!(message.contains("faint.png") && message.contains("48x64"), "{message}");
    assert_eq!(next_message(&bus), "seeded");

    // Another stream arms the same mask again, without a warning.
    start_new_stream(&mut harness);
    start_new_stream(&mut harness);
    values(&mut harness, frame(&info, 2));
    assert_eq!([next_message(&bus), next_message(&bus), next_message(&bus)], ["armed", "armed", "seeded"]);

    assert!(set_reference(&element, &grey(surroundings), None));
    let message = next_message(&bus);
    assert!(message.contains("in memory") && message.contains("inverted"), "{message}");
    assert_eq!(next_message(&bus), "armed");
    assert_eq!(values(&mut harness, frame(&info, 3)), pixels(surroundings));
    assert_eq!(next_message(&bus), "seeded");

    let lying = sample(VideoFormat::Rgb, vec![90; 64 * 48 * 3]);
    let tall =
        gst::Caps::builder("video/x-raw").field("format", "GRAY8").field("width", 48).field("height", 64);
    let tall = tall.field("framerate", gst::Fraction::new(0, 1)).build();
    let upright = gst::Sample::builder().buffer(&gst::Buffer::from_slice(pixels(disc))).caps(&tall).build();
    assert!(set_reference(&element, &upright, Some(&lying)));
    let message = next_message(&bus);
    assert!(message.contains("48x64") && message.contains("ref-image 64x48"), "{message}");
    assert_eq!(next_message(&bus), "armed");
}

#[test]
fn an_object_that_the_mask_does_not_have_is_reported_once() {
    let (_files, mask) = mask_file(disc);
    let warnings = warnings(&format!("ref-mask={} object=2", mask.display()));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("no object 2") && warnings[0].contains("[1]"), "{warnings:?}");
}
