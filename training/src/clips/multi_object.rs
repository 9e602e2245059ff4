// SPDX-License-Identifier: MPL-2.0

//! Additional tracked objects in a window: cut-outs that move in front of the other objects or behind them.

use tch::{Kind, Tensor};

use super::distractor::PassingObject;
use super::layer::complement;
use super::picture::Still;
use super::random::Random;
use super::settings::Synthetic;
use super::{Clip, is_visible};
use crate::Result;

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
