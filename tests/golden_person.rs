// SPDX-License-Identifier: MPL-2.0

//! Compares the person network with recorded outputs of LiteRT with the same weights (`scripts/convert_person.py`).

mod person_picture;

use std::collections::HashMap;
use std::path::Path;

use gstfastganseg::image::OwnedPicture;
use gstfastganseg::torch::model::person::{HEIGHT, PersonNetwork, WIDTH};
use tch::{Device, Kind, Tensor};

/// Every third row and column is recorded.
const STEP: i64 = 3;

fn picture() -> OwnedPicture {
    let rgb =
        (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| person_picture::pixel(x, y, 0))).collect();
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
