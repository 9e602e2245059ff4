// SPDX-License-Identifier: MPL-2.0

//! A selector that cuts between cameras: each stream keeps its own reference.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::util::*;
use crate::{model, watchdog};

/// Two cameras with different formats and sizes behind an `input-selector`.
struct Mixer {
    pipeline: Pipeline,
    cameras: [Camera; 2],
    out: gst_app::AppSink,
}

struct Camera {
    source: gst_app::AppSrc,
    pad: gst::Pad,
    info: VideoInfo,
    scene: fn(u64, f64, f64) -> bool,
    colors: [[u8; 3]; 2],
}

/// Radius of the disc and half side of the square, relative to the frame height.
const RADIUS: f64 = 0.2;

/// Initial centre of both objects, relative to width and height.
const START: (f64, f64) = (0.25, 0.5);

fn disc_that_moves_right(number: u64, x: f64, y: f64) -> bool {
    let (u, v) = (START.0 + 0.012 * number as f64, START.1);
    (1.5 * (x - u)).hypot(y - v) < RADIUS
}

fn square_that_moves_down(number: u64, x: f64, y: f64) -> bool {
    let (u, v) = (START.0 + 0.008 * number as f64, START.1 + 0.008 * number as f64);
    (1.5 * (x - u)).abs().max((y - v).abs()) < RADIUS
}

impl Camera {
    fn inside(&self, number: u64) -> Vec<bool> {
        let (width, height) = (self.info.width() as usize, self.info.height() as usize);
        (0..width * height)
            .map(|i| {
                (self.scene)(number, (i % width) as f64 / width as f64, (i / width) as f64 / height as f64)
            })
            .collect()
    }

    fn buffer(&self, number: u64) -> gst::Buffer {
        let (width, height) = (self.info.width(), self.info.height());
        let plain = info(VideoFormat::Rgb, width, height);
        let stride = plain.stride()[0] as usize;
        let mut data = vec![0; plain.size()];
        for (i, inside) in self.inside(number).into_iter().enumerate() {
            let (x, y) = (i % width as usize, i / width as usize);
            let texture = ((x / 3 * 7 + y / 3 * 13) % 30) as u8;
            let color = self.colors[usize::from(inside)];
            for (target, value) in data[y * stride + 3 * x..][..3].iter_mut().zip(color) {
                *target = value + texture;
            }
        }
        let mut buffer = converted(&gst::Buffer::from_mut_slice(data), &plain, &self.info);
        stamp(&mut buffer, number);
        buffer
    }
}

impl Mixer {
    fn new(settings: &str) -> Self {
        let pipeline = Pipeline::new(&format!(
            "input-selector name=mixer sync-streams=false ! \
             fastganseg name=f device=cpu output=mask model-file={} {settings} ! appsink name=out sync=false \
             appsrc name=first format=time ! mixer. appsrc name=second format=time ! mixer.",
            model::small()
        ));
        let camera = |name: &str, info: VideoInfo, scene, colors| {
            let source = pipeline.by_name(name).unwrap().downcast::<gst_app::AppSrc>().unwrap();
            source.set_caps(Some(&info.to_caps().unwrap()));
            let pad = source.static_pad("src").unwrap().peer().unwrap();
            Camera { source, pad, info, scene, colors }
        };
        let first = camera(
            "first",
            info(VideoFormat::I420, 192, 128),
            disc_that_moves_right,
            [[20, 50, 90], [200, 110, 30]],
        );
        let second = camera(
            "second",
            info(VideoFormat::Bgrx, 144, 96),
            square_that_moves_down,
            [[140, 130, 120], [30, 160, 60]],
        );
        let out = pipeline.by_name("out").unwrap().downcast().unwrap();
        let mixer = Self { cameras: [first, second], out, pipeline };
        mixer.pipeline.set_state(gst::State::Playing).unwrap();
        mixer
    }

    fn element(&self) -> gst::Element {
        self.pipeline.by_name("f").unwrap()
    }

    /// Cuts to a camera, pushes some of its frames, and returns their masks.
    fn show(&self, camera: usize, frames: std::ops::Range<u64>) -> Vec<Vec<bool>> {
        let camera = &self.cameras[camera];
        self.pipeline.by_name("mixer").unwrap().set_property("active-pad", &camera.pad);
        for number in frames.clone() {
            camera.source.push_buffer(camera.buffer(number)).unwrap();
        }
        let pull = |number| {
            let sample = self.out.pull_sample().unwrap();
            assert_eq!(sample.buffer().unwrap().pts(), camera.buffer(number).pts());
            let info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            assert_eq!((info.width(), info.height()), (camera.info.width(), camera.info.height()));
            let values = plane(&sample.buffer_owned().unwrap(), &info, 0, 1);
            values.iter().map(|&value| value > 127).collect()
        };
        let last = frames.end - 1;
        let mut masks: Vec<Vec<bool>> = (frames.start..last).map(pull).collect();
        // With frame threading a serialised event pushes the pending frame.
        let event = gst::event::CustomDownstream::new(gst::Structure::new_empty("next"));
        self.element().static_pad("sink").unwrap().send_event(event);
        masks.push(pull(last));
        masks
    }

