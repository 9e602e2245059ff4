// SPDX-License-Identifier: MPL-2.0

use gstreamer as gst;
use gstreamer_check::Harness;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoFormat, VideoFormatInfo, VideoInfo};

use crate::util::*;

const OUTPUTS: [&str; 4] = ["alpha", "mask", "labels", "overlay"];

fn source(format: &str, (width, height): (u32, u32), frames: u32) -> String {
    format!("videotestsrc num-buffers={frames} ! video/x-raw,format={format},width={width},height={height}")
}

/// The network got no picture, and the object was lost.
#[test]
fn the_interlaced_flag_of_a_video_meta_does_not_change_masks() {
    use gst_video::{VideoFrameFlags, VideoInterlaceMode};
    let masks = |mode: VideoInterlaceMode, flags: Option<VideoFrameFlags>| {
        let (_files, element) = masked(disc);
        element.set_property_from_str("output", "mask");
        let info = VideoInfo::builder(VideoFormat::I420, 64, 48)
            .fps(gst::Fraction::new(30, 1))
            .interlace_mode(mode)
            .build()
            .unwrap();
        let mut harness = harness(&element, &info.to_caps().unwrap());
        let mut mask = |number: u64| {
            let mut buffer = frame(&info, number);
            if let Some(flags) = flags {
                let inner = buffer.get_mut().unwrap();
                gst_video::VideoMeta::add(inner, flags, info.format(), 64, 48).unwrap();
            }
            values(&mut harness, buffer)
        };
        Vec::from_iter((0..4).map(&mut mask))
    };
    let expected = masks(VideoInterlaceMode::Progressive, None);
    let fields = VideoFrameFlags::INTERLACED | VideoFrameFlags::TFF;
    for mode in [VideoInterlaceMode::Progressive, VideoInterlaceMode::Interleaved, VideoInterlaceMode::Mixed]
    {
        assert!(masks(mode, Some(fields)) == expected, "{mode:?}");
    }
}

#[test]
fn every_sink_format_becomes_every_output() {
    init();
    let (_files, element) = masked(ramp);
    let expected: Vec<u8> = (0..64 * 48).map(|i| ramp(i % 64, i / 64)).collect();
    let mut harness = harness(&element, &info(VideoFormat::I420, 64, 48).to_caps().unwrap());
    let mut count = 0;
    for output in OUTPUTS {
        element.set_property_from_str("output", output);
        for format in VideoFormat::iter_raw() {
            let info = info(format, 64, 48);
            harness.set_src_caps(info.to_caps().unwrap());
            start_new_stream(&mut harness);
            harness.push(frame(&info, count)).unwrap_or_else(|error| panic!("{format:?}: {error}"));
            count += 1;
            let buffer = harness.pull().unwrap();
            let out = src_info(&harness);
            let what = format!("{format:?} as {output}, {:?}", out.format());
            assert_eq!((out.width(), out.height(), out.fps()), (64, 48, info.fps()), "{what}");
            assert!(buffer.size() >= out.size(), "{what}");
            // Input with alpha: see `input_alpha`.
            let opaque = !has_alpha(format);
            match output {
                "alpha" => {
                    assert_eq!(out.format_info().n_components(), 4, "{what}");
                    assert!(!opaque || alpha(&buffer, &out) == expected, "{what}");
                }
                "overlay" => assert_eq!(out.format(), format),
                "mask" => assert!(!opaque || plane(&buffer, &out, 0, 1) == expected, "{what}"),
                _ => assert_eq!(out.format(), VideoFormat::Gray8),
            }
        }
    }
    assert!(count > 4 * 80, "only {count} formats");
}

#[test]
fn any_alpha_format_that_downstream_wants() {
    let (_files, mask) = mask_file(ramp);
    for input in ["I420", "NV12", "YUY2", "BGRx", "A420"] {
        for wanted in ["A420", "AV12", "AYUV", "RGBA", "ABGR", "ARGB64", "A444_10LE"] {
            // GStreamer 1.22 does not list AV12 as a format with alpha.
            if !VideoFormatInfo::from_format(VideoFormat::from_string(wanted)).has_alpha() {
                assert_eq!(wanted, "AV12");
                continue;
            }
            let outcome = play(&format!(
                "{} ! fastganseg device=cpu ref-mask={} ! video/x-raw,format={wanted} ! appsink name=out",
                source(input, (64, 48), 2),
                mask.display()
            ))
            .ok();
            assert_eq!(outcome.samples.len(), 2);
            let info = outcome.infos()[0].clone();
            let expected: Vec<u8> = (0..64 * 48).map(|i| ramp(i % 64, i / 64)).collect();
            let buffer = outcome.samples[0].buffer_owned().unwrap();
            assert_eq!(alpha(&buffer, &info), expected, "{input} as {wanted}");
        }
    }
}

