//! What a mask says of itself: how much object there is, how sure, where, and how like the reference.

use tch::{Device, Kind, Tensor};

use super::roi::Bounds;
use crate::Result;
use crate::model::layers::{average_pool, mean_under};

/// Of one object in one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObjectStats {
    /// Share of the region looked at that is object.
    pub area: f64,
    /// Mean soft mask where it is object, 0.5 to 1; 0 where there is none.
    pub certainty: f64,
    /// The region similarity J that is to be expected of the mask, 0 to 1; 0 where there is none. What the soft mask
    /// says of it, Σ p where it is above one half over what of the picture is object here or there, and then as
    /// much less as was found on videos that the built-in weights had not seen (`docs/tracking.md`).
    pub confidence: f64,
    /// How much it looks like the reference's object, as the regressor has it.
    pub likeness: f64,
    /// Where it is in the region looked at.
    pub(super) bounds: Option<Bounds>,
}

/// Numbers of each object before those of columns and rows.
const NUMBERS: usize = 3;
/// Soft masks promise too much: the power of their own region similarity that is true on average.
const CALIBRATION: f64 = 2.24;

/// Share of an object's pixels that may lie beyond its bounds at each end.
const OUTLIER_SHARE: f64 = 0.005;

/// The statistics of each of `masks` (N, 1, H, W); `likeness` (N, 1, H/s, W/s) is the regressor's. Waits for the
/// device.
pub fn gather(masks: &Tensor, likeness: &Tensor) -> Result<Vec<ObjectStats>> {
    let size = masks.size();
    let numbers = numbers(masks, likeness)?.f_reshape([-1])?.f_to_device(Device::Cpu)?;
    Ok(of_numbers(&Vec::<f32>::try_from(&numbers)?, (size[2] as usize, size[3] as usize)))
}

/// The same before it is waited for: (N, 3 + W + H) with the sum of each mask where it is above one half, the
/// likeness under it, the sum of all of it, and how many pixels of each column and row are above one half.
pub fn numbers(masks: &Tensor, likeness: &Tensor) -> Result<Tensor> {
    let pooled = average_pool(masks, masks.size()[2] / likeness.size()[2])?;
    let likeness = mean_under(likeness, &pooled)?;
    let object = masks.f_gt(0.5)?.f_to_kind(Kind::Float)?;
    let sum =
        |x: &Tensor, axes: &[i64]| -> Result<Tensor> { Ok(x.f_sum_dim_intlist(axes, false, None::<Kind>)?) };
    let inside = sum(&masks.f_mul(&object)?, &[2, 3])?;
    let parts = [inside, likeness, sum(masks, &[2, 3])?, sum(&object, &[1, 2])?, sum(&object, &[1, 3])?];
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// What [`numbers`] say of masks of so many rows and columns.
pub fn of_numbers(numbers: &[f32], (height, width): (usize, usize)) -> Vec<ObjectStats> {
    let of_object = |numbers: &[f32]| {
        let [inside, likeness, all] = [0, 1, 2].map(|index| f64::from(numbers[index]));
        let (columns, rows) = numbers[NUMBERS..].split_at(width);
        let pixels: f64 = columns.iter().map(|&count| f64::from(count)).sum();
        let bounds = span(columns, pixels)
            .zip(span(rows, pixels))
            .map(|((left, right), (top, bottom))| Bounds { left, right, top, bottom });
        ObjectStats {
            area: pixels / (width * height) as f64,
            certainty: if pixels > 0.0 { inside / pixels } else { 0.0 },
            confidence: if pixels > 0.0 { expected(inside / (pixels + all - inside)) } else { 0.0 },
            likeness,
            bounds,
        }
    };
    numbers.chunks_exact(NUMBERS + width + height).map(of_object).collect()
}

/// The region similarity to be expected where the soft mask itself says `similarity`.
fn expected(similarity: f64) -> f64 {
    similarity.clamp(0.0, 1.0).powf(CALIBRATION)
}

/// From where to where, in parts of the length, all but a few stray ones of `pixels` are.
fn span(counts: &[f32], pixels: f64) -> Option<(f64, f64)> {
    if pixels < 1.0 {
        return None;
    }
    let beyond = |counts: &mut dyn Iterator<Item = &f32>| {
        let mut stray = OUTLIER_SHARE * pixels;
        counts
            .take_while(|&&count| {
                stray -= f64::from(count);
                stray >= 0.0
            })
            .count()
    };
    let (first, last) = (beyond(&mut counts.iter()), beyond(&mut counts.iter().rev()));
    let length = counts.len() as f64;
    Some((first as f64 / length, (counts.len() - last) as f64 / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_is_found_where_it_is() {
        let masks = Tensor::zeros([2, 1, 20, 40], (Kind::Float, Device::Cpu));
        let _ = masks.get(0).narrow(1, 5, 10).narrow(2, 10, 20).fill_(0.75);
        let likeness = Tensor::full([2, 1, 5, 10], 0.5, (Kind::Float, Device::Cpu));
        let stats = gather(&masks, &likeness).unwrap();
        let [first, second] = stats[..] else { panic!("two objects, {} found", stats.len()) };
        assert_eq!((first.area, first.certainty, first.likeness), (0.25, 0.75, 0.5));
        assert_eq!(first.bounds, Some(Bounds { left: 0.25, right: 0.75, top: 0.25, bottom: 0.75 }));
        assert_eq!((second.area, second.certainty, second.confidence, second.likeness), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(second.bounds, None);
    }

    #[test]
    fn confidence_is_less_by_what_may_be_object_around_the_mask() {
        let confidence = |around: f64| {
            let mask = Tensor::full([1, 1, 20, 40], around, (Kind::Float, Device::Cpu));
            let _ = mask.narrow(2, 5, 10).narrow(3, 10, 20).fill_(0.9);
            gather(&mask, &mask.ones_like()).unwrap()[0].confidence
        };
        assert!((confidence(0.0) - expected(0.9)).abs() < 1e-6);
        // 600 of the 800 pixels are not in the mask.
        assert!((confidence(0.25) - expected(180.0 / (200.0 + 150.0))).abs() < 1e-6);
    }

    #[test]
    fn stray_pixels_do_not_stretch_the_bounds() {
        let mask = Tensor::zeros([1, 1, 40, 40], (Kind::Float, Device::Cpu));
        let _ = mask.narrow(2, 10, 20).narrow(3, 10, 20).fill_(1.0);
        let _ = mask.narrow(2, 39, 1).narrow(3, 39, 1).fill_(1.0);
        let stats = gather(&mask, &mask.ones_like()).unwrap();
        assert_eq!(stats[0].bounds, Some(Bounds { left: 0.25, right: 0.75, top: 0.25, bottom: 0.75 }));
    }
}
