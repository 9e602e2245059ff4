// SPDX-License-Identifier: MPL-2.0

use std::path::Path;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoMeta};
use png::{BitDepth, ColorType};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::util::*;

const SOURCE: &str = "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=64,height=48";

fn with(properties: &str) -> Outcome {
    play(&format!("{SOURCE} ! fastganseg device=cpu {properties} ! appsink name=out"))
}

/// Asserts that the start fails with a resource error, and returns its text.
#[track_caller]
fn refused(properties: &str) -> String {
    let outcome = with(properties);
    let (error, debug) = outcome.error.unwrap_or_else(|| panic!("{properties} was accepted"));
    assert!(error.is::<gst::ResourceError>(), "{error:?} {debug}");
    assert!(outcome.samples.is_empty());
    error.to_string()
}

#[track_caller]
fn refused_mask(path: &Path) -> String {
    let message = refused(&format!("ref-mask={}", path.display()));
    assert!(message.contains(path.to_str().unwrap()), "{message} does not name the file");
    message
}

#[track_caller]
fn accepted_mask(path: &Path) -> Outcome {
    let outcome = with(&format!("ref-mask={}", path.display())).ok();
    assert_eq!(outcome.samples.len(), 3);
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    outcome
}

#[test]
fn mask_missing() {
    let files = Files::new();
    assert!(refused_mask(&files.path("nowhere.png")).contains("give the path of a PNG file"));
    let outcome = with(&format!("ref-mask={}", files.path("nowhere.png").display()));
    assert!(outcome.error.unwrap().0.matches(gst::ResourceError::NotFound));
}

#[test]
fn mask_not_a_png() {
    let files = Files::new();
    refused_mask(&files.write("mask.png", b"GIF89a, say"));
    refused_mask(&files.write("empty.png", b""));
}

#[test]
fn mask_truncated() {
    let files = Files::new();
    let mut bytes = encode((64, 48), ColorType::Grayscale, BitDepth::Eight, &[200; 64 * 48]);
    bytes.truncate(bytes.len() - 20);
    assert!(refused_mask(&files.write("mask.png", &bytes)).contains("truncated"));
}

#[test]
fn mask_without_foreground() {
    let files = Files::new();
    assert!(refused_mask(&files.mask("mask.png", (8, 8), |_, _| 0)).contains("paint the object white"));
}

#[test]
fn mask_with_too_many_objects() {
    let files = Files::new();
    let ids: Vec<u8> = (0..68 * 51).map(|i| (i % 68 / 4) as u8).collect();
    let few = files.png("few.png", (68, 51), ColorType::Indexed, BitDepth::Eight, &ids);
    accepted_mask(&few);
    let ids: Vec<u8> = (0..18).collect();
    let many = files.png("many.png", (18, 1), ColorType::Indexed, BitDepth::Eight, &ids);
    assert!(refused_mask(&many).contains("17 objects"));
}

#[test]
fn mask_of_one_pixel() {
    let files = Files::new();
    let mask = files.mask("mask.png", (1, 1), |_, _| 200);
    let outcome = with(&format!("ref-mask={}", mask.display())).ok();
    let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
    assert!(map[64 * 48 * 3 / 2..].iter().all(|&alpha| alpha == 200));
}

#[test]
fn mask_of_sixteen_bits() {
    let files = Files::new();
    let data: Vec<u8> = (0..64 * 48).flat_map(|i| [if i % 64 < 32 { 255 } else { 0 }, 255]).collect();
    let path = files.png("mask.png", (64, 48), ColorType::Grayscale, BitDepth::Sixteen, &data);
    let outcome = accepted_mask(&path);
    let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
    let row: Vec<u8> = map[64 * 48 * 3 / 2..][..64].to_vec();
    assert_eq!((row[0], row[31], row[32], row[63]), (255, 255, 1, 1));
}

#[test]
fn mask_with_a_palette_and_void() {
    let files = Files::new();
    let data: Vec<u8> = (0..64 * 48).map(|i| [0, 3, 255, 7][i % 4]).collect();
    let path = files.png("mask.png", (64, 48), ColorType::Indexed, BitDepth::Eight, &data);
    let outcome = with(&format!("output=labels ref-mask={}", path.display())).ok();
    let map = outcome.samples[0].buffer().unwrap().map_readable().unwrap();
    assert_eq!(map[..8], [0, 3, 0, 7, 0, 3, 0, 7]);
}

#[test]
fn image_bad() {
    let (files, mask) = mask_file(disc);
    let image = files.write("image.png", b"no picture");
    let message = refused(&format!("ref-mask={} ref-image={}", mask.display(), image.display()));
    assert!(message.contains("image.png"), "{message}");
}