#[test]
fn small_odd_and_large_sizes() {
    let (_files, mask) = mask_file(ramp);
    for size in [(1, 1), (1, 2), (7, 5), (16, 1), (4096, 2160)] {
        for format in ["I420", "NV12", "RGB", "YUY2", "BGRx"] {
            for output in OUTPUTS {
                if size.0 > 100 && !(format == "I420" || (format == "RGB" && output == "alpha")) {
                    continue;
                }
                let outcome = play(&format!(
                    "{} ! fastganseg device=cpu output={output} ref-mask={} ! appsink name=out",
                    source(format, size, 2),
                    mask.display()
                ))
                .ok();
                assert_eq!(outcome.samples.len(), 2, "{format} {size:?} {output}");
                for (sample, info) in outcome.samples.iter().zip(outcome.infos()) {
                    assert_eq!((info.width(), info.height()), size);
                    assert_eq!(sample.buffer().unwrap().size(), info.size(), "{format} {size:?} {output}");
                }
            }
        }
    }
}

#[test]
fn caps_change_in_mid_stream() {
    let (_files, element) = masked(disc);
    let bus = bus(&element);
    let first = info(VideoFormat::I420, 64, 48);
    let mut harness = harness(&element, &first.to_caps().unwrap());
    harness.push(frame(&first, 0)).unwrap();
    let mut number = 1;
    for (format, width, height) in [
        (VideoFormat::I420, 128, 96),
        (VideoFormat::Nv12, 33, 17),
        (VideoFormat::Rgb, 64, 48),
        (VideoFormat::Bgrx, 5, 7),
        (VideoFormat::I420, 64, 48),
    ] {
        let info = info(format, width, height);
        harness.set_src_caps(info.to_caps().unwrap());
        for _ in 0..2 {
            harness.push(frame(&info, number)).unwrap();
            number += 1;
        }
        let out = src_info(&harness);
        assert_eq!((out.width(), out.height()), (width, height));
    }
    assert_eq!(harness.buffers_received(), number as u32);
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
    assert_no_messages(&bus);
}

#[test]
fn output_changes_while_playing() {
    let (_files, element) = masked(ramp);
    let (mut harness, info) = small(&element, VideoFormat::I420);
    let expected = [
        ("alpha", VideoFormat::A420),
        ("mask", VideoFormat::Gray8),
        ("labels", VideoFormat::Gray8),
        ("overlay", VideoFormat::I420),
        ("mask", VideoFormat::Gray8),
        ("alpha", VideoFormat::A420),
    ];
    for (number, (output, format)) in expected.into_iter().enumerate() {
        element.set_property_from_str("output", output);
        harness.push(frame(&info, number as u64)).unwrap();
        let buffer = harness.pull().unwrap();
        let out = src_info(&harness);
        assert_eq!(out.format(), format, "{output}");
        assert!(buffer.size() >= out.size());
        if output == "labels" {
            assert!(plane(&buffer, &out, 0, 1).iter().all(|&id| id <= 1), "labels are ids, not soft values");
        }
    }
}

#[test]
fn labels_and_one_object() {
    let files = Files::new();
    let data: Vec<u8> = (0..64 * 48).map(|i| [0, 2, 5, 5][i % 64 / 16]).collect();
    let mask = files.png("mask.png", (64, 48), png::ColorType::Indexed, png::BitDepth::Eight, &data);
    let element = with_mask(&mask);
    element.set_property_from_str("output", "labels");
    let (mut harness, info) = small(&element, VideoFormat::Rgb);
    let first_row = |buffer: &gst::Buffer| {
        let row = plane(buffer, &VideoInfo::builder(VideoFormat::Gray8, 64, 48).build().unwrap(), 0, 1);
        [row[0], row[16], row[32], row[63]]
    };
    let mut number = 0;
    let mut push = || {
        start_new_stream(&mut harness);
        harness.push(frame(&info, number)).unwrap();
        number += 1;
        first_row(&harness.pull().unwrap())
    };
    assert_eq!(push(), [0, 2, 5, 5]);
    element.set_property("object", 5u32);
    assert_eq!(push(), [0, 0, 5, 5]);
    element.set_property_from_str("output", "mask");
    assert_eq!(push(), [0, 0, 255, 255]);
    element.set_property("invert", true);
    assert_eq!(push(), [255, 255, 0, 0]);
    element.set_property("object", 0u32);
    assert_eq!(push(), [255, 0, 0, 0]);
}

