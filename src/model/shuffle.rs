// SPDX-License-Identifier: MPL-2.0

//! Sub-images: squares of neighbouring pixels as channels, and back.

use tch::Tensor;

use super::packed::share;
use super::tensor_slices::{Unshared, floats, is_float, pixels};
use crate::Result;
use crate::team::in_parallel;

/// Returns (N, C, H, W) as (N, C side², H/side, W/side), as [`Tensor::pixel_unshuffle`] does.
pub fn unshuffle(x: &Tensor, side: i64) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    // libtorch's operation takes several times as long.
    if !is_float(x) || x.numel() == 0 || h % side != 0 || w % side != 0 {
        return Ok(x.f_pixel_unshuffle(side)?);
    }
    let x = pixels(x)?;
    let mut y = Unshared::empty(&[n, h / side, w / side, c * side * side])?;
    let [c, w, side] = [c, w, side].map(|length| length as usize);
    let length = side * w * c;
    let band = share(x.numel() / length) * length;
    in_parallel(floats(&x).chunks(band).zip(y.floats_mut().chunks_mut(band)), |(x, y)| {
        for (rows, y) in x.chunks_exact(length).zip(y.chunks_exact_mut(length)) {
            for (column, y) in y.chunks_exact_mut(side * side * c).enumerate() {
                for (channel, y) in y.chunks_exact_mut(side * side).enumerate() {
                    for (row, y) in y.chunks_exact_mut(side).enumerate() {
                        for (at, y) in y.iter_mut().enumerate() {
                            *y = rows[(row * w + column * side + at) * c + channel];
                        }
                    }
                }
            }
        }
    });
    Ok(y.into_tensor().f_permute([0, 3, 1, 2])?)
}

/// Returns (N, side², H, W) as (N, 1, side H, side W), as [`Tensor::pixel_shuffle`] does.
pub fn shuffle(x: &Tensor, side: i64) -> Result<Tensor> {
    let (n, c, h, w) = x.size4()?;
    if !is_float(x) || x.numel() == 0 || c != side * side {
        return Ok(x.f_pixel_shuffle(side)?);
    }
    let x = pixels(x)?;
    let mut y = Unshared::empty(&[n, 1, side * h, side * w])?;
    let [w, side] = [w, side].map(|length| length as usize);
    let rows = y.floats_mut().chunks_exact_mut(side * side * w);
    for (y, x) in rows.zip(floats(&x).chunks_exact(side * side * w)) {
        for (column, x) in x.chunks_exact(side * side).enumerate() {
            for (row, x) in x.chunks_exact(side).enumerate() {
                y[(row * w + column) * side..][..side].copy_from_slice(x);
            }
        }
    }
    Ok(y.into_tensor())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::model::layers::channels_last;
    use crate::threads::with_threads;

    #[test]
    fn sub_images_equal_those_of_libtorch() {
        tch::manual_seed(2);
        let random = |size: &[i64]| Tensor::rand(size, (Kind::Float, Device::Cpu));
        for (n, c, side) in [(1, 3, 2), (2, 1, 4), (3, 1, 2)] {
            let x = random(&[n, c, 8, 12]);
            let expected = x.pixel_unshuffle(side);
            for x in [x.shallow_clone(), channels_last(&x).unwrap()] {
                for threads in [1, 2, 5] {
                    let found = with_threads(threads, || unshuffle(&x, side).unwrap());
                    assert!(found.equal(&expected), "{threads} threads");
                }
            }
            let x = random(&[n, side * side, 3, 5]);
            let expected = x.pixel_shuffle(side);
            for x in [x.shallow_clone(), channels_last(&x).unwrap()] {
                assert!(shuffle(&x, side).unwrap().equal(&expected));
            }
        }
        assert!(unshuffle(&random(&[1, 1, 3, 4]), 2).is_err());
        assert!(shuffle(&random(&[1, 3, 3, 4]), 2).is_err());
        let other = random(&[1, 4, 2, 2]).to_kind(Kind::Double);
        assert!(shuffle(&other, 2).unwrap().equal(&other.pixel_shuffle(2)));
    }
}
