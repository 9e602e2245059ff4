// SPDX-License-Identifier: MPL-2.0

//! Network configuration. Stored in the metadata of a weights file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Maximum input size of `resnet50` in pixels; features of twice as many would take gigabytes.
const MAX_AREA: i64 = 1 << 21;
/// Maximum number of position pairs that affinity matching compares for one object; enough for 1024x1024 pixels
/// with the memory of the built-in models.
const MAX_AFFINITIES: i64 = 1 << 26;
/// Maximum number of tokens of a remembered frame.
const MAX_TOKENS: i64 = 4096;

/// Network architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// ResNet-50: the paper's Siamese network with the global convolution, or `large` with affinity matching.
    Resnet50,
    /// MobileNetV2 with affinity matching, real-time on two CPU cores.
    Lite,
}

/// How the current frame is matched with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matching {
    /// The paper's global convolution on concatenated features.
    GlobalConvolution,
    /// Attention to the reference, a bounded memory and the previous frame.
    Affinity,
}

/// Where the previous frame's decoder features enter (the paper's temporal skip connection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemporalSkip {
    /// Concatenated before the head.
    Head,
    /// Concatenated within the refine block at stride 4.
    Refine,
    /// No temporal skip connection.
    Off,
}

/// Size of the memory bank of affinity matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Predicted frames kept in addition to the reference.
    pub frames: usize,
    /// Interval in frames at which a predicted frame is added.
    pub every: usize,
    /// Tokens kept per memory frame at stride 8.
    pub tokens: i64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { frames, every, tokens } = self;
        write!(f, "{frames} frames, every = {every}, {tokens} tokens")
    }
}

