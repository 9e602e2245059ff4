// SPDX-License-Identifier: MPL-2.0

//! Statistics of an object's mask: area, certainty, bounds, and similarity to the reference.

use tch::{Device, Kind, Tensor};

use super::roi::Bounds;
use crate::Result;
use crate::model::layers::{average_pool, masked_mean};

/// Statistics of one object in one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObjectStats {
    /// Fraction of the crop window that the object covers.
    pub area: f64,
    /// Mean soft mask over the pixels of the object, 0.5 to 1; 0 if there are none.
    pub certainty: f64,
    /// Expected region similarity J of the mask, 0 to 1; 0 for an empty mask.
    ///
    /// The sum of the soft mask above one half divided by its expected union with the object, calibrated on videos
    /// that the built-in weights were not trained on (`docs/tracking.md`).
    pub confidence: f64,
    /// Similarity to the reference as the network computes it.
    pub likeness: f64,
    /// Bounding box as fractions of the crop window.
    pub(super) bounds: Option<Bounds>,
}

/// Number of scalars of an object that precede its column and row counts.
const SCALARS: usize = 3;
/// Exponent that corrects the region similarity implied by a soft mask, which is too high on average.
const CALIBRATION_EXPONENT: f64 = 2.75;

/// Share of an object's pixels that may lie outside its bounds at each end.
const OUTLIER_SHARE: f64 = 0.005;

/// Returns the statistics of `masks` (N, 1, H, W) with the network's similarity map `likeness` (N, 1, H/s, W/s).
/// Waits for the device.
pub fn gather(masks: &Tensor, likeness: &Tensor) -> Result<Vec<ObjectStats>> {
    let size = masks.size();
    let raw = raw_stats(masks, likeness)?.f_reshape([-1])?.f_to_device(Device::Cpu)?;
    Ok(from_raw(&Vec::<f32>::try_from(&raw)?, (size[2] as usize, size[3] as usize)))
}

