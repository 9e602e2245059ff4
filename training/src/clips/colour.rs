// SPDX-License-Identifier: MPL-2.0

//! Random changes of brightness, contrast, saturation and tint.

use tch::Tensor;

use super::random::Random;
use crate::Result;

#[derive(Clone, Copy, Debug)]
pub struct Colour {
    contrast: f64,
    brightness: f64,
    saturation: f64,
    tint: [f64; 3],
}

impl Colour {
    /// Draws a change whose range grows with `strength`; 0 is the identity.
    pub fn draw(strength: f64, random: &mut Random) -> Self {
        let mut around = |centre: f64, range: f64| centre + strength * random.uniform(-range, range);
        Self {
            contrast: around(1.0, 0.25),
            brightness: around(0.0, 20.0 / 255.0),
            saturation: around(1.0, 0.4),
            tint: std::array::from_fn(|_| around(1.0, 0.08)),
        }
    }

    /// Returns the same change with the contrast multiplied by `factor`.
    pub fn with_contrast(self, factor: f64) -> Self {
        Self { contrast: self.contrast * factor, ..self }
    }

    /// Applies the change to `image` (1, 3, H, W) in [0, 1].
    pub fn apply(&self, image: &Tensor) -> Result<Tensor> {
        // Contrast, saturation about the mean of R, G and B, and tint, combined in one matrix and an offset.
        let grey = (1.0 - self.saturation) / 3.0;
        let weight = |row: usize, column: usize| {
            let own = if row == column { self.saturation } else { 0.0 };
            (self.contrast * self.tint[row] * (own + grey)) as f32
        };
        let matrix: Vec<f32> = (0..9).map(|i| weight(i / 3, i % 3)).collect();
        let offset = self.tint.map(|tint| (self.brightness * tint) as f32);
        let matrix = Tensor::f_from_slice(&matrix)?.f_reshape([3, 3])?;
        let offset = Tensor::f_from_slice(&offset)?.f_reshape([3, 1])?;
        let pixels = image.f_reshape([3, -1])?;
        Ok(offset.f_addmm(&matrix, &pixels)?.f_clamp_(0.0, 1.0)?.f_reshape(image.size())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_0_is_the_identity() {
        let image = Tensor::rand([1, 3, 5, 7], (tch::Kind::Float, tch::Device::Cpu));
        let same = Colour::draw(0.0, &mut Random::new(1, 1)).apply(&image).unwrap();
        assert!((same - image).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn contrast_brightness_saturation_and_tint_are_applied() {
        let pixel = Tensor::from_slice(&[0.6f32, 0.3, 0.3]).reshape([1, 3, 1, 1]);
        let colour = Colour { contrast: 0.5, brightness: 0.1, saturation: 2.0, tint: [1.0, 1.1, 0.5] };
        let changed = Vec::<f32>::try_from(colour.apply(&pixel).unwrap().reshape([3])).unwrap();
        // Contrast and brightness give 0.4, 0.25, 0.25, with mean 0.3.
        let expected = [0.5, 0.2 * 1.1, 0.2 * 0.5];
        assert!(changed.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{changed:?}");
    }
}
