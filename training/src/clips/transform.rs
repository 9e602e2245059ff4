// SPDX-License-Identifier: MPL-2.0

//! Placement of video frames in a clip: one transform for the window, another for the reference, of the whole
//! picture or of a close-up that resembles a region of interest.

use tch::{Kind, Tensor};

use super::colour::Colour;
use super::geometry::{Grid, Placement};
use super::picture::Still;
use super::random::Random;
use super::settings::{Augment, Border, Fit, ReferenceTransform};
use super::{Clip, Size};
use crate::Result;

/// Minimum share of the picture's sides that a close-up shows.
const MIN_SHARE: f64 = 0.35;
/// Factor on rotation and shear in a close-up.
const DAMPING: f64 = 0.4;

#[derive(Debug)]
pub struct Transforms {
    pub window: Placement,
    pub reference: Placement,
    /// Placement of the reference if `reference` shows too little of the object.
    pub whole: Placement,
}

impl Transforms {
    /// Draws the placements of a window that begins with `first`.
    pub fn draw(
        first: &Still,
        reference: &Still,
        size: Size,
        augment: &Augment,
        close_up: bool,
        random: &mut Random,
    ) -> Self {
        let canvas = Canvas { extent: extent(reference, size, augment.fit), size };
        let fit = canvas.cover();
        let mut window = placement(first, &canvas, augment, random);
        let mut own = match augment.reference {
            ReferenceTransform::Near => Placement {
                rotation: window.rotation + random.uniform(-0.1, 0.1),
                scale: (window.scale * random.uniform(0.85, 1.15)).min(1.1 * fit),
                shift: (0.0, 0.0),
                ..window
            },
            ReferenceTransform::Independent => placement(reference, &canvas, augment, random),
        };
        if close_up {
            window = to_close_up(first, &canvas, window, random);
            own = to_close_up(reference, &canvas, own, random);
        }
        let upright = Placement { flip: own.flip, ..Placement::scaled(fit) };
        let whole = match reference.centroid() {
            Some((x, y)) => Placement { shift: canvas.towards((x - 0.5, y - 0.5), &upright), ..upright },
            None => upright,
        };
        Self { window, reference: own, whole }
    }
}

/// Sizes of a clip and of the pictures placed in it.
struct Canvas {
    /// Nominal height and width of the pictures.
    extent: Size,
    /// Height and width of the clip.
    size: Size,
}

impl Canvas {
    /// Returns the width and height of a picture at `scale`, as fractions of the clip's.
    fn sides(&self, scale: f64) -> (f64, f64) {
        let part = |side: i64, of: i64| scale * side as f64 / of as f64;
        (part(self.extent.1, self.size.1), part(self.extent.0, self.size.0))
    }

    /// Returns the scale at which a picture just fills the clip.
    fn cover(&self) -> f64 {
        let (width, height) = self.sides(1.0);
        1.0 / width.min(height)
    }

    /// Returns the scale at which a picture has as many pixels as the clip.
    fn even(&self) -> f64 {
        let (width, height) = self.sides(1.0);
        (width * height).sqrt().recip()
    }

    /// Returns the shift that moves a point of a picture, given as fractions of its sides from its centre, as
    /// close to the clip's centre as possible without showing a border.
    fn towards(&self, (x, y): (f64, f64), placement: &Placement) -> (f64, f64) {
        let (width, height) = self.sides(placement.scale);
        let axis = |at: f64, side: f64| {
            let reach = ((side - 1.0) / 2.0).max(0.0);
            (-at * side).clamp(-reach, reach)
        };
        (axis(if placement.flip { -x } else { x }, width), axis(y, height))
    }
}

/// Returns the nominal height and width of a picture, independent of its resolution.
fn extent(still: &Still, size: Size, fit: Fit) -> Size {
    match fit {
        Fit::Cover => (still.height, still.width),
        Fit::Stretch => size,
    }
}

fn placement(still: &Still, canvas: &Canvas, augment: &Augment, random: &mut Random) -> Placement {
    let fit = canvas.cover();
    let flip = random.chance(augment.flip);
    let limit = augment.rotation.to_radians();
    let rotation = if random.chance(augment.rotated) { random.uniform(-limit, limit) } else { 0.0 };
    let zoom = random.uniform(augment.scale[0], augment.scale[1]);
    let mut axis = || random.uniform(-augment.shift, augment.shift);
    let mut shift = (axis(), axis());
    let shear = random.uniform(-augment.shear, augment.shear) * fit;
    if let (true, Some((x, y))) = (augment.follow, still.centroid()) {
        let x = if flip { 1.0 - x } else { x };
        let (width, height) = canvas.sides(fit * zoom);
        shift.0 -= (x - 0.5) * (width - 1.0).max(0.0);
        shift.1 -= (y - 0.5) * (height - 1.0).max(0.0);
    }
    Placement { rotation, scale: fit * zoom, shift, shear, flip }
}

/// Returns `placement` with less rotation and shear, moved and scaled to show `still` like a region of interest.
fn to_close_up(still: &Still, canvas: &Canvas, placement: Placement, random: &mut Random) -> Placement {
    let margin = random.uniform(1.2, 2.6);
    let mut jitter = || random.uniform(-0.15, 0.15);
    let shift = (jitter(), jitter());
    let damped =
        Placement { rotation: placement.rotation * DAMPING, shear: placement.shear * DAMPING, ..placement };
    let Some((x0, x1, y0, y1)) = still.bounds() else { return damped };
    let middle = |from: i64, to: i64, side: i64| (from + to) as f64 / side as f64 / 2.0 - 0.5;
    let middle = (middle(x0, x1, still.width), middle(y0, y1, still.height));
    let (width, height) = canvas.sides(1.0);
    let part = |from: i64, to: i64, side: i64, of: f64| (to - from) as f64 / side as f64 * of;
    let object = part(x0, x1, still.width, width).max(part(y0, y1, still.height, height));
    let (smallest, largest) = (canvas.cover() / 1.1, canvas.even() / MIN_SHARE);
    let scale = (1.0 / (margin * object)).clamp(smallest.min(largest), largest);
    // Like a region of interest, a close-up stays inside the picture, except for the jitter.
    let placed = Placement { scale, ..damped };
    let towards = canvas.towards(middle, &placed);
    Placement { shift: (towards.0 + shift.0, towards.1 + shift.1), ..placed }
}

/// Renders `still` at `placement` with changed colours.
pub fn place(
    still: &Still,
    size: Size,
    placement: &Placement,
    colour: &Colour,
    augment: &Augment,
) -> Result<Clip> {
    let grid = Grid::new(extent(still, size, augment.fit), size, placement, None)?;
    let mut layers = vec![still.image()?, still.mask()?];
    layers.extend(still.known()?);
    let layers = grid.sample(&Tensor::f_cat(&layers, 1)?, augment.border)?;
    let masks = layers.f_narrow(1, 3, 1)?;
    let mut images = colour.apply(&layers.f_narrow(1, 0, 3)?)?;
    let mut valid = masks.f_ones_like()?;
    if augment.border == Border::Black {
        valid = grid.inside()?;
        images = images.f_mul(&valid)?;
    }
    if layers.size()[1] > 4 {
        let known = layers.f_narrow(1, 4, 1)?.f_gt(0.5)?.f_to_kind(Kind::Float)?;
        valid = valid.f_mul(&known)?;
    }
    Ok(Clip { images, masks, valid })
}