#[test]
fn threshold_is_controllable() {
    let (_files, element) = masked(|x, _| if x < 32 { 100 } else { 200 });
    element.set_property_from_str("output", "mask");
    let (mut harness, info) = small(&element, VideoFormat::I420);
    for (number, (threshold, expected)) in
        [(0.0, [100, 200]), (0.5, [0, 255]), (1.0, [0, 0])].into_iter().enumerate()
    {
        element.set_property("threshold", threshold);
        start_new_stream(&mut harness);
        harness.push(frame(&info, number as u64)).unwrap();
        let values = plane(&harness.pull().unwrap(), &src_info(&harness), 0, 1);
        assert_eq!([values[0], values[63]], expected);
    }
    for name in ["threshold", "invert", "object"] {
        let pspec = element.find_property(name).unwrap();
        assert!(pspec.flags().contains(gst::PARAM_FLAG_CONTROLLABLE), "{name}");
    }
}

#[test]
fn caps_fields_are_kept() {
    let (_files, element) = masked(disc);
    let info = VideoInfo::builder(VideoFormat::Nv12, 64, 48)
        .fps(gst::Fraction::new(24000, 1001))
        .par(gst::Fraction::new(8, 9))
        .colorimetry(&"bt2020".parse().unwrap())
        .chroma_site(gst_video::VideoChromaSite::COSITED)
        .interlace_mode(gst_video::VideoInterlaceMode::Mixed)
        .build()
        .unwrap();
    let mut harness = harness(&element, &info.to_caps().unwrap());
    harness.push(frame(&info, 0)).unwrap();
    let out = src_info(&harness);
    assert_eq!(out.par(), info.par());
    assert_eq!(out.fps(), info.fps());
    assert_eq!(out.colorimetry(), info.colorimetry());
    assert_eq!(out.chroma_site(), info.chroma_site());
    assert_eq!(out.interlace_mode(), info.interlace_mode());
}

/// The samples were passed on with the other label.
#[test]
fn colours_are_converted_to_the_colorimetry_that_downstream_wants() {
    let red = |input: &str, output: &str| {
        let source = "videotestsrc pattern=red num-buffers=1 ! video/x-raw,width=64,height=48";
        let launch = format!(
            "{source},{input},colorimetry=bt709 ! fastganseg ! video/x-raw,{output} ! appsink name=out"
        );
        let outcome = play(&launch).ok();
        let info = &outcome.infos()[0];
        [0, 1, 2].map(|component| {
            let pixel = info.comp_pstride(component) as usize;
            let offset = info.comp_poffset(component) as usize;
            plane(outcome.samples[0].buffer().unwrap(), info, component, pixel)[offset]
        })
    };
    assert_eq!(red("format=I420", "format=A420,colorimetry=bt709"), [63, 102, 240]);
    assert_eq!(red("format=I420", "format=A420,colorimetry=bt601"), [81, 90, 239]);
    assert_eq!(red("format=AYUV", "format=AYUV,colorimetry=bt601"), [81, 90, 239]);
}

/// RGB of HDR video was labelled as sRGB.
#[test]
fn rgb_keeps_the_transfer_function_and_the_primaries() {
    for (yuv, rgb) in [("bt2100-pq", "1:1:14:7"), ("bt709", "1:1:5:1")] {
        let outcome = play(&format!(
            "videotestsrc num-buffers=1 ! video/x-raw,format=I420_10LE,width=64,height=48,colorimetry={yuv} \
             ! fastganseg ! video/x-raw,format=RGBA64_LE ! appsink name=out"
        ));
        assert_eq!(outcome.ok().infos()[0].colorimetry().to_string(), rgb);
    }
}

