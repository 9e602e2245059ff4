//! The properties: their definitions and their values.

use std::path::PathBuf;
use std::sync::LazyLock;

use glib::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{Edges, LatePolicy, Output, Precision, Roi};
use crate::matte::MatteSettings;

/// The largest change of edges, in pixels: enough for any picture, and bounded for control bindings.
const MOST_PIXELS: f64 = 100.0;
/// The longest side of what enters the network.
const MOST_SIDE: u32 = 4096;

const MOST_THREADS: u32 = 1024;

/// Values of the properties.
#[derive(Clone, Debug)]
pub struct Settings {
    pub ref_mask: Option<PathBuf>,
    pub ref_image: Option<PathBuf>,
    pub model_file: Option<PathBuf>,
    pub device: String,
    pub precision: Precision,
    pub output: Output,
    pub object: u32,
    pub threshold: f64,
    pub invert: bool,
    pub feather: f64,
    pub expand: f64,
    pub smoothing: f64,
    pub edges: Edges,
    pub roi: Roi,
    pub network_width: u32,
    pub network_height: u32,
    pub threads: u32,
    pub frame_threading: bool,
    pub inference_interval: u32,
    pub late_policy: LatePolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ref_mask: None,
            ref_image: None,
            model_file: None,
            device: "auto".into(),
            precision: Precision::default(),
            output: Output::default(),
            object: 0,
            threshold: 0.0,
            invert: false,
            feather: 0.0,
            expand: 0.0,
            smoothing: 0.0,
            edges: Edges::default(),
            roi: Roi::default(),
            network_width: 0,
            network_height: 0,
            threads: 0,
            frame_threading: false,
            inference_interval: 1,
            late_policy: LatePolicy::default(),
        }
    }
}

impl Settings {
    pub fn matte(&self) -> MatteSettings {
        MatteSettings {
            object: self.object.min(254) as u8,
            threshold: self.threshold,
            invert: self.invert,
            feather: self.feather,
            expand: self.expand,
            smoothing: self.smoothing,
            edges: self.edges.into(),
        }
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "ref-mask" => self.ref_mask = path(value),
            "ref-image" => self.ref_image = path(value),
            "model-file" => self.model_file = path(value),
            "device" => self.device = get::<Option<String>>(value).unwrap_or_else(|| "auto".into()),
            "precision" => self.precision = get(value),
            "output" => self.output = get(value),
            "object" => self.object = get(value),
            "threshold" => self.threshold = get(value),
            "invert" => self.invert = get(value),
            "feather" => self.feather = get(value),
            "expand" => self.expand = get(value),
            "smoothing" => self.smoothing = get(value),
            "edges" => self.edges = get(value),
            "roi" => self.roi = get(value),
            "network-width" => self.network_width = get(value),
            "network-height" => self.network_height = get(value),
            "threads" => self.threads = get(value),
            "frame-threading" => self.frame_threading = get(value),
            "inference-interval" => self.inference_interval = get(value),
            "late-policy" => self.late_policy = get(value),
            _ => unreachable!("GObject knows no property {name}"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "ref-mask" => self.ref_mask.to_value(),
            "ref-image" => self.ref_image.to_value(),
            "model-file" => self.model_file.to_value(),
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "output" => self.output.to_value(),
            "object" => self.object.to_value(),
            "threshold" => self.threshold.to_value(),
            "invert" => self.invert.to_value(),
            "feather" => self.feather.to_value(),
            "expand" => self.expand.to_value(),
            "smoothing" => self.smoothing.to_value(),
            "edges" => self.edges.to_value(),
            "roi" => self.roi.to_value(),
            "network-width" => self.network_width.to_value(),
            "network-height" => self.network_height.to_value(),
            "threads" => self.threads.to_value(),
            "frame-threading" => self.frame_threading.to_value(),
            "inference-interval" => self.inference_interval.to_value(),
            "late-policy" => self.late_policy.to_value(),
            _ => unreachable!("GObject knows no property {name}"),
        }
    }
}

fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T
where
    <T::Checker as glib::value::ValueTypeChecker>::Error: std::fmt::Debug,
{
    value.get().expect("GObject checks the type of properties")
}

