//! Where the frames of a window land: one transform for the window, another for the reference; the
//! whole picture, or a close-up as the region of interest makes them.

use tch::{Kind, Tensor};

use super::colour::Colour;
use super::geometry::{Grid, Placement};
use super::picture::Still;
use super::random::Random;
use super::settings::{Augment, Border, Fit, ReferenceTransform};
use super::{Frame, Size};
use crate::Result;

/// Least share of the picture's sides that a close-up shows.
const CLOSEST: f64 = 0.35;
/// Share of the turn and shear that is left in a close-up.
const CALM: f64 = 0.4;

/// The transforms of a clip.
#[derive(Debug)]
pub struct Transforms {
    /// Of the window's frames.
    pub window: Placement,
    /// Of the reference.
    pub reference: Placement,
    /// Of a reference of which the other would show too little.
    pub whole: Placement,
}

impl Transforms {
    /// Of a window that begins with `first`.
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
        let mut apart = match augment.reference {
            ReferenceTransform::Near => Placement {
                rotation: window.rotation + random.uniform(-0.1, 0.1),
                scale: (window.scale * random.uniform(0.85, 1.15)).min(1.1 * fit),
                shift: (0.0, 0.0),
                ..window
            },
            ReferenceTransform::Independent => placement(reference, &canvas, augment, random),
        };
        if close_up {
            window = near(first, &canvas, window, random);
            apart = near(reference, &canvas, apart, random);
        }
        let upright = Placement { flip: apart.flip, ..Placement::scaled(fit) };
        let whole = match reference.centroid() {
            Some((x, y)) => Placement { shift: canvas.towards((x - 0.5, y - 0.5), &upright), ..upright },
            None => upright,
        };
        Self { window, reference: apart, whole }
    }
}

/// A clip, and what is put on it.
struct Canvas {
    /// Height and width that pictures count as.
    extent: Size,
    /// Height and width of the clip.
    size: Size,
}

impl Canvas {
    /// Sides of a picture at `scale`, in parts of the clip's: width and height.
    fn sides(&self, scale: f64) -> (f64, f64) {
        let part = |side: i64, of: i64| scale * side as f64 / of as f64;
        (part(self.extent.1, self.size.1), part(self.extent.0, self.size.0))
    }

    /// The scale at which a picture just fills the clip.
    fn cover(&self) -> f64 {
        let (width, height) = self.sides(1.0);
        1.0 / width.min(height)
    }

    /// The scale at which a picture has as many pixels as the clip.
    fn even(&self) -> f64 {
        let (width, height) = self.sides(1.0);
        (width * height).sqrt().recip()
    }

    /// The shift that brings a place of a picture, in parts of its sides from its middle, as near to the middle of
    /// the clip as can be with no border in view.
    fn towards(&self, (x, y): (f64, f64), placement: &Placement) -> (f64, f64) {
        let (width, height) = self.sides(placement.scale);
        let axis = |at: f64, side: f64| {
            let reach = ((side - 1.0) / 2.0).max(0.0);
            (-at * side).clamp(-reach, reach)
        };
        (axis(if placement.flip { -x } else { x }, width), axis(y, height))
    }
}

/// Height and width that a picture counts as, whatever its resolution.
fn extent(still: &Still, size: Size, fit: Fit) -> Size {
    match fit {
        Fit::Cover => (still.height, still.width),
        Fit::Stretch => size,
    }
}

fn placement(still: &Still, canvas: &Canvas, augment: &Augment, random: &mut Random) -> Placement {
    let fit = canvas.cover();
    let flip = random.chance(augment.flip);
    let turn = augment.rotation.to_radians();
    let rotation = if random.chance(augment.rotated) { random.uniform(-turn, turn) } else { 0.0 };
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

/// `placement` calmed, moved and scaled to what the region of interest would show of `still`.
fn near(still: &Still, canvas: &Canvas, placement: Placement, random: &mut Random) -> Placement {
    let margin = random.uniform(1.2, 2.6);
    let mut jitter = || random.uniform(-0.15, 0.15);
    let shift = (jitter(), jitter());
    let calm = Placement { rotation: placement.rotation * CALM, shear: placement.shear * CALM, ..placement };
    let Some((x0, x1, y0, y1)) = still.bounds() else { return calm };
    let middle = |from: i64, to: i64, side: i64| (from + to) as f64 / side as f64 / 2.0 - 0.5;
    let middle = (middle(x0, x1, still.width), middle(y0, y1, still.height));
    let (width, height) = canvas.sides(1.0);
    let part = |from: i64, to: i64, side: i64, of: f64| (to - from) as f64 / side as f64 * of;
    let object = part(x0, x1, still.width, width).max(part(y0, y1, still.height, height));
    let (least, most) = (canvas.cover() / 1.1, canvas.even() / CLOSEST);
    let scale = (1.0 / (margin * object)).clamp(least.min(most), most);
    // A region of interest ends at the picture's border; so does this, but for the jitter.
    let placed = Placement { scale, ..calm };
    let towards = canvas.towards(middle, &placed);
    Placement { shift: (towards.0 + shift.0, towards.1 + shift.1), ..placed }
}

/// `still` as `placement` shows it, in other colours.
pub fn place(
    still: &Still,
    size: Size,
    placement: &Placement,
    colour: &Colour,
    augment: &Augment,
) -> Result<Frame> {
    let grid = Grid::new(extent(still, size, augment.fit), size, placement, None)?;
    let mut layers = vec![still.image()?, still.mask()?];
    layers.extend(still.known()?);
    let layers = grid.sample(&Tensor::f_cat(&layers, 1)?, augment.border)?;
    let mask = layers.f_narrow(1, 3, 1)?;
    let mut image = colour.apply(&layers.f_narrow(1, 0, 3)?)?;
    let mut valid = mask.f_ones_like()?;
    if augment.border == Border::Black {
        valid = grid.inside()?;
        image = image.f_mul(&valid)?;
    }
    if layers.size()[1] > 4 {
        let known = layers.f_narrow(1, 4, 1)?.f_gt(0.5)?.f_to_kind(Kind::Float)?;
        valid = valid.f_mul(&known)?;
    }
    Ok(Frame { image, mask, valid })
}
