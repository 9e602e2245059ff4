//! What is probably wrong with a mask that can be used all the same.

use std::fmt;

use super::{ObjectMask, Reading, ReferenceMask};

/// Soft masks whose brightest value is at most this are probably not meant so: half of 255.
const FAINT: u8 = 127;
/// Values from here on count as object.
const OBJECT: u8 = 128;
/// Share of the picture, in percent, beyond which an object at the borders is probably the background.
const LARGE: usize = 60;
/// Share of a side by which it may differ from that of another shape.
const TOLERANCE: f64 = 0.06;

/// What is probably wrong with a mask, and the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskWarning {
    /// No pixel is even half object.
    Faint {
        /// The largest value, of 255.
        brightest: u8,
        /// The values are those of the alpha channel.
        alpha: bool,
    },
    /// An object covers most of the picture and reaches its borders.
    Inverted {
        /// Its id.
        object: u8,
        /// How the mask was read.
        reading: Reading,
        /// Share of the picture, in percent.
        percent: usize,
    },
    /// The mask has another shape than the picture that it is for.
    Shape {
        /// Columns and rows of the mask.
        mask: (usize, usize),
        /// Columns and rows of the picture.
        picture: (usize, usize),
        /// The picture is `ref-image`, not a frame of the video.
        is_image: bool,
    },
}

impl fmt::Display for MaskWarning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Faint { brightest, alpha: true } => write!(
                f,
                "its largest alpha is {brightest} of 255, so that no pixel is more than {} % object: make the \
                 object opaque",
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
                    "object {object} covers {percent} % of the picture and reaches its borders, so that the "
                )?;
                f.write_str(match reading {
                    Reading::Soft => {
                        "mask looks inverted. If it is, turn it round, for example with `magick mask.png -negate \
                         turned.png`: the object is white, the rest is black"
                    }
                    Reading::Alpha => {
                        "mask looks inverted. If it is, turn its alpha channel round, for example with `magick \
                         mask.png -channel A -negate turned.png`: the object is opaque, the rest is transparent"
                    }
                    Reading::Ids | Reading::GreyIds => {
                        "mask looks inverted. If it is, turn it round: the background has the id 0, the object 1"
                    }
                })
            }
            Self::Shape { mask, picture, is_image } => {
                let name = if is_image { "ref-image" } else { "frame" };
                write!(
                    f,
                    "it has {}x{} pixels and the {name} {}x{}, another shape, so that the mask is stretched",
                    mask.0, mask.1, picture.0, picture.1
                )?;
                match (differs(mask, picture.1 as f64 / picture.0 as f64), is_image) {
                    (false, _) => f.write_str(
                        ". It fits when turned by 90 degrees: if the video has a rotation tag, as those of phones \
                         have, put `videoflip video-direction=auto` before fastganseg",
                    ),
                    (true, true) => f.write_str(": draw the mask on the ref-image, uncropped"),
                    (true, false) => f.write_str(": draw the mask on an uncropped frame of the video"),
                }
            }
        }
    }
}

fn percent_of(value: u8) -> usize {
    usize::from(value) * 100 / 255
}

/// Whether a size is clearly of another shape than one of `ratio` columns to a row, by more than comes of rounding.
fn differs((width, height): (usize, usize), ratio: f64) -> bool {
    let far = |length: f64, wanted: f64| {
        let difference = (length - wanted).abs();
        difference > 1.0 && difference > TOLERANCE * length.max(wanted)
    };
    let (width, height) = (width as f64, height as f64);
    far(width, height * ratio) && far(height, width / ratio)
}

impl ReferenceMask {
    /// What is probably wrong with the mask itself.
    pub fn warnings(&self) -> Vec<MaskWarning> {
        let mut warnings = Vec::new();
        let reading = self.reading;
        if matches!(reading, Reading::Soft | Reading::Alpha) {
            let values = self.objects.iter().flat_map(|object| &object.alpha);
            let brightest = values.copied().max().unwrap_or_default();
            if brightest <= FAINT {
                warnings.push(MaskWarning::Faint { brightest, alpha: reading == Reading::Alpha });
            }
        }
        for object in &self.objects {
            let covered = 100 * object.alpha.iter().filter(|&&value| value >= OBJECT).count();
            let pixels = object.alpha.len();
            if covered > LARGE * pixels && self.borders(object) >= 3 {
                let percent = covered / pixels.max(1);
                warnings.push(MaskWarning::Inverted { object: object.id, reading, percent });
            }
        }
        warnings
    }

    /// Whether the mask has clearly another shape than `picture` (columns, rows), which is `ref-image` or a
    /// frame whose pixels are `aspect` times as wide as high.
    pub fn shape_warning(&self, picture: (usize, usize), aspect: f64, is_image: bool) -> Option<MaskWarning> {
        let mask = (self.width, self.height);
        let ratio = picture.0 as f64 / picture.1 as f64;
        // A mask may be drawn on the frame as it is stored, or as it is shown.
        let differs = differs(mask, ratio) && differs(mask, ratio * aspect);
        differs.then_some(MaskWarning::Shape { mask, picture, is_image })
    }

    /// How many borders of the picture an object reaches.
    fn borders(&self, object: &ObjectMask) -> usize {
        let is_object = |&value: &u8| value >= OBJECT;
        let row = |y: usize| object.alpha.iter().skip(y * self.width).take(self.width).any(is_object);
        let column = |x: usize| object.alpha.iter().skip(x).step_by(self.width).any(is_object);
        [row(0), row(self.height - 1), column(0), column(self.width - 1)].into_iter().filter(|&on| on).count()
    }
}
