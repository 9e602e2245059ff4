// SPDX-License-Identifier: MPL-2.0

use serde::{Deserialize, Serialize};

use crate::check::{Checked, interval, share, within};

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
    pub(super) fn check(&self, key: &str) -> Checked {
        let shares = [
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
        shares.iter().try_for_each(|(name, value)| share(&format!("{key}.{name}"), *value))?;
        within(&format!("{key}.motion"), self.motion, [0.0, 3.0])?;
        within(&format!("{key}.wave"), self.wave, [0.0, 50.0])?;
        within(&format!("{key}.bend"), self.bend, [0.0, 0.2])?;
        within(&format!("{key}.colour"), self.colour, [0.0, 2.0])?;
        interval(&format!("{key}.shutter"), self.shutter, [0.0, 2.0])
    }
}
