//! Previous masks as imperfect as the network's own.

use tch::{Device, Kind, Tensor};

use super::geometry::{Border, Placement, blur, dilate, sample};
use super::random::Random;
use crate::Result;

/// A worse version of `mask` (1, 1, H, W): now and then exact or empty, mostly displaced, grown or
/// shrunk, with holes and false blobs, blurred.
pub fn perturb(mask: &Tensor, random: &mut Random) -> Result<Tensor> {
    let which = random.uniform(0.0, 1.0);
    if which < 0.15 {
        return Ok(mask.shallow_clone());
    }
    if which < 0.23 {
        return Ok(mask.f_zeros_like()?);
    }
    let (height, width) = (mask.size()[2], mask.size()[3]);
    let pixels = Vec::<f32>::try_from(mask.f_reshape([-1])?)?;
    let inside: Vec<usize> = (0..pixels.len()).filter(|&i| pixels[i] > 0.5).collect();
    let side = (inside.len().max(64) as f64).sqrt();

    let shift = |random: &mut Random, extent: i64| random.normal() * 0.03 * side / extent as f64;
    let placement = Placement {
        rotation: random.normal() * 0.04,
        scale: 1.0 + random.normal() * 0.04,
        shift: (shift(random, width), shift(random, height)),
        shear: 0.0,
        flip: false,
    };
    let mut made = sample(mask, (height, width), &placement, None, Border::Zero)?;
    let radius = ((random.uniform(0.01, 0.10) * side) as i64).max(1);
    made =
        if random.chance(0.5) { dilate(&made, radius)? } else { dilate(&made.f_neg()?, radius)?.f_neg()? };
    if !inside.is_empty() && random.chance(0.4) {
        for _ in 0..=random.below(2) {
            let radius = (random.uniform(0.1, 0.35) * side).floor() + 1.0;
            if random.chance(0.6) {
                let at = *random.pick(&inside) as i64;
                made = made.f_masked_fill(&disk(height, width, at / width, at % width, radius)?, 0.0)?;
            } else {
                let (y, x) = (random.below(height as usize) as i64, random.below(width as usize) as i64);
                made = made.f_masked_fill(&disk(height, width, y, x, radius)?, 1.0)?;
            }
        }
    }
    blur(&made, random.uniform(0.5, 3.0))
}

/// Where a disk is, (H, W).
fn disk(height: i64, width: i64, y: i64, x: i64, radius: f64) -> Result<Tensor> {
    let axis = |n: i64, at: i64| -> Result<Tensor> {
        Ok(Tensor::f_arange(n, (Kind::Float, Device::Cpu))?.f_sub_scalar(at)?.f_square()?)
    };
    let squared = axis(height, y)?.f_unsqueeze(1)?.f_add(&axis(width, x)?.f_unsqueeze(0)?)?;
    Ok(squared.f_le(radius * radius)?)
}