/// GStreamer unpacks the largest alpha of two bits as 192.
#[test]
fn alpha_of_two_bits_reaches_255() {
    for format in [VideoFormat::Rgb10a2Le, VideoFormat::Bgr10a2Le] {
        let info = info(format, 64, 48);
        let opaque = || {
            let mut buffer = gst::Buffer::from_mut_slice(vec![0xff; info.size()]);
            stamp(&mut buffer, 0);
            buffer
        };
        for (output, wanted) in [("mask", "GRAY8"), ("alpha", "ARGB"), ("alpha", "ARGB64")] {
            let element = element();
            element.set_property_from_str("output", output);
            let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
            harness.set_sink_caps_str(&format!("video/x-raw,format={wanted}"));
            harness.set_src_caps(info.to_caps().unwrap());
            let buffer = harness.push_and_pull(opaque()).unwrap();
            let out = src_info(&harness);
            let alpha = if wanted == "GRAY8" { plane(&buffer, &out, 0, 1) } else { alpha(&buffer, &out) };
            assert!(alpha.iter().all(|&alpha| alpha == 255), "{format:?} as {wanted}: {}", alpha[0]);
        }
        // A white picture that is opaque everywhere is no mask of alpha.
        let element = element();
        let black = gst::Buffer::from_mut_slice([0, 0, 0, 0xc0].repeat(64 * 48));
        let sample = gst::Sample::builder().buffer(&black).caps(&info.to_caps().unwrap()).build();
        assert!(!set_reference(&element, &sample, None), "{format:?}: it is all black");
    }
}

/// GStreamer 1.22 wrote beyond the end of the frame.
#[test]
fn interlaced_frames_with_an_odd_number_of_lines_a_field() {
    let (files, mask) = mask_file(disc);
    image::RgbImage::from_pixel(8, 8, image::Rgb([200, 30, 30])).save(files.path("red.png")).unwrap();
    let picture = format!("image:{}", files.path("red.png").display());
    for format in [
        VideoFormat::P01010le,
        VideoFormat::Nv12,
        VideoFormat::Uyvy,
        VideoFormat::V210,
        VideoFormat::I420,
        VideoFormat::I42010le,
    ] {
        for (property, value) in [
            ("background", "color:#00b140"),
            ("background", &picture),
            ("output", "overlay"),
            ("output", "alpha"),
        ] {
            let element = with_mask(&mask);
            element.set_property_from_str(property, value);
            let info = VideoInfo::builder(format, 640, 362)
                .interlace_mode(gst_video::VideoInterlaceMode::Interleaved)
                .build()
                .unwrap();
            let mut harness = harness(&element, &info.to_caps().unwrap());
            for number in 0..2 {
                harness.push(frame(&info, number)).unwrap();
                let output = harness.pull().unwrap();
                let expected = src_info(&harness).size();
                assert_eq!(output.size(), expected, "{format} {property}={value}");
            }
        }
    }
}

#[test]
fn compositor_links_without_a_converter() {
    let (_files, mask) = mask_file(|x, _| if x < 32 { 255 } else { 0 });
    for format in ["I420", "NV12", "YV12", "YUY2", "RGB", "BGRx"] {
        let outcome = play(&format!(
            "videotestsrc pattern=white num-buffers=1 ! video/x-raw,format={format},width=64,height=48 ! \
             fastganseg device=cpu ref-mask={} ! compositor background=black ! \
             video/x-raw,format=RGBA ! appsink name=out",
            mask.display()
        ))
        .ok();
        let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
        let row: Vec<u8> = map.chunks(4).take(64).map(|pixel| pixel[0]).collect();
        assert!(row[2] > 250 && row[29] > 250, "{format}: the object is {}, {}", row[2], row[29]);
        assert!(row[34] < 5 && row[61] < 5, "{format}: the background is {}, {}", row[34], row[61]);
    }
}

#[test]
fn downstream_without_alpha_is_an_error() {
    for sink in ["video/x-raw,format=I420 ! fakesink", "x264enc ! fakesink"] {
        if sink.starts_with("x264enc") && gst::ElementFactory::find("x264enc").is_none() {
            continue;
        }
        let outcome = play(&format!("{} ! fastganseg device=cpu ! {sink}", source("I420", (64, 48), 3)));
        let (error, _) = outcome.error.unwrap();
        assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("alpha") && message.contains("compositor"), "{message}");
        assert!(message.contains("output=mask"), "{message}");
    }
}

#[test]
fn downstream_without_alpha_takes_mask_or_overlay() {
    for (output, sink) in [("mask", "GRAY8"), ("labels", "GRAY8"), ("overlay", "I420")] {
        let outcome = play(&format!(
            "{} ! fastganseg device=cpu output={output} ! video/x-raw,format={sink} ! appsink name=out",
            source("I420", (64, 48), 3)
        ))
        .ok();
        assert_eq!(outcome.samples.len(), 3);
    }
}

