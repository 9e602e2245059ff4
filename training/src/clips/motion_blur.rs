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
        sum = sum.f_add_(&moved.f_mul_scalar(weight)?)?;
    }
    Ok(sum)
}

/// Whole pixels on the way, and the share of the time spent at each.
fn line(way: (f64, f64)) -> BTreeMap<(i64, i64), f64> {
    let points = way.0.hypot(way.1).ceil() as usize + 1;
    let mut taps = BTreeMap::new();
    for point in 0..points {
        let time = point as f64 / (points - 1).max(1) as f64 - 0.5;
        let (x, y) = (way.0 * time, way.1 * time);
        let (left, above) = (x.floor(), y.floor());
        for (dx, share_x) in [(0, 1.0 - (x - left)), (1, x - left)] {
            for (dy, share_y) in [(0, 1.0 - (y - above)), (1, y - above)] {
                let share = share_x * share_y / points as f64;
                if share > 1e-9 {
                    *taps.entry((left as i64 + dx, above as i64 + dy)).or_default() += share;
                }
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
        assert!(blurred.double_value(&[0, 0, 10, 7]) > 0.1 && blurred.double_value(&[0, 0, 10, 13]) > 0.1);
        let mirrored = blurred.flip([3]);
        assert!((&mirrored - &blurred).abs().max().double_value(&[]) < 1e-6, "neither left nor right");
    }

    #[test]
    fn what_stands_still_is_sharp() {
        let x = Tensor::rand([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert!(motion_blur(&x, (0.2, 0.1)).unwrap().equal(&x));
    }
}
