//! Clips made of still pictures: an object moves, turns and bends over a background that moves too,
//! at times before or behind a second object.

use tch::Tensor;

use super::colour::Colour;
use super::footage::{Footage, Still};
use super::geometry::{Border, Placement, Wobble, blur, sample};
use super::random::Random;
use super::stills::Stills;
use super::{Clip, Size, TRIES, coverage};
use crate::{Error, Result};

/// Horizontal, vertical, scale, shear and rotation, summed up over the frames.
type Drift = [f64; 5];

/// A clip of `steps` predicted frames. Backgrounds come from the stills and, if given, from footage.
pub fn draw(
    stills: &Stills,
    footage: Option<&Footage>,
    steps: usize,
    size: Size,
    random: &mut Random,
) -> Result<Clip> {
    for _ in 0..TRIES {
        if let Some(clip) = attempt(stills, footage, steps, size, random)? {
            return Ok(clip);
        }
    }
    Err(Error::Clips("the objects of the stills are too small to be seen in a clip; give others".into()))
}

/// A random walk that starts at 0.
fn walk(frames: usize, amplitude: f64, random: &mut Random) -> Vec<Drift> {
    const STEP: Drift = [0.03, 0.03, 0.04, 0.06, 0.05];
    let mut at = Drift::default();
    let mut path = vec![at];
    while path.len() < frames {
        for (value, step) in at.iter_mut().zip(STEP) {
            *value += random.normal() * step * amplitude;
        }
        path.push(at);
    }
    path
}

/// A cut-out in motion.
struct Actor {
    /// (1, 4, h, w): picture and mask, cropped to the object.
    layers: Tensor,
    base: Placement,
    drift: Vec<Drift>,
    wobble: Option<Wobble>,
}

impl Actor {
    fn new(
        still: &Still,
        size: Size,
        share: f64,
        shift: (f64, f64),
        drift: Vec<Drift>,
        random: &mut Random,
    ) -> Result<Option<Self>> {
        let Some((x0, x1, y0, y1)) = still.bounds() else { return Ok(None) };
        let (width, height) = (x1 - x0, y1 - y0);
        if width * height < 50 {
            return Ok(None);
        }
        let layers = Tensor::f_cat(&[still.image()?, still.mask()?], 1)?
            .f_narrow(2, y0, height)?
            .f_narrow(3, x0, width)?;
        let fit = (size.0 as f64 / height as f64).min(1.2 * size.1 as f64 / width as f64);
        let base = Placement {
            rotation: random.uniform(-0.3, 0.3),
            scale: share * fit,
            shift,
            shear: 0.0,
            flip: random.chance(0.5),
        };
        let amplitude = random.uniform(0.0, 6.0);
        let wobble = (amplitude > 1.0).then(|| {
            let phase = random.uniform(0.0, std::f64::consts::TAU);
            Wobble { amplitude, frequency: random.uniform(0.02, 0.06), phase: (phase, 2.0 * phase) }
        });
        Ok(Some(Self { layers, base, drift, wobble }))
    }

    /// Picture (1, 3, H, W) and soft mask (1, 1, H, W) in a frame.
    fn at(&self, frame: usize, size: Size) -> Result<(Tensor, Tensor)> {
        let [x, y, scale, shear, rotation] = self.drift[frame];
        let placement = Placement {
            rotation: self.base.rotation + rotation,
            scale: self.base.scale * scale.exp(),
            shift: (self.base.shift.0 + x, self.base.shift.1 + y),
            shear: self.base.scale * shear,
            flip: self.base.flip,
        };
        let wobble = self.wobble.map(|wave| {
            let time = frame as f64;
            Wobble { phase: (wave.phase.0 + 0.6 * time, wave.phase.1 + 0.5 * time), ..wave }
        });
        let layers = sample(&self.layers, size, &placement, wobble.as_ref(), Border::Zero)?;
        Ok((layers.f_narrow(1, 0, 3)?, layers.f_narrow(1, 3, 1)?))
    }
}