#[test]
fn overlay_tints_only_the_object() {
    let (_files, mask) = mask_file(|x, _| if x < 32 { 255 } else { 0 });
    for format in ["RGB", "I420", "NV12", "v210"] {
        let outcome = play(&format!(
            "videotestsrc pattern=white num-buffers=1 ! video/x-raw,format={format},width=64,height=48 ! \
             fastganseg device=cpu output=overlay ref-mask={} ! videoconvert ! \
             video/x-raw,format=RGBA ! appsink name=out",
            mask.display()
        ))
        .ok();
        let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
        let pixel = |x: usize| [map[4 * x], map[4 * x + 1], map[4 * x + 2]];
        let [r, g, b] = pixel(10);
        assert!(r > 150 && g < 140 && b < 140, "{format}: the object is {:?}", pixel(10));
        assert!(pixel(50).iter().all(|&value| value > 245), "{format}: beside it is {:?}", pixel(50));
    }
}

/// The objects were tinted in the colours of each other, and the background twice.
#[test]
fn an_inverted_overlay_tints_only_the_background_of_several_objects() {
    let (_files, mask) = mask_file(|x, _| [1, 2, 0, 0][x / 16]);
    let outcome = play(&format!(
        "videotestsrc pattern=white num-buffers=1 ! video/x-raw,format=RGB,width=64,height=48 ! \
         fastganseg device=cpu output=overlay invert=true ref-mask={} ! appsink name=out",
        mask.display()
    ))
    .ok();
    let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
    let pixel = |x: usize| [map[3 * x], map[3 * x + 1], map[3 * x + 2]];
    for x in [5, 24] {
        assert!(pixel(x).iter().all(|&value| value > 245), "an object is {:?}", pixel(x));
    }
    assert!(pixel(50).iter().any(|&value| value < 200), "the background is {:?}", pixel(50));
}

const WIDTH: usize = 256;
const HEIGHT: usize = 192;

/// Centre of the object in each frame: down along the right edge, then back along the lower edge.
const PATH: [(usize, usize); 5] = [(230, 112), (234, 128), (224, 144), (210, 158), (194, 168)];

fn is_object(frame: usize, x: usize, y: usize) -> bool {
    let (u, v) = PATH[frame];
    x.abs_diff(u).pow(2) + y.abs_diff(v).pow(2) < 28 * 28
}

/// A bright disc on a dark background, both textured; in colour or grey.
fn picture(frame: usize, grey: bool) -> gst::Buffer {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let texture = ((x / 8 * 5 + y / 8 * 11) % 32) as u8;
        match (is_object(frame, x, y), grey) {
            (true, false) => [220, 150 + texture, 60],
            (false, false) => [30, 50 + texture, 90],
            (true, true) => [170 + texture; 3],
            (false, true) => [40 + texture; 3],
        }
    };
    let mut buffer = gst::Buffer::from_mut_slice((0..WIDTH * HEIGHT).flat_map(pixel).collect::<Vec<u8>>());
    stamp(&mut buffer, frame as u64);
    buffer
}

/// Returns the element's masks of the clip in `format`.
fn masks(harness: &mut Harness, format: VideoFormat, grey: bool) -> Vec<Vec<u8>> {
    let rgb = info(VideoFormat::Rgb, WIDTH as u32, HEIGHT as u32);
    let info = info(format, WIDTH as u32, HEIGHT as u32);
    harness.set_src_caps(info.to_caps().unwrap());
    start_new_stream(harness);
    (0..PATH.len())
        .map(|number| {
            let mut buffer = converted(&picture(number, grey), &rgb, &info);
            stamp(&mut buffer, number as u64);
            values(harness, buffer)
        })
        .collect()
}

fn iou(a: &[u8], b: &[u8]) -> f64 {
    let count = |wanted: fn(bool, bool) -> bool| {
        a.iter().zip(b).filter(|&(&a, &b)| wanted(a > 127, b > 127)).count() as f64
    };
    count(|a, b| a && b) / count(|a, b| a || b).max(1.0)
}