#[test]
fn model_missing_truncated_or_not_a_model() {
    let files = Files::new();
    let good = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lite.safetensors")).unwrap();
    for (name, bytes) in [
        ("text.safetensors", b"no weights".as_slice()),
        ("empty.safetensors", b""),
        ("header.safetensors", &good[..100]),
        ("truncated.safetensors", &good[..good.len() - 1000]),
    ] {
        let path = files.write(name, bytes);
        assert!(refused(&format!("model-file={}", path.display())).contains(name));
    }
    assert!(refused("model-file=/nowhere/model.safetensors").contains("/nowhere/model.safetensors"));
}

#[test]
fn network_size_invalid() {
    let message = refused("network-width=100");
    assert!(message.contains("100x192") && message.contains("multiples of 16"), "{message}");
    assert!(refused("network-width=4096 network-height=4096").contains("4096x4096"));
}

#[test]
fn model_of_another_architecture_or_shape() {
    let files = Files::new();
    let good = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lite.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&good).unwrap();
    let tensors = SafeTensors::deserialize(&good).unwrap();
    let metadata = header.metadata().clone().unwrap();

    let mut other = metadata.clone();
    let config = other.get_mut("config").unwrap();
    *config = config.replace("lite", "unheard-of");
    let bytes = safetensors::serialize(tensors.tensors(), Some(other)).unwrap();
    let path = files.write("architecture.safetensors", &bytes);
    assert!(refused(&format!("model-file={}", path.display())).contains("architecture.safetensors"));

    let mut changed = tensors.tensors();
    changed.sort_by(|a, b| a.0.cmp(&b.0));
    let (name, view) = changed.iter_mut().find(|(_, view)| view.shape().len() == 4).unwrap();
    let name = name.clone();
    let shape: Vec<usize> = std::iter::once(view.shape().iter().product()).chain([1, 1, 1]).collect();
    *view = TensorView::new(view.dtype(), shape, view.data()).unwrap();
    let bytes = safetensors::serialize(changed, Some(metadata)).unwrap();
    let path = files.write("shape.safetensors", &bytes);
    let message = refused(&format!("model-file={}", path.display()));
    assert!(message.contains(&name), "{message} does not name {name}");
}

#[test]
fn device_unavailable() {
    if has_nvidia_driver() {
        println!("skipped: there is a CUDA device");
        return;
    }
    for device in ["cuda", "cuda:3"] {
        let outcome = play(&format!("{SOURCE} ! fastganseg device={device} ! fakesink"));
        let (error, _) = outcome.error.expect("there is no CUDA device");
        assert!(error.is::<gst::ResourceError>());
        let message = error.to_string();
        assert!(message.contains("cuda") && message.contains("device=cpu"), "{message}");
        let missing = ["scripts/setup.sh", "NVIDIA driver"];
        assert!(missing.iter().any(|remedy| message.contains(remedy)), "{message}");
    }
}

#[test]
fn auto_warns_only_if_a_gpu_is_present_and_unusable() {
    if has_nvidia_driver() {
        println!("skipped: there is a CUDA device");
        return;
    }
    let outcome = play(&format!("{SOURCE} ! fastganseg device=auto ! fakesink"));
    assert!(outcome.error.is_none());
    let warning = outcome.warnings.iter().find(|warning| warning.contains("No CUDA device"));
    assert_eq!(warning.is_some(), gstfastganseg::device::has_nvidia_gpu(Path::new("/")), "{warning:?}");
    assert!(warning.is_none_or(|warning| warning.contains("device=cpu")), "{warning:?}");
}

fn has_nvidia_driver() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

#[test]
fn device_unknown() {
    let outcome = play(&format!("{SOURCE} ! fastganseg device=nonsense ! fakesink"));
    let message = outcome.error.unwrap().0.to_string();
    assert!(message.contains("nonsense") && message.contains("auto, cpu, cuda"), "{message}");
}

#[test]
fn precision_unsupported() {
    assert!(refused("precision=float16").contains("float16"));
}

#[test]
fn errors_name_their_source_line() {
    let outcome = play(&format!("{SOURCE} ! fastganseg device=cpu ref-mask=/nowhere.png ! fakesink"));
    let (_, debug) = outcome.error.unwrap();
    assert!(debug.contains("src/element/imp.rs(") && debug.contains("::start"), "{debug}");

    let (_files, element) = masked(disc);
    let bus = bus(&element);
    let (mut harness, _) = small(&element, VideoFormat::I420);
    assert!(harness.push(gst::Buffer::from_mut_slice(vec![0u8; 100])).is_err());
    let error = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = error.view() else { unreachable!() };
    let debug = error.debug().unwrap();
    assert!(debug.contains("src/element/stream.rs(") && debug.contains("::generate_output"), "{debug}");
}

#[test]
fn buffer_too_small() {
    let (_files, element) = masked(disc);
    let bus = bus(&element);
    let (mut harness, _) = small(&element, VideoFormat::I420);
    let result = harness.push(gst::Buffer::from_mut_slice(vec![0u8; 100]));
    assert_eq!(result, Err(gst::FlowError::Error));
    assert_eq!(next_message(&bus), "armed");
    assert!(next_message(&bus).starts_with("error: "));
}

