use serde::{Deserialize, Serialize};

use crate::check::{Checked, interval, share, within};

/// How stills are set in motion. The defaults are the recipe of `lite`: affine motion and waves, without
/// thin-plate splines, motion blur or changing light.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    /// Strength of the affine motion of objects and background: shift, turn, scale, shear; 0 = none.
    pub motion: f64,
    /// The greatest amplitude of the waves that bend an object, in pixels of a clip 336 wide; 0 = none.
    pub wave: f64,
    /// Chance of an object, and of a background, to be bent by a thin-plate spline.
    pub thin_plate: f64,
    /// How far its control points are displaced, standard deviation over a whole clip, in parts of
    /// the object's or the picture's sides.
    pub bend: f64,
    /// Chance of a second object, half the time in front of the first.
    pub second_object: f64,
    /// Chance that the reference does not show a second object yet.
    pub late_distractor: f64,
    /// Chance that the object's own photo is the background.
    pub own_background: f64,
    /// Chance that another background is a frame of a video source.
    pub video_background: f64,
    /// Strength of changes of contrast, brightness, saturation and tint; 0 = none.
    pub colour: f64,
    /// Chance of a clip to be blurred along the motion.
    pub motion_blur: f64,
    /// Bounds of the time that the shutter is open, in parts of the time between frames.
    pub shutter: [f64; 2],
    /// Chance of a frame to be out of focus.
    pub defocus: f64,
    /// Chance of a clip whose gain and gamma drift.
    pub lighting: f64,
    /// Chance of a clip over which a shadow moves.
    pub shadow: f64,
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
            own_background: 0.35,
            video_background: 0.3,
            colour: 1.0,
            motion_blur: 0.0,
            shutter: [0.2, 1.0],
            defocus: 0.15,
            lighting: 0.0,
            shadow: 0.0,
        }
    }
}

impl Synthetic {
    pub(super) fn check(&self, key: &str) -> Checked {
        let shares = [
            ("thin_plate", self.thin_plate),
            ("second_object", self.second_object),
            ("late_distractor", self.late_distractor),
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
