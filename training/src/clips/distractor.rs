// SPDX-License-Identifier: MPL-2.0

//! Objects cut out of stills that move in front of the object of a clip or behind it: distractors, which teach the network
//! that an adjacent object is not part of the tracked one, and further tracked objects.

use tch::{Kind, Tensor};

use super::colour::Colour;
use super::drift::walk;
use super::moving_object::{Entrance, Layer, MovingObject, complement};
use super::picture::Still;
use super::random::Random;
use super::settings::Synthetic;
use super::{Clip, MIN_COVERAGE, Size, coverage, is_visible};
use crate::Result;

/// Adds the object of `still` to `clip`. Returns `clip` unchanged if that object is too small, or if it would hide
/// too much of the tracked object.
pub fn add_distractor(clip: Clip, still: &Still, settings: &Synthetic, random: &mut Random) -> Result<Clip> {
    let placement = (0.2, (0.35, 0.35));
    let Some(passing) = PassingObject::draw(&clip, still, placement, settings, random)? else {
        return Ok(clip);
    };
    let late_distractor = random.chance(settings.late_distractor);

    let frames = clip.masks.size()[0] as usize;
    let mut composed = Vec::with_capacity(frames);
    for number in 0..frames {
        let frame = clip.frames(number as i64, 1)?;
        if number == 0 && late_distractor {
            composed.push(frame);
            continue;
        }
        let layer = passing.layer(number)?;
        composed.push(match passing.in_front {
            true => Clip { images: layer.over(&frame.images)?, masks: layer.hide(&frame.masks)?, ..frame },
            false => Clip { images: layer.over_all_but(&frame.masks, &frame.images)?, ..frame },
        });
    }
    if coverage(&composed[0].masks)? < MIN_COVERAGE[0] { Ok(clip) } else { Clip::join(&composed) }
}

/// Cut-out that moves near the object of a clip, in front of it or behind it.
pub struct PassingObject {
    object: MovingObject,
    colour: Colour,
    size: Size,
    /// Whether it is in front of the object of the clip.
    pub in_front: bool,
}

impl PassingObject {
    /// Draws the motion of the object of `still`; `None` if it is too small. It is at least `min_share` of the largest
    /// size that fits, and enters at most `reach` (fractions of the width and height) from the object of `clip`.
    pub fn draw(
        clip: &Clip,
        still: &Still,
        (min_share, reach): (f64, (f64, f64)),
        settings: &Synthetic,
        random: &mut Random,
    ) -> Result<Option<Self>> {
        let shape = clip.masks.size();
        let (frames, size): (_, Size) = (shape[0] as usize, (shape[2], shape[3]));
        let (x, y) = centroid(&clip.masks.f_narrow(0, 1, 1)?)?;
        let entrance = Entrance {
            share: random.uniform(min_share, 0.7),
            shift: (x + random.uniform(-reach.0, reach.0), y + random.uniform(-reach.1, reach.1)),
            jump: (0.0, 0.0),
        };
        let drift = walk(frames, settings.motion * random.uniform(0.3, 2.5), random);
        let Some(object) = MovingObject::draw(still, size, entrance, drift, settings, random)? else {
            return Ok(None);
        };
        let colour = Colour::draw(settings.colour, random);
        Ok(Some(Self { object, colour, size, in_front: random.chance(0.5) }))
    }

    /// Renders it in a frame.
    pub fn layer(&self, frame: usize) -> Result<Layer> {
        Layer::new(&self.object, Some(&self.colour), frame, self.size, 0.0)
    }
}

/// Adds the object of `still` to `clips`, the objects of one window. Returns `None` if an object is too small then.
pub fn add_object(
    clips: &[Clip],
    still: &Still,
    settings: &Synthetic,
    random: &mut Random,
) -> Result<Option<Vec<Clip>>> {
    let Some(first) = clips.first() else { return Ok(None) };
    let placement = (0.25, (0.4, 0.3));
    let Some(passing) = PassingObject::draw(first, still, placement, settings, random)? else {
        return Ok(None);
    };

    let frames = first.masks.size()[0] as usize;
    let mut images = Vec::with_capacity(frames);
    let mut masks: Vec<Vec<Tensor>> = (0..=clips.len()).map(|_| Vec::with_capacity(frames)).collect();
    for number in 0..frames {
        let of = |part: &Tensor| part.f_narrow(0, number as i64, 1);
        let layer = passing.layer(number)?;
        let others: Vec<Tensor> =
            clips.iter().map(|clip| of(&clip.masks)).collect::<std::result::Result<_, _>>()?;
        let below = of(&first.images)?;
        if passing.in_front {
            images.push(layer.over(&below)?);
            for (masks, other) in masks.iter_mut().zip(&others) {
                masks.push(other.f_mul(&complement(&layer.mask)?)?);
            }
            masks[clips.len()].push(layer.mask);
        } else {
            let all = Tensor::f_cat(&others, 1)?.f_sum_dim_intlist(&[1i64][..], true, Kind::Float)?;
            let all = all.f_clamp(0.0, 1.0)?;
            images.push(layer.over_all_but(&all, &below)?);
            masks[clips.len()].push(layer.mask.f_mul(&complement(&all)?)?);
            for (masks, other) in masks.iter_mut().zip(others) {
                masks.push(other);
            }
        }
    }
    let images = Tensor::f_cat(&images, 0)?;
    let valid = clips.iter().map(|clip| &clip.valid).chain([&first.valid]);
    let objects = masks.iter().zip(valid).map(|(masks, valid)| {
        Ok(Clip {
            images: images.shallow_clone(),
            masks: Tensor::f_cat(masks, 0)?,
            valid: valid.shallow_clone(),
        })
    });
    let objects = objects.collect::<Result<Vec<_>>>()?;
    for clip in &objects {
        if !is_visible(&clip.masks.get(0), &clip.masks.get(1))? {
            return Ok(None);
        }
    }
    Ok(Some(objects))
}

/// Returns the centroid (x, y) of a mask (1, 1, H, W) relative to the centre of the clip, as fractions of its
/// width and height.
fn centroid(mask: &Tensor) -> Result<(f64, f64)> {
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
