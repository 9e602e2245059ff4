//! Other objects in clips of real video: cut out of stills, they move in front of the object or behind it. What
//! touches an object is not a part of it.

use tch::{Kind, Tensor};

use super::colour::Colour;
use super::drift::walk;
use super::layer::Layer;
use super::moving_object::{Entrance, MovingObject};
use super::picture::Still;
use super::random::Random;
use super::settings::Synthetic;
use super::{Clip, Frame, Size, coverage};
use crate::Result;

/// Least share of the clip that is left of the object in the reference.
const LEAST: f64 = 0.004;

/// `clip` with the object of `still` in it; as it was if there would be too little left of its own.
pub fn add_distractor(clip: Clip, still: &Still, settings: &Synthetic, random: &mut Random) -> Result<Clip> {
    let shape = clip.masks.size();
    let (frames, size): (_, Size) = (shape[0] as usize, (shape[2], shape[3]));
    let (x, y) = middle(&clip.masks.f_narrow(0, 1, 1)?)?;
    let entrance = Entrance {
        share: random.uniform(0.2, 0.7),
        shift: (x + random.uniform(-0.35, 0.35), y + random.uniform(-0.35, 0.35)),
    };
    let drift = walk(frames, settings.motion * random.uniform(0.3, 2.5), random);
    let Some(object) = MovingObject::draw(still, size, entrance, drift, settings, random)? else {
        return Ok(clip);
    };
    let colour = Colour::draw(settings.colour, random);
    let in_front = random.chance(0.5);
    let late_distractor = random.chance(settings.late_distractor);

    let mut made = Vec::with_capacity(frames);
    for number in 0..frames {
        let of = |part: &Tensor| part.f_narrow(0, number as i64, 1);
        let frame = Frame { image: of(&clip.images)?, mask: of(&clip.masks)?, valid: of(&clip.valid)? };
        if number == 0 && late_distractor {
            made.push(frame);
            continue;
        }
        let layer = Layer::soft(&object, &colour, number, size, 0.0)?;
        made.push(match in_front {
            true => Frame { image: layer.over(&frame.image)?, mask: layer.hide(&frame.mask)?, ..frame },
            false => Frame { image: layer.over_all_but(&frame.mask, &frame.image)?, ..frame },
        });
    }
    if coverage(&made[0].mask)? < LEAST { Ok(clip) } else { Clip::from_frames(&made) }
}

/// The middle of a mask (1, 1, H, W), from the clip's middle, in parts of its width and height.
fn middle(mask: &Tensor) -> Result<(f64, f64)> {
    let weight = mask.f_sum(Kind::Float)?.double_value(&[]);
    if weight < 1.0 {
        return Ok((0.0, 0.0));
    }
    let along = |others: i64, axis: i64| -> Result<f64> {
        let sums = mask.f_sum_dim_intlist(&[0, 1, others][..], false, Kind::Float)?;
        let at = Tensor::f_linspace(-0.5, 0.5, mask.size()[axis as usize], (Kind::Float, mask.device()))?;
        Ok(sums.f_dot(&at)?.double_value(&[]) / weight)
    };
    Ok((along(2, 3)?, along(3, 2)?))
}