/// Computes the input of [`from_raw`] on the device without waiting, (N, 3 + W + H).
///
/// For each object: the sum of the mask above one half, the mean similarity under the mask, the sum of the whole
/// mask, and the number of pixels above one half in each column and in each row.
pub fn raw_stats(masks: &Tensor, likeness: &Tensor) -> Result<Tensor> {
    let pooled = average_pool(masks, masks.size()[2] / likeness.size()[2])?;
    let likeness = masked_mean(likeness, &pooled)?;
    let object = masks.f_gt(0.5)?.f_to_kind(Kind::Float)?;
    let sum =
        |x: &Tensor, axes: &[i64]| -> Result<Tensor> { Ok(x.f_sum_dim_intlist(axes, false, None::<Kind>)?) };
    let inside = sum(&masks.f_mul(&object)?, &[2, 3])?;
    let parts = [inside, likeness, sum(masks, &[2, 3])?, sum(&object, &[1, 2])?, sum(&object, &[1, 3])?];
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// Converts the output of [`raw_stats`] for masks of (height, width) to statistics.
pub fn from_raw(raw: &[f32], (height, width): (usize, usize)) -> Vec<ObjectStats> {
    let of_object = |raw: &[f32]| {
        let [inside, likeness, all] = [0, 1, 2].map(|index| f64::from(raw[index]));
        let (columns, rows) = raw[SCALARS..].split_at(width);
        let (pixels, bounds) = extent(columns, rows);
        ObjectStats {
            area: pixels / (width * height) as f64,
            certainty: if pixels > 0.0 { inside / pixels } else { 0.0 },
            confidence: if pixels > 0.0 { calibrated(inside / (pixels + all - inside)) } else { 0.0 },
            likeness,
            bounds,
        }
    };
    raw.chunks_exact(SCALARS + width + height).map(of_object).collect()
}

/// Returns the bounds of the pixels above one half of a mask (1, 1, H, W), uint8 from 0 to 255.
pub fn bounds_of(mask: &Tensor) -> Result<Option<Bounds>> {
    let object = mask.f_gt(127)?;
    let counts = |axes: &[i64]| -> Result<Vec<f32>> {
        Ok(Vec::try_from(&object.f_sum_dim_intlist(axes, false, Kind::Float)?)?)
    };
    Ok(extent(&counts(&[0, 1, 2])?, &counts(&[0, 1, 3])?).1)
}

/// Returns the number of pixels and their bounds, from their numbers in each column and in each row.
fn extent(columns: &[f32], rows: &[f32]) -> (f64, Option<Bounds>) {
    let pixels = columns.iter().map(|&count| f64::from(count)).sum();
    let spans = span(columns, pixels).zip(span(rows, pixels));
    (pixels, spans.map(|((left, right), (top, bottom))| Bounds { left, right, top, bottom }))
}

/// Expected region similarity for the `similarity` implied by the soft mask.
fn calibrated(similarity: f64) -> f64 {
    similarity.clamp(0.0, 1.0).powf(CALIBRATION_EXPONENT)
}

/// Range, as fractions of the length, that contains all of `pixels` but a few outliers.
fn span(counts: &[f32], pixels: f64) -> Option<(f64, f64)> {
    if pixels < 1.0 {
        return None;
    }
    let skipped = |counts: &mut dyn Iterator<Item = &f32>| {
        let mut remaining = OUTLIER_SHARE * pixels;
        counts
            .take_while(|&&count| {
                remaining -= f64::from(count);
                remaining >= 0.0
            })
            .count()
    };
    let (first, last) = (skipped(&mut counts.iter()), skipped(&mut counts.iter().rev()));
    let length = counts.len() as f64;
    Some((first as f64 / length, (counts.len() - last) as f64 / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_of_a_square() {
        let masks = Tensor::zeros([2, 1, 20, 40], (Kind::Float, Device::Cpu));
        let _ = masks.get(0).narrow(1, 5, 10).narrow(2, 10, 20).fill_(0.75);
        let likeness = Tensor::full([2, 1, 5, 10], 0.5, (Kind::Float, Device::Cpu));
        let stats = gather(&masks, &likeness).unwrap();
        let [first, second] = stats[..] else { panic!("expected two objects, got {}", stats.len()) };
        assert_eq!((first.area, first.certainty, first.likeness), (0.25, 0.75, 0.5));
        assert_eq!(first.bounds, Some(Bounds { left: 0.25, right: 0.75, top: 0.25, bottom: 0.75 }));
        assert_eq!((second.area, second.certainty, second.confidence, second.likeness), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(second.bounds, None);
    }

    #[test]
    fn uncertain_surroundings_lower_the_confidence() {
        let confidence = |around: f64| {
            let mask = Tensor::full([1, 1, 20, 40], around, (Kind::Float, Device::Cpu));
            let _ = mask.narrow(2, 5, 10).narrow(3, 10, 20).fill_(0.9);
            gather(&mask, &mask.ones_like()).unwrap()[0].confidence
        };
        assert!((confidence(0.0) - calibrated(0.9)).abs() < 1e-6);
        // 600 of the 800 pixels are not in the mask.
        assert!((confidence(0.25) - calibrated(180.0 / (200.0 + 150.0))).abs() < 1e-6);
    }

    #[test]
    fn outliers_do_not_extend_the_bounds() {
        let mask = Tensor::zeros([1, 1, 40, 40], (Kind::Float, Device::Cpu));
        let _ = mask.narrow(2, 10, 20).narrow(3, 10, 20).fill_(1.0);
        let _ = mask.narrow(2, 39, 1).narrow(3, 39, 1).fill_(1.0);
        let stats = gather(&mask, &mask.ones_like()).unwrap();
        assert_eq!(stats[0].bounds, Some(Bounds { left: 0.25, right: 0.75, top: 0.25, bottom: 0.75 }));
    }
}
