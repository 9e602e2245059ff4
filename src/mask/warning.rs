// SPDX-License-Identifier: MPL-2.0

//! Warnings about masks that are usable but probably wrong.

use std::fmt;

use super::{Interpretation, ObjectMask, ReferenceMask};

/// Largest value, half of 255, up to which a soft mask is probably a mistake.
const MAX_FAINT: u8 = 127;
/// Value from which a pixel counts as object.
const MIN_OBJECT: u8 = 128;
/// Share of the picture in percent above which an object at the borders is probably the background.
const MAX_PERCENT: usize = 60;
/// Relative difference of a side up to which two aspect ratios count as equal.
const TOLERANCE: f64 = 0.06;

/// A probable mistake in a mask, and its remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskWarning {
    /// No pixel is more than half opaque.
    Faint {
        /// Largest value, 0 to 255.
        brightest: u8,
        /// Whether the values are those of the alpha channel.
        alpha: bool,
    },
    /// An object covers most of the picture and reaches its borders.
    Inverted {
        /// Object id.
        object: u8,
        /// Interpretation of the mask.
        reading: Interpretation,
        /// Covered share of the picture in percent.
        percent: usize,
    },
    /// The aspect ratio of the mask differs from that of its picture.
    Shape {
        /// Columns and rows of the mask.
        mask: (usize, usize),
        /// Columns and rows of the picture.
        picture: (usize, usize),
        /// Whether the picture is `ref-image`, not a frame of the video.
        is_image: bool,
    },
}

impl fmt::Display for MaskWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Faint { brightest, alpha: true } => write!(
                f,
                "its largest alpha is {brightest} of 255, so no pixel is more than {} % opaque: make the object \
                 opaque",
                percent_of(brightest)
            ),
            Self::Faint { brightest, alpha: false } => write!(
                f,
                "its brightest value is {brightest} of 255, which is read as an object that is {} % opaque. \
                 Write the object as 255 and the rest as 0, or save object ids as a PNG with a palette (index = \
                 object)",
                percent_of(brightest)
            ),
            Self::Inverted { object, reading, percent } => {
                write!(
                    f,
                    "object {object} covers {percent} % of the picture and reaches its borders, so the "
                )?;
                f.write_str(match reading {
                    Interpretation::Soft => {
                        "mask looks inverted. If it is, invert it, for example with `magick mask.png -negate \
                         inverted.png`: the object must be white, the rest black"
                    }
                    Interpretation::Alpha => {
                        "mask looks inverted. If it is, invert its alpha channel, for example with `magick \
                         mask.png -channel A -negate inverted.png`: the object must be opaque, the rest transparent"
                    }
                    Interpretation::Ids | Interpretation::GreyIds => {
                        "mask looks inverted. If it is, swap the ids: the background must have id 0, the object id 1"
                    }
                })
            }
            Self::Shape { mask, picture, is_image } => {
                let name = if is_image { "ref-image" } else { "frame" };
                write!(
                    f,
                    "it has {}x{} pixels and the {name} {}x{}: the aspect ratios differ, so the mask is stretched",
                    mask.0, mask.1, picture.0, picture.1
                )?;
                match (differs(mask, picture.1 as f64 / picture.0 as f64), is_image) {
                    (false, _) => f.write_str(
                        ". It fits if rotated by 90 degrees: if the video has a rotation tag, as phone videos \
                         have, put `videoflip video-direction=auto` before fastganseg",
                    ),
                    (true, true) => f.write_str(". Draw the mask on the uncropped ref-image"),
                    (true, false) => f.write_str(". Draw the mask on an uncropped frame of the video"),
                }
            }
        }
    }
}

fn percent_of(value: u8) -> usize {
    usize::from(value) * 100 / 255
}

/// Whether the aspect ratio of a size differs from `ratio` (width / height) by more than rounding and tolerance.
fn differs((width, height): (usize, usize), ratio: f64) -> bool {
    let deviates = |length: f64, wanted: f64| {
        let difference = (length - wanted).abs();
        difference > 1.0 && difference > TOLERANCE * length.max(wanted)
    };
    let (width, height) = (width as f64, height as f64);
    deviates(width, height * ratio) && deviates(height, width / ratio)
}

impl ReferenceMask {
    /// Warnings about the mask itself.
    pub fn warnings(&self) -> Vec<MaskWarning> {
        let mut warnings = Vec::new();
        let reading = self.reading;
        if matches!(reading, Interpretation::Soft | Interpretation::Alpha) {
            let values = self.objects.iter().flat_map(|object| &object.alpha);
            let brightest = values.copied().max().unwrap_or_default();
            if brightest <= MAX_FAINT {
                warnings.push(MaskWarning::Faint { brightest, alpha: reading == Interpretation::Alpha });
            }
        }
        for object in &self.objects {
            let covered = 100 * object.alpha.iter().filter(|&&value| value >= MIN_OBJECT).count();
            let pixels = object.alpha.len();
            if covered > MAX_PERCENT * pixels && self.borders(object) >= 3 {
                let percent = covered / pixels.max(1);
                warnings.push(MaskWarning::Inverted { object: object.id, reading, percent });
            }
        }
        warnings
    }

    /// Warning if the aspect ratio of the mask differs from that of `picture` (columns, rows), which is
    /// `ref-image` or a frame whose pixels have the aspect ratio `aspect` (width / height).
    pub fn aspect_warning(
        &self,
        picture: (usize, usize),
        aspect: f64,
        is_image: bool,
    ) -> Option<MaskWarning> {
        let mask = (self.width, self.height);
        let ratio = picture.0 as f64 / picture.1 as f64;
        // A mask may be drawn on the frame as stored or as displayed.
        let differs = differs(mask, ratio) && differs(mask, ratio * aspect);
        differs.then_some(MaskWarning::Shape { mask, picture, is_image })
    }

    /// Number of borders of the picture that an object reaches.
    fn borders(&self, object: &ObjectMask) -> usize {
        let is_object = |&value: &u8| value >= MIN_OBJECT;
        let row = |y: usize| object.alpha.iter().skip(y * self.width).take(self.width).any(is_object);
        let column = |x: usize| object.alpha.iter().skip(x).step_by(self.width).any(is_object);
        [row(0), row(self.height - 1), column(0), column(self.width - 1)].into_iter().filter(|&on| on).count()
    }
}
