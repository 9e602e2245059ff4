// SPDX-License-Identifier: MPL-2.0

//! Enlargement and refinement on the device of the network, so that only one byte per pixel has to be copied to
//! the host. The steps are those of [`Enlarger`](super::Enlarger) and the refiner, on tensors; results differ by
//! rounding.

use tch::{Device, Kind, Tensor};

use super::refine::{EXPLAINED_RANGE, FLAT, LUMA_NOISE};
use crate::Result;

/// Matrices that average luma over the area of each pixel of a small mask.
#[derive(Debug)]
pub struct BoxAverage {
    /// Rows (h, H) and columns (W, w).
    axes: [Tensor; 2],
}

impl BoxAverage {
    /// Matrices that average from size `large` (height, width) to `small`. `to` is the kind to sum in, and the
    /// device.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn new(small: (i64, i64), large: (i64, i64), to: (Kind, Device)) -> Result<Self> {
        let axis = |small: i64, large: i64| -> Result<Tensor> {
            let mut weights = vec![0.0f32; (small * large) as usize];
            for (place, row) in (0..small).zip(weights.chunks_exact_mut(large as usize)) {
                let pixels = (place * large / small) as usize..((place + 1) * large / small) as usize;
                let weight = 1.0 / pixels.len().max(1) as f32;
                row[pixels].fill(weight);
            }
            Ok(Tensor::f_from_slice(&weights)?.f_reshape([small, large])?)
        };
        let there = |x: Tensor| -> Result<Tensor> { Ok(x.f_to_device(to.1)?.f_to_kind(to.0)?) };
        let columns = axis(small.1, large.1)?.f_transpose(0, 1)?.f_contiguous()?;
        Ok(Self { axes: [there(axis(small.0, large.0)?)?, there(columns)?] })
    }

    /// Restores the matrices from their [`tensors`](Self::tensors).
    pub fn from_tensors([rows, columns]: [&Tensor; 2]) -> Self {
        Self { axes: [rows.shallow_clone(), columns.shallow_clone()] }
    }

    /// The matrices of rows and columns.
    pub fn tensors(&self) -> [&Tensor; 2] {
        [&self.axes[0], &self.axes[1]]
    }

    /// Means of `luma` (H, W), float32 (1, 1, h, w).
    fn mean(&self, luma: &Tensor) -> Result<Tensor> {
        let [rows, columns] = &self.axes;
        let mean = rows.f_matmul(&luma.f_to_kind(rows.kind())?)?.f_matmul(columns)?;
        Ok(mean.f_to_kind(Kind::Float)?.f_unsqueeze(0)?.f_unsqueeze(0)?)
    }
}

/// Enlarges a soft mask (1, 1, h, w) in [0, 1] to alpha (H, W) uint8, which is at least as large in both
/// dimensions. With a `guide`, luma (H, W) of the area of the mask, edges are refined.
///
/// # Errors
/// An error of libtorch.
pub fn enlarge(mask: &Tensor, size: (i64, i64), guide: Option<(&Tensor, &BoxAverage)>) -> Result<Tensor> {
    let small = mask.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?;
    let bilinear = interpolate(&small, size)?.f_round()?;
    let alpha = match guide {
        Some((luma, boxes)) => refine(&small, &bilinear, luma, &boxes.mean(luma)?, size)?,
        None => bilinear,
    };
    Ok(alpha.f_to_kind(Kind::Uint8)?.f_reshape([size.0, size.1])?)
}

fn interpolate(x: &Tensor, (height, width): (i64, i64)) -> Result<Tensor> {
    Ok(x.f_upsample_bilinear2d([height, width], false, None, None)?)
}

/// Maximum of each 3x3 neighbourhood.
fn neighbourhood_max(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false)?)
}

/// Mean of each 3x3 neighbourhood within the borders.
fn mean(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>)?)
}

