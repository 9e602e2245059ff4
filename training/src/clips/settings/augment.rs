// SPDX-License-Identifier: MPL-2.0

use serde::{Deserialize, Serialize};

use crate::check::{Checked, interval, must, share, within};

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
    pub(super) fn check(&self, key: &str) -> Checked {
        let shares = [
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
        shares.iter().try_for_each(|(name, value)| share(&format!("{key}.{name}"), *value))?;
        interval(&format!("{key}.scale"), self.scale, [0.1, 10.0])?;
        within(&format!("{key}.rotation"), self.rotation, [0.0, 180.0])?;
        within(&format!("{key}.shift"), self.shift, [0.0, 0.5])?;
        within(&format!("{key}.shear"), self.shear, [0.0, 1.0])?;
        within(&format!("{key}.colour"), self.colour, [0.0, 2.0])?;
        let steps = !self.frame_steps.is_empty() && self.frame_steps.iter().all(|step| *step > 0);
        must(steps, &format!("{key}.frame_steps: must be one or more steps of at least 1"))
    }
}
