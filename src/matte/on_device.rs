// SPDX-License-Identifier: MPL-2.0

//! Enlargement on the device of the network, so that only one byte per pixel has to be copied to the host. Results differ from
//! those of [`Enlarger`](super::Enlarger) by rounding.

use tch::{Kind, Tensor};

use crate::Result;

/// Enlarges a soft mask (1, 1, h, w) in [0, 1] to alpha (H, W) uint8, which is at least as large in both
/// dimensions.
pub fn enlarge(mask: &Tensor, (height, width): (i64, i64)) -> Result<Tensor> {
    let small = mask.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?;
    let alpha = small.f_upsample_bilinear2d([height, width], false, None, None)?.f_round()?;
    Ok(alpha.f_to_kind(Kind::Uint8)?.f_reshape([height, width])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::PlaneMut;
    use crate::matte::{Enlarger, MaskView};

    #[test]
    fn alpha_matches_that_of_the_cpu() {
        for ((w, h), (width, height)) in
            [((42, 24), (640, 360)), ((96, 64), (333, 201)), ((64, 64), (64, 64)), ((21, 12), (97, 55))]
        {
            let small: Vec<u8> = (0..w * h).map(|i| (i * i * 31 % 256) as u8).collect();
            let mask = Tensor::from_slice(&small).reshape([1, 1, h as i64, w as i64]).to_kind(Kind::Float);
            let source = MaskView { values: &small, width: w, height: h };
            let mut expected = vec![0; width * height];
            let plane = &mut PlaneMut { data: &mut expected, width, height, stride: width };
            Enlarger::default().enlarge(&source, plane).unwrap();
            let found = enlarge(&(mask / 255.0), (height as i64, width as i64)).unwrap();
            let found = Vec::<u8>::try_from(&found.reshape([-1])).unwrap();
            assert!(
                expected.iter().zip(&found).all(|(a, b)| a.abs_diff(*b) <= 1),
                "{w}x{h} to {width}x{height}"
            );
        }
    }
}
