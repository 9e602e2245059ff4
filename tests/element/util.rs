// SPDX-License-Identifier: MPL-2.0

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gst::prelude::*;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_check::Harness;
use gstreamer_video as gst_video;
use gstreamer_video::{VideoFormat, VideoFrameRef, VideoInfo};
use tempfile::TempDir;

pub const WAIT: gst::ClockTime = gst::ClockTime::from_seconds(300);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        let registry = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registry.bin");
        // SAFETY: every test calls this first, so no other code reads the environment yet.
        unsafe { std::env::set_var("GST_REGISTRY", registry) };
        gst::init().unwrap();
        gstfastganseg::element::register_static().unwrap();
    });
}

/// A temporary folder, removed on drop.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn png(
        &self,
        name: &str,
        size: (usize, usize),
        color: png::ColorType,
        depth: png::BitDepth,
        data: &[u8],
    ) -> PathBuf {
        self.write(name, &encode(size, color, depth, data))
    }

    /// Writes a soft mask.
    pub fn mask(
        &self,
        name: &str,
        (width, height): (usize, usize),
        value: fn(usize, usize) -> u8,
    ) -> PathBuf {
        let data: Vec<u8> = (0..width * height).map(|i| value(i % width, i / width)).collect();
        self.png(name, (width, height), png::ColorType::Grayscale, png::BitDepth::Eight, &data)
    }
}

pub fn encode(
    (width, height): (usize, usize),
    color: png::ColorType,
    depth: png::BitDepth,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|i| [i, 255 - i, 0]).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// Values above 16, so that the mask is not taken for object ids.
pub fn ramp(x: usize, y: usize) -> u8 {
    (20 + (37 * x + 11 * y) % 236) as u8
}

/// A disc in the middle of 64x48.
pub fn disc(x: usize, y: usize) -> u8 {
    let (dx, dy) = (x as i32 - 32, y as i32 - 24);
    if dx * dx + dy * dy < 144 { 255 } else { 0 }
}

pub fn element() -> gst::Element {
    init();
    gst::ElementFactory::make("fastganseg").property("device", "cpu").build().unwrap()
}

pub fn with_mask(mask: &Path) -> gst::Element {
    let element = element();
    element.set_property("ref-mask", mask.to_str().unwrap());
    element
}

/// A folder with a mask of 64x48, and the path of the mask.
pub fn mask_file(value: fn(usize, usize) -> u8) -> (Files, PathBuf) {
    let files = Files::new();
    let mask = files.mask("mask.png", (64, 48), value);
    (files, mask)
}

/// An element with a mask of 64x48, and the folder of the mask.
pub fn masked(value: fn(usize, usize) -> u8) -> (Files, gst::Element) {
    let (files, mask) = mask_file(value);
    (files, with_mask(&mask))
}

pub fn harness(element: &gst::Element, caps: &gst::Caps) -> Harness {
    let mut harness = Harness::with_element(element, Some("sink"), Some("src"));
    harness.set_src_caps(caps.clone());
    harness
}

/// Harness for frames of 64x48, and their format.
pub fn small(element: &gst::Element, format: VideoFormat) -> (Harness, VideoInfo) {
    let info = info(format, 64, 48);
    (harness(element, &info.to_caps().unwrap()), info)
}

/// Sets a bus on the element: harnesses have none.
pub fn bus(element: &gst::Element) -> gst::Bus {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    bus
}

pub fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    init();
    VideoInfo::builder(format, width, height).fps(gst::Fraction::new(30, 1)).build().unwrap()
}

/// A frame with the given number and the packed layout of `info`.
pub fn frame(info: &VideoInfo, number: u64) -> gst::Buffer {
    let bytes: Vec<u8> = (0..info.size()).map(|i| (i * 7 + i / 97) as u8).collect();
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    stamp(&mut buffer, number);
    buffer
}

pub fn stamp(buffer: &mut gst::Buffer, number: u64) {
    let buffer = buffer.get_mut().unwrap();
    buffer.set_pts(gst::ClockTime::SECOND * number / 30);
    buffer.set_duration(gst::ClockTime::SECOND / 30);
}

/// Begins another stream, so that the next frame becomes the reference again.
pub fn start_new_stream(harness: &mut Harness) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("stream-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    harness.push_event(gst::event::StreamStart::builder(&id).build());
}

pub fn src_info(harness: &Harness) -> VideoInfo {
    let caps = harness.sinkpad().unwrap().current_caps().unwrap();
    VideoInfo::from_caps(&caps).unwrap()
}

/// Bytes of the plane of a component, without padding. `pixel` is the size of a pixel in bytes.
pub fn plane(buffer: &gst::BufferRef, info: &VideoInfo, component: u8, pixel: usize) -> Vec<u8> {
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    let index = info.comp_plane(component);
    let stride = frame.plane_stride()[index as usize] as usize;
    let (width, height) = (info.comp_width(component) as usize, info.comp_height(component) as usize);
    let data = frame.plane_data(index).unwrap();
    data.chunks(stride).take(height).flat_map(|row| row[..width * pixel].to_vec()).collect()
}

