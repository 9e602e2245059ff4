// SPDX-License-Identifier: MPL-2.0

//! Section `[data]` of a run's configuration: sources of the clips and their augmentation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{Checked, count, interval, must, not_negative, share, shares, within};

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

/// Data set on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Type of the data.
    pub kind: Kind,
    /// Root folder.
    pub path: PathBuf,
    /// Share of the clips, relative to the sum of all sources' ratios.
    #[serde(default = "one")]
    pub ratio: f64,
    /// Height and width that pictures are shrunk to fit; none = 480x854 for video, 400x640 for stills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[i64; 2]>,
    /// Video: layout of the folder; none = `youtube-vos` if it has a `meta.json`, else `davis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Video: meaning of the ids in the masks.
    #[serde(default)]
    pub objects: Objects,
    /// Video: text file with one sequence per line; none = `ImageSets/**/train.txt` if present, else every folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Video: sequences to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Video: folder of the resolution, such as `1080p`; none = `480p` if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Video: read all frames before the first step and keep them in memory, instead of on demand.
    #[serde(default)]
    pub preload: bool,
}

/// Type of the data of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Annotated video.
    Video,
    /// Still pictures with object masks or region maps.
    Stills,
}

/// Layout of a folder of video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// DAVIS-2016 and DAVIS-2017: the masks alone define the objects.
    Davis,
    /// YouTube-VOS: `meta.json` lists the frames in which each object is annotated.
    YoutubeVos,
}

/// Meaning of the ids in a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objects {
    /// Each id is a separate object; the target of a window is one of them.
    #[default]
    Each,
    /// All ids together are one object, as in DAVIS-2016.
    Union,
}

fn one() -> f64 {
    1.0
}

impl Source {
    pub(crate) fn check(&self, key: &str) -> Checked {
        not_negative(&format!("{key}.ratio"), self.ratio)?;
        let sides = self.size.is_none_or(|size| size.iter().all(|side| (16..=4096).contains(side)));
        must(sides, &format!("{key}.size: must be from 16 to 4096"))?;
        let video_only = self.layout.is_some()
            || self.objects != Objects::Each
            || self.split.is_some()
            || !self.exclude.is_empty()
            || self.resolution.is_some()
            || self.preload;
        let reason = "layout, objects, split, exclude, resolution and preload need kind = \"video\"";
        must(self.kind == Kind::Video || !video_only, &format!("{key}: {reason}"))
    }

    /// Returns the height and width that pictures are shrunk to fit.
    pub fn limit(&self) -> (i64, i64) {
        let default = match self.kind {
            Kind::Video => [480, 854],
            Kind::Stills => [400, 640],
        };
        self.size.unwrap_or(default).into()
    }
}

/// Augmentation of windows of video: one transform for all frames of a window, another for the reference. The
/// defaults are the settings of `lite`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Probability of mirroring left to right.
    pub flip: f64,
    /// Range of the scale factor.
    pub scale: [f64; 2],
    /// Probability of a rotation.
    pub rotated: f64,
    /// Maximum rotation in either direction, degrees.
    pub rotation: f64,
    /// Maximum displacement, as a fraction of the width and height.
    pub shift: f64,
    /// Maximum horizontal displacement per pixel down.
    pub shear: f64,
    /// Keep the object inside the clip when the picture is enlarged.
    pub follow: bool,
    /// Strength of the changes of contrast, brightness, saturation and tint; 0 = off.
    pub colour: f64,
    /// How a picture of another aspect ratio fills the clip.
    pub fit: Fit,
    /// Padding beyond the picture's border.
    pub border: Border,
    /// Probability of a close-up, which shows the object's surroundings only, like a region of interest.
    pub close_ups: f64,
    /// Probability that the object is absent after the reference: the other frames show another sequence.
    pub absent: f64,
    /// Probability that the object is hidden in the previous frame, and in half of the cases in the first predicted one:
    /// they show another sequence or one colour.
    pub interrupted: f64,
    /// Probability of a distractor, cut out of a still, that moves in front of the object or behind it.
    pub distractor: f64,
    /// Probability of a window in reverse order.
    pub reversed: f64,
    /// Probability that the previous frame is a frame of the sequence outside of the window, if there is one, as if the
    /// frames in between were lost.
    pub jump: f64,
    /// Distances between the frames of a window, in annotated frames. One entry is drawn for each window; repeated
    /// entries are drawn more often.
    pub frame_steps: Vec<usize>,
    /// Probability that the reference is the first frame that shows the object; else it is drawn from all frames
    /// that show it.
    pub first_reference: f64,
    /// Transform of the reference in relation to the window's.
    pub reference: ReferenceTransform,
    /// Minimum share of the picture's pixels that the object covers in the frame of the reference.
    pub least_object: f64,
}

/// How a picture of another aspect ratio fills the clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Keeps the aspect ratio and fills the clip; the excess is cropped.
    Cover,
    /// Resizes both sides to the clip's, as frames are resized at run time.
    Stretch,
}

/// Padding beyond the border of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Border {
    /// Mirror image of picture and mask; its ground truth is known.
    Reflect,
    /// Black; its ground truth is unknown.
    Black,
}

