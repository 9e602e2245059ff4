// SPDX-License-Identifier: MPL-2.0

//! Compares the person network with recorded outputs of LiteRT with the same weights (`scripts/convert_person.py`).

use std::collections::HashMap;
use std::path::Path;

use gstfastganseg::image::OwnedPicture;
use gstfastganseg::torch::model::person::{HEIGHT, PersonNetwork, WIDTH};
use tch::{Device, Kind, Tensor};

/// Every third row and column is recorded.
const STEP: i64 = 3;

/// A head and shoulders on a gradient, as `picture` in the script.
fn picture() -> OwnedPicture {
    let mut rgb = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let ellipse = |u: i64, v: i64, across: i64, down: i64, radius: i64| {
                (x - u).pow(2) * across + (y - v).pow(2) * down < radius.pow(2)
            };
            let eye = |u: i64| (x - u).pow(2) + (y - 56).pow(2) < 6;
            let head = ellipse(120, 58, 16, 9, 96);
            let pixel = if (x - 120).abs() < 7 && (y - 74).abs() < 2 {
                [160, 70, 70]
            } else if eye(111) || eye(129) {
                [40, 30, 30]
            } else if head && y < 42 {
                [60, 40, 30]
            } else if head {
                [220, 170, 140]
            } else if (x - 120).abs() < 11 && y > 70 && y < 112 {
                [200, 150, 125]
            } else if ellipse(120, 150, 4, 9, 140) {
                [40, 50, 110]
            } else {
                [90 + x * 60 / 255, 120 + y * 60 / 143, 150]
            };
            rgb.extend(pixel.map(|value| value as u8));
        }
    }
    OwnedPicture::from_rgb(WIDTH as usize, HEIGHT as usize, rgb).unwrap()
}

fn golden() -> Tensor {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_person.safetensors");
    let tensors: HashMap<_, _> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
    tensors["probability"].shallow_clone()
}

/// Largest difference of the probability from the recorded one.
fn difference(kind: Kind) -> f64 {
    let network = PersonNetwork::load(Device::Cpu, kind).unwrap();
    let mask = network.segment(&picture().as_picture()).unwrap();
    let every_third = mask.probability.slice(0, None, None, STEP).slice(1, None, None, STEP);
    let golden = golden();
    assert_eq!(every_third.size(), golden.size());
    let difference = (every_third - golden).abs().max().double_value(&[]);
    println!("{kind:?}: largest difference {difference:.1e}");
    difference
}

#[test]
fn float32() {
    assert!(golden().max().double_value(&[]) > 0.99 && golden().min().double_value(&[]) < 0.01);
    assert!(difference(Kind::Float) <= 1e-4);
}

#[test]
fn the_person_that_was_drawn_is_found() {
    let network = PersonNetwork::load(Device::Cpu, Kind::Float).unwrap();
    let picture = picture();
    let picture = picture.as_picture();
    let person = network.find_person(&picture).unwrap().unwrap();
    println!("{:?}, {:.3} of the picture", person.region, person.share);
    let (x, y) = (person.region.x + person.region.width / 2, person.region.y);
    assert!(x.abs_diff(120) < 12 && y.abs_diff(26) < 12, "{:?}", person.region);
    assert!(person.alpha[60 * WIDTH as usize + 120] > 200 && person.alpha[10 * WIDTH as usize + 240] < 20);
    // Without its mirror image, almost the same.
    let other = network.segment(&picture).unwrap().largest_person().unwrap().unwrap();
    assert!((other.share - person.share).abs() < 0.02, "{}", other.share);
}
