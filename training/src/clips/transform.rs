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
        let fit = match augment.fit {
            Fit::Width => size.1 as f64 / reference.width as f64,
            Fit::Stretch => 1.0,
        };
        let mut window = placement(first, fit, augment, random);
        let mut apart = match augment.reference {
            ReferenceTransform::Near => Placement {
                rotation: window.rotation + random.uniform(-0.1, 0.1),
                scale: (window.scale * random.uniform(0.85, 1.15)).min(1.1 * fit),
                shift: (0.0, 0.0),
                ..window
            },
            ReferenceTransform::Independent => placement(reference, fit, augment, random),
        };
        if close_up {
            window = near(first, fit, window, random);
            apart = near(reference, fit, apart, random);
        }
        let whole = Placement { flip: apart.flip, ..Placement::scaled(fit) };
        Self { window, reference: apart, whole }
    }
}

fn placement(still: &Still, fit: f64, augment: &Augment, random: &mut Random) -> Placement {
    let flip = random.chance(augment.flip);
    let turn = augment.rotation.to_radians();
    let rotation = if random.chance(augment.rotated) { random.uniform(-turn, turn) } else { 0.0 };
    let zoom = random.uniform(augment.scale[0], augment.scale[1]);
    let mut axis = || random.uniform(-augment.shift, augment.shift);
    let mut shift = (axis(), axis());
    let shear = random.uniform(-augment.shear, augment.shear) * fit;
    if let (true, Some((x, y))) = (augment.follow && zoom > 1.0, still.centroid()) {
        let x = if flip { 1.0 - x } else { x };
        shift.0 -= (x - 0.5) * (zoom - 1.0);
        shift.1 -= (y - 0.5) * (zoom - 1.0);
    }
    Placement { rotation, scale: fit * zoom, shift, shear, flip }
}

/// `placement` calmed, moved and scaled to what the region of interest would show of `still`.
fn near(still: &Still, fit: f64, placement: Placement, random: &mut Random) -> Placement {
    let margin = random.uniform(1.4, 3.0);
    let mut jitter = || random.uniform(-0.15, 0.15);
    let shift = (jitter(), jitter());
    let calm = Placement { rotation: placement.rotation * CALM, shear: placement.shear * CALM, ..placement };
    let Some((x0, x1, y0, y1)) = still.bounds() else { return calm };
    let (width, height) = (still.width as f64, still.height as f64);
    let extent = ((x1 - x0) as f64 / width).max((y1 - y0) as f64 / height);
    let zoom = 1.0 / (margin * extent).clamp(CLOSEST, 1.1);
    let middle = ((x0 + x1) as f64 / width / 2.0 - 0.5, (y0 + y1) as f64 / height / 2.0 - 0.5);
    let side = if placement.flip { -1.0 } else { 1.0 };
    // A region of interest ends at the picture's border; so does this, but for the jitter.
    let reach = ((zoom - 1.0) / 2.0).max(0.0);
    Placement {
        scale: fit * zoom,
        shift: (
            (-side * middle.0 * zoom).clamp(-reach, reach) + shift.0,
            (-middle.1 * zoom).clamp(-reach, reach) + shift.1,
        ),
        ..calm
    }
}

/// `still` as `placement` shows it, in other colours.
pub fn place(
    still: &Still,
    size: Size,
    placement: &Placement,
    colour: &Colour,
    augment: &Augment,
) -> Result<Frame> {
    let extent = match augment.fit {
        Fit::Width => (still.height, still.width),
        Fit::Stretch => size,
    };
    let grid = Grid::new(extent, size, placement, None)?;
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
