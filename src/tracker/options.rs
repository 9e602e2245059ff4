//! What a tracker runs, where, and how.

use std::path::PathBuf;

use crate::device::{DeviceChoice, Precision};
use crate::model::Config;
use crate::{Error, Result};

/// What to run, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A `.safetensors` file; none is the built-in lite model.
    pub model: Option<PathBuf>,
    /// Where to run it.
    pub device: DeviceChoice,
    /// In what kind of number.
    pub precision: Precision,
    /// Width and height in pixels at which frames enter the network; 0 is the model's own.
    pub network_size: (u32, u32),
    /// Whether to look closely at the objects' surroundings.
    pub roi: Roi,
    /// How its work is handed to the device.
    pub launch: Launch,
    /// Whether [`Tracker::prefetch`] is to do anything, on a thread of its own.
    pub frame_threading: bool,
}

impl Options {
    /// A model's configuration as it is run.
    pub(super) fn config(&self, model: &Config) -> Config {
        let mut config = model.clone();
        let (width, height) = self.network_size;
        for (side, wanted) in config.network_size.iter_mut().zip([height, width]) {
            if wanted > 0 {
                *side = i64::from(wanted);
            }
        }
        config
    }
}

/// How work is handed to the device of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Launch {
    /// On a GPU frames go there as they are stored, and all that is done there is recorded once and replayed
    /// by CUDA graphs; on the CPU nothing of the kind.
    #[default]
    Auto,
    /// The same without graphs, on any device: for comparison, and where graphs make trouble.
    Eager,
    /// The same with what is recorded called anew in the place of graphs, on any device: for tests.
    Fixed,
}

impl std::str::FromStr for Launch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "eager" => Ok(Self::Eager),
            "fixed" => Ok(Self::Fixed),
            _ => Err(Error::Config(format!("launch {text:?}: use auto, eager or fixed"))),
        }
    }
}

/// Where the network looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roi {
    /// At the objects' surroundings where that shows more of them, in the shape that suits them; on a GPU, where
    /// shapes must stay as they are, as [`Frame`](Self::Frame).
    #[default]
    Auto,
    /// The same in the shape of the picture.
    Frame,
    /// Always at the whole picture.
    Off,
}
