// SPDX-License-Identifier: MPL-2.0

//! Section `[data]` of a run's configuration: sources of the clips and their augmentation.

mod augment;
mod source;
mod synthetic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use augment::{Augment, Border, Fit, ReferenceTransform};
pub use source::{Kind, Layout, Objects, Source};
pub use synthetic::Synthetic;

use crate::check::{Checked, count, must, share, within};

/// Maximum number of predicted frames of a clip; all of them are in memory.
const MAX_WINDOW: u64 = 256;
/// Maximum number of clips of a batch; all of them are in memory, in each queue of the loader too.
const MAX_BATCH: u64 = 4096;

/// Sources and augmentation of training clips. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Predicted frames per clip, K.
    pub window: usize,
    /// Clips per step, on all ranks together.
    pub batch: usize,
    /// Height and width of the clips, multiples of 16.
    pub size: [i64; 2],
    /// Heights and widths that replace `size`, multiples of 16; one is drawn for each step, to train on the aspect
    /// ratios of regions of interest. Empty = `size` only.
    #[serde(default)]
    pub shapes: Vec<[i64; 2]>,
    /// Probability that a frame of a window enters the memory bank, as at run time, for the prediction of the next
    /// ones.
    #[serde(default)]
    pub remember: f64,
    /// Size in MiB of the cache of decoded frames, shared by all video sources that are not preloaded.
    #[serde(default = "default_cache")]
    pub cache: u64,
    /// Number of broken files that are skipped; one more ends the run.
    #[serde(default = "default_broken_limit")]
    pub broken_limit: usize,
    /// Sources of pictures, by name.
    pub sources: BTreeMap<String, Source>,
    /// Augmentation of windows of video.
    #[serde(default)]
    pub augment: Augment,
    /// Rendering of synthetic clips from stills.
    #[serde(default)]
    pub synthetic: Synthetic,
    /// Perturbation of the mask of the previous frame.
    #[serde(default)]
    pub perturbation: Perturbation,
    /// Windows with several tracked objects.
    #[serde(default)]
    pub multi_object: MultiObject,
}

fn default_cache() -> u64 {
    1024
}

fn default_broken_limit() -> usize {
    20
}

impl Data {
    /// Returns all heights and widths of clips.
    pub fn sizes(&self) -> Vec<(i64, i64)> {
        let sizes = if self.shapes.is_empty() { std::slice::from_ref(&self.size) } else { &self.shapes };
        sizes.iter().map(|&size| size.into()).collect()
    }

    /// Checks every value.
    ///
    /// # Errors
    /// A message that names the first invalid key and its valid values.
    pub fn check(&self) -> Checked {
        count("data.window", self.window as u64, MAX_WINDOW)?;
        count("data.batch", self.batch as u64, MAX_BATCH)?;
        let sides = |size: &[i64; 2]| size.iter().all(|side| side % 16 == 0 && (16..=4096).contains(side));
        must(sides(&self.size), "data.size: must be multiples of 16 from 16 to 4096")?;
        must(self.shapes.iter().all(sides), "data.shapes: must be multiples of 16 from 16 to 4096")?;
        share("data.remember", self.remember)?;
        must(
            !self.sources.is_empty(),
            "data.sources: must have at least one source, such as [data.sources.davis]",
        )?;
        for (name, source) in &self.sources {
            source.check(&format!("data.sources.{name}"))?;
        }
        let total: f64 = self.sources.values().map(|source| source.ratio).sum();
        must(total > 0.0, "data.sources: at least one source must have a ratio above 0")?;
        self.augment.check("data.augment")?;
        self.synthetic.check("data.synthetic")?;
        self.perturbation.check("data.perturbation")?;
        self.multi_object.check("data.multi_object")?;
        let together = self.multi_object.clips();
        let message = format!("data.batch: must be a multiple of data.multi_object.objects, {together}");
        must(self.batch.is_multiple_of(together), &message)
    }
}

/// Windows with several tracked objects. Their masks are normalised against each other, as at run time. Objects are
/// those of a video with several objects; objects cut out of stills, or copies of the first one, are added.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiObject {
    /// Probability that consecutive clips of a batch are the objects of one window; 0 = off.
    pub probability: f64,
    /// Objects of such a window.
    pub objects: usize,
    /// Probability that an added object is a copy of the first one.
    pub look_alike: f64,
}

impl Default for MultiObject {
    fn default() -> Self {
        Self { probability: 0.0, objects: 2, look_alike: 0.4 }
    }
}

impl MultiObject {
    /// Returns the number of clips of a batch that are drawn together.
    pub fn clips(&self) -> usize {
        if self.probability > 0.0 { self.objects } else { 1 }
    }

    fn check(&self, key: &str) -> Checked {
        share(&format!("{key}.probability"), self.probability)?;
        share(&format!("{key}.look_alike"), self.look_alike)?;
        must((2..=16).contains(&self.objects), &format!("{key}.objects: must be 2 to 16"))
    }
}

/// Perturbation of the mask of the previous frame, so that it resembles a prediction: it is displaced, dilated or
/// eroded, and blurred, and sometimes has holes or false blobs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Perturbation {
    /// 1 = similar to the masks of a half-trained network; 0 = off, the true mask.
    pub strength: f64,
    /// Share of masks that stay exact.
    pub exact: f64,
    /// Share of masks that are empty.
    pub empty: f64,
}

impl Default for Perturbation {
    fn default() -> Self {
        Self { strength: 1.0, exact: 0.15, empty: 0.08 }
    }
}

impl Perturbation {
    fn check(&self, key: &str) -> Checked {
        within(&format!("{key}.strength"), self.strength, [0.0, 3.0])?;
        share(&format!("{key}.exact"), self.exact)?;
        share(&format!("{key}.empty"), self.empty)?;
        must(self.exact + self.empty <= 1.0, &format!("{key}: the sum of exact and empty must be at most 1"))
    }
}
