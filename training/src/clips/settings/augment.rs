use serde::{Deserialize, Serialize};

use crate::check::{Checked, interval, must, share, within};

/// How windows of video are varied: one transform for all frames of a window, another for the
/// reference. The defaults are the recipe of `lite`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Chance of a mirror image, left to right.
    pub flip: f64,
    /// Bounds of the enlargement.
    pub scale: [f64; 2],
    /// Chance to be turned at all.
    pub rotated: f64,
    /// The greatest turn either way, degrees.
    pub rotation: f64,
    /// The greatest displacement, in parts of the width and height.
    pub shift: f64,
    /// The greatest displacement to the side per pixel down.
    pub shear: f64,
    /// Keep the object in view when the picture is enlarged.
    pub follow: bool,
    /// Strength of changes of contrast, brightness, saturation and tint; 0 = none.
    pub colour: f64,
    /// How a picture of another shape fills the clip.
    pub fit: Fit,
    /// What lies beyond the picture's border.
    pub border: Border,
    /// Chance of a close-up, which shows the object's surroundings only, as the region of interest
    /// does.
    pub close_ups: f64,
    /// Chance that the object is gone after the reference: the rest shows another sequence.
    pub absent: f64,
    /// Chance of another object, cut out of a still, that moves in front of the object or behind it.
    pub distractor: f64,
    /// Chance of a window that runs backwards.
    pub reversed: f64,
    /// Annotated frames from one frame of a window to the next; each is drawn as often as it is
    /// listed.
    pub frame_steps: Vec<usize>,
    /// Chance that the reference is the first frame that shows the object; else it is drawn from all
    /// that do.
    pub first_reference: f64,
    /// How the reference's transform follows from the window's.
    pub reference: ReferenceTransform,
    /// Least share of the picture that the object has in the frame that the reference is made of.
    pub least_object: f64,
}

/// How a picture of another shape than the clips' fills them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// The clip is full and the shape kept; what is too much is cut off where the object is not.
    Cover,
    /// Both sides as long as the clip's, as frames are resized at run time.
    Stretch,
}

/// What lies beyond the border of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Border {
    /// Its mirror image, mask and all: the truth is known there.
    Reflect,
    /// Black, where the truth is not known.
    Black,
}

/// How the reference's transform follows from the window's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceTransform {
    /// A little away from it.
    Near,
    /// Drawn like it, but on its own.
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
            distractor: 0.0,
            reversed: 0.3,
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
            ("distractor", self.distractor),
            ("reversed", self.reversed),
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
        must(steps, &format!("{key}.frame_steps: one or more steps of at least 1"))
    }
}
