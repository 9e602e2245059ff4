//! Windows of real video under one random transform, the reference under another: the whole picture,
//! or a close-up as the region of interest makes them.

use tch::Tensor;

use super::colour::Colour;
use super::footage::{Footage, Still};
use super::geometry::{Border, Placement, sample};
use super::random::Random;
use super::{Clip, Size, TRIES, coverage};
use crate::{Error, Result};

/// Least share of the picture that the object has in the reference.
const LEAST_REFERENCE: f64 = 0.004;

/// Least share of the picture's sides that a close-up shows.
const CLOSEST: f64 = 0.35;

/// Which of the clips of real video are special.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    /// Those that show the object's surroundings only, as the region of interest does.
    pub close_ups: f64,
    /// Those whose object is gone after the reference: the rest shows another sequence.
    pub absent: f64,
}

/// A clip of `steps` predicted frames.
pub fn draw(
    footage: &Footage,
    steps: usize,
    size: Size,
    shares: &Shares,
    random: &mut Random,
) -> Result<Clip> {
    for _ in 0..TRIES {
        let sequence = random.pick(footage.sequences());
        let close_up = random.chance(shares.close_ups);
        let Some(mut clip) = attempt(sequence, steps, size, close_up, random)? else { continue };
        if random.chance(shares.absent) {
            let other = random.pick(footage.sequences());
            if std::ptr::eq(sequence, other) {
                continue;
            }
            let Some(elsewhere) = attempt(other, steps, size, close_up, random)? else { continue };
            let rest = |of: &Clip| of.images.f_narrow(0, 1, steps as i64 + 1);
            clip.images = Tensor::f_cat(&[clip.images.f_narrow(0, 0, 1)?, rest(&elsewhere)?], 0)?;
            let empty = clip.masks.f_zeros_like()?;
            // At times what went before was taken for the object: a wrong mask must not feed itself.
            let before = if random.chance(0.5) { &elsewhere.masks } else { &empty };
            let masks = [
                &clip.masks.f_narrow(0, 0, 1)?,
                &before.f_narrow(0, 1, 1)?,
                &empty.f_narrow(0, 2, steps as i64)?,
            ];
            clip.masks = Tensor::f_cat(&masks, 0)?;
        }
        return Ok(clip);
    }
    Err(Error::Clips(format!(
        "no sequence of footage has {} frames in a row and an object of 0.5 % of the picture; \
         lower data.window or give other footage",
        steps + 1
    )))
}

fn attempt(
    sequence: &[Still],
    steps: usize,
    size: Size,
    close_up: bool,
    random: &mut Random,
) -> Result<Option<Clip>> {
    let count = sequence.len();
    if count <= steps {
        return Ok(None);
    }
    let mut step = *random.pick(&[1, 1, 1, 2, 3]);
    if count <= (steps + 1) * step {
        step = 1;
    }
    let first = random.below(count - steps * step);
    let mut window: Vec<&Still> = (0..=steps).map(|k| &sequence[first + k * step]).collect();
    if random.chance(0.3) {
        window.reverse();
    }
    let reference = if random.chance(0.3) { &sequence[0] } else { random.pick(sequence) };
    if reference.coverage() < 0.005 {
        return Ok(None);
    }

    let fit = size.1 as f64 / reference.width as f64;
    let flip = random.chance(0.5);
    let rotation = if random.chance(0.6) { random.uniform(-0.35, 0.35) } else { 0.0 };
    let zoom = random.uniform(0.75, 1.35);
    let mut shift = (random.uniform(-0.1, 0.1), random.uniform(-0.1, 0.1));
    let shear = random.uniform(-0.1, 0.1) * fit;
    if let (true, Some((x, y))) = (zoom > 1.0, window[0].centroid()) {
        let x = if flip { 1.0 - x } else { x };
        shift.0 -= (x - 0.5) * (zoom - 1.0);
        shift.1 -= (y - 0.5) * (zoom - 1.0);
    }
    let mut placement = Placement { rotation, scale: fit * zoom, shift, shear, flip };
    let mut apart = Placement {
        rotation: rotation + random.uniform(-0.1, 0.1),
        scale: fit * (zoom * random.uniform(0.85, 1.15)).min(1.1),
        shift: (0.0, 0.0),
        ..placement
    };
    if close_up {
        let turned = Placement { rotation: rotation * 0.4, shear: shear * 0.4, ..placement };
        placement = near(window[0], fit, turned, random);
        apart = near(reference, fit, Placement { rotation: apart.rotation * 0.4, ..turned }, random);
    }
    let whole = Placement { rotation: 0.0, scale: fit, shift: (0.0, 0.0), shear: 0.0, flip };

    let mut reference_frame = place(reference, size, &apart)?;
    if coverage(&reference_frame.1)? < LEAST_REFERENCE {
        reference_frame = place(reference, size, &whole)?;
    }
    let colour = Colour::draw(random);
    let reference_colour = colour.with_contrast(random.uniform(0.95, 1.05));
    let mut frames = vec![(reference_colour.apply(&reference_frame.0)?, reference_frame.1)];
    for still in window {
        let (image, mask) = place(still, size, &placement)?;
        frames.push((colour.apply(&image)?, mask));
    }
    Ok(Some(Clip::from_frames(&frames)?))
}

/// `placement` moved and scaled to what the region of interest would show of `still`.
fn near(still: &Still, fit: f64, placement: Placement, random: &mut Random) -> Placement {
    let margin = random.uniform(1.4, 3.0);
    let jitter = |random: &mut Random| random.uniform(-0.15, 0.15);
    let shift = (jitter(random), jitter(random));
    let Some((x0, x1, y0, y1)) = still.bounds() else { return placement };
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
        ..placement
    }
}

fn place(still: &Still, size: Size, placement: &Placement) -> Result<(Tensor, Tensor)> {
    let both = Tensor::f_cat(&[still.image()?, still.mask()?], 1)?;
    let both = sample(&both, size, placement, None, Border::Reflect)?;
    Ok((both.f_narrow(1, 0, 3)?, both.f_narrow(1, 3, 1)?))
}