/// Whether a format has alpha. The fourth component of Y410 and Y412 is not alpha: decoders do not fill it and
/// GStreamer ignores it. That of AV12 is, although GStreamer 1.22 does not list it.
pub fn has_alpha(format: VideoFormat) -> bool {
    gst_video::VideoFormatInfo::from_format(format).has_alpha() || format == VideoFormat::Av12
}

/// Alpha of a buffer of any format, 8 bits per pixel, converted by GStreamer.
pub fn alpha(buffer: &gst::Buffer, info: &VideoInfo) -> Vec<u8> {
    let out = as_rgba(buffer, info);
    let map = out.map_readable().unwrap();
    // GStreamer unpacks the largest value of two bits as 192.
    let two_bits = info.format_info().depth().get(3) == Some(&2);
    map.chunks(4).map(|pixel| if two_bits { pixel[3] / 64 * 85 } else { pixel[3] }).collect()
}

/// Converts a frame of any size to RGBA, whose rows have no padding.
pub fn as_rgba(buffer: &gst::BufferRef, info: &VideoInfo) -> gst::Buffer {
    let rgba = VideoInfo::builder(VideoFormat::Rgba, info.width(), info.height())
        .fps(info.fps())
        .interlace_mode(info.interlace_mode())
        .build()
        .unwrap();
    converted(buffer, info, &rgba)
}

/// Converts a frame to another format.
pub fn converted(buffer: &gst::BufferRef, from: &VideoInfo, to: &VideoInfo) -> gst::Buffer {
    let mut out = gst::Buffer::with_size(to.size()).unwrap();
    let source = VideoFrameRef::from_buffer_ref_readable(buffer, from).unwrap();
    let mut target = VideoFrameRef::from_buffer_ref_writable(out.get_mut().unwrap(), to).unwrap();
    let converter = gst_video::VideoConverter::new(from, to, None).unwrap();
    converter.frame_ref(&source, &mut target);
    drop(target);
    out
}

/// Result of a pipeline.
#[derive(Debug)]
pub struct Outcome {
    pub samples: Vec<gst::Sample>,
    pub warnings: Vec<String>,
    pub error: Option<(glib::Error, String)>,
}

impl Outcome {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.error.is_none(), "{:?}", self.error);
        self
    }

    pub fn infos(&self) -> Vec<VideoInfo> {
        self.samples.iter().map(|sample| VideoInfo::from_caps(sample.caps().unwrap()).unwrap()).collect()
    }
}

/// A pipeline that stops on drop, also in a test that fails.
pub struct Pipeline(gst::Pipeline);

impl Pipeline {
    pub fn new(launch: &str) -> Self {
        init();
        Self(gst::parse::launch(launch).unwrap().downcast().unwrap())
    }

    /// Waits for EOS. Returns false on an error or timeout.
    pub fn ends(&self) -> bool {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = self.bus().unwrap().timed_pop_filtered(WAIT, &kinds);
        println!("{message:?}");
        message.is_some_and(|message| message.type_() == gst::MessageType::Eos)
    }
}

impl std::ops::Deref for Pipeline {
    type Target = gst::Pipeline;