fn over(below: &Tensor, above: &Tensor, alpha: &Tensor) -> Result<Tensor> {
    Ok(below.f_add(&above.f_sub(below)?.f_mul(alpha)?)?)
}

fn backdrop(stills: &Stills, footage: Option<&Footage>, random: &mut Random) -> Result<Tensor> {
    match footage {
        Some(footage) if random.chance(0.3) => {
            let sequence = random.pick(footage.sequences());
            random.pick(sequence).image()
        }
        _ => stills.draw(random)?.image(),
    }
}

fn attempt(
    stills: &Stills,
    footage: Option<&Footage>,
    steps: usize,
    size: Size,
    random: &mut Random,
) -> Result<Option<Clip>> {
    let frames = steps + 2;
    let still = stills.draw(random)?;
    // The object's own photo as background leaves it in place as a distractor.
    let background = if random.chance(0.35) { still.image()? } else { backdrop(stills, footage, random)? };

    // The reference stands apart from the others by a step of its own.
    let amplitude = random.uniform(0.3, 1.5);
    let mut path = walk(frames, amplitude, random);
    for (value, step) in path[0].iter_mut().zip([0.08, 0.08, 0.06, 0.1, 0.08]) {
        *value += random.normal() * step;
    }
    let amplitude = random.uniform(0.0, 0.7);
    let mut scene = walk(frames, amplitude, random);
    for value in &mut scene[0] {
        *value += random.normal() * 0.05;
    }

    let share = random.uniform(0.25, 0.9);
    let shift = (random.uniform(-0.3, 0.3), random.uniform(-0.2, 0.2));
    let Some(actor) = Actor::new(&still, size, share, shift, path, random)? else { return Ok(None) };
    let second = if random.chance(0.4) {
        let other = stills.draw(random)?;
        let amplitude = random.uniform(0.3, 1.5);
        let drift = walk(frames, amplitude, random);
        let share = random.uniform(0.3, 0.7);
        let shift = (random.uniform(-0.4, 0.4), random.uniform(-0.4, 0.4));
        Actor::new(&other, size, share, shift, drift, random)?
    } else {
        None
    };
    let in_front = random.chance(0.5);

    let colour = Colour::draw(random);
    let scene_colour = if random.chance(0.5) { colour } else { Colour::draw(random) };
    let (height, width) = (background.size()[2] as f64, background.size()[3] as f64);
    let cover = (size.0 as f64 / height).max(size.1 as f64 / width) * random.uniform(1.05, 1.5);

    let mut made = Vec::with_capacity(frames);
    for (frame, drift) in scene.iter().enumerate() {
        let placement = Placement {
            rotation: drift[4],
            scale: cover * (1.0 + drift[2]),
            shift: (drift[0], drift[1]),
            shear: 0.0,
            flip: false,
        };
        let mut image = sample(&background, size, &placement, None, Border::Reflect)?;
        let other = second.as_ref().map(|actor| actor.at(frame, size)).transpose()?;
        if let (false, Some((picture, alpha))) = (in_front, &other) {
            image = over(&image, picture, alpha)?;
        }
        let (picture, mut mask) = actor.at(frame, size)?;
        let alpha = blur(&mask, 0.8)?;
        image = over(&scene_colour.apply(&image)?, &colour.apply(&picture)?, &alpha)?;
        if let (true, Some((picture, alpha))) = (in_front, &other) {
            image = over(&image, picture, alpha)?;
            mask = mask.f_mul(&alpha.f_neg()?.f_add_scalar(1.0)?)?;
        }
        if frame > 0 && random.chance(0.15) {
            image = blur(&image, 1.1)?;
        }
        made.push((image, mask));
    }
    if coverage(&made[0].1)? < 0.004 || coverage(&made[1].1)? < 0.002 {
        return Ok(None);
    }
    Ok(Some(Clip::from_frames(&made)?))
}
