// SPDX-License-Identifier: MPL-2.0

//! Moving cut-out: it translates, rotates, bends and waves over the frames of a clip, and is composed over pictures.

use tch::Tensor;

use super::Size;
use super::colour::Colour;
use super::drift::{Drift, draw_bends, exposed_motion};
use super::geometry::{Grid, Placement, Wave, blur, motion_blur};
use super::picture::Still;
use super::random::Random;
use super::settings::{Border, Synthetic};
use super::spline::Spline;
use crate::Result;

/// Minimum area of an object's bounding box, pixels.
const MIN_AREA: i64 = 50;
/// Replicated pixels around the object, so that a soft edge shows its colours only.
const MARGIN: i64 = 4;
/// Standard deviation in pixels of the blur that softens an object's edge.
const SOFT_EDGE: f64 = 0.8;
/// Width of the clip whose pixels are the unit of the waves' parameters.
const WIDTH: f64 = 336.0;
/// Number of the first predicted frame: it follows the reference and the previous frame.
const FIRST_PREDICTED: usize = 2;

#[derive(Debug)]
pub struct MovingObject {
    /// (1, 4, h, w): image and mask, cropped to the object.
    layers: Tensor,
    base: Placement,
    jump: (f64, f64),
    pub drift: Vec<Drift>,
    wave: Option<Wave>,
    bends: Option<Vec<Spline>>,
}

/// Initial size and position of an object.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// Size relative to the largest that fits the clip.
    pub share: f64,
    /// Offset from the clip's centre, as fractions of its width and height.
    pub shift: (f64, f64),
    /// Displacement between the previous frame and the first predicted one, as fractions of the width and height.
    pub jump: (f64, f64),
}

impl MovingObject {
    /// Draws the motion of the object of `still`; `None` if the object is too small.
    pub fn draw(
        still: &Still,
        size: Size,
        entrance: Entrance,
        drift: Vec<Drift>,
        settings: &Synthetic,
        random: &mut Random,
    ) -> Result<Option<Self>> {
        let Some((x0, x1, y0, y1)) = still.bounds() else { return Ok(None) };
        let (width, height) = (x1 - x0, y1 - y0);
        if width * height < MIN_AREA {
            return Ok(None);
        }
        let crop = |x: Tensor| x.f_narrow(2, y0, height)?.f_narrow(3, x0, width);
        let picture = crop(still.image()?)?.f_replication_pad2d([MARGIN; 4])?;
        let mask = crop(still.mask()?)?.f_constant_pad_nd([MARGIN; 4])?;
        let fit = (size.0 as f64 / height as f64).min(1.2 * size.1 as f64 / width as f64);
        let base = Placement {
            rotation: random.uniform(-0.3, 0.3),
            shift: entrance.shift,
            flip: random.chance(0.5),
            ..Placement::scaled(entrance.share * fit)
        };
        let wave = wave(size, settings, random);
        let bends = draw_bends(drift.len(), settings, random)?;
        Ok(Some(Self {
            layers: Tensor::f_cat(&[picture, mask], 1)?,
            base,
            jump: entrance.jump,
            drift,
            wave,
            bends,
        }))
    }

    /// Returns the image (1, 3, H, W) and soft mask (1, 1, H, W) in a frame.
    pub fn at(&self, frame: usize, size: Size) -> Result<(Tensor, Tensor)> {
        let [x, y, scale, shear, rotation] = self.drift[frame];
        let jump = if frame < FIRST_PREDICTED { (0.0, 0.0) } else { self.jump };
        let placement = Placement {
            rotation: self.base.rotation + rotation,
            scale: self.base.scale * scale.exp(),
            shift: (self.base.shift.0 + x + jump.0, self.base.shift.1 + y + jump.1),
            shear: self.base.scale * shear,
            flip: self.base.flip,
        };
        let wave = self.wave.map(|wave| {
            let time = frame as f64;
            Wave { phase: (wave.phase.0 + 0.6 * time, wave.phase.1 + 0.5 * time), ..wave }
        });
        let extent = (self.layers.size()[2], self.layers.size()[3]);
        let mut grid = Grid::new(extent, size, &placement, wave.as_ref())?;
        if let Some(bends) = &self.bends {
            grid = grid.bent(&bends[frame])?;
        }
        let layers = grid.sample(&self.layers, Border::Black)?;
        Ok((layers.f_narrow(1, 0, 3)?, layers.f_narrow(1, 3, 1)?))
    }
}

fn wave(size: Size, settings: &Synthetic, random: &mut Random) -> Option<Wave> {
    let amplitude = random.uniform(0.0, settings.wave);
    let pixel = size.1 as f64 / WIDTH;
    (amplitude > settings.wave / 6.0).then(|| {
        let phase = random.uniform(0.0, std::f64::consts::TAU);
        let frequency = random.uniform(0.02, 0.06) / pixel;
        Wave { amplitude: amplitude * pixel, frequency, phase: (phase, 2.0 * phase) }
    })
}

/// Rendered object in a frame.
pub struct Layer {
    /// (1, 3, H, W), premultiplied by alpha.
    picture: Tensor,
    /// (1, 1, H, W).
    pub alpha: Tensor,
    /// (1, 1, H, W), the outline.
    pub mask: Tensor,
}

impl Layer {
    /// Renders the object with its own colours and its mask as alpha, or with changed colours and a soft edge. `shutter` is the
    /// exposure time as a fraction of the frame interval.
    pub fn new(
        object: &MovingObject,
        colour: Option<&Colour>,
        frame: usize,
        size: Size,
        shutter: f64,
    ) -> Result<Self> {
        let (picture, mask) = object.at(frame, size)?;
        let (picture, alpha) = match colour {
            Some(colour) => (colour.apply(&picture)?, blur(&mask, SOFT_EDGE)?),
            None => (picture, mask.shallow_clone()),
        };
        let motion = exposed_motion(&object.drift, frame, size, shutter);
        let layers = motion_blur(&Tensor::f_cat(&[&picture.f_mul(&alpha)?, &alpha, &mask], 1)?, motion)?;
        let part = |from: i64, planes: i64| layers.f_narrow(1, from, planes);
        Ok(Self { picture: part(0, 3)?, alpha: part(3, 1)?, mask: part(4, 1)? })
    }

    /// Composes the layer over a picture (1, 3, H, W).
    pub fn over(&self, below: &Tensor) -> Result<Tensor> {
        compose(&self.picture, &self.alpha, below)
    }

    /// Composes the layer over a picture (1, 3, H, W), but behind the object at `mask` (1, 1, H, W).
    pub fn over_all_but(&self, mask: &Tensor, below: &Tensor) -> Result<Tensor> {
        let visible = complement(mask)?;
        compose(&self.picture.f_mul(&visible)?, &self.alpha.f_mul(&visible)?, below)
    }

    /// Returns `below` (1, C, H, W) times the transparency of the layer.
    pub fn hide(&self, below: &Tensor) -> Result<Tensor> {
        Ok(below.f_mul(&complement(&self.alpha)?)?)
    }
}

/// Composes `picture`, premultiplied by `alpha`, over `below`.
fn compose(picture: &Tensor, alpha: &Tensor, below: &Tensor) -> Result<Tensor> {
    Ok(below.f_mul(&complement(alpha)?)?.f_add_(picture)?)
}

/// Returns 1 - `share`.
pub fn complement(share: &Tensor) -> Result<Tensor> {
    Ok(share.f_neg()?.f_add_scalar(1.0)?)
}
