// SPDX-License-Identifier: MPL-2.0

//! Motion blur.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;

/// Maximum length of the blur, pixels.
const MAX_LENGTH: f64 = 24.0;

/// Averages (N, C, H, W) along the motion (x, y) during the exposure, in pixels, half of it before and half after
/// the frame. Borders are replicated.
pub fn motion_blur(x: &Tensor, motion: (f64, f64)) -> Result<Tensor> {
    let length = motion.0.hypot(motion.1);
    if length < 0.5 {
        return Ok(x.shallow_clone());
    }
    let scale = (MAX_LENGTH / length).min(1.0);
    let kernel = line((motion.0 * scale, motion.1 * scale));
    let reach = |of: fn(&(i64, i64)) -> i64| kernel.keys().map(|offset| of(offset).abs()).max().unwrap_or(0);
    let (right, down) = (reach(|offset| offset.0), reach(|offset| offset.1));
    let padded = x.f_replication_pad2d([right, right, down, down])?;
    let (height, width) = (x.size()[2], x.size()[3]);
    let mut sum = x.f_zeros_like()?;
    for ((dx, dy), weight) in kernel {
        let moved = padded.f_narrow(2, down - dy, height)?.f_narrow(3, right - dx, width)?;
        sum = sum.f_addcmul_(&moved, &Tensor::f_from_slice(&[weight as f32])?)?;
    }
    Ok(sum)
}

/// Returns the weight of each pixel offset: steps of one pixel along the longer axis of the motion, each
/// distributed over two pixels of the other axis.
fn line(motion: (f64, f64)) -> BTreeMap<(i64, i64), f64> {
    let steep = motion.1.abs() > motion.0.abs();
    let (long, short) = if steep { (motion.1, motion.0) } else { (motion.0, motion.1) };
    let half = (0.5 * long.abs()).max(0.5);
    let last = half.ceil() as i64;
    let mut kernel = BTreeMap::new();
    for step in -last..=last {
        // Part of the motion within half a pixel of this step.
        let time = (step as f64 + 0.5).min(half) - (step as f64 - 0.5).max(-half);
        if time <= 0.0 {
            continue;
        }
        let across = step as f64 * short / long.abs();
        let below = across.floor();
        for (pixel, share) in [(below, 1.0 - (across - below)), (below + 1.0, across - below)] {
            let along = if long < 0.0 { -step } else { step };
            let offset = if steep { (pixel as i64, along) } else { (along, pixel as i64) };
            if share > 1e-9 {
                *kernel.entry(offset).or_default() += share * time / (2.0 * half);
            }
        }
    }
    kernel
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn sum(x: &Tensor) -> f64 {
        x.sum(Kind::Double).double_value(&[])
    }

    #[test]
    fn brightness_is_conserved() {
        let _guard = tch::no_grad_guard();
        let flat = Tensor::full([1, 3, 20, 30], 0.7, (Kind::Float, Device::Cpu));
        let spot = Tensor::zeros([1, 1, 41, 41], (Kind::Float, Device::Cpu));
        let _ = spot.narrow(2, 18, 3).narrow(3, 19, 2).fill_(1.0);
        for motion in [(7.3, -2.6), (-4.0, 0.0), (0.0, 11.5), (300.0, 200.0)] {
            let blurred = motion_blur(&flat, motion).unwrap();
            assert!((&blurred - &flat).abs().max().double_value(&[]) < 1e-5, "{motion:?}");
            assert!((sum(&motion_blur(&spot, motion).unwrap()) - sum(&spot)).abs() < 1e-4, "{motion:?}");
        }
    }

    #[test]
    fn blur_follows_the_motion_and_stays_centred() {
        let _guard = tch::no_grad_guard();
        let spot = Tensor::zeros([1, 1, 21, 21], (Kind::Float, Device::Cpu));
        let _ = spot.narrow(2, 10, 1).narrow(3, 10, 1).fill_(1.0);
        let blurred = motion_blur(&spot, (6.0, 0.0)).unwrap();
        assert!((sum(&blurred.narrow(2, 10, 1)) - 1.0).abs() < 1e-5, "within its row");
        let row: Vec<f64> = (6..15).map(|x| 6.0 * blurred.double_value(&[0, 0, 10, x])).collect();
        let even = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0];
        assert!(row.iter().zip(even).all(|(x, y)| (x - y).abs() < 1e-5), "evenly: {row:?}");
        let mirrored = blurred.flip([3]);
        assert!((&mirrored - &blurred).abs().max().double_value(&[]) < 1e-6, "symmetric");
    }

    #[test]
    fn motion_below_half_a_pixel_is_not_blurred() {
        let x = Tensor::rand([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert!(motion_blur(&x, (0.2, 0.1)).unwrap().equal(&x));
    }
}
