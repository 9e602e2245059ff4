//! Everything that decides the shape of a network. Stored in the metadata of its weights file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most pixels that enter `resnet50`; its features of twice as many would fill gigabytes.
const MAX_AREA: i64 = 1 << 21;
/// The most pairs of positions that `lite` compares for one object; 1024x1024 pixels as it is built in.
const MAX_AFFINITIES: i64 = 1 << 26;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// ResNet-50: the paper's Siamese network with the global convolution, or with affinity matching the larger
    /// sibling of `lite`.
    Resnet50,
    /// MobileNetV2 with affinity matching, real-time on two CPU cores.
    Lite,
}

/// How the current frame is compared with the reference.
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
    /// Concatenated into the last refine block but one operation.
    Refine,
    /// Nowhere: each frame is decoded on its own.
    Off,
}

/// The bounded memory of affinity matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Predicted frames kept beside the reference.
    pub frames: usize,
    /// One is taken in every so many frames.
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
    /// Which network.
    pub architecture: Architecture,
    /// How frames are compared.
    pub matching: Matching,
    /// Where the temporal skip enters.
    pub temporal_skip: TemporalSkip,
    /// Height and width in pixels at which frames enter the network; multiples of 32
    /// with the global convolution, of 16 with affinity matching.
    pub network_size: [i64; 2],
    /// Scales every channel count; 1 for real networks, less for tests.
    pub width: f64,
    /// What affinity matching remembers.
    pub memory: Memory,
}

impl Config {
    /// The built-in model's.
    pub fn lite() -> Self {
        Self {
            architecture: Architecture::Lite,
            matching: Matching::Affinity,
            temporal_skip: TemporalSkip::Refine,
            network_size: [192, 336],
            width: 1.0,
            memory: Memory { frames: 2, every: 5, tokens: 512 },
        }
    }

    /// The paper's.
    pub fn resnet50() -> Self {
        Self {
            architecture: Architecture::Resnet50,
            matching: Matching::GlobalConvolution,
            temporal_skip: TemporalSkip::Head,
            network_size: [512, 512],
            width: 1.0,
            memory: Memory { frames: 0, every: 1, tokens: 0 },
        }
    }

    /// Network height and width in pixels.
    pub fn size(&self) -> (i64, i64) {
        (self.network_size[0], self.network_size[1])
    }

    /// The larger sibling of the built-in model: its matching, memory and decoder on features of a ResNet-50.
    pub fn large() -> Self {
        Self { architecture: Architecture::Resnet50, ..Self::lite() }
    }

    /// A channel count of the full network, scaled by `width`.
    pub fn channels(&self, full: i64) -> i64 {
        ((full as f64 * self.width).round() as i64).max(2)
    }

    /// Fewer parameters than any network of this configuration has: channels on both sides of a kernel grow
    /// with `width`, and what does not is less than half of it all.
    pub fn least_parameters(&self) -> u64 {
        let full = match (self.architecture, self.matching) {
            (Architecture::Lite, _) => 1_079_495.0,
            (Architecture::Resnet50, Matching::Affinity) => 10_404_167.0,
            (Architecture::Resnet50, Matching::GlobalConvolution) => 51_579_426.0,
        };
        (full * self.width * self.width / 2.0) as u64
    }

    /// The least side of what enters the network, of which both sides are multiples: the stride of its coarsest
    /// features.
    pub fn stride(&self) -> i64 {
        match self.matching {
            Matching::GlobalConvolution => 32,
            Matching::Affinity => 16,
        }
    }

    /// Elements of the largest matrix of likenesses that affinity matching makes for one object.
    fn affinities(&self) -> i64 {
        let area: i64 = self.network_size.iter().product();
        let (coarse, fine) = (area / 256, area / 64);
        let frames = self.memory.frames as i64;
        (coarse * coarse * (frames + 2)).max(fine * self.memory.tokens * (frames + 1))
    }

    /// Refuses what no network can be built from, and what takes memory by the gigabyte.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Config(reason));
        let step = self.stride();
        let [height, width] = self.network_size;
        if [height, width].iter().any(|side| *side < step || side % step != 0 || *side > 4096) {
            return refuse(format!(
                "network_size {height}x{width}: both sides must be multiples of {step} up to 4096"
            ));
        }
        if !(self.width > 0.0 && self.width <= 4.0) {
            return refuse(format!("width {} is outside (0, 4]", self.width));
        }
        let affinity = self.matching == Matching::Affinity;
        if self.architecture == Architecture::Lite && !affinity {
            return refuse("matching of lite is affinity".into());
        }
        if affinity && self.temporal_skip == TemporalSkip::Head {
            return refuse("temporal_skip with affinity matching is refine or off".into());
        }
        let memory = self.memory;
        if memory.every == 0 || memory.frames > 64 || !(0..=4096).contains(&memory.tokens) {
            return refuse(format!(
                "memory of {memory}: frames are up to 64, every is at least 1, tokens are 0 to 4096"
            ));
        }
        if self.architecture == Architecture::Resnet50 && height * width > MAX_AREA {
            return refuse(format!(
                "network_size {height}x{width} has more than {MAX_AREA} pixels: choose a smaller size"
            ));
        }
        if affinity && self.affinities() > MAX_AFFINITIES {
            return refuse(format!(
                "network_size {height}x{width} with a memory of {memory} would compare {} pairs of positions, and \
                 {MAX_AFFINITIES} are possible: choose a smaller size",
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
    fn what_is_wrong_with_a_configuration_is_said_in_words() {
        let lite = Config::lite();
        let memory =
            |frames, every, tokens| Config { memory: Memory { frames, every, tokens }, ..lite.clone() };
        for (config, part) in [
            (Config { network_size: [60, 96], ..lite.clone() }, "multiples of 16"),
            (Config { network_size: [2048, 2048], ..lite.clone() }, "choose a smaller size"),
            (Config { network_size: [4096, 4096], ..Config::resnet50() }, "choose a smaller size"),
            (Config { width: f64::NAN, ..lite.clone() }, "(0, 4]"),
            (memory(65, 5, 512), "frames are up to 64"),
            (memory(2, 0, 512), "every is at least 1"),
            (memory(2, 5, -1), "tokens are 0 to 4096"),
            (
                Config { matching: Matching::GlobalConvolution, network_size: [192, 320], ..Config::lite() },
                "affinity",
            ),
            (Config { temporal_skip: TemporalSkip::Head, ..Config::lite() }, "refine or off"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(
                !message.contains("  ") && !message.contains('\n') && !message.contains('{'),
                "{message}"
            );
        }
    }
}
