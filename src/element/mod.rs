//! The GStreamer element `fastganseg`.
#![doc = include_str!("element.md")]

mod allocation;
mod caps;
mod compose;
mod continuity;
mod discont;
mod downstream;
mod engine;
mod frame;
mod imp;
mod latency;
mod pending;
mod plane_pool;
mod process_error;
mod qos;
mod reference;
mod sample;
mod schedule;
mod settings;
mod signals;
mod statistics;
mod thread_tuner;

use gstreamer as gst;

use glib::prelude::*;

glib::wrapper! {
    /// Cuts the object of a reference mask out of every buffer.
    pub struct FastGanSeg(ObjectSubclass<imp::FastGanSeg>)
        @extends gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// What the element puts out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegOutput")]
#[repr(i32)]
pub enum Output {
    /// The picture with the matte as its alpha.
    #[default]
    #[enum_value(name = "The picture, cut out by its alpha channel", nick = "alpha")]
    Alpha,
    /// The matte alone, GRAY8.
    #[enum_value(name = "The soft mask alone, grey", nick = "mask")]
    Mask,
    /// Object ids, GRAY8.
    #[enum_value(name = "The ids of the objects as grey values, 0 for background", nick = "labels")]
    Labels,
    /// The picture with the objects tinted.
    #[enum_value(name = "The picture with the objects tinted, for looking", nick = "overlay")]
    Overlay,
}

/// In what kind of number the network computes; [`device::Precision`](crate::device::Precision) as a
/// property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegPrecision")]
#[repr(i32)]
pub enum Precision {
    /// The fastest that the device has natively.
    #[default]
    #[enum_value(name = "The fastest that the device has natively", nick = "auto")]
    Auto,
    /// 32-bit floating point.
    #[enum_value(name = "32-bit floating point", nick = "float32")]
    Float32,
    /// 16-bit brain floating point.
    #[enum_value(name = "16-bit brain floating point", nick = "bfloat16")]
    Bfloat16,
    /// 16-bit floating point, CUDA only.
    #[enum_value(name = "16-bit floating point, CUDA only", nick = "float16")]
    Float16,
}

impl From<Precision> for crate::device::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Auto => Self::Auto,
            Precision::Float32 => Self::Float32,
            Precision::Bfloat16 => Self::Bfloat16,
            Precision::Float16 => Self::Float16,
        }
    }
}

/// What becomes of frames that are too late for the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegLatePolicy")]
#[repr(i32)]
pub enum LatePolicy {
    /// The network is left out, and the last mask is used again.
    #[default]
    #[enum_value(name = "Use the last mask again, and lose no frame", nick = "hold")]
    Hold,
    /// The whole frame is dropped.
    #[enum_value(name = "Drop the frame", nick = "drop")]
    Drop,
}

/// How the matte gets from the network's size to that of the picture; [`matte::Edges`](crate::matte::Edges)
/// as a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegEdges")]
#[repr(i32)]
pub enum Edges {
    /// Its edges follow those of the picture.
    #[default]
    #[enum_value(name = "Edges follow those of the picture", nick = "refine")]
    Refine,
    /// Evenly.
    #[enum_value(name = "Enlarged evenly", nick = "bilinear")]
    Bilinear,
}

impl From<Edges> for crate::matte::Edges {
    fn from(edges: Edges) -> Self {
        match edges {
            Edges::Refine => Self::Refine,
            Edges::Bilinear => Self::Bilinear,
        }
    }
}

/// Where the network looks; [`tracker::Roi`](crate::tracker::Roi) as a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstFastGanSegRoi")]
#[repr(i32)]
pub enum Roi {
    /// At the objects' surroundings where that shows more of them, in the shape that suits them.
    #[default]
    #[enum_value(
        name = "At the objects' surroundings where that shows more of them, in the shape that suits them",
        nick = "auto"
    )]
    Auto,
    /// The same in the shape of the picture.
    #[enum_value(
        name = "At the objects' surroundings where that shows more of them, in the shape of the picture",
        nick = "frame"
    )]
    Frame,
    /// Always at the whole picture.
    #[enum_value(name = "Always at the whole picture", nick = "off")]
    Off,
}

impl From<Roi> for crate::tracker::Roi {
    fn from(roi: Roi) -> Self {
        match roi {
            Roi::Auto => Self::Auto,
            Roi::Frame => Self::Frame,
            Roi::Off => Self::Off,
        }
    }
}

/// Registers the element; for applications that link it in rather than have it loaded as a plugin, too.
///
/// # Errors
/// GStreamer refuses the name.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    register_element(Some(plugin))
}

/// As [`register`], without a plugin.
///
/// # Errors
/// GStreamer refuses the name.
pub fn register_static() -> Result<(), glib::BoolError> {
    register_element(None)
}

fn register_element(plugin: Option<&gst::Plugin>) -> Result<(), glib::BoolError> {
    gst::Element::register(plugin, "fastganseg", gst::Rank::NONE, FastGanSeg::static_type())
}
