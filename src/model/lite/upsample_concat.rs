// SPDX-License-Identifier: MPL-2.0

//! Upsampling of coarse features and concatenation with finer ones, the first step of every refine block.

use tch::Tensor;

use crate::Result;
use crate::model::layers::double;
use crate::model::packed::share;
use crate::model::tensor_slices::{Unshared, floats, is_float, pixels, stored_items};
use crate::team::in_parallel;

/// Doubles `coarse` (N, C, h, w) bilinearly and concatenates the channels of `fine` (N, …, 2h, 2w) after it.
pub fn upsample_concat(coarse: &Tensor, fine: &[&Tensor]) -> Result<Tensor> {
    // libtorch takes one pass for the doubling and another, slow one for the concatenation.
    if coarse.numel() > 0 && is_float(coarse) {
        let (n, _, h, w) = coarse.size4()?;
        if fit(fine, (n, 2 * h, 2 * w)) {
            return single_pass((n, 2 * h, 2 * w), Some(coarse), fine);
        }
    }
    let up = double(coarse)?;
    let parts: Vec<&Tensor> = std::iter::once(&up).chain(fine.iter().copied()).collect();
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// Concatenates the channels of tensors (N, …, H, W).
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    if let [first, ..] = parts
        && let Ok((n, _, h, w)) = first.size4()
        && fit(parts, (n, h, w))
    {
        return single_pass((n, h, w), None, parts);
    }
    Ok(Tensor::f_cat(parts, 1)?)
}

/// Whether all tensors are float32 on the CPU, (n, at least 1, height, width).
fn fit(parts: &[&Tensor], (n, height, width): (i64, i64, i64)) -> bool {
    parts.iter().all(|x| {
        let has_size = |(items, channels, h, w)| (items, h, w) == (n, height, width) && channels > 0;
        is_float(x) && x.numel() > 0 && x.size4().is_ok_and(has_size)
    })
}

/// One input as rows of pixels, channels last.
struct Source<'a> {
    values: &'a [f32],
    items: usize,
    rows: usize,
    channels: usize,
}

impl<'a> Source<'a> {
    /// `x` is (N, H, W, C), plain.
    fn new(x: &'a Tensor) -> Self {
        let size = x.size();
        let [items, rows, channels] = [0, 1, 3].map(|dim| size[dim] as usize);
        Self { values: floats(x), items, rows, channels }
    }

    fn row(&self, n: usize, y: usize) -> &'a [f32] {
        let length = self.values.len() / (self.items * self.rows);
        &self.values[((n % self.items) * self.rows + y) * length..][..length]
    }
}

/// Concatenates the channels of the doubled `coarse` and of `fine` to (n, …, height, width).
fn single_pass(
    (n, height, width): (i64, i64, i64),
    coarse: Option<&Tensor>,
    fine: &[&Tensor],
) -> Result<Tensor> {
    let stored = |x: &Tensor| pixels(&stored_items(x)?);
    let coarse = coarse.map(stored).transpose()?;
    let fine = fine.iter().map(|x| stored(x)).collect::<Result<Vec<_>>>()?;
    let coarse = coarse.as_ref().map(Source::new);
    let fine: Vec<Source> = fine.iter().map(Source::new).collect();
    let channels: usize = coarse.iter().chain(&fine).map(|source| source.channels).sum();
    let mut joined = Unshared::empty(&[n, height, width, channels as i64])?;
    let (height, length) = (height as usize, width as usize * channels);
    let band = share(n as usize * height);
    in_parallel(joined.floats_mut().chunks_mut(band * length).enumerate(), |(index, rows)| {
        let mut blended = Vec::new();
        for (row, to) in rows.chunks_exact_mut(length).enumerate() {
            let (item, y) = ((index * band + row) / height, (index * band + row) % height);
            let mut first = 0;
            if let Some(coarse) = &coarse {
                let (near, far) = neighbours(y, coarse.rows);
                blended.resize(coarse.row(item, near).len(), 0.0);
                blend(&mut blended, coarse.row(item, near), coarse.row(item, far));
                first = coarse.channels;
                let at = |x: usize| &blended[x * first..][..first];
                for (x, pixel) in to.chunks_exact_mut(channels).enumerate() {
                    let (near, far) = neighbours(x, width as usize / 2);
                    blend(&mut pixel[..first], at(near), at(far));
                }
            }
            for source in &fine {
                let from = source.row(item, y).chunks_exact(source.channels);
                for (pixel, from) in to.chunks_exact_mut(channels).zip(from) {
                    copy(&mut pixel[first..][..source.channels], from);
                }
                first += source.channels;
            }
        }
    });
    Ok(joined.into_tensor().f_permute([0, 3, 1, 2])?)
}

/// Returns the coarse position, of `length`, that contains the fine position `at`, and the next nearest one.
fn neighbours(at: usize, length: usize) -> (usize, usize) {
    let near = at / 2;
    (near, if at.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(length - 1) })
}

/// Copies a pixel. For so few values, `copy_from_slice` takes most of its time for the call.
fn copy(to: &mut [f32], from: &[f32]) {
    let (to, to_rest) = to.as_chunks_mut::<4>();
    let (from, from_rest) = from.as_chunks::<4>();
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
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
    use crate::threads::with_threads;

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
            let [a, b, c, d] = fine;
            let expected = Tensor::cat(&[&double(&coarse).unwrap(), a, b, c, d], 1);
            for threads in [1, 2, 5] {
                let (joined, plain) = with_threads(threads, || {
                    (upsample_concat(&coarse, &fine).unwrap(), concat(&fine).unwrap())
                });
                assert_eq!(joined.size(), expected.size());
                assert!((&joined - &expected).abs().max().double_value(&[]) < 1e-6);
                assert!(plain.equal(&Tensor::cat(&fine, 1)));
            }
            assert!(concat(&[a, &coarse]).is_err(), "other sizes");
            let first = coarse.to_kind(Kind::Double).set_requires_grad(true);
            let fine: Vec<Tensor> = fine.iter().map(|x| x.to_kind(Kind::Double)).collect();
            let separate = upsample_concat(&first, &fine.iter().collect::<Vec<_>>()).unwrap();
            assert!((separate - &expected).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
