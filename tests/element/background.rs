// SPDX-License-Identifier: MPL-2.0

//! The object over a background of the element's own, and the colours of soft edges.

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check::Harness;

use gstreamer_video::{VideoFormat, VideoFormatInfo, VideoInfo};

use crate::model;
use crate::util::*;

const GREEN: [u8; 3] = [0, 200, 0];

/// An element with a mask and a tiny network.
fn with_background(mask: &Path, background: &str) -> gst::Element {
    let element = with_mask(mask);
    element.set_property("model-file", model::tiny());
    element.set_property("background", background);
    element
}

/// A frame of 64x48 pixels in `info`, converted from RGB pixels.
fn picture(info: &VideoInfo, number: u64, pixel: impl Fn(usize, usize) -> [u8; 3]) -> gst::Buffer {
    let rgba = crate::util::info(VideoFormat::Rgba, 64, 48);
    let bytes: Vec<u8> = (0..64 * 48)
        .flat_map(|i| {
            let [r, g, b] = pixel(i % 64, i / 64);
            [r, g, b, 255]
        })
        .collect();
    let mut buffer = converted(&gst::Buffer::from_mut_slice(bytes), &rgba, info);
    stamp(&mut buffer, number);
    buffer
}

/// Pixels of a buffer of 64x48, as RGBA.
fn rgba(buffer: &gst::BufferRef, info: &VideoInfo) -> Vec<[u8; 4]> {
    let buffer = as_rgba(buffer, info);
    let map = buffer.map_readable().unwrap();
    map.chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2], pixel[3]]).collect()
}

fn close(pixel: [u8; 4], color: [u8; 3], tolerance: u8) -> bool {
    pixel.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= tolerance)
}

/// Pushes a frame of one colour as the first one of a new stream and returns the pixels that come out, and their format.
fn push(harness: &mut Harness, info: &VideoInfo, number: u64, color: [u8; 3]) -> (Vec<[u8; 4]>, VideoFormat) {
    start_new_stream(harness);
    harness.push(picture(info, number, |_, _| color)).unwrap();
    let buffer = harness.pull().unwrap();
    let out = src_info(harness);
    (rgba(&buffer, &out), out.format())
}

/// Distance from the centre of [`disc`].
fn distance(i: usize) -> f64 {
    ((i % 64) as f64 - 32.0).hypot((i / 64) as f64 - 24.0)
}

