// SPDX-License-Identifier: MPL-2.0

//! Lighting changes over a clip. They apply to images only, not to masks.

use tch::{Device, Kind, Tensor};

use super::random::Random;
use super::settings::Synthetic;
use crate::Result;

#[derive(Debug, Default)]
pub struct Lighting {
    /// Gain and gamma of each frame.
    drift: Option<Vec<(f64, f64)>>,
    shadow: Option<Shadow>,
}

/// Dark band with soft edges that moves over the picture.
#[derive(Debug)]
struct Shadow {
    /// Unit vector across the band.
    across: (f64, f64),
    /// Centre of the band in each frame, relative to the picture's centre, as a fraction of its diagonal.
    middle: Vec<f64>,
    /// Half of the band's width, in the same unit.
    half: f64,
    /// Width of the soft edges, in the same unit.
    softness: f64,
    /// Factor on the brightness inside the band.
    light: f64,
}

impl Lighting {
    pub fn draw(frames: usize, settings: &Synthetic, random: &mut Random) -> Self {
        let drift = random.chance(settings.lighting).then(|| drift(frames, random));
        let shadow = random.chance(settings.shadow).then(|| {
            let angle = random.uniform(0.0, std::f64::consts::TAU);
            let (start, speed) = (random.uniform(-0.5, 0.5), random.normal() * 0.08);
            Shadow {
                across: (angle.cos(), angle.sin()),
                middle: (0..frames).map(|frame| start + speed * frame as f64).collect(),
                half: random.uniform(0.05, 0.3),
                softness: random.uniform(0.005, 0.05),
                light: random.uniform(0.35, 0.8),
            }
        });
        Self { drift, shadow }
    }

    /// Applies the lighting of a frame to `image` (1, 3, H, W) in [0, 1].
    pub fn apply(&self, image: &Tensor, frame: usize) -> Result<Tensor> {
        let mut image = image.shallow_clone();
        if let Some(shadow) = &self.shadow {
            image = image.f_mul(&shadow.light(frame, image.size()[2], image.size()[3])?)?;
        }
        if let Some((gain, gamma)) = self.drift.as_ref().and_then(|drift| drift.get(frame)) {
            // Values slightly below 0, from resampling, would give NaN.
            image = image
                .f_clamp_min(0.0)?
                .f_pow_tensor_scalar(*gamma)?
                .f_mul_scalar(*gain)?
                .f_clamp(0.0, 1.0)?;
        }
        Ok(image)
    }
}

/// Draws the gain and gamma of each frame, which change at a nearly constant rate.
fn drift(frames: usize, random: &mut Random) -> Vec<(f64, f64)> {
    let (mut gain, mut gamma) = (random.normal() * 0.12, random.normal() * 0.10);
    let (gain_rate, gamma_rate) = (random.normal() * 0.06, random.normal() * 0.04);
    let mut drift = Vec::with_capacity(frames);
    while drift.len() < frames {
        drift.push((gain.clamp(-0.6, 0.4).exp(), gamma.clamp(-0.4, 0.4).exp()));
        gain += gain_rate + random.normal() * 0.02;
        gamma += gamma_rate + random.normal() * 0.01;
    }
    drift
}

impl Shadow {
    /// Returns the factor on the brightness, (H, W).
    fn light(&self, frame: usize, height: i64, width: i64) -> Result<Tensor> {
        let diagonal = (height as f64).hypot(width as f64);
        let axis = |side: i64, part: f64| -> Result<Tensor> {
            let pixels = Tensor::f_arange(side, (Kind::Float, Device::Cpu))?;
            Ok(pixels.f_sub_scalar(0.5 * (side - 1) as f64)?.f_mul_scalar(part / diagonal)?)
        };
        let middle = self.middle.get(frame).copied().unwrap_or_default();
        let place = axis(height, self.across.1)?.f_unsqueeze(1)?.f_add(&axis(width, self.across.0)?)?;
        let inside = place
            .f_sub_scalar(middle)?
            .f_abs()?
            .f_neg()?
            .f_add_scalar(self.half)?
            .f_div_scalar(self.softness)?
            .f_sigmoid()?;
        Ok(inside.f_mul_scalar(self.light - 1.0)?.f_add_scalar(1.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lighting_changes_over_the_frames() {
        let settings = Synthetic { lighting: 1.0, shadow: 1.0, ..Synthetic::default() };
        let grey = Tensor::full([1, 3, 24, 32], 0.5, (Kind::Float, Device::Cpu));
        for clip in 0..10 {
            let light = Lighting::draw(5, &settings, &mut Random::new(8, clip));
            let [first, last] = [0, 4].map(|frame| light.apply(&grey, frame).unwrap());
            assert!(!first.equal(&last));
            assert!(first.min().double_value(&[]) > 0.05 && first.max().double_value(&[]) <= 1.0);
        }
        let off = Lighting::draw(5, &Synthetic::default(), &mut Random::new(8, 0));
        assert!(off.apply(&grey, 2).unwrap().equal(&grey));
    }

    #[test]
    fn values_slightly_below_0_do_not_become_nan() {
        let settings = Synthetic { lighting: 1.0, ..Synthetic::default() };
        let light = Lighting::draw(2, &settings, &mut Random::new(8, 0));
        let image = Tensor::full([1, 3, 4, 4], -1e-8, (Kind::Float, Device::Cpu));
        assert_eq!(light.apply(&image, 0).unwrap().max().double_value(&[]), 0.0);
    }
}