/// An empty path unsets, for the sake of launch lines.
fn path(value: &glib::Value) -> Option<PathBuf> {
    get::<Option<PathBuf>>(value).filter(|path| !path.as_os_str().is_empty())
}

pub fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        vec![
            glib::ParamSpecString::builder("ref-mask")
                .nick("Reference mask")
                .blurb(
                    "PNG with the object to cut out. Grey: white is object (no value but 255 above 16: object \
                     ids, 255 is void); palette: index is the object's id, 255 is void; with alpha: the alpha \
                     channel. Any size up to 67 million pixels. Arms the next buffer, or ref-image, as the reference",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("ref-image")
                .nick("Reference image")
                .blurb("PNG or JPEG that ref-mask was drawn on, turned by its EXIF orientation (unset = the next buffer)")
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("model-file")
                .nick("Model file")
                .blurb("Weights of the network, .safetensors (unset = the built-in lite model)")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb(
                    "What runs the network: auto, cpu, cuda or cuda:N. auto takes the first CUDA device or, \
                     with a warning, the CPU; cuda that cannot be had is an error",
                )
                .default_value("auto")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("active-device")
                .nick("Active device")
                .blurb("What the network really runs on: cpu or cuda:N (unset while stopped)")
                .read_only()
                .build(),
            glib::ParamSpecEnum::builder::<Precision>("precision")
                .nick("Precision")
                .blurb("In what kind of number the network computes; its memory is always float32")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder::<Output>("output")
                .nick("Output")
                .blurb("What to put out: the picture cut out, the mask, object ids, or a tinted picture")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("object")
                .nick("Object")
                .blurb("Which object of the mask to show, by its id (0 = all together)")
                .maximum(254)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("threshold")
                .nick("Threshold")
                .blurb("Alpha from which a pixel is opaque, all others being transparent (0 = off, soft)")
                .minimum(0.0)
                .maximum(1.0)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("invert")
                .nick("Invert")
                .blurb("Cut the object away and leave the background")
                .default_value(false)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("feather")
                .nick("Feather")
                .blurb("Pixels of the picture over which the edge is made softer (0 = off)")
                .minimum(0.0)
                .maximum(MOST_PIXELS)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("expand")
                .nick("Expand")
                .blurb("Pixels of the picture by which the mask grows, or, being negative, shrinks")
                .minimum(-MOST_PIXELS)
                .maximum(MOST_PIXELS)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("smoothing")
                .nick("Smoothing")
                .blurb("How much the mask keeps of the one before, against flicker (0 = off)")
                .minimum(0.0)
                .maximum(1.0)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Edges>("edges")
                .nick("Edges")
                .blurb("How the mask gets from the network's size to that of the picture")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Roi>("roi")
                .nick("Region of interest")
                .blurb("Where in the picture the network looks")
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("network-width")
                .nick("Network width")
                .blurb(
                    "Width at which pictures enter the network, a multiple of 16 (resnet50: 32): more is finer and \
                     slower (0 = the model's own)",
                )
                .maximum(MOST_SIDE)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("network-height")
                .nick("Network height")
                .blurb("Height at which pictures enter the network, as network-width (0 = the model's own)")
                .maximum(MOST_SIDE)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("threads")
                .nick("Threads")
                .blurb(
                    "CPU threads of the network (0 = automatic: the fastest number, measured while frames are \
                     processed)",
                )
                .maximum(MOST_THREADS)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("frame-threading")
                .nick("Frame threading")
                .blurb(
                    "Encode the next frame on another thread while this one is cut out: more frames a second on the \
                     CPU, each one frame later (lite on the CPU; elsewhere it changes nothing)",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("inference-interval")
                .nick("Inference interval")
                .blurb("Run the network on every n-th frame, with the last mask on those in between")
                .minimum(1)
                .default_value(1)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<LatePolicy>("late-policy")
                .nick("Late policy")
                .blurb("What to do with frames that the sink says come too late")
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Counts since the start: frames put out, inferences, frames held (with an earlier mask) and \
                     dropped; times of the last frames; device; reference-state",
                )
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
