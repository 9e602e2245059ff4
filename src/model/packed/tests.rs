// SPDX-License-Identifier: MPL-2.0

use tch::{Device, IndexOp, Kind, Tensor};

use super::*;
use crate::model::vector::{checked_available, checked_has_bfloat16};
use crate::threads::with_threads;

/// Channels that are and are not multiples of the panel; odd and even sizes; pictures smaller than a tile.
#[test]
fn packed_convolutions_equal_those_of_libtorch() {
    if !checked_available() {
        return;
    }
    let _guard = tch::no_grad_guard();
    tch::manual_seed(11);
    let random = |size: &[i64]| Tensor::rand(size, (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    for (n, inputs, outputs, height, width) in [
        (1, 16, 16, 8, 12),
        (2, 9, 8, 9, 13),
        (3, 33, 20, 4, 6),
        (1, 8, 15, 1, 1),
        (1, 8, 40, 2, 3),
        (2, 16, 1, 9, 14),
        (1, 12, 9, 35, 90),
        (1, 31, 5, 7, 3),
        (1, 63, 33, 5, 13),
    ] {
        let x = random(&[n, inputs, height, width]);
        for (side, has_bias) in [(1, true), (1, false), (3, true), (3, false)] {
            let weight = random(&[outputs, inputs, side, side]);
            let bias = has_bias.then(|| random(&[outputs]));
            let padding = [side / 2, side / 2];
            let expected = x.conv2d(&weight, bias.as_ref(), [1, 1], padding, [1, 1], 1);
            let pack = |factors| PackedConv::new(&weight, bias.as_ref(), factors).unwrap().unwrap();
            let mut formats = vec![(pack(Factors::Float32), 1e-5)];
            if checked_has_bfloat16() {
                // The transforms of 3x3 multiply the rounding of the factors.
                formats.push((pack(Factors::Bfloat16), if side == 1 { 0.01 } else { 0.1 }));
            }
            for (packed, tolerance) in &formats {
                for (threads, relu) in [1, 2, 5].into_iter().flat_map(|n| [(n, false), (n, true)]) {
                    let (x, added) =
                        (x.shallow_clone(), (side == 3 && threads < 5).then(|| &expected * -0.5));
                    let expected = match &added {
                        Some(added) => &expected + added,
                        None => expected.shallow_clone(),
                    };
                    let y =
                        with_threads(threads, || packed.forward(&x, added.as_ref(), relu).unwrap().unwrap());
                    let expected = if relu { expected.relu() } else { expected };
                    assert_eq!(y.size(), expected.size());
                    let rms = |x: Tensor| x.square().mean(Kind::Float).sqrt().double_value(&[]);
                    let (error, size) = (rms(y - &expected), rms(expected));
                    assert!(error <= tolerance * size, "{side}x{side}, {inputs}: {error} of {size}");
                }
            }
        }
    }
}

#[test]
fn tiles_have_the_values_of_the_whole_picture_and_zeros_around_them() {
    if !checked_available() {
        return;
    }
    let _guard = tch::no_grad_guard();
    tch::manual_seed(12);
    let random = |size: &[i64]| Tensor::rand(size, (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    for (height, width) in [(60, 84), (9, 14), (3, 3)] {
        let x = random(&[1, 8, height, width]);
        let conv = PackedConv::new(&random(&[20, 8, 3, 3]), None, Factors::Float32).unwrap().unwrap();
        let whole = conv.forward(&x, None, true).unwrap().unwrap();
        let (rows, columns) = ((height as usize).div_ceil(TILE_SIDE), (width as usize).div_ceil(TILE_SIDE));
        for rule in [|row, column| (row * 7 + column * 3) % 11 < 3, |_, _| true, |_, _| false] {
            let tiles = Tiles::new(rows, columns, rule);
            let around = tiles.with_neighbours();
            for threads in [1, 3] {
                let found = with_threads(threads, || conv.forward_tiles(&x, &tiles, true).unwrap().unwrap());
                assert_eq!(found.size(), whole.size());
                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                    let at = (y as usize / TILE_SIDE, x as usize / TILE_SIDE);
                    let values =
                        |of: &Tensor| Vec::<f32>::try_from(of.i((0, .., y, x)).contiguous()).unwrap();
                    if tiles.contains(at.0, at.1) {
                        let pairs = values(&found).into_iter().zip(values(&whole));
                        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4), "{at:?}");
                    } else if around.contains(at.0, at.1) {
                        assert!(values(&found).iter().all(|&value| value == 0.0), "{at:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn other_convolutions_and_tensors_are_left_to_libtorch() {
    let ones = |size: &[i64], kind| Tensor::ones(size, (kind, Device::Cpu));
    assert!(PackedConv::new(&ones(&[4, 3, 5, 5], Kind::Float), None, Factors::Float32).unwrap().is_none());
    assert!(PackedConv::new(&ones(&[4, 3, 1, 1], Kind::BFloat16), None, Factors::Float32).unwrap().is_none());
    assert!(PackedConv::new(&ones(&[8, 7, 3, 3], Kind::Float), None, Factors::Float32).unwrap().is_none());
    let Some(packed) = PackedConv::new(&ones(&[4, 3, 1, 1], Kind::Float), None, Factors::Float32).unwrap()
    else {
        assert!(!checked_available());
        return;
    };
    let forward = |x: Tensor| packed.forward(&x, None, false).unwrap();
    assert!(forward(ones(&[1, 3, 4, 4], Kind::BFloat16)).is_none());
    assert!(forward(ones(&[1, 2, 4, 4], Kind::Float)).is_none());
    assert!(forward(ones(&[0, 3, 4, 4], Kind::Float)).is_none());
    assert!(forward(ones(&[1, 3, 4, 4], Kind::Float).set_requires_grad(true)).is_none());
    let x = ones(&[1, 3, 4, 4], Kind::Float);
    assert!(packed.forward(&x, Some(&ones(&[1, 4, 4, 4], Kind::Float)), false).unwrap().is_none());
    assert!(forward(x).is_some());
    let packed = PackedConv::new(&ones(&[4, 8, 3, 3], Kind::Float), None, Factors::Float32).unwrap().unwrap();
    let added =
        |added: Tensor| packed.forward(&ones(&[1, 8, 4, 4], Kind::Float), Some(&added), false).unwrap();
    assert!(added(ones(&[1, 3, 4, 4], Kind::Float)).is_none());
    assert!(added(ones(&[1, 4, 4, 4], Kind::BFloat16)).is_none());
    assert!(added(ones(&[1, 4, 4, 4], Kind::Float)).is_some());
}