#[test]
fn masks_of_every_format_are_those_of_i420() {
    let files = Files::new();
    let mask: Vec<u8> =
        (0..WIDTH * HEIGHT).map(|i| 255 * u8::from(is_object(0, i % WIDTH, i / WIDTH))).collect();
    let mask = files.png("mask.png", (WIDTH, HEIGHT), png::ColorType::Grayscale, png::BitDepth::Eight, &mask);
    let element = with_mask(&mask);
    element.set_property("model-file", crate::model::small());
    element.set_property_from_str("roi", "auto");
    element.set_property_from_str("output", "mask");
    // Refined edges follow the luma, which not every format has as a plane.
    element.set_property_from_str("edges", "bilinear");
    element.set_property_from_str("precision", "float32");
    let mut harness =
        harness(&element, &info(VideoFormat::I420, WIDTH as u32, HEIGHT as u32).to_caps().unwrap());
    // Grey formats are compared on a grey clip.
    let expected = [false, true].map(|grey| masks(&mut harness, VideoFormat::I420, grey));
    for masks in &expected {
        for (number, mask) in masks.iter().enumerate() {
            let truth: Vec<u8> = (0..WIDTH * HEIGHT)
                .map(|i| 255 * u8::from(is_object(number, i % WIDTH, i / WIDTH)))
                .collect();
            let found = iou(mask, &truth);
            assert!(found > 0.8, "I420, frame {number}: {found:.2}");
        }
    }
    let mut count = 0;
    let mut wrong = Vec::new();
    for format in VideoFormat::iter_raw() {
        let grey = VideoFormatInfo::from_format(format).is_gray();
        let found = masks(&mut harness, format, grey);
        let min_iou = found.iter().zip(&expected[usize::from(grey)]).map(|(a, b)| iou(a, b));
        let min_iou = min_iou.fold(1.0, f64::min);
        count += 1;
        if min_iou < 0.95 {
            wrong.push(format!("{format:?}: {min_iou:.2}"));
        }
    }
    assert!(wrong.is_empty(), "of {count} formats: {}", wrong.join(", "));
    assert!(count > 80, "only {count} formats");
}

/// GStreamer 1.22 crashes in the conversion of UYVY, and exchanges the chroma of VYUY in every second row.
#[test]
fn pairs_of_pixels_of_an_odd_width() {
    for (format, [u, v]) in [(VideoFormat::Uyvy, [0, 2]), (VideoFormat::Vyuy, [2, 0])] {
        let (_files, element) = masked(disc);
        let (width, height) = (641, 19);
        let info = info(format, width as u32, height as u32);
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        let ayuv = VideoInfo::builder(VideoFormat::Ayuv, 641, 19).fps(info.fps()).build().unwrap();
        harness.set_caps(info.to_caps().unwrap(), ayuv.to_caps().unwrap());
        let input = frame(&info, 0);
        harness.push(input.copy()).unwrap();
        let output = harness.pull().unwrap();
        let (from, to) = (plane(&input, &info, 0, 2), plane(&output, &src_info(&harness), 0, 4));
        for (row, (from, to)) in from.chunks(2 * width).zip(to.chunks(4 * width)).enumerate() {
            for x in 0..width {
                let pair = 4 * (x / 2);
                let place = format!("{format:?} at {x}, {row}");
                assert_eq!(to[4 * x + 1], from[2 * x + 1], "luma of {place}");
                // The plane above has no third byte of the last column, whose pair is incomplete.
                let is_whole = |at: usize| at == 0 || x + 1 < width;
                assert!(!is_whole(u) || to[4 * x + 2] == from[pair + u], "U of {place}");
                assert!(!is_whole(v) || to[4 * x + 3] == from[pair + v], "V of {place}");
            }
        }
    }
}

#[test]
fn elements_without_video_meta_get_frames_without_padding() {
    let (_files, mask) = mask_file(disc);
    for (format, property, value) in [
        (VideoFormat::I420, "output", "overlay"),
        (VideoFormat::Nv12, "background", "color:#00b140"),
        (VideoFormat::V210, "background", "color:#00b140"),
        (VideoFormat::I420, "output", "alpha"),
        (VideoFormat::A420, "output", "alpha"),
        (VideoFormat::Rgbx, "output", "alpha"),
    ] {
        let info = info(format, 64, 48);
        let output = |padding: bool| {
            let element = with_mask(&mask);
            element.set_property_from_str(property, value);
            let mut harness = harness(&element, &info.to_caps().unwrap());
            let buffer = frame(&info, 0);
            harness.push(if padding { padded(&info, &buffer) } else { buffer }).unwrap();
            let output = harness.pull().unwrap();
            assert_eq!(output.size(), src_info(&harness).size(), "{format} {property}={value}");
            output.map_readable().unwrap().to_vec()
        };
        assert!(output(true) == output(false), "{format} {property}={value}");
    }
}
