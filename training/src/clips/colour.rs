//! Changes of exposure, contrast, saturation and tint.

use tch::{Kind, Tensor};

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
    /// A change whose bounds grow with `strength`; none at 0.
    pub fn draw(strength: f64, random: &mut Random) -> Self {
        let mut around = |middle: f64, most: f64| middle + strength * random.uniform(-most, most);
        Self {
            contrast: around(1.0, 0.25),
            brightness: around(0.0, 20.0 / 255.0),
            saturation: around(1.0, 0.4),
            tint: std::array::from_fn(|_| around(1.0, 0.08)),
        }
    }

    /// The same with the contrast times `factor`.
    pub fn with_contrast(self, factor: f64) -> Self {
        Self { contrast: self.contrast * factor, ..self }
    }

    /// `image` (N, 3, H, W) in [0, 1].
    pub fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let x = image.f_mul_scalar(self.contrast)?.f_add_scalar(self.brightness)?;
        let grey = x.f_mean_dim([1i64].as_slice(), true, None::<Kind>)?;
        let x = grey.f_add(&x.f_sub(&grey)?.f_mul_scalar(self.saturation)?)?;
        let tint = Tensor::f_from_slice(&self.tint)?.f_to_kind(Kind::Float)?.f_reshape([1, 3, 1, 1])?;
        Ok(x.f_mul(&tint)?.f_clamp(0.0, 1.0)?)
    }
}