/// Transform of the reference in relation to the window's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceTransform {
    /// Small random change of the window's transform.
    Near,
    /// Drawn independently from the same distribution.
    Independent,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            flip: 0.5,
            scale: [0.75, 1.35],
            rotated: 0.6,
            rotation: 20.0,
            shift: 0.1,
            shear: 0.1,
            follow: true,
            colour: 1.0,
            fit: Fit::Cover,
            border: Border::Reflect,
            close_ups: 0.0,
            absent: 0.0,
            interrupted: 0.0,
            distractor: 0.0,
            reversed: 0.3,
            jump: 0.0,
            frame_steps: vec![1, 1, 1, 2, 3],
            first_reference: 0.3,
            reference: ReferenceTransform::Near,
            least_object: 0.005,
        }
    }
}

impl Augment {
    fn check(&self, key: &str) -> Checked {
        let values = [
            ("flip", self.flip),
            ("rotated", self.rotated),
            ("close_ups", self.close_ups),
            ("absent", self.absent),
            ("interrupted", self.interrupted),
            ("distractor", self.distractor),
            ("reversed", self.reversed),
            ("jump", self.jump),
            ("first_reference", self.first_reference),
            ("least_object", self.least_object),
        ];
        shares(key, &values)?;
        interval(&format!("{key}.scale"), self.scale, [0.1, 10.0])?;
        within(&format!("{key}.rotation"), self.rotation, [0.0, 180.0])?;
        within(&format!("{key}.shift"), self.shift, [0.0, 0.5])?;
        within(&format!("{key}.shear"), self.shear, [0.0, 1.0])?;
        within(&format!("{key}.colour"), self.colour, [0.0, 2.0])?;
        let steps = !self.frame_steps.is_empty() && self.frame_steps.iter().all(|step| *step > 0);
        must(steps, &format!("{key}.frame_steps: must be one or more steps of at least 1"))
    }
}

/// Rendering of synthetic clips from stills. The defaults are the settings of `lite`: affine motion and waves,
/// without thin-plate splines, motion blur or lighting changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    /// Strength of the affine motion of objects and background: shift, rotation, scale, shear; 0 = off.
    pub motion: f64,
    /// Maximum amplitude of the waves that bend an object, in pixels of a clip 336 wide; 0 = off.
    pub wave: f64,
    /// Probability, for each object and each background, of bending by a thin-plate spline.
    pub thin_plate: f64,
    /// Standard deviation of the displacement of the spline's control points over a whole clip, as a fraction of
    /// the sides of the object or picture.
    pub bend: f64,
    /// Probability of a second object, in half of the cases in front of the first.
    pub second_object: f64,
    /// Probability that the second object, or the distractor in a clip of video, is absent from the reference.
    pub late_distractor: f64,
    /// Probability that the object jumps between the previous frame and the first predicted one.
    pub jump: f64,
    /// Probability that the background is the picture from which the object was cut.
    pub own_background: f64,
    /// Probability that any other background is a frame of a video source.
    pub video_background: f64,
    /// Strength of the changes of contrast, brightness, saturation and tint; 0 = off.
    pub colour: f64,
    /// Probability of a clip with motion blur.
    pub motion_blur: f64,
    /// Range of the exposure time, as a fraction of the frame interval.
    pub shutter: [f64; 2],
    /// Probability that a frame is out of focus.
    pub defocus: f64,
    /// Probability of a clip whose gain and gamma change over time.
    pub lighting: f64,
    /// Probability of a clip with a moving shadow.
    pub shadow: f64,
    /// Whether the true mask is the alpha with which the object is composed over its background, and not its outline, which
    /// has harder edges.
    pub soft_truth: bool,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            motion: 1.0,
            wave: 6.0,
            thin_plate: 0.0,
            bend: 0.06,
            second_object: 0.4,
            late_distractor: 0.0,
            jump: 0.0,
            own_background: 0.35,
            video_background: 0.3,
            colour: 1.0,
            motion_blur: 0.0,
            shutter: [0.2, 1.0],
            defocus: 0.15,
            lighting: 0.0,
            shadow: 0.0,
            soft_truth: false,
        }
    }
}

impl Synthetic {
    fn check(&self, key: &str) -> Checked {
        let values = [
            ("thin_plate", self.thin_plate),
            ("second_object", self.second_object),
            ("late_distractor", self.late_distractor),
            ("jump", self.jump),
            ("own_background", self.own_background),
            ("video_background", self.video_background),
            ("motion_blur", self.motion_blur),
            ("defocus", self.defocus),
            ("lighting", self.lighting),
            ("shadow", self.shadow),
        ];
        shares(key, &values)?;
        within(&format!("{key}.motion"), self.motion, [0.0, 3.0])?;
        within(&format!("{key}.wave"), self.wave, [0.0, 50.0])?;
        within(&format!("{key}.bend"), self.bend, [0.0, 0.2])?;
        within(&format!("{key}.colour"), self.colour, [0.0, 2.0])?;
        interval(&format!("{key}.shutter"), self.shutter, [0.0, 2.0])
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
        shares(key, &[("probability", self.probability), ("look_alike", self.look_alike)])?;
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
        shares(key, &[("exact", self.exact), ("empty", self.empty)])?;
        must(self.exact + self.empty <= 1.0, &format!("{key}: the sum of exact and empty must be at most 1"))
    }
}
