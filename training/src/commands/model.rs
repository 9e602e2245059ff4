// SPDX-License-Identifier: MPL-2.0

//! Options of commands that run a model.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fastganseg_training::Result;
use fastganseg_training::distributed::Ranks;
use gstfastganseg::device::{DeviceChoice, Precision, has_nvidia_gpu};
use gstfastganseg::torch::model::weights::{LITE, Weights};
use gstfastganseg::tracker::{Options, Quality, Roi, Tracker};

/// Model and its options.
#[derive(Debug, clap::Args)]
pub struct Model {
    /// Weights of the model: a .safetensors file, or the name of a built-in model, lite or large [default: lite]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Input size of the network, with a memory in proportion [default: the model's own]
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size)]
    network_size: Option<[i64; 2]>,

    /// Input size by name, with a memory in proportion, as the element's property
    #[arg(long, value_enum, default_value_t = QualityChoice::Balanced, conflicts_with = "network_size")]
    quality: QualityChoice,

    /// Number of predicted frames in memory, in addition to the first [default: the model's own]
    #[arg(long, value_name = "N")]
    memory_frames: Option<usize>,

    /// Interval of frames that are added to memory [default: the model's own]
    #[arg(long, value_name = "N")]
    memory_every: Option<usize>,

    /// Tokens (positions at stride 8) of each frame in memory [default: the model's own, in proportion to larger input sizes]
    #[arg(long, value_name = "N")]
    memory_tokens: Option<i64>,

    /// Region of interest that the network processes
    #[arg(long, value_enum, default_value_t = RoiChoice::Auto)]
    roi: RoiChoice,

    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t)]
    device: DeviceChoice,

    /// Number format: auto, float32, bfloat16 or float16
    #[arg(long, default_value_t)]
    precision: Precision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QualityChoice {
    /// 304x176 for a model of 336x192
    Fast,
    /// The model's own size
    Balanced,
    /// 448x256 for a model of 336x192
    Fine,
    /// 672x384 for a model of 336x192
    Finest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoiChoice {
    /// The objects' surroundings, in the aspect ratio of the objects
    Auto,
    /// The objects' surroundings, in the aspect ratio of the frame
    Frame,
    /// Always the whole frame
    Off,
}

/// Parses a size such as `192x336`.
pub fn size(text: &str) -> std::result::Result<[i64; 2], String> {
    let sides: Option<Vec<i64>> = text.split('x').map(|side| side.parse().ok()).collect();
    match sides.as_deref() {
        Some(&[height, width]) => Ok([height, width]),
        _ => Err("give HEIGHTxWIDTH, such as 192x336".into()),
    }
}

impl Model {
    /// The first option that differs from its default.
    pub fn first_set(&self) -> Option<&'static str> {
        let set = [
            (self.model.is_some(), "--model"),
            (self.network_size.is_some(), "--network-size"),
            (self.quality != QualityChoice::Balanced, "--quality"),
            (self.memory_frames.is_some(), "--memory-frames"),
            (self.memory_every.is_some(), "--memory-every"),
            (self.memory_tokens.is_some(), "--memory-tokens"),
            (self.roi != RoiChoice::Auto, "--roi"),
            (self.device != DeviceChoice::default(), "--device"),
            (self.precision != Precision::default(), "--precision"),
        ];
        set.into_iter().find_map(|(is_set, option)| is_set.then_some(option))
    }

    /// Loads the weights and applies the options.
    fn weights(&self) -> Result<Weights> {
        let mut weights = Weights::of_model(self.model.as_deref().unwrap_or(Path::new(LITE)))?;
        weights.reconfigure(|config| {
            *config = config.at_size(self.network_size.unwrap_or(config.network_size));
            config.memory.frames = self.memory_frames.unwrap_or(config.memory.frames);
            config.memory.every = self.memory_every.unwrap_or(config.memory.every);
            config.memory.tokens = self.memory_tokens.unwrap_or(config.memory.tokens);
        })?;
        Ok(weights)
    }

    /// Loads the model and prints its name, size, device and precision to stderr on rank 0.
    pub fn tracker(&self, frame_threading: bool, ranks: &Ranks) -> Result<Tracker> {
        let weights = self.weights()?;
        let roi = match self.roi {
            RoiChoice::Auto => Roi::Auto,
            RoiChoice::Frame => Roi::Frame,
            RoiChoice::Off => Roi::Off,
        };
        let (device, precision) = (ranks.device(self.device)?, self.precision);
        let quality = match self.quality {
            QualityChoice::Fast => Quality::Fast,
            QualityChoice::Balanced => Quality::Balanced,
            QualityChoice::Fine => Quality::Fine,
            QualityChoice::Finest => Quality::Finest,
        };
        let options = Options { device, precision, quality, roi, frame_threading, ..Options::default() };
        let tracker = Tracker::from_weights(&weights, &options)?;
        if !ranks.is_first() {
            return Ok(tracker);
        }
        if let Some(reason) = tracker.device_warning().filter(|_| has_nvidia_gpu(Path::new("/"))) {
            eprintln!("warning: running on the CPU: {reason}");
        }
        let name = self.model.as_ref().map_or("built-in model".into(), |path| path.display().to_string());
        let (width, height) = tracker.network_size();
        let (device, precision) = (tracker.active_device(), tracker.active_precision());
        eprintln!("{name}: {width}x{height} on {device} in {precision}");
        Ok(tracker)
    }
}