    fn deref(&self) -> &gst::Pipeline {
        &self.0
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Plays `launch` to EOS or an error. Samples are those of the appsink `out`, if there is one.
pub fn play(launch: &str) -> Outcome {
    let pipeline = Pipeline::new(launch);
    let samples = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    if let Some(sink) = pipeline.by_name("out") {
        let sink = sink.downcast::<gst_app::AppSink>().unwrap();
        sink.set_sync(false);
        let samples = samples.clone();
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    samples.lock().unwrap().push(sink.pull_sample().map_err(|_| gst::FlowError::Eos)?);
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
    }
    let mut outcome = Outcome { samples: Vec::new(), warnings: Vec::new(), error: None };
    let bus = pipeline.bus().unwrap();
    let started = pipeline.set_state(gst::State::Playing);
    loop {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Warning];
        // After a failed start the error is already on the bus.
        let wait = if started.is_ok() { WAIT } else { gst::ClockTime::SECOND };
        let Some(message) = bus.timed_pop_filtered(wait, &kinds) else {
            assert!(started.is_err(), "{launch} has not ended");
            panic!("{launch} does not start, and there is no error");
        };
        match message.view() {
            gst::MessageView::Error(error) => {
                outcome.error = Some((error.error(), error.debug().unwrap_or_default().to_string()));
                break;
            }
            gst::MessageView::Warning(warning) => outcome.warnings.push(warning.error().to_string()),
            _ => break,
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    outcome.samples = std::mem::take(&mut *samples.lock().unwrap());
    outcome
}

pub fn mask_output(element: &gst::Element) -> (Harness, VideoInfo) {
    element.set_property_from_str("output", "mask");
    small(element, VideoFormat::I420)
}

/// Pushes `buffer` and returns the output mask.
pub fn values(harness: &mut Harness, buffer: gst::Buffer) -> Vec<u8> {
    harness.push(buffer).unwrap();
    let buffer = harness.pull().unwrap();
    plane(&buffer, &src_info(harness), 0, 1)
}

/// Values of a 64x48 mask.
pub fn pixels(value: fn(usize, usize) -> u8) -> Vec<u8> {
    (0..64 * 48).map(|i| value(i % 64, i / 64)).collect()
}

/// A counter of the property `stats`.
pub fn count(element: &gst::Element, name: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(name).unwrap()
}

/// The `reference-state` of the property `stats`.
pub fn reference_state(element: &gst::Element) -> String {
    element.property::<gst::Structure>("stats").get("reference-state").unwrap()
}

/// Waits for the next `fastganseg-reference` message, warning or error, and returns it as text.
pub fn next_message(bus: &gst::Bus) -> String {
    loop {
        let kinds = [gst::MessageType::Element, gst::MessageType::Warning, gst::MessageType::Error];
        let message =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &kinds).expect("no message within 20 s");
        match message.view() {
            gst::MessageView::Element(element) => {
                let structure = element.structure().unwrap();
                if structure.name() == "fastganseg-reference" {
                    let state = structure.get::<String>("state").unwrap();
                    return match structure.get::<u32>("object") {
                        Ok(object) => format!("{state} {object}"),
                        Err(_) => state,
                    };
                }
            }
            gst::MessageView::Warning(warning) => return format!("warning: {}", warning.error()),
            gst::MessageView::Error(error) => return format!("error: {}", error.error()),
            _ => (),
        }
    }
}

/// Asserts that there are no messages, except for `lost` and `recovered`, which noise may cause.
pub fn assert_no_messages(bus: &gst::Bus) {
    std::thread::sleep(Duration::from_millis(100));
    let kinds = [gst::MessageType::Element, gst::MessageType::Warning, gst::MessageType::Error];
    while let Some(message) = bus.pop_filtered(&kinds) {
        let state = message.structure().and_then(|structure| structure.get::<String>("state").ok());
        if !matches!(state.as_deref(), Some("lost" | "recovered")) {
            panic!("unexpected {message:?}");
        }
    }
}

/// Reports a skipped test. With `FASTGANSEG_REQUIRE_ALL`, as in continuous integration, the test fails instead. For
/// missing tools, not for data outside the repository or hardware features.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("FASTGANSEG_REQUIRE_ALL").is_none(), "this test cannot run: {reason}");
    println!("skipped: {reason}");
}

/// Path of data outside the repository; `None` if it does not exist.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FASTGANSEG_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        println!("skipped: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

/// Flushes and begins a new segment, as a seek does.
pub fn flush(harness: &mut Harness) {
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(harness.push_event(gst::event::Segment::new(&segment)));
}

/// A sample of 64x48 pixels.
pub fn sample(format: VideoFormat, bytes: Vec<u8>) -> gst::Sample {
    let info = info(format, 64, 48);
    assert_eq!(bytes.len(), info.size());
    gst::Sample::builder().buffer(&gst::Buffer::from_slice(bytes)).caps(&info.to_caps().unwrap()).build()
}

/// A grey mask as a sample.
pub fn grey(value: fn(usize, usize) -> u8) -> gst::Sample {
    sample(VideoFormat::Gray8, pixels(value))
}

/// Emits `set-reference`. Returns whether the mask was accepted.
pub fn set_reference(element: &gst::Element, mask: &gst::Sample, image: Option<&gst::Sample>) -> bool {
    element.emit_by_name("set-reference", &[mask, &image.cloned()])
}

/// Returns the text of the next warning, which has been posted already or is within 20 s.
#[track_caller]
pub fn warning(bus: &gst::Bus) -> String {
    let time = gst::ClockTime::from_seconds(20);
    let message = bus.timed_pop_filtered(time, &[gst::MessageType::Warning]).expect("a warning");
    let gst::MessageView::Warning(warning) = message.view() else { unreachable!() };
    warning.error().to_string()
}

/// Copies a frame to a buffer with longer rows.
pub fn padded(info: &VideoInfo, buffer: &gst::BufferRef) -> gst::Buffer {
    let mut wide = info.clone();
    let mut alignment = gst_video::VideoAlignment::new(0, 16, 0, 32, &[0; 4]);
    wide.align(&mut alignment).unwrap();
    let mut out = gst::Buffer::with_size(wide.size()).unwrap();
    {
        let out = out.get_mut().unwrap();
        let (width, height) = (info.width(), info.height());
        let flags = gst_video::VideoFrameFlags::empty();
        let (offset, stride) = (wide.offset(), wide.stride());
        gst_video::VideoMeta::add_full(out, flags, info.format(), width, height, offset, stride).unwrap();
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(out, info).unwrap();
        from.copy(&mut to).unwrap();
    }
    assert_ne!(out.size(), info.size());
    out
}
