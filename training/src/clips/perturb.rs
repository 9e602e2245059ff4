// SPDX-License-Identifier: MPL-2.0

//! Perturbation of the previous mask, so that it resembles a prediction.

use tch::{Device, Kind, Tensor};

use super::geometry::{Grid, Placement, blur, dilate};
use super::random::Random;
use super::settings::{Border, Perturbation};
use crate::Result;

/// Returns a perturbed version of `mask` (1, 1, H, W): exact or empty in a share of the draws, else displaced,
/// dilated or eroded, and blurred, in some draws with holes or false blobs.
pub fn perturb(mask: &Tensor, settings: &Perturbation, random: &mut Random) -> Result<Tensor> {
    let Perturbation { strength, exact, empty } = *settings;
    let draw = random.uniform(0.0, 1.0);
    if strength == 0.0 || draw < exact {
        return Ok(mask.shallow_clone());
    }
    if draw < exact + empty {
        return Ok(mask.f_zeros_like()?);
    }
    let (height, width) = (mask.size()[2], mask.size()[3]);
    let pixels = Vec::<f32>::try_from(mask.f_reshape([-1])?)?;
    let inside: Vec<usize> = (0..pixels.len()).filter(|&i| pixels[i] > 0.5).collect();
    let side = (inside.len().max(64) as f64).sqrt();

    let shift = |random: &mut Random, extent: i64| random.normal() * 0.03 * strength * side / extent as f64;
    let placement = Placement {
        rotation: random.normal() * 0.04 * strength,
        shift: (shift(random, width), shift(random, height)),
        ..Placement::scaled((1.0 + random.normal() * 0.04 * strength).max(0.5))
    };
    let size = (height, width);
    let mut made = Grid::new(size, size, &placement, None)?.sample(mask, Border::Black)?;
    let radius = ((random.uniform(0.01, 0.10) * strength * side) as i64).max(1);
    made =
        if random.chance(0.5) { dilate(&made, radius)? } else { dilate(&made.f_neg()?, radius)?.f_neg()? };
    if !inside.is_empty() && random.chance(0.4 * strength) {
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
    blur(&made, random.uniform(0.5, 3.0) * strength)
}

/// Returns a boolean mask (H, W) of the disk of `radius` pixels around (`y`, `x`).
fn disk(height: i64, width: i64, y: i64, x: i64, radius: f64) -> Result<Tensor> {
    let axis = |n: i64, at: i64| -> Result<Tensor> {
        Ok(Tensor::f_arange(n, (Kind::Float, Device::Cpu))?.f_sub_scalar(at)?.f_square()?)
    };
    let squared = axis(height, y)?.f_unsqueeze(1)?.f_add(&axis(width, x)?.f_unsqueeze(0)?)?;
    Ok(squared.f_le(radius * radius)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the mean difference from the mask over several draws.
    fn mean_difference(strength: f64) -> f64 {
        let mask = disk(48, 64, 20, 30, 12.0).unwrap().to_kind(Kind::Float).reshape([1, 1, 48, 64]);
        let settings = Perturbation { strength, exact: 0.0, empty: 0.0 };
        let draws = (0..20).map(|clip| {
            let perturbed = perturb(&mask, &settings, &mut Random::new(5, clip)).unwrap();
            assert!(
                perturbed.min().double_value(&[]) >= 0.0 && perturbed.max().double_value(&[]) < 1.0 + 1e-5
            );
            (perturbed - &mask).abs().mean(Kind::Float).double_value(&[])
        });
        draws.sum::<f64>() / 20.0
    }

    #[test]
    fn perturbation_grows_with_strength() {
        assert_eq!(mean_difference(0.0), 0.0, "off");
        let (weak, full) = (mean_difference(0.3), mean_difference(1.0));
        assert!(0.0 < weak && weak < full, "{weak} {full}");
    }

    #[test]
    fn some_masks_are_exact_and_some_empty() {
        let mask = disk(48, 64, 20, 30, 12.0).unwrap().to_kind(Kind::Float).reshape([1, 1, 48, 64]);
        let (mut exact, mut empty) = (0, 0);
        for clip in 0..400 {
            let perturbed = perturb(&mask, &Perturbation::default(), &mut Random::new(6, clip)).unwrap();
            exact += usize::from(perturbed.equal(&mask));
            empty += usize::from(perturbed.max().double_value(&[]) == 0.0);
        }
        assert!((40..80).contains(&exact) && (18..48).contains(&empty), "{exact} {empty}");
    }
}