/// Asserts that a buffer of 64x48 pixels with this video meta is refused with an error that contains `words`.
fn check_refused(
    format: VideoFormat,
    meta: (VideoFormat, u32, u32),
    layout: Option<(usize, i32)>,
    words: &str,
) {
    let (_files, element) = masked(disc);
    let bus = bus(&element);
    let caps = info(format, 64, 48);
    let mut harness = harness(&element, &caps.to_caps().unwrap());
    let (meta_format, width, height) = meta;
    let actual = info(meta_format, width, height);
    let mut buffer = frame(if actual.size() > caps.size() { &actual } else { &caps }, 0);
    let (inner, flags) = (buffer.get_mut().unwrap(), gstreamer_video::VideoFrameFlags::empty());
    let added = match layout {
        None => VideoMeta::add(inner, flags, meta_format, width, height),
        Some((offset, stride)) => {
            VideoMeta::add_full(inner, flags, meta_format, width, height, &[offset], &[stride])
        }
    };
    added.unwrap();
    assert_eq!(harness.push(buffer), Err(gst::FlowError::Error), "{layout:?}");
    assert_eq!(next_message(&bus), "armed");
    let error = next_message(&bus);
    assert!(error.starts_with("error: ") && error.contains(words), "{error}");
}

#[test]
fn a_video_meta_of_another_size_or_format_is_refused() {
    check_refused(VideoFormat::I420, (VideoFormat::I420, 80, 64), None, "80x64");
    check_refused(VideoFormat::I420, (VideoFormat::Gray8, 64, 48), None, "GRAY8");
}

/// Memory beyond the buffer was read.
#[test]
fn a_video_meta_beyond_its_buffer_is_refused() {
    for layout in [(0, 65536), (1, 192), (192 * 48, 192), (0, -192), (0, 0)] {
        check_refused(VideoFormat::Rgb, (VideoFormat::Rgb, 64, 48), Some(layout), "do not fit");
    }
}

#[test]
fn a_failed_buffer_does_not_lose_the_reference() {
    for threading in [false, true] {
        let element = element();
        element.set_property("frame-threading", threading);
        let (mut harness, info) = mask_output(&element);
        harness.push(frame(&info, 0)).unwrap();
        assert!(set_reference(&element, &grey(disc), None));
        let mut results = (1..4).map(|_| harness.push(gst::Buffer::from_mut_slice(vec![0u8; 100])));
        assert!(results.any(|result| result.is_err()));
        flush(&mut harness);
        while harness.buffers_in_queue() > 0 {
            harness.pull().unwrap();
        }
        for number in 0..3 {
            harness.push(frame(&info, number)).unwrap();
        }
        let output = harness.pull().unwrap();
        assert_eq!(plane(&output, &src_info(&harness), 0, 1), pixels(disc), "threading: {threading}");
        assert_eq!(reference_state(&element), "seeded");
    }
}

#[test]
fn the_reference_set_last_wins_if_the_buffer_before_it_fails() {
    let element = element();
    element.set_property("frame-threading", true);
    let (mut harness, info) = mask_output(&element);
    harness.push(frame(&info, 0)).unwrap();
    assert!(set_reference(&element, &grey(ramp), None));
    harness.push(gst::Buffer::from_mut_slice(vec![0u8; 100])).unwrap();
    assert!(set_reference(&element, &grey(disc), None));
    assert!(harness.push(frame(&info, 2)).is_err());
    flush(&mut harness);
    while harness.buffers_in_queue() > 0 {
        harness.pull().unwrap();
    }
    for number in 0..2 {
        harness.push(frame(&info, number)).unwrap();
    }
    assert_eq!(plane(&harness.pull().unwrap(), &src_info(&harness), 0, 1), pixels(disc));
}

#[test]
fn an_error_of_the_last_buffer_is_posted_once() {
    let (_files, element) = masked(disc);
    element.set_property("frame-threading", true);
    let bus = bus(&element);
    let (mut harness, _) = mask_output(&element);
    harness.push(gst::Buffer::from_mut_slice(vec![0u8; 100])).unwrap();
    assert!(!harness.push_event(gst::event::Eos::new()));
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_some());
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn a_bad_image_of_a_box_fails_the_start() {
    let element = element();
    let bus = bus(&element);
    element.set_property("ref-image", "/nowhere.png");
    element.set_property("ref-box", gst::Array::new([1.0, 2.0, 30.0, 40.0]));
    assert!(element.set_state(gst::State::Paused).is_err());
    let error = next_message(&bus);
    assert!(error.starts_with("error: ") && error.contains("/nowhere.png"), "{error}");
    element.set_state(gst::State::Null).unwrap();
}