/// Guided filter. As in the paper, `i` is the guide, luma at the size of the mask, and `p` the mask.
fn refine(small: &Tensor, bilinear: &Tensor, luma: &Tensor, i: &Tensor, size: (i64, i64)) -> Result<Tensor> {
    let (highest, lowest) = (neighbourhood_max(small)?, neighbourhood_max(&small.f_neg()?)?.f_neg()?);
    let is_edge = highest.f_sub(&lowest)?.f_ge(f64::from(FLAT))?.f_to_kind(Kind::Float)?;

    let p = small;
    let means = mean(&Tensor::f_cat(&[i, p, &i.f_mul(i)?, &i.f_mul(p)?, &p.f_mul(p)?], 1)?)?;
    let of = |index: i64| means.f_narrow(1, index, 1);
    let (mean_i, mean_p) = (of(0)?, of(1)?);
    let variance =
        of(2)?.f_sub(&mean_i.f_square()?)?.f_clamp_min(0.0)?.f_add_scalar(f64::from(LUMA_NOISE))?;
    let spread = of(4)?.f_sub(&mean_p.f_square()?)?.f_clamp_min(0.0)?.f_add_scalar(1.0)?;
    let covariance = of(3)?.f_sub(&mean_i.f_mul(&mean_p)?)?;
    let explained = covariance.f_square()?.f_div(&variance.f_mul(&spread)?)?;
    let (low, high) = (f64::from(EXPLAINED_RANGE.0), f64::from(EXPLAINED_RANGE.1));
    let trust = explained.f_sub_scalar(low)?.f_div_scalar(high - low)?.f_clamp(0.0, 1.0)?;
    let steep = covariance.f_div(&variance)?.f_div(&explained.f_clamp_min(low)?)?;
    let slope = trust.f_mul(&steep)?;
    let offset = trust.f_mul(&mean_p.f_sub(&steep.f_mul(&mean_i)?)?)?;
    let maps = mean(&Tensor::f_cat(&[&trust, &slope, &offset], 1)?)?;

    let maps = interpolate(&Tensor::f_cat(&[&maps, &lowest, &highest, &is_edge], 1)?, size)?;
    let of = |index: i64| maps.f_narrow(1, index, 1);
    let luma = luma.f_to_kind(Kind::Float)?.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let refined = bilinear.f_add(&of(1)?.f_mul(&luma)?)?.f_add(&of(2)?)?.f_sub(&of(0)?.f_mul(bilinear)?)?;
    let refined = refined.f_maximum(&of(3)?)?.f_minimum(&of(4)?)?.f_round()?;
    Ok(refined.f_where_self(&of(5)?.f_gt(0.0)?, bilinear)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{PlaneMut, Region};
    use crate::matte::refine::Refiner;
    use crate::matte::{Enlarger, Guide, MaskView};

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// A mask with a soft blob, and textured luma with an edge close to that of the blob.
    fn scene((w, h): (usize, usize), (width, height): (usize, usize)) -> (Vec<u8>, Vec<u8>) {
        let blob = |x: f64, y: f64, softness: f64| {
            let angle = (y - 0.5).atan2(x - 0.5);
            let radius = 0.3 + 0.05 * (3.0 * angle).sin();
            (((radius - (x - 0.5).hypot(y - 0.5)) / softness + 0.5).clamp(0.0, 1.0) * 255.0).round()
        };
        let at = |i: usize, n: usize, of: usize| ((i % n) as f64 + 0.5) / of as f64;
        let small = (0..w * h).map(|i| blob(at(i, w, w), at(i / w, h, h), 0.08) as u8).collect();
        let luma = |i: usize| {
            let edge = blob(at(i, width, width) + 0.012, at(i / width, height, height), 0.01);
            (40.0 + 0.6 * edge + ((i * 7919) % 13) as f64) as u8
        };
        (small, (0..width * height).map(luma).collect())
    }

    #[test]
    fn alpha_matches_that_of_the_cpu() {
        for (small_size, size) in
            [((42, 24), (640, 360)), ((96, 64), (333, 201)), ((64, 64), (64, 64)), ((21, 12), (97, 55))]
        {
            let (small, luma) = scene(small_size, size);
            let ((w, h), (width, height)) = (small_size, size);
            let mask = Tensor::from_slice(&small).reshape([1, 1, h as i64, w as i64]).to_kind(Kind::Float);
            let mask = mask / 255.0;
            let (rows, columns) = (height as i64, width as i64);
            let luma_tensor = Tensor::from_slice(&luma).reshape([rows, columns]);
            let source = MaskView { values: &small, width: w, height: h };
            let guide = Guide::bytes(&luma, size, width, 1).unwrap();
            let boxes = BoxAverage::new((h as i64, w as i64), (rows, columns), CPU).unwrap();
            for refined in [false, true] {
                let mut expected = vec![0; width * height];
                let plane = &mut PlaneMut { data: &mut expected, width, height, stride: width };
                Enlarger::default().enlarge(&source, plane).unwrap();
                if refined {
                    let region = Region { x: 0, y: 0, width, height };
                    Refiner::default().refine(&source, &guide, region, plane).unwrap();
                }
                let found = enlarge(&mask, (rows, columns), refined.then_some((&luma_tensor, &boxes)));
                let found = Vec::<u8>::try_from(&found.unwrap().reshape([-1])).unwrap();
                let differences: Vec<u8> = expected.iter().zip(&found).map(|(a, b)| a.abs_diff(*b)).collect();
                let greatest = differences.iter().copied().max().unwrap();
                let off = differences.iter().filter(|&&difference| difference > 1).count();
                let limit = if refined { 4 } else { 1 };
                assert!(greatest <= limit, "{small_size:?} to {size:?}, {refined}: {greatest}");
                assert!(off * 1000 <= differences.len(), "{small_size:?} to {size:?}, {refined}: {off}");
            }
        }
    }

    #[test]
    fn refinement_changes_alpha() {
        let (small, luma) = scene((42, 24), (640, 360));
        let mask = Tensor::from_slice(&small).reshape([1, 1, 24, 42]).to_kind(Kind::Float) / 255.0;
        let luma = Tensor::from_slice(&luma).reshape([360, 640]);
        let boxes = BoxAverage::new((24, 42), (360, 640), CPU).unwrap();
        let bilinear = enlarge(&mask, (360, 640), None).unwrap();
        let refined = enlarge(&mask, (360, 640), Some((&luma, &boxes))).unwrap();
        assert!(bilinear.ne_tensor(&refined).sum(Kind::Int64).int64_value(&[]) > 1000);
    }
}
