// SPDX-License-Identifier: MPL-2.0

//! Upsampling of coarse features and concatenation with finer ones, the first step of every refine block.

use tch::Tensor;

use crate::Result;
use crate::model::layers::double;
use crate::model::tensor_slices::{Unshared, floats, is_float, pixels, stored_items};

/// Doubles `coarse` (N, C, h, w) bilinearly and concatenates the channels of `fine` (N or 1, …, 2h, 2w) after it.
pub fn upsample_concat(coarse: &Tensor, fine: &[&Tensor]) -> Result<Tensor> {
    // libtorch takes one pass for the doubling and another, slow one for the concatenation.
    if is_float(coarse) && fine.iter().all(|x| is_float(x)) && coarse.numel() > 0 {
        return single_pass(coarse, fine);
    }
    let up = double(coarse)?;
    let parts: Vec<&Tensor> = std::iter::once(&up).chain(fine.iter().copied()).collect();
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// One input as rows of pixels, channels last.
struct Source {
    channels: usize,
    pixels: Tensor,
}

impl Source {
    fn new(x: &Tensor) -> Result<Self> {
        let x = stored_items(x)?;
        Ok(Self { channels: x.size()[1] as usize, pixels: pixels(&x)? })
    }

    /// Returns row `y` of item `n`.
    fn row(&self, n: usize, y: usize) -> &[f32] {
        let size = self.pixels.size();
        let (items, rows, length) = (size[0] as usize, size[1] as usize, size[2] as usize * self.channels);
        &floats(&self.pixels)[((n % items) * rows + y) * length..][..length]
    }
}

fn single_pass(coarse: &Tensor, fine: &[&Tensor]) -> Result<Tensor> {
    let (n, c, h, w) = coarse.size4()?;
    let (height, width) = (2 * h, 2 * w);
    let coarse = Source::new(coarse)?;
    let fine = fine.iter().map(|x| Source::new(x)).collect::<Result<Vec<_>>>()?;
    let channels = c + fine.iter().map(|source| source.channels as i64).sum::<i64>();
    let mut joined = Unshared::empty(&[n, height, width, channels])?;
    let rows = joined.floats_mut().chunks_exact_mut((width * channels) as usize);
    let mut blended = vec![0.0; (w * c) as usize];
    for (index, row) in rows.enumerate() {
        let (item, y) = (index / height as usize, index % height as usize);
        let (near, far) = neighbours(y, h as usize);
        blend(&mut blended, coarse.row(item, near), coarse.row(item, far));
        let fine: Vec<(&[f32], usize)> =
            fine.iter().map(|source| (source.row(item, y), source.channels)).collect();
        for (x, pixel) in row.chunks_exact_mut(channels as usize).enumerate() {
            let (near, far) = neighbours(x, w as usize);
            let (up, mut rest) = pixel.split_at_mut(coarse.channels);
            let at = |x: usize| &blended[x * up.len()..][..up.len()];
            let (near, far) = (at(near), at(far));
            blend(up, near, far);
            for (values, channels) in &fine {
                let (here, after) = rest.split_at_mut(*channels);
                here.copy_from_slice(&values[x * channels..][..*channels]);
                rest = after;
            }
        }
    }
    Ok(joined.into_tensor().f_permute([0, 3, 1, 2])?)
}

/// Returns the coarse position, of `length`, that contains the fine position `at`, and the next nearest one.
fn neighbours(at: usize, length: usize) -> (usize, usize) {
    let near = at / 2;
    (near, if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(length - 1) })
}

/// Interpolates a quarter of the way from `near` to `far`.
fn blend(to: &mut [f32], near: &[f32], far: &[f32]) {
    for ((to, near), far) in to.iter_mut().zip(near).zip(far) {
        *to = 0.75 * near + 0.25 * far;
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::layers::channels_last;

    #[test]
    fn one_pass_equals_doubling_and_concatenation() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(8);
        for (n, h, w) in [(1, 5, 7), (3, 4, 6), (2, 1, 1)] {
            let random = |items: i64, channels: i64, times: i64| {
                Tensor::randn([items, channels, times * h, times * w], (Kind::Float, Device::Cpu))
            };
            let coarse = channels_last(&random(n, 6, 1)).unwrap();
            // Layouts: channels last, channels first, shared by all objects, a view.
            let last = channels_last(&random(n, 3, 2)).unwrap();
            let shared = random(1, 2, 2).expand([n, -1, -1, -1], false);
            let view = random(n, 5, 2).narrow(1, 2, 2);
            let fine = [&last, &random(n, 1, 2), &shared, &view];
            let joined = upsample_concat(&coarse, &fine).unwrap();
            let [a, b, c, d] = fine;
            let expected = Tensor::cat(&[&double(&coarse).unwrap(), a, b, c, d], 1);
            assert_eq!(joined.size(), expected.size());
            assert!((&joined - &expected).abs().max().double_value(&[]) < 1e-6);
            let first = coarse.to_kind(Kind::Double).set_requires_grad(true);
            let fine: Vec<Tensor> = fine.iter().map(|x| x.to_kind(Kind::Double)).collect();
            let separate = upsample_concat(&first, &fine.iter().collect::<Vec<_>>()).unwrap();
            assert!((separate - &joined).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