    /// Intersection over union of a mask with the object in a camera's frame.
    fn iou(&self, camera: usize, number: u64, mask: &[bool]) -> f64 {
        iou(mask, &self.cameras[camera].inside(number))
    }

    /// Reference messages since the last call: state and timestamp.
    fn next_message(&self) -> Vec<(String, Option<gst::ClockTime>)> {
        let bus = self.pipeline.bus().unwrap();
        std::iter::from_fn(|| {
            // Not warnings: there is one about a mask that looks inverted.
            bus.pop_filtered(&[gst::MessageType::Element, gst::MessageType::Error])
        })
        .map(|message| {
            let structure = message.structure().unwrap();
            assert_eq!(structure.name(), "fastganseg-reference", "{message:?}");
            (structure.get("state").unwrap(), structure.get("pts").ok())
        })
        .collect()
    }
}

fn iou(a: &[bool], b: &[bool]) -> f64 {
    let count = |of: fn(bool, bool) -> bool| a.iter().zip(b).filter(|&(a, b)| of(*a, *b)).count() as f64;
    count(|a, b| a && b) / count(|a, b| a || b).max(1.0)
}

/// Mask of the first frame, used for both cameras.
fn mask(files: &Files) -> String {
    let data: Vec<u8> = (0..96 * 64)
        .map(|i| {
            let (x, y) = ((i % 96) as f64 / 96.0, (i / 96) as f64 / 64.0);
            if disc_that_moves_right(0, x, y) { 255 } else { 0 }
        })
        .collect();
    let (color, depth) = (png::ColorType::Grayscale, png::BitDepth::Eight);
    files.png("mask.png", (96, 64), color, depth, &data).to_str().unwrap().to_owned()
}

fn states(next_message: &[(String, Option<gst::ClockTime>)]) -> Vec<&str> {
    next_message.iter().map(|(state, _)| state.as_str()).collect()
}

#[test]
fn a_camera_that_comes_back_has_its_own_reference() {
    watchdog::ends(|| {
        for threading in [false, true] {
            let files = Files::new();
            let mixer = Mixer::new(&format!("ref-mask={} frame-threading={threading}", mask(&files)));
            for camera in [0, 1] {
                let masks = mixer.show(camera, 0..10);
                let found = mixer.iou(camera, 9, &masks[9]);
                assert!(found > 0.7, "camera {camera}: {found}");
                assert_eq!(states(&mixer.next_message()), ["armed", "seeded"]);
            }
            for (camera, frames) in [(0, 20..23), (1, 15..18), (0, 22..25), (1, 20..23)] {
                let (begin, start) = (mixer.cameras[camera].buffer(frames.start).pts(), frames.start);
                let masks = mixer.show(camera, frames);
                let found: Vec<f64> =
                    (start..).zip(&masks).map(|(number, mask)| mixer.iou(camera, number, mask)).collect();
                println!("camera {camera} from frame {start} on: {found:.2?}");
                assert!(
                    found.iter().all(|&found| found > 0.6),
                    "camera {camera} from frame {start} on: {found:?}"
                );
                assert_eq!(mixer.next_message(), [("armed".to_owned(), None), ("seeded".to_owned(), begin)]);
            }
        }
    });
}

#[test]
fn a_new_mask_applies_to_the_current_stream_and_new_streams() {
    watchdog::ends(|| {
        let files = Files::new();
        let mixer = Mixer::new(&format!("ref-mask={}", mask(&files)));
        mixer.show(0, 0..3);
        // Another object for the second camera: the complement of the first mask.
        let outside =
            pixels(|x, y| if disc_that_moves_right(0, x as f64 / 64.0, y as f64 / 48.0) { 0 } else { 255 });
        mixer.show(1, 0..3);
        assert!(set_reference(&mixer.element(), &sample(VideoFormat::Gray8, outside), None));
        let masks = mixer.show(1, 3..6);
        assert!(masks[0][0], "the corner belongs to the object");
        mixer.next_message();

        let masks = mixer.show(0, 6..8);
        assert!(mixer.iou(0, 6, &masks[0]) > 0.7, "the first camera keeps its reference");
        let masks = mixer.show(1, 8..10);
        assert!(masks[0][0], "the second camera keeps the new mask");
        assert_eq!(states(&mixer.next_message()), ["armed", "seeded", "armed", "seeded"]);
    });
}

#[test]
fn reset_drops_the_references_of_other_streams() {
    watchdog::ends(|| {
        let files = Files::new();
        let mixer = Mixer::new(&format!("ref-mask={}", mask(&files)));
        let drawn = mixer.show(0, 0..3).remove(0);
        mixer.show(1, 0..3);
        mixer.element().emit_by_name::<()>("reset", &[]);
        assert_eq!(mixer.show(0, 20..22)[0], drawn, "the first frame carries the mask itself");
        let masks = mixer.show(1, 20..22);
        assert!(mixer.iou(1, 20, &masks[0]) > 0.7, "the stream of the reset is tracked");
    });
}
