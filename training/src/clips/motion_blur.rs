//! What a shutter that stays open does to moving things.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;

/// The longest way that is blurred, in pixels.
const LONGEST: f64 = 24.0;

/// (N, C, H, W) averaged along the way (x, y), in pixels, that it covers while the shutter is open,
/// half of it before and half after. What lies beyond the border is like the border.
pub fn motion_blur(x: &Tensor, way: (f64, f64)) -> Result<Tensor> {
    let length = way.0.hypot(way.1);
    if length < 0.5 {
        return Ok(x.shallow_clone());
    }
    let cut = (LONGEST / length).min(1.0);
    let taps = line((way.0 * cut, way.1 * cut));
    let reach = |of: fn(&(i64, i64)) -> i64| taps.keys().map(|tap| of(tap).abs()).max().unwrap_or(0);
    let (right, down) = (reach(|tap| tap.0), reach(|tap| tap.1));
    let padded = x.f_replication_pad2d([right, right, down, down])?;
    let (height, width) = (x.size()[2], x.size()[3]);
    let mut sum = x.f_zeros_like()?;
    for ((dx, dy), weight) in taps {
        let moved = padded.f_narrow(2, down - dy, height)?.f_narrow(3, right - dx, width)?;
        sum = sum.f_addcmul_(&moved, &Tensor::f_from_slice(&[weight as f32])?)?;
    }
    Ok(sum)
}

/// Whole pixels on the way, and the share of the time spent at each: steps of a pixel along the
/// longer axis, dealt out between two pixels along the other.
fn line(way: (f64, f64)) -> BTreeMap<(i64, i64), f64> {
    let steep = way.1.abs() > way.0.abs();
    let (long, short) = if steep { (way.1, way.0) } else { (way.0, way.1) };
    let half = (0.5 * long.abs()).max(0.5);
    let last = half.ceil() as i64;
    let mut taps = BTreeMap::new();
    for step in -last..=last {
        // The part of the way within half a pixel.
        let time = (step as f64 + 0.5).min(half) - (step as f64 - 0.5).max(-half);
        if time <= 0.0 {
            continue;
        }
        let across = step as f64 * short / long.abs();
        let below = across.floor();
        for (pixel, share) in [(below, 1.0 - (across - below)), (below + 1.0, across - below)] {
            let along = if long < 0.0 { -step } else { step };
            let tap = if steep { (pixel as i64, along) } else { (along, pixel as i64) };
            if share > 1e-9 {
                *taps.entry(tap).or_default() += share * time / (2.0 * half);
            }
        }
    }
    taps
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
        for way in [(7.3, -2.6), (-4.0, 0.0), (0.0, 11.5), (300.0, 200.0)] {
            let blurred = motion_blur(&flat, way).unwrap();
            assert!((&blurred - &flat).abs().max().double_value(&[]) < 1e-5, "{way:?}");
            assert!((sum(&motion_blur(&spot, way).unwrap()) - sum(&spot)).abs() < 1e-4, "{way:?}");
        }
    }

    #[test]
    fn blurs_along_the_way_and_keeps_the_middle() {
        let _guard = tch::no_grad_guard();
        let spot = Tensor::zeros([1, 1, 21, 21], (Kind::Float, Device::Cpu));
        let _ = spot.narrow(2, 10, 1).narrow(3, 10, 1).fill_(1.0);
        let blurred = motion_blur(&spot, (6.0, 0.0)).unwrap();
        assert!((sum(&blurred.narrow(2, 10, 1)) - 1.0).abs() < 1e-5, "in its row");
        let row: Vec<f64> = (6..15).map(|x| 6.0 * blurred.double_value(&[0, 0, 10, x])).collect();
        let even = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0];
        assert!(row.iter().zip(even).all(|(x, y)| (x - y).abs() < 1e-5), "evenly: {row:?}");
        let mirrored = blurred.flip([3]);
        assert!((&mirrored - &blurred).abs().max().double_value(&[]) < 1e-6, "neither left nor right");
    }

    #[test]
    fn what_stands_still_is_sharp() {
        let x = Tensor::rand([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert!(motion_blur(&x, (0.2, 0.1)).unwrap().equal(&x));
    }
}
