// SPDX-License-Identifier: MPL-2.0

//! Options of a tracker.

use std::path::PathBuf;

use super::quality::Quality;
use crate::device::{DeviceChoice, Precision};
use crate::model::Config;
use crate::{Error, Result};

/// Model, device and execution of a tracker.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A `.safetensors` file, or the name of a built-in model; `None` selects [`LITE`](crate::model::weights::LITE) on the
    /// CPU, and [`LARGE`](crate::model::weights::LARGE) on CUDA.
    pub model: Option<PathBuf>,
    /// Device that runs the network.
    pub device: DeviceChoice,
    /// Number format of the network.
    pub precision: Precision,
    /// Input size of the network.
    pub quality: Quality,
    /// Width and height in pixels at which frames enter the network; 0 selects that of `quality`.
    pub network_size: (u32, u32),
    /// Choice of the region of interest.
    pub roi: Roi,
    /// How work is submitted to the device.
    pub launch: Launch,
    /// Enables [`Tracker::prefetch`](super::Tracker::prefetch), which uses a thread of its own.
    pub frame_threading: bool,
}

impl Options {
    /// Returns the configuration of a model with these options applied.
    pub(super) fn config(&self, model: &Config) -> Result<Config> {
        let mut size = self.quality.network_size(model);
        let (width, height) = self.network_size;
        for (side, wanted) in size.iter_mut().zip([height, width]) {
            if wanted > 0 {
                *side = i64::from(wanted);
            }
        }
        let config = model.at_size(size);
        config.validate()?;
        Ok(config)
    }
}

/// How work is submitted to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Launch {
    /// Frames are scaled on the CPU, the functions of the network are called directly, and masks are copied back.
    #[default]
    Plain,
    /// The planes path: frames are uploaded as they are stored, and mattes are enlarged on the device. Functions are
    /// called directly.
    Eager,
    /// The planes path with work that is recorded once and replayed as CUDA graphs. Without CUDA, the same as
    /// [`Fixed`](Self::Fixed).
    Graph,
    /// The planes path with fixed buffers, as for graphs, and direct calls. For tests.
    Fixed,
}

impl std::str::FromStr for Launch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "plain" => Ok(Self::Plain),
            "eager" => Ok(Self::Eager),
            "graph" => Ok(Self::Graph),
            "fixed" => Ok(Self::Fixed),
            _ => Err(Error::Config(format!("launch {text:?}: use plain, eager, graph or fixed"))),
        }
    }
}

/// How the region of interest is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "plugin", derive(glib::Enum), enum_type(name = "GstFastGanSegRoi"))]
#[repr(i32)]
pub enum Roi {
    /// The objects' surroundings, in the aspect ratio of the objects. On a GPU, where input sizes must not change,
    /// the same as [`Frame`](Self::Frame).
    #[default]
    #[cfg_attr(
        feature = "plugin",
        enum_value(name = "The objects' surroundings, in the aspect ratio of the objects", nick = "auto")
    )]
    Auto,
    /// The objects' surroundings, in the aspect ratio of the frame.
    #[cfg_attr(
        feature = "plugin",
        enum_value(name = "The objects' surroundings, in the aspect ratio of the frame", nick = "frame")
    )]
    Frame,
    /// Always the whole frame.
    #[cfg_attr(feature = "plugin", enum_value(name = "Always the whole picture", nick = "off"))]
    Off,
}
