// SPDX-License-Identifier: MPL-2.0

//! The GStreamer element `fastganseg`.
#![doc = include_str!("../../docs/properties.md")]

mod allocation;
mod auto_reference;
mod background;
mod blend;
mod caps;
mod compose;
mod continuity;
mod correction;
mod discont;
mod downstream;
mod exit;
mod frame;
mod imp;
mod in_progress;
mod latency;
mod loading;
mod marks;
mod messages;
mod navigation;
mod pending;
mod plane_pool;
mod process_error;
mod qos;
mod quality_tuner;
mod reference;
mod request;
mod sample;
mod schedule;
mod segmenter;
mod selector;
mod settings;
mod shared;
mod signals;
mod snapshot;
mod statistics;
mod stream;
mod thread_tuner;

use std::sync::LazyLock;

use glib::prelude::*;
use gstreamer as gst;

pub use crate::device::Precision;
pub use crate::matte::Edges;
use crate::tracker;
pub use crate::tracker::Roi;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("fastganseg", gst::DebugColorFlags::empty(), Some("Video object segmentation"))
});

glib::wrapper! {
    /// Element that segments the objects of a reference mask in every buffer.
    pub struct FastGanSeg(ObjectSubclass<imp::FastGanSeg>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// Output of the element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegOutput")]
#[repr(i32)]
pub enum Output {
    /// The picture with the matte as its alpha channel.
    #[default]
    #[enum_value(name = "The picture with the mask as its alpha channel", nick = "alpha")]
    Alpha,
    /// The matte, GRAY8.
    #[enum_value(name = "Alpha only, grey", nick = "mask")]
    Mask,
    /// Object ids, GRAY8.
    #[enum_value(name = "The object ids as grey values, 0 for the background", nick = "labels")]
    Labels,
    /// The picture with the objects tinted.
    #[enum_value(name = "The picture with tinted objects", nick = "overlay")]
    Overlay,
}

/// What is made of a frame and its matte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Alpha,
    Mask,
    Labels,
    Overlay,
    /// The object over the background of the property, in the format of the input.
    Background,
}

impl Mode {
    fn new(output: Output, has_background: bool) -> Self {
        match output {
            Output::Alpha if has_background => Self::Background,
            Output::Alpha => Self::Alpha,
            Output::Mask => Self::Mask,
            Output::Labels => Self::Labels,
            Output::Overlay => Self::Overlay,
        }
    }
}

/// Colours of the object's soft edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegForeground")]
#[repr(i32)]
pub enum Foreground {
    /// Those of the input, which are mixed with the old background.
    #[default]
    #[enum_value(name = "The colours of the input", nick = "input")]
    Input,
    /// Estimates of the object's colours.
    #[enum_value(name = "Estimate the object's colours in soft edges", nick = "estimate")]
    Estimate,
}

/// Relation of colours and alpha.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegAlphaMode")]
#[repr(i32)]
pub enum AlphaMode {
    /// Colours do not depend on alpha.
    #[default]
    #[enum_value(name = "Colours are independent of alpha", nick = "straight")]
    Straight,
    /// Colours are multiplied with alpha.
    #[enum_value(name = "Colours are multiplied with alpha (RGB formats)", nick = "premultiplied")]
    Premultiplied,
}

/// Input size of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegQuality")]
#[repr(i32)]
pub enum Quality {
    /// 304x176 with the built-in models.
    #[enum_value(name = "Fast, 304x176 with the built-in models", nick = "fast")]
    Fast,
    /// The model's own size, 336x192 with the built-in models.
    #[default]
    #[enum_value(name = "Balanced, 336x192 with the built-in models", nick = "balanced")]
    Balanced,
    /// 448x256 with the built-in models.
    #[enum_value(name = "Fine, 448x256 with the built-in models", nick = "fine")]
    Fine,
    /// 672x384 with the built-in models.
    #[enum_value(name = "Finest, 672x384 with the built-in models", nick = "finest")]
    Finest,
    /// In live pipelines the largest size up to [`Fine`](Self::Fine) that keeps up, otherwise as [`Fine`](Self::Fine).
    /// As [`Balanced`](Self::Balanced) on CUDA and for the paper's network.
    #[enum_value(name = "Up to fine, the largest that keeps up with a live source", nick = "auto")]
    Auto,
}

impl Quality {
    /// Returns the input size, or `None` if it is selected while playing.
    fn fixed(self) -> Option<tracker::Quality> {
        match self {
            Self::Fast => Some(tracker::Quality::Fast),
            Self::Balanced => Some(tracker::Quality::Balanced),
            Self::Fine => Some(tracker::Quality::Fine),
            Self::Finest => Some(tracker::Quality::Finest),
            Self::Auto => None,
        }
    }
}

/// Handling of frames that arrive too late at the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegLatePolicy")]
#[repr(i32)]
pub enum LatePolicy {
    /// The network does not run; the last mask is reused.
    #[default]
    #[enum_value(name = "Reuse the last mask and drop no frame", nick = "hold")]
    Hold,
    /// The frame is dropped.
    #[enum_value(name = "Drop the frame", nick = "drop")]
    Drop,
}

/// Reference without a mask or a selection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegRefAuto")]
#[repr(i32)]
pub enum RefAuto {
    /// Nothing.
    #[default]
    #[enum_value(name = "Nothing", nick = "none")]
    None,
    /// The largest person in front of the camera.
    #[enum_value(name = "The largest person in front of the camera", nick = "person")]
    Person,
}

/// Registers the element.
///
/// # Errors
/// The element name is already registered.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    register_element(Some(plugin))
}

/// Registers the element for an application that links this crate instead of loading the plugin.
///
/// # Errors
/// The element name is already registered.
pub fn register_static() -> Result<(), glib::BoolError> {
    register_element(None)
}

fn register_element(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    for type_ in [
        Output::static_type(),
        LatePolicy::static_type(),
        Foreground::static_type(),
        AlphaMode::static_type(),
        Precision::static_type(),
        Quality::static_type(),
        Edges::static_type(),
        RefAuto::static_type(),
        Roi::static_type(),
    ] {
        type_.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(plugin, "fastganseg", gst::Rank::NONE, FastGanSeg::static_type())
}