/// A network's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Network architecture.
    pub architecture: Architecture,
    /// How frames are matched.
    pub matching: Matching,
    /// Where the temporal skip enters.
    pub temporal_skip: TemporalSkip,
    /// Input size, height and width in pixels; multiples of 32 with the global convolution, of 16 with affinity
    /// matching.
    pub network_size: [i64; 2],
    /// Scales every channel count; 1 for real networks, less for tests.
    pub width: f64,
    /// Memory bank of affinity matching.
    pub memory: Memory,
    /// Channels of the decoder's stage at the input's full resolution, with affinity matching; 0: no such stage, the
    /// logits of stride 2 are doubled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edge_channels: i64,
    /// Whether the stage at full resolution has a residual convolution.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edge_residual: bool,
    /// Channels of the refiner of mattes, with affinity matching; 0: no refiner.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refiner_channels: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Config {
    /// Returns the configuration of the built-in model `lite`.
    pub fn lite() -> Self {
        Self {
            architecture: Architecture::Lite,
            matching: Matching::Affinity,
            temporal_skip: TemporalSkip::Refine,
            network_size: [192, 336],
            width: 1.0,
            memory: Memory { frames: 2, every: 5, tokens: 512 },
            edge_channels: 16,
            edge_residual: true,
            refiner_channels: 32,
        }
    }

    /// Returns the configuration of the paper's network.
    pub fn resnet50() -> Self {
        Self {
            architecture: Architecture::Resnet50,
            matching: Matching::GlobalConvolution,
            temporal_skip: TemporalSkip::Head,
            network_size: [512, 512],
            width: 1.0,
            memory: Memory { frames: 0, every: 1, tokens: 0 },
            edge_channels: 0,
            edge_residual: false,
            refiner_channels: 0,
        }
    }

    /// Returns the input height and width in pixels.
    pub fn size(&self) -> (i64, i64) {
        (self.network_size[0], self.network_size[1])
    }

    /// Returns the configuration of the built-in model `large`: as [`lite`](Self::lite), with features of a ResNet-50 at strides
    /// 8 and 16.
    pub fn large() -> Self {
        Self { architecture: Architecture::Resnet50, ..Self::lite() }
    }

    /// Returns this configuration at another input size, height and width in pixels. A remembered frame keeps the same
    /// share of its positions, but not fewer than at the model's own size: with the same number of tokens, larger
    /// inputs lose the object more often.
    pub fn at_size(&self, network_size: [i64; 2]) -> Self {
        let mut config = Self { network_size, ..self.clone() };
        let area = |size: [i64; 2]| size.iter().product::<i64>().max(1) as f64;
        let ratio = area(network_size) / area(self.network_size);
        if self.matching == Matching::Affinity && ratio > 1.0 {
            let tokens = (self.memory.tokens as f64 * ratio).min(MAX_TOKENS as f64) as i64;
            config.memory.tokens = tokens.max(self.memory.tokens);
        }
        config
    }

    /// Returns a channel count of the full network scaled by `width`.
    pub fn channels(&self, full: i64) -> i64 {
        ((full as f64 * self.width).round() as i64).max(2)
    }

    /// Returns a lower bound of the parameter count. Kernels grow with the square of `width`; parameters that do
    /// not are less than half of all.
    pub fn min_parameters(&self) -> u64 {
        let full = match (self.architecture, self.matching) {
            (Architecture::Lite, _) => 1_079_495.0,
            (Architecture::Resnet50, Matching::Affinity) => 10_352_571.0,
            (Architecture::Resnet50, Matching::GlobalConvolution) => 51_579_426.0,
        };
        (full * self.width * self.width / 2.0) as u64
    }

    /// Returns the stride of the coarsest features. Both sides of the input are multiples of it.
    pub fn stride(&self) -> i64 {
        match self.matching {
            Matching::GlobalConvolution => 32,
            Matching::Affinity => 16,
        }
    }

    /// Returns the number of elements of the largest affinity matrix for one object.
    fn affinities(&self) -> i64 {
        let area: i64 = self.network_size.iter().product();
        let (coarse, fine) = (area / 256, area / 64);
        let frames = self.memory.frames as i64;
        (coarse * coarse * (frames + 2)).max(fine * self.memory.tokens * (frames + 1))
    }

    /// Checks that a network can be built from the configuration without taking gigabytes of memory.
    ///
    /// # Errors
    /// [`Error::Config`] naming the invalid field.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Config(reason));
        let stride = self.stride();
        let [height, width] = self.network_size;
        if [height, width].iter().any(|side| *side < stride || side % stride != 0 || *side > 4096) {
            return refuse(format!(
                "network_size of {width}x{height} (width x height): both sides must be multiples of {stride} up to 4096"
            ));
        }
        if !(self.width > 0.0 && self.width <= 4.0) {
            return refuse(format!("width {} is outside (0, 4]", self.width));
        }
        let affinity = self.matching == Matching::Affinity;
        if self.architecture == Architecture::Lite && !affinity {
            return refuse("matching of lite must be affinity".into());
        }
        if affinity && self.temporal_skip == TemporalSkip::Head {
            return refuse("temporal_skip with affinity matching must be refine or off".into());
        }
        let memory = self.memory;
        // The reference has tokens, too.
        let min_tokens = i64::from(affinity);
        if memory.every == 0 || memory.frames > 64 || !(min_tokens..=MAX_TOKENS).contains(&memory.tokens) {
            return refuse(format!(
                "memory of {memory}: frames must be at most 64, every at least 1, tokens {min_tokens} to {MAX_TOKENS}"
            ));
        }
        for (name, channels) in
            [("edge_channels", self.edge_channels), ("refiner_channels", self.refiner_channels)]
        {
            if !(0..=256).contains(&channels) || (channels > 0 && !affinity) {
                return refuse(format!(
                    "{name} {channels} must be 0 to 256, and 0 with the global convolution"
                ));
            }
        }
        if self.edge_residual && self.edge_channels == 0 {
            return refuse("edge_residual needs edge_channels".into());
        }
        if self.architecture == Architecture::Resnet50 && height * width > MAX_AREA {
            return refuse(format!(
                "network_size of {width}x{height} (width x height) has more than {MAX_AREA} pixels: choose a smaller size"
            ));
        }
        if affinity && self.affinities() > MAX_AFFINITIES {
            return refuse(format!(
                "network_size of {width}x{height} (width x height) with a memory of {memory} would compare {} pairs of \
                 positions, the maximum is {MAX_AFFINITIES}: choose a smaller size (of the element by quality, or by \
                 network-width and network-height), such as 672x384",
                self.affinities()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_configurations_are_explained() {
        let lite = Config::lite();
        let memory =
            |frames, every, tokens| Config { memory: Memory { frames, every, tokens }, ..lite.clone() };
        for (config, part) in [
            (Config { network_size: [60, 96], ..lite.clone() }, "multiples of 16"),
            (Config { network_size: [2048, 2048], ..lite.clone() }, "choose a smaller size"),
            (Config { network_size: [4096, 4096], ..Config::resnet50() }, "choose a smaller size"),
            (Config { width: f64::NAN, ..lite.clone() }, "(0, 4]"),
            (memory(65, 5, 512), "frames must be at most 64"),
            (memory(2, 0, 512), "every at least 1"),
            (memory(2, 5, 0), "tokens 1 to 4096"),
            (memory(64, 1, 4096), "choose a smaller size"),
            (
                Config { matching: Matching::GlobalConvolution, network_size: [192, 320], ..Config::lite() },
                "affinity",
            ),
            (Config { temporal_skip: TemporalSkip::Head, ..Config::lite() }, "refine or off"),
            (Config { edge_channels: -1, ..Config::lite() }, "edge_channels -1"),
            (Config { edge_channels: 16, ..Config::resnet50() }, "edge_channels 16"),
            (Config { refiner_channels: 257, ..lite.clone() }, "refiner_channels 257"),
            (Config { edge_residual: true, ..Config::resnet50() }, "edge_residual"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(
                !message.contains("  ") && !message.contains('\n') && !message.contains('{'),
                "{message}"
            );
        }
        for network_size in [[192, 336], [480, 864], [1024, 1024]] {
            Config { network_size, ..lite.clone() }.validate().unwrap();
        }
    }
}
