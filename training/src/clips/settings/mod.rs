//! What clips are made of and how they are varied: the section `[data]` of a run's configuration.

mod augment;
mod perturbation;
mod source;
mod synthetic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use augment::{Augment, Border, Fit, ReferenceTransform};
pub use perturbation::Perturbation;
pub use source::{Kind, Layout, Objects, Source};
pub use synthetic::Synthetic;

use crate::check::{Checked, must, share};

/// What clips are made of. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Predicted frames a clip, K.
    pub window: usize,
    /// Clips a step.
    pub batch: usize,
    /// Height and width of the clips, multiples of 16.
    pub size: [i64; 2],
    /// Heights and widths in the place of `size`, one of which is drawn for each step: the shapes in which the
    /// region of interest shows objects. None = `size` alone.
    #[serde(default)]
    pub shapes: Vec<[i64; 2]>,
    /// The chance of each frame of a window to be remembered, as at run time, while the next ones are
    /// predicted.
    #[serde(default)]
    pub remember: f64,
    /// MiB of decoded frames kept of the video sources that are not preloaded, all together.
    #[serde(default = "default_cache")]
    pub cache: u64,
    /// Broken files that are left out; one more ends the run.
    #[serde(default = "default_broken_limit")]
    pub broken_limit: usize,
    /// Where pictures come from, by name.
    pub sources: BTreeMap<String, Source>,
    /// How windows of video are varied.
    #[serde(default)]
    pub augment: Augment,
    /// How stills are set in motion.
    #[serde(default)]
    pub synthetic: Synthetic,
    /// What makes the mask of the frame before the window as imperfect as the network's own.
    #[serde(default)]
    pub perturbation: Perturbation,
}

fn default_cache() -> u64 {
    1024
}

fn default_broken_limit() -> usize {
    20
}

impl Data {
    /// All heights and widths of clips.
    pub fn sizes(&self) -> Vec<(i64, i64)> {
        let sizes = if self.shapes.is_empty() { std::slice::from_ref(&self.size) } else { &self.shapes };
        sizes.iter().map(|&size| size.into()).collect()
    }

    /// Whether every value can be used.
    ///
    /// # Errors
    /// The first key at fault, with the values that it takes.
    pub fn check(&self) -> Checked {
        must(self.window > 0, "data.window: at least 1")?;
        must(self.batch > 0, "data.batch: at least 1")?;
        let sides = |size: &[i64; 2]| size.iter().all(|side| side % 16 == 0 && (16..=4096).contains(side));
        must(sides(&self.size), "data.size: multiples of 16, up to 4096")?;
        must(self.shapes.iter().all(sides), "data.shapes: multiples of 16, up to 4096")?;
        share("data.remember", self.remember)?;
        must(!self.sources.is_empty(), "data.sources: give at least one, such as [data.sources.davis]")?;
        for (name, source) in &self.sources {
            source.check(&format!("data.sources.{name}"))?;
        }
        let total: f64 = self.sources.values().map(|source| source.ratio).sum();
        must(total > 0.0, "data.sources: the ratio of one of them at least must be above 0")?;
        self.augment.check("data.augment")?;
        self.synthetic.check("data.synthetic")?;
        self.perturbation.check("data.perturbation")
    }
}