#[test]
fn every_format_is_kept() {
    let (files, mask) = mask_file(disc);
    let image: Vec<u8> = (0..64 * 48).flat_map(|_| [0xc0, 0, 0x40]).collect();
    let image = files.png("image.png", (64, 48), png::ColorType::Rgb, png::BitDepth::Eight, &image);
    let mut wrong = Vec::new();
    let mut count = 0;
    for background in ["color:#c00040", "blur", &format!("image:{}", image.display())] {
        let element = with_background(&mask, background);
        let mut harness = harness(&element, &info(VideoFormat::I420, 64, 48).to_caps().unwrap());
        for format in VideoFormat::iter_raw() {
            // The palette of a converted frame is not that of the input.
            if format == VideoFormat::Rgb8p {
                continue;
            }
            let info = info(format, 64, 48);
            harness.set_src_caps(info.to_caps().unwrap());
            let (pixels, out) = push(&mut harness, &info, count, GREEN);
            count += 1;
            let grey = VideoFormatInfo::from_format(format).is_gray();
            let color = |color: [u8; 3]| {
                let buffer = picture(&info, 0, |_, _| color);
                rgba(&buffer, &info)[0]
            };
            let (object, behind) =
                (color(GREEN), color(if background == "blur" { GREEN } else { [0xc0, 0, 0x40] }));
            let tolerance = if grey { 4 } else { 3 };
            let is = |pixel: [u8; 4], color: [u8; 4]| {
                close(pixel, [color[0], color[1], color[2]], tolerance) && pixel[3] == color[3]
            };
            // Chroma is interpolated near the edge.
            let inside = pixels.iter().enumerate().filter(|(i, _)| distance(*i) < 4.0);
            let outside = pixels.iter().enumerate().filter(|(i, _)| distance(*i) > 20.0);
            let (bad_in, bad_out) = (
                inside.filter(|(_, pixel)| !is(**pixel, object)).count(),
                outside.filter(|(_, pixel)| !is(**pixel, behind)).count(),
            );
            if out != format || bad_in > 0 || bad_out > 0 {
                let (middle, corner) = (pixels[24 * 64 + 32], pixels[0]);
                wrong.push(format!(
                    "{background}, {format:?}: {out:?}, {bad_in} {middle:?} {object:?}, {bad_out} {corner:?} {behind:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 3 * 80, "only {count} formats");
}

#[test]
fn small_odd_and_large_sizes() {
    let (files, mask) = mask_file(ramp);
    let image = files.mask("image.png", (30, 50), ramp);
    for size in [(1, 1), (7, 5), (16, 1), (641, 361)] {
        for format in ["I420", "YUY2", "v210", "RGBA"] {
            for background in ["blur:1000", &format!("image:{}", image.display())] {
                let outcome = play(&format!(
                    "videotestsrc num-buffers=2 ! video/x-raw,format={format},width={},height={} ! \
                     fastganseg device=cpu model-file={} ref-mask={} background={background} foreground=estimate ! \
                     video/x-raw,format={format} ! appsink name=out",
                    size.0,
                    size.1,
                    model::tiny(),
                    mask.display()
                ))
                .ok();
                assert_eq!(outcome.samples.len(), 2, "{format} {size:?} {background}");
                for (sample, info) in outcome.samples.iter().zip(outcome.infos()) {
                    assert_eq!(
                        sample.buffer().unwrap().size(),
                        info.size(),
                        "{format} {size:?} {background}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_blurred_background_does_not_have_the_colours_of_the_object() {
    let files = Files::new();
    let soft = |x: usize, y: usize| {
        let distance = (x as f64 - 32.0).hypot(y as f64 - 24.0);
        (255.0 * ((13.0 - distance) / 2.0).clamp(0.0, 1.0)) as u8
    };
    let mask = files.png(
        "mask.png",
        (64, 48),
        png::ColorType::Grayscale,
        png::BitDepth::Eight,
        &(0..64 * 48).map(|i| soft(i % 64, i / 64)).collect::<Vec<_>>(),
    );
    for format in
        [VideoFormat::Rgb, VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Yuy2, VideoFormat::Gbr]
    {
        let element = with_background(&mask, "blur:4");
        element.set_property_from_str("foreground", "estimate");
        let (mut harness, info) = small(&element, format);
        let blend = |x: usize, y: usize, object: u8, behind: u8| {
            let alpha = f64::from(soft(x, y)) / 255.0;
            (f64::from(object) * alpha + f64::from(behind) * (1.0 - alpha)) as u8
        };
        let stripes = |x: usize| if x.is_multiple_of(8) { 150 } else { 70 };
        let frame = picture(&info, 0, |x, y| {
            [blend(x, y, 250, stripes(x)), blend(x, y, 20, stripes(x)), blend(x, y, 20, stripes(x))]
        });
        let before = rgba(&frame, &info);
        harness.push(frame).unwrap();
        let pixels = rgba(&harness.pull().unwrap(), &info);
        for (i, pixel) in pixels.iter().enumerate() {
            let [r, g, b, _] = pixel.map(i32::from);
            match distance(i) {
                near if near < 10.0 => assert!(close(*pixel, [before[i][0], before[i][1], before[i][2]], 2)),
                far if far > 15.0 => {
                    assert!((r - g).abs() < 12 && (r - b).abs() < 12, "{format:?} at {i}: {pixel:?}");
                    assert!((70..=95).contains(&r), "{format:?} at {i}: the stripes are blurred, {pixel:?}");
                }
                _ => (),
            }
        }
    }
}

#[test]
fn a_picture_covers_the_frame() {
    let (files, mask) = mask_file(disc);
    // Blue with red and yellow margins to the left and right; twice as wide as frames with square pixels.
    let colors: Vec<u8> = (0..256 * 96)
        .flat_map(|i| match i % 256 {
            0..60 => [200, 0, 0],
            196.. => [200, 200, 0],
            _ => [0, 0, 200],
        })
        .collect();
    let image = files.png("picture.png", (256, 96), png::ColorType::Rgb, png::BitDepth::Eight, &colors);
    let pixels = |ratio: &str| {
        let outcome = play(&format!(
            "videotestsrc num-buffers=1 ! video/x-raw,format=RGB,width=64,height=48,pixel-aspect-ratio={ratio} ! \
             fastganseg device=cpu model-file={} ref-mask={} background=image:{} ! appsink name=out",
            model::tiny(),
            mask.display(),
            image.display()
        ))
        .ok();
        let info = outcome.infos()[0].clone();
        assert_eq!(info.format(), VideoFormat::Rgb);
        rgba(outcome.samples[0].buffer().unwrap(), &info)
    };
    let square = pixels("1/1");
    for (x, y) in [(1, 1), (62, 1), (1, 46), (62, 46), (32, 2)] {
        assert!(close(square[y * 64 + x], [0, 0, 200], 2), "{:?}", square[y * 64 + x]);
    }
    let wide = pixels("2/1");
    for (x, color) in [(1, [200, 0, 0]), (12, [200, 0, 0]), (20, [0, 0, 200]), (62, [200, 200, 0])] {
        assert!(close(wide[x], color, 2), "at {x}: {:?}", wide[x]);
    }
}

/// The background was written beyond the end of its memory.
#[test]
fn pictures_cover_frames_with_padding() {
    let (files, mask) = mask_file(disc);
    let image =
        files.png("blue.png", (2, 2), png::ColorType::Rgb, png::BitDepth::Eight, &[0, 0, 200].repeat(4));
    for format in [VideoFormat::I420, VideoFormat::Nv12, VideoFormat::Rgb, VideoFormat::Y44410le] {
        let element = with_background(&mask, &format!("image:{}", image.display()));
        // Without this meta downstream, padded frames are copied first.
        let info = info(format, 64, 48);
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        harness.add_propose_allocation_meta(gstreamer_video::VideoMeta::meta_api(), None);
        harness.set_src_caps(info.to_caps().unwrap());
        for (number, padding) in [true, false, true].into_iter().enumerate() {
            let plain = picture(&info, number as u64, |_, _| GREEN);
            let buffer = if padding { padded(&info, &plain) } else { plain };
            let out = harness.push_and_pull(buffer).unwrap();
            let pixels = rgba(&out, &src_info(&harness));
            for at in [0, 63, 47 * 64, 48 * 64 - 1] {
                assert!(close(pixels[at], [0, 0, 200], 8), "{format:?}, {padding}: {:?}", pixels[at]);
            }
        }
    }
}

#[test]
fn backgrounds_change_while_playing() {
    let files = Files::new();
    let element = with_background(&files.mask("mask.png", (64, 48), disc), "");
    let bus = bus(&element);
    let (mut harness, info) = small(&element, VideoFormat::I420);
    let grey = [100; 3];
    let (_, format) = push(&mut harness, &info, 0, grey);
    assert_eq!(format, VideoFormat::A420);

    element.set_property("background", "color:#00ff00");
    let (pixels, format) = push(&mut harness, &info, 1, grey);
    assert_eq!(format, VideoFormat::I420);
    // GStreamer's fast conversion from YUV is not exact.
    let (corner, middle) = (pixels[0], pixels[24 * 64 + 32]);
    assert!(close(corner, [0, 255, 0], 10) && close(middle, grey, 10), "{corner:?}, {middle:?}");
    let mut number = 2;
    let mut push = |harness: &mut Harness| {
        number += 1;
        push(harness, &info, number, grey)
    };

    // What cannot be used leaves the old background.
    for (bad, expected) in [("image:/nowhere/a.jpg", "/nowhere/a.jpg"), ("purple", "color:#rrggbb")] {
        element.set_property("background", bad);
        let warning = loop {
            let message = next_message(&bus);
            if message.starts_with("warning") {
                break message;
            }
        };
        assert!(warning.contains(expected) && warning.contains("stays in use"), "{warning}");
        let (pixels, format) = push(&mut harness);
        assert!(close(pixels[0], [0, 255, 0], 10) && format == VideoFormat::I420, "{:?}", pixels[0]);
    }

    let image = files.mask("image.png", (8, 8), |_, _| 200);
    element.set_property("background", format!("image:{}", image.display()));
    let found = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        close(push(&mut harness).0[0], [200; 3], 10)
    });
    assert!(found, "the picture is read on another thread");

    element.set_property("invert", true);
    let (pixels, _) = push(&mut harness);
    assert!(close(pixels[0], grey, 10) && close(pixels[24 * 64 + 32], [200; 3], 10));
    element.set_property("background", "");
    let (pixels, format) = push(&mut harness);
    assert_eq!((format, pixels[0][3], pixels[24 * 64 + 32][3]), (VideoFormat::A420, 255, 0));
    assert_eq!(element.property::<Option<String>>("background"), None);
    // The other outputs have no background.
    element.set_property("background", "blur");
    element.set_property_from_str("output", "mask");
    assert_eq!(push(&mut harness).1, VideoFormat::Gray8);
}

#[test]
fn bad_backgrounds_prevent_the_start() {
    let files = Files::new();
    let broken = files.write("broken.png", b"no picture");
    for (background, expected, error) in [
        ("green", "color:#rrggbb", gst::ResourceError::Settings),
        ("blur:0.5", "blur:0.5", gst::ResourceError::Settings),
        ("image:/nowhere/a.png", "/nowhere/a.png", gst::ResourceError::NotFound),
        (&format!("image:{}", broken.display()), "broken.png", gst::ResourceError::Read),
    ] {
        let outcome = play(&format!(
            "videotestsrc num-buffers=1 ! fastganseg device=cpu model-file={} background={background} ! fakesink",
            model::tiny()
        ));
        let (found, _) = outcome.error.unwrap();
        assert!(found.matches(error) && found.to_string().contains(expected), "{background}: {found:?}");
    }
}

#[test]
fn without_a_reference_the_frame_is_unchanged() {
    let element = element();
    element.set_property("model-file", model::tiny());
    element.set_property("background", "color:#ff0000");
    let (mut harness, info) = small(&element, VideoFormat::Nv12);
    harness.push(frame(&info, 0)).unwrap();
    assert_eq!(*harness.pull().unwrap().map_readable().unwrap(), *frame(&info, 0).map_readable().unwrap());
}

#[test]
fn encoders_without_alpha_link() {
    let (_files, mask) = mask_file(disc);
    for (format, sink) in [
        ("I420", "video/x-raw,format=I420 ! appsink name=out"),
        ("NV12", "video/x-raw,format=NV12 ! appsink name=out"),
        ("YUY2", "video/x-raw,format=YUY2 ! appsink name=out"),
        ("I420", "jpegenc ! appsink name=out"),
    ] {
        let outcome = play(&format!(
            "videotestsrc num-buffers=3 ! video/x-raw,format={format},width=64,height=48 ! fastganseg device=cpu \
             model-file={} ref-mask={} background=blur ! {sink}",
            model::tiny(),
            mask.display()
        ))
        .ok();
        assert_eq!((outcome.samples.len(), outcome.warnings), (3, vec![]), "{format}");
    }
}

#[test]
fn downstream_must_take_the_format_of_the_input() {
    let files = Files::new();
    let element = with_background(&files.mask("mask.png", (64, 48), disc), "");
    let bus = bus(&element);
    let (mut harness, info) = small(&element, VideoFormat::I420);
    harness.set_sink_caps_str("video/x-raw,format=A420");
    push(&mut harness, &info, 0, GREEN);
    element.set_property("background", "blur");
    assert_eq!(harness.push(frame(&info, 1)), Err(gst::FlowError::NotNegotiated));
    let error = loop {
        let message = next_message(&bus);
        if message.starts_with("error") {
            break message;
        }
    };
    assert!(error.contains("background needs the format of the input"), "{error}");
}

#[test]
fn input_with_alpha_becomes_opaque() {
    let files = Files::new();
    let element = with_background(&files.mask("mask.png", (64, 48), |_, _| 255), "color:#0000ff");
    let (mut harness, info) = small(&element, VideoFormat::Rgba);
    let bytes =
        (0..64 * 48).flat_map(|i| [200, 100, 0, if i % 64 < 32 { 255 } else { 102 }]).collect::<Vec<u8>>();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    stamp(&mut buffer, 0);
    harness.push(buffer).unwrap();
    let pixels = rgba(&harness.pull().unwrap(), &info);
    assert_eq!((pixels[0], pixels[63]), ([200, 100, 0, 255], [80, 40, 153, 255]));
}

#[test]
fn premultiplied_colours() {
    let (_files, mask) = mask_file(|x, _| [0, 51, 204, 255][x / 16]);
    for (input, output) in [
        (VideoFormat::Rgbx, "RGBA"),
        (VideoFormat::Rgba, "RGBA"),
        (VideoFormat::I420, "BGRA"),
        (VideoFormat::Gbr, "GBRA"),
        (VideoFormat::Rgb, "ARGB64"),
    ] {
        let element = with_background(&mask, "");
        element.set_property_from_str("alpha-mode", "premultiplied");
        let bus = bus(&element);
        let (mut harness, info) = small(&element, input);
        harness.set_sink_caps_str(&format!("video/x-raw,format={output}"));
        let (pixels, _) = push(&mut harness, &info, 0, [200, 100, 50]);
        for (x, expected) in [(0, [0; 3]), (20, [40, 20, 10]), (40, [160, 80, 40]), (60, [200, 100, 50])] {
            assert!(close(pixels[x], expected, 3), "{input:?} as {output} at {x}: {:?}", pixels[x]);
            assert_eq!(pixels[x][3], [0, 51, 204, 255][x / 16]);
        }
        assert!(bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "{output} is RGB");
        element.set_property_from_str("alpha-mode", "straight");
        let (pixels, _) = push(&mut harness, &info, 1, [200, 100, 50]);
        assert!(close(pixels[20], [200, 100, 50], 3));
    }
}

#[test]
fn yuv_cannot_be_premultiplied() {
    let (_files, mask) = mask_file(disc);
    let outcome = play(&format!(
        "videotestsrc num-buffers=4 ! video/x-raw,format=I420,width=64,height=48 ! fastganseg device=cpu \
         model-file={} ref-mask={} alpha-mode=premultiplied ! video/x-raw,format=A420 ! appsink name=out",
        model::tiny(),
        mask.display()
    ))
    .ok();
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
    assert!(outcome.warnings[0].contains("A420") && outcome.warnings[0].contains("format=RGBA"));
}

/// Alpha that falls from 255 to 0 between the columns 24 and 40.
fn soft_edge(x: usize, _: usize) -> u8 {
    (255.0 * ((40.0 - x as f64) / 16.0).clamp(0.0, 1.0)).round() as u8
}

#[test]
fn estimated_colours_do_not_hold_the_old_background() {
    let (_files, mask) = mask_file(soft_edge);
    let (object, behind) = ([220u8, 60, 40], [20u8, 200, 90]);
    for (input, output) in [
        (VideoFormat::I420, "A420"),
        (VideoFormat::Nv12, "A420"),
        (VideoFormat::Rgbx, "RGBA"),
        (VideoFormat::Rgb, "BGRA"),
        (VideoFormat::Yuy2, "AYUV"),
        (VideoFormat::I42010le, "A420_10LE"),
        (VideoFormat::V210, "A422_10LE"),
        (VideoFormat::Gbr, "GBRA"),
    ] {
        let element = with_background(&mask, "");
        let (mut harness, info) = small(&element, input);
        harness.set_sink_caps_str(&format!("video/x-raw,format={output}"));
        let mut errors = |foreground: &str| {
            element.set_property_from_str("foreground", foreground);
            start_new_stream(&mut harness);
            let buffer = picture(&info, 0, |x, y| {
                let alpha = f64::from(soft_edge(x, y)) / 255.0;
                std::array::from_fn(|c| {
                    (f64::from(object[c]) * alpha + f64::from(behind[c]) * (1.0 - alpha)).round() as u8
                })
            });
            harness.push(buffer).unwrap();
            let buffer = harness.pull().unwrap();
            let pixels = rgba(&buffer, &src_info(&harness));
            assert_eq!(alpha(&buffer, &src_info(&harness)), pixels_of_alpha(), "{input:?}");
            let error = |x: usize| {
                let pixel = pixels[24 * 64 + x];
                let worst = (0..3).map(|c| pixel[c].abs_diff(object[c])).max().unwrap();
                f64::from(worst) * f64::from(pixel[3]) / 255.0
            };
            (26..38).map(error).sum::<f64>() / 12.0
        };
        let (before, after) = (errors("input"), errors("estimate"));
        assert!(before > 20.0 && after < 0.2 * before, "{input:?} as {output}: {before:.1}, then {after:.1}");
    }
}

fn pixels_of_alpha() -> Vec<u8> {
    (0..64 * 48).map(|i| soft_edge(i % 64, i / 64)).collect()
}

#[test]
fn colours_are_not_copied_without_soft_edges() {
    let files = Files::new();
    let info = info(VideoFormat::I420, 64, 48);
    for (mask, shared) in [(disc as fn(usize, usize) -> u8, true), (soft_edge, false)] {
        let element = with_background(&files.mask("mask.png", (64, 48), mask), "");
        element.set_property_from_str("foreground", "estimate");
        let mut harness = harness(&element, &info.to_caps().unwrap());
        let buffer = frame(&info, 0);
        // The second reference makes the buffer read-only.
        let kept = buffer.clone();
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        let address = |buffer: &gst::BufferRef| buffer.peek_memory(0).map_readable().unwrap().as_ptr();
        assert_eq!(address(&kept) == address(&out), shared);
        assert_eq!(
            *kept.map_readable().unwrap(),
            *frame(&info, 0).map_readable().unwrap(),
            "the input is unchanged"
        );
        if shared {
            assert_eq!(plane(&out, &src_info(&harness), 1, 1), plane(&kept, &info, 1, 1));
        }
    }
}

/// White was 255 times 256 in formats of 16 bits, and 10,000 cd/m² in HDR video.
#[test]
fn white_is_white_in_every_depth_and_in_hdr() {
    let first = |caps: &str| -> u16 {
        let outcome = play(&format!(
            "videotestsrc pattern=black num-buffers=1 ! video/x-raw,width=64,height=48,{caps} \
             ! fastganseg ref-auto=person background=color:#ffffff ! appsink name=out"
        ));
        let outcome = outcome.ok();
        let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
        u16::from_le_bytes([map[0], map[1]])
    };
    assert_eq!(first("format=ARGB64"), 0xffff);
    assert_eq!(first("format=GBR_10LE"), 1023);
    assert_eq!(first("format=GRAY16_LE"), 0xffff);
    assert_eq!(first("format=I420_10LE"), 940);
    // A picture of a width that is no multiple of 4, and a frame as well.
    let files = Files::new();
    let white =
        files.png("white.png", (62, 48), png::ColorType::Grayscale, png::BitDepth::Eight, &[255; 62 * 48]);
    let outcome = play(&format!(
        "videotestsrc pattern=black num-buffers=1 ! video/x-raw,width=62,height=48,format=I420_10LE,colorimetry=bt2100-pq \
         ! fastganseg ref-auto=person background=image:{} ! appsink name=out",
        white.display()
    ));
    let outcome = outcome.ok();
    let luma = plane(outcome.samples[0].buffer().unwrap(), &outcome.infos()[0], 0, 2);
    let luma: Vec<u16> = luma.chunks(2).map(|sample| u16::from_le_bytes([sample[0], sample[1]])).collect();
    assert!(luma.iter().all(|value| value.abs_diff(64 + 509) <= 4), "{luma:?}");
    // 203 cd/m² are 58 % of the signal with PQ, and 75 % with HLG.
    assert_eq!(first("format=I420_10LE,colorimetry=bt2100-pq"), 64 + 509);
    assert_eq!(first("format=I420_10LE,colorimetry=bt2100-hlg"), 64 + 657);
}
