//! Windows of real video under one random transform, the reference under another.

use tch::Tensor;

use super::colour::Colour;
use super::footage::{Footage, Still};
use super::geometry::{Border, Placement, sample};
use super::random::Random;
use super::{Clip, Size, TRIES, coverage};
use crate::{Error, Result};

/// Least share of the picture that the object has in the reference.
const LEAST_REFERENCE: f64 = 0.004;

/// A clip of `steps` predicted frames.
pub fn draw(footage: &Footage, steps: usize, size: Size, random: &mut Random) -> Result<Clip> {
    for _ in 0..TRIES {
        let sequence: &Vec<Still> = random.pick(footage.sequences());
        if let Some(clip) = attempt(sequence, steps, size, random)? {
            return Ok(clip);
        }
    }
    Err(Error::Clips(format!(
        "no sequence of footage has {} frames in a row and an object of 0.5 % of the picture; \
         lower data.window or give other footage",
        steps + 1
    )))
}

fn attempt(sequence: &[Still], steps: usize, size: Size, random: &mut Random) -> Result<Option<Clip>> {
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
    let placement = Placement { rotation, scale: fit * zoom, shift, shear, flip };
    let apart = Placement {
        rotation: rotation + random.uniform(-0.1, 0.1),
        scale: fit * (zoom * random.uniform(0.85, 1.15)).min(1.1),
        shift: (0.0, 0.0),
        ..placement
    };
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

fn place(still: &Still, size: Size, placement: &Placement) -> Result<(Tensor, Tensor)> {
    let both = Tensor::f_cat(&[still.image()?, still.mask()?], 1)?;
    let both = sample(&both, size, placement, None, Border::Reflect)?;
    Ok((both.f_narrow(1, 0, 3)?, both.f_narrow(1, 3, 1)?))
}
