// SPDX-License-Identifier: MPL-2.0

//! Properties: definitions and values.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use glib::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{AlphaMode, Edges, Foreground, LatePolicy, Output, Precision, Quality, RefAuto, Roi};
use crate::matte::MatteSettings;
use crate::model::prompt::{Point, Prompt, Rect};
use crate::{Error, Result};

/// Maximum of `feather` and `expand` in pixels. Control bindings need a bound.
const MAX_EDGE_PIXELS: f64 = 100.0;
/// Maximum of `network-width` and `network-height` in pixels.
const MAX_NETWORK_SIDE: u32 = 4096;

const MAX_THREADS: u32 = 1024;
/// Default and maximum of `ref-auto-timeout` in seconds.
const REF_AUTO_TIMEOUT: f64 = 5.0;
const MAX_TIMEOUT: f64 = 1e6;

/// Values of the properties.
#[derive(Clone, Debug)]
pub struct Settings {
    pub ref_mask: Option<PathBuf>,
    pub ref_image: Option<PathBuf>,
    pub model_file: Option<PathBuf>,
    pub device: String,
    pub precision: Precision,
    pub output: Output,
    pub background: Option<String>,
    pub foreground: Foreground,
    pub alpha_mode: AlphaMode,
    pub object: u32,
    pub threshold: f64,
    pub invert: bool,
    pub feather: f64,
    pub expand: f64,
    pub edges: Edges,
    pub roi: Roi,
    pub quality: Quality,
    pub network_width: u32,
    pub network_height: u32,
    pub threads: u32,
    pub frame_threading: bool,
    pub inference_interval: u32,
    pub late_policy: LatePolicy,
    pub roi_meta: bool,
    pub interactive: bool,
    pub mask_location: Option<PathBuf>,
    pub ref_auto: RefAuto,
    /// Seconds.
    pub ref_auto_timeout: f64,
    /// Elements of `ref-box`.
    pub ref_box: Vec<f64>,
    /// Elements of `ref-points`.
    pub ref_points: Vec<Vec<f64>>,
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
            background: None,
            foreground: Foreground::default(),
            alpha_mode: AlphaMode::default(),
            object: 0,
            threshold: 0.0,
            invert: false,
            feather: 0.0,
            expand: 0.0,
            edges: Edges::default(),
            roi: Roi::default(),
            quality: Quality::default(),
            network_width: 0,
            network_height: 0,
            threads: 0,
            frame_threading: false,
            inference_interval: 1,
            late_policy: LatePolicy::default(),
            roi_meta: false,
            interactive: false,
            mask_location: None,
            ref_auto: RefAuto::default(),
            ref_auto_timeout: REF_AUTO_TIMEOUT,
            ref_box: Vec::new(),
            ref_points: Vec::new(),
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
            edges: self.edges,
        }
    }

    pub fn ref_auto_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.ref_auto_timeout)
    }

    /// Returns what `ref-box` and `ref-points` select, if they are set.
    ///
    /// # Errors
    /// A wrong number of elements, or a value that is no finite number.
    pub fn prompt(&self) -> Result<Option<Prompt>> {
        if self.ref_box.is_empty() && self.ref_points.is_empty() {
            return Ok(None);
        }
        let bad = |reason: String| Error::Config(reason);
        let rect = match self.ref_box[..] {
            [] => None,
            [x, y, width, height] if self.ref_box.iter().all(|value| value.is_finite()) => {
                Some(Rect { x, y, width, height })
            }
            _ => {
                let elements = &self.ref_box;
                return Err(bad(format!(
                    "ref-box is {elements:?}: give four numbers, <x, y, width, height> in pixels"
                )));
            }
        };
        let point = |point: &Vec<f64>| match point[..] {
            [x, y, label] if x.is_finite() && y.is_finite() && (label == 0.0 || label == 1.0) => {
                Ok(Point { x, y, positive: label == 1.0 })
            }
            _ => Err(bad(format!(
                "ref-points has the element {point:?}: give <x, y, label> in pixels, label 1 on the object, 0 elsewhere"
            ))),
        };
        let points = self.ref_points.iter().map(point).collect::<Result<_>>()?;
        Ok(Some(Prompt { points, rect, mask: None }))
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "ref-mask" => self.ref_mask = path(value),
            "ref-image" => self.ref_image = path(value),
            "model-file" => self.model_file = path(value),
            "device" => self.device = get::<Option<String>>(value).unwrap_or_else(|| "auto".into()),
            "precision" => self.precision = get(value),
            "output" => self.output = get(value),
            // An empty string unsets it, as with paths.
            "background" => self.background = get::<Option<String>>(value).filter(|text| !text.is_empty()),
            "foreground" => self.foreground = get(value),
            "alpha-mode" => self.alpha_mode = get(value),
            "object" => self.object = get(value),
            "threshold" => self.threshold = get(value),
            "invert" => self.invert = get(value),
            "feather" => self.feather = get(value),
            "expand" => self.expand = get(value),
            "edges" => self.edges = get(value),
            "roi" => self.roi = get(value),
            "quality" => self.quality = get(value),
            "network-width" => self.network_width = get(value),
            "network-height" => self.network_height = get(value),
            "threads" => self.threads = get(value),
            "frame-threading" => self.frame_threading = get(value),
            "inference-interval" => self.inference_interval = get(value),
            "late-policy" => self.late_policy = get(value),
            "roi-meta" => self.roi_meta = get(value),
            "interactive" => self.interactive = get(value),
            "mask-location" => self.mask_location = path(value),
            "ref-auto" => self.ref_auto = get(value),
            "ref-auto-timeout" => self.ref_auto_timeout = get(value),
            "ref-box" => self.ref_box = numbers(value),
            "ref-points" => self.ref_points = elements(value).iter().map(|point| numbers(point)).collect(),
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
            "background" => self.background.to_value(),
            "foreground" => self.foreground.to_value(),
            "alpha-mode" => self.alpha_mode.to_value(),
            "object" => self.object.to_value(),
            "threshold" => self.threshold.to_value(),
            "invert" => self.invert.to_value(),
            "feather" => self.feather.to_value(),
            "expand" => self.expand.to_value(),
            "edges" => self.edges.to_value(),
            "roi" => self.roi.to_value(),
            "quality" => self.quality.to_value(),
            "network-width" => self.network_width.to_value(),
            "network-height" => self.network_height.to_value(),
            "threads" => self.threads.to_value(),
            "frame-threading" => self.frame_threading.to_value(),
            "inference-interval" => self.inference_interval.to_value(),
            "late-policy" => self.late_policy.to_value(),
            "roi-meta" => self.roi_meta.to_value(),
            "interactive" => self.interactive.to_value(),
            "mask-location" => self.mask_location.to_value(),
            "ref-auto" => self.ref_auto.to_value(),
            "ref-auto-timeout" => self.ref_auto_timeout.to_value(),
            "ref-box" => gst::Array::new(&self.ref_box).to_value(),
            "ref-points" => gst::Array::new(self.ref_points.iter().map(gst::Array::new)).to_value(),
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

/// Elements of a `GstValueArray`, none of another type.
fn elements(value: &glib::Value) -> Vec<glib::SendValue> {
    value.get::<gst::Array>().map(|array| array.as_slice().to_vec()).unwrap_or_default()
}

/// Numbers of a `GstValueArray`. NaN stands for what is no number.
fn numbers(value: &glib::Value) -> Vec<f64> {
    let number = |value: &glib::SendValue| {
        value.transform::<f64>().ok().and_then(|value| value.get::<f64>().ok()).unwrap_or(f64::NAN)
    };
    elements(value).iter().map(number).collect()
}

/// Reads a path. An empty string unsets the property, because launch lines cannot pass NULL.
fn path(value: &glib::Value) -> Option<PathBuf> {
    get::<Option<PathBuf>>(value).filter(|path| !path.as_os_str().is_empty())
}

pub fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        vec![
            glib::ParamSpecString::builder("ref-mask")
                .nick("Reference mask")
                .blurb(
                    "PNG of the object. Grey: white is object. Grey with values from 1 to 16 and otherwise only 0 and \
                     255: the value is the object id, 255 is void. Palette: the index is the object id, 255 is void. \
                     With alpha: the alpha channel, unless it is opaque everywhere. At most 16,384 pixels a side and 67 \
                     million in all. The mask belongs to ref-image or, if that is unset, to the next buffer",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("ref-image")
                .nick("Reference image")
                .blurb("PNG or JPEG that ref-mask, ref-box or ref-points belong to, rotated by its EXIF orientation (unset = \
                     the next buffer)")
                .mutable_playing()
                .build(),
            gst::ParamSpecArray::builder("ref-box")
                .nick("Reference box")
                .blurb(
                    "Box around the object in ref-image or, if that is unset, in the next buffer: <x, y, width, height> \
                     in pixels. Used if ref-mask is unset",
                )
                .mutable_playing()
                .build(),
            gst::ParamSpecArray::builder("ref-points")
                .nick("Reference points")
                .blurb(
                    "Points on the object (label 1) and beside it (label 0) in the same picture as ref-box: \
                     <<x, y, label>, ...> in pixels. Alone or together with ref-box",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<RefAuto>("ref-auto")
                .nick("Automatic reference")
                .blurb(
                    "What becomes the reference without a mask or a selection: nothing, or the largest person in front of \
                     the camera",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("ref-auto-timeout")
                .nick("Automatic reference timeout")
                .blurb("Seconds for which the reference must be lost before ref-auto takes another person")
                .minimum(0.0)
                .maximum(MAX_TIMEOUT)
                .default_value(REF_AUTO_TIMEOUT)
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("model-file")
                .nick("Model file")
                .blurb(
                    "Weights of the network: a .safetensors file, or the name of a built-in model, lite or large (unset = \
                     lite on the CPU, large on CUDA)",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb(
                    "Device of the network: auto, cpu, cuda or cuda:N. auto uses the first usable CUDA device, or the \
                     CPU if there is none (with a warning if an NVIDIA GPU or driver exists); cuda fails with an \
                     explanation if CUDA is unavailable",
                )
                .default_value("auto")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("active-device")
                .nick("Active device")
                .blurb("Device that the network runs on: cpu or cuda:N (unset while stopped)")
                .read_only()
                .build(),
            glib::ParamSpecEnum::builder::<Precision>("precision")
                .nick("Precision")
                .blurb("Number format of the network; its recurrent state is always float32")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder::<Output>("output")
                .nick("Output")
                .blurb("The picture with alpha, the mask, object ids, or the picture with tinted objects")
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("background")
                .nick("Background")
                .blurb(
                    "What the object is laid over: blur, blur:SIGMA (in pixels), color:#rrggbb or image:PATH (PNG or \
                     JPEG, scaled to cover the frame). The output then has the format of the input (unset = \
                     transparent)",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Foreground>("foreground")
                .nick("Foreground")
                .blurb("Colours of soft edges: as in the input, or free of the colours of the old background")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<AlphaMode>("alpha-mode")
                .nick("Alpha mode")
                .blurb("Whether the colours of the output are multiplied with its alpha (RGB formats with alpha only)")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("object")
                .nick("Object")
                .blurb("Id of the object to output (0 = all objects)")
                .maximum(254)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("threshold")
                .nick("Threshold")
                .blurb("Alpha from which a pixel is opaque; pixels below it are transparent (0 = off, soft edges)")
                .minimum(0.0)
                .maximum(1.0)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("invert")
                .nick("Invert")
                .blurb("Remove the object and keep the background")
                .default_value(false)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("feather")
                .nick("Feather")
                .blurb("Width of the blur of the edge in pixels (0 = off)")
                .minimum(0.0)
                .maximum(MAX_EDGE_PIXELS)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecDouble::builder("expand")
                .nick("Expand")
                .blurb("Pixels by which the mask grows; negative values shrink it")
                .minimum(-MAX_EDGE_PIXELS)
                .maximum(MAX_EDGE_PIXELS)
                .default_value(0.0)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Edges>("edges")
                .nick("Edges")
                .blurb("Enlargement of the mask from the network's size to that of the picture")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Roi>("roi")
                .nick("Region of interest")
                .blurb("Part of the picture that the network processes")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder::<Quality>("quality")
                .nick("Quality")
                .blurb(
                    "Input size of the network: finer edges of the mask take more time. auto selects the largest size up \
                     to fine that keeps up with a live source; on CUDA and with the paper's network it is balanced",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("network-width")
                .nick("Network width")
                .blurb(
                    "Width of the network's input in pixels, a multiple of 16 (the paper's network: 32), instead of that \
                     of quality (0 = as quality)",
                )
                .maximum(MAX_NETWORK_SIDE)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("network-height")
                .nick("Network height")
                .blurb("Height of the network's input in pixels, see network-width (0 = as quality)")
                .maximum(MAX_NETWORK_SIDE)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("threads")
                .nick("Threads")
                .blurb(
                    "Number of CPU threads of the network (0 = automatic: the fastest number, measured while \
                     frames are processed)",
                )
                .maximum(MAX_THREADS)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("frame-threading")
                .nick("Frame threading")
                .blurb(
                    "Encode the next frame on another thread while this one is segmented: more frames per second \
                     and one frame of latency (built-in models on the CPU; no effect on GPUs and with the paper's network)",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("inference-interval")
                .nick("Inference interval")
                .blurb("Run the network on every n-th frame and reuse its mask in between")
                .minimum(1)
                .default_value(1)
                .controllable()
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<LatePolicy>("late-policy")
                .nick("Late policy")
                .blurb("What to do with frames that the sink reports as late")
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("interactive")
                .nick("Interactive")
                .blurb(
                    "Select and correct with the mouse: click or drag a box to select, click to add, right click to \
                     remove, double click to select anew, Escape to clear",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("mask-location")
                .nick("Mask location")
                .blurb(
                    "PNG to which the key s saves the mask of the current frame, with interactive. The frame is saved \
                     beside it as NAME-frame.png (unset = the key is passed on)",
                )
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("roi-meta")
                .nick("Region of interest meta")
                .blurb("Attach a GstVideoRegionOfInterestMeta of type fastganseg for each object that is present")
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Counts since the start: output frames, inferences, frames with a reused mask (held), dropped \
                     frames; times of the last frames; confidence; objects; network-width and -height; threads; device; reference-state",
                )
                .read_only()
                .build(),
        ]
    });
    &PROPERTIES
}
