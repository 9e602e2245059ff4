// SPDX-License-Identifier: MPL-2.0

//! Compares the prompt network with recorded outputs of onnxruntime with the same weights
//! (`scripts/convert_prompt.py`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gstfastganseg::image::OwnedPicture;
use gstfastganseg::model::prompt::{Embedding, Point, Prompt, PromptNetwork, Rect};
use tch::{Device, Kind, Tensor};

const WIDTH: usize = 1024;
const HEIGHT: usize = 640;
/// Every fifth row and column is recorded.
const STEP: i64 = 5;

/// Two discs with a check pattern on a gradient, as `picture` in the script.
fn picture() -> OwnedPicture {
    let mut rgb = Vec::with_capacity(3 * WIDTH * HEIGHT);
    for y in 0..HEIGHT as i64 {
        for x in 0..WIDTH as i64 {
            let checks = (x / 16 + y / 16) % 2 * 20;
            let inside = |u: i64, v: i64, r: i64| (x - u).pow(2) + (y - v).pow(2) < r * r;
            let pixel = if inside(760, 360, 110) {
                [40 + checks, 200 - checks, 220]
            } else if inside(380, 300, 150) {
                [220 - checks, 60 + checks, 40]
            } else {
                [x * 160 / 1023, y * 160 / 639, 90]
            };
            rgb.extend(pixel.map(|value| value as u8));
        }
    }
    OwnedPicture::from_rgb(WIDTH, HEIGHT, rgb).unwrap()
}

/// Logits of the first disc, as `mask_prompt` in the script.
fn mask_prompt() -> Tensor {
    let positions = (0..256i64).flat_map(|y| (0..256i64).map(move |x| (x, y)));
    let logit =
        |(x, y): (i64, i64)| ((37 * 37 - (x - 95).pow(2) - (y - 75).pow(2)) as f32 / 64.0).clamp(-16.0, 16.0);
    Tensor::from_slice(&positions.map(logit).collect::<Vec<_>>()).reshape([256, 256])
}

/// The network and the encoded picture, shared by all tests.
fn encoded() -> MutexGuard<'static, (PromptNetwork, Embedding)> {
    static ENCODED: OnceLock<Mutex<(PromptNetwork, Embedding)>> = OnceLock::new();
    let encode = || {
        let network = PromptNetwork::load(Device::Cpu, Kind::Float).unwrap();
        let embedding = network.encode_with_padding(&picture().as_picture()).unwrap();
        Mutex::new((network, embedding))
    };
    ENCODED.get_or_init(encode).lock().unwrap_or_else(PoisonError::into_inner)
}

fn golden(name: &str) -> Tensor {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_prompt.safetensors");
    let tensors: HashMap<_, _> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
    tensors[name].shallow_clone()
}

fn assert_close(what: &str, ours: &Tensor, golden: &Tensor, tolerance: f64) {
    assert_eq!(ours.size(), golden.size(), "{what}");
    let difference = (ours - golden).abs().max().double_value(&[]);
    println!("{what}: largest difference {difference:.1e} of {:.1}", golden.abs().max().double_value(&[]));
    assert!(difference <= tolerance, "{what}: {difference}");
}

fn every_fifth(x: &Tensor) -> Tensor {
    x.slice(-1, 0, None, STEP).slice(-2, 0, None, STEP)
}

fn compare(name: &str, prompt: &Prompt) {
    let candidates = {
        let (network, embedding) = &*encoded();
        network.decode(embedding, prompt).unwrap()
    };
    let logits: Vec<_> = candidates.iter().map(|candidate| every_fifth(&candidate.logits)).collect();
    assert_close(name, &Tensor::stack(&logits, 0), &golden(&format!("{name}.logits")), 1e-3);
    let iou: Vec<_> = candidates.iter().map(|candidate| candidate.iou as f32).collect();
    assert_close("predicted IoU", &Tensor::from_slice(&iou), &golden(&format!("{name}.iou")), 1e-3);
}

fn point(x: f64, y: f64, positive: bool) -> Point {
    Point { x, y, positive }
}

#[test]
fn embedding() {
    let features = every_fifth(encoded().1.features());
    assert_close("embedding", &features, &golden("embedding"), 1e-3);
}

#[test]
fn a_box() {
    let rect = Rect { x: 230.0, y: 150.0, width: 300.0, height: 300.0 };
    compare("box", &Prompt { rect: Some(rect), ..Prompt::default() });
}

#[test]
fn one_point() {
    compare("point", &Prompt { points: vec![point(380.0, 300.0, true)], ..Prompt::default() });
}

#[test]
fn three_points() {
    let points = vec![point(380.0, 300.0, true), point(300.0, 260.0, true), point(760.0, 360.0, false)];
    compare("points", &Prompt { points, ..Prompt::default() });
}

#[test]
fn a_mask_and_a_point() {
    let points = vec![point(380.0, 300.0, true)];
    compare("mask", &Prompt { points, mask: Some(mask_prompt()), rect: None });
}

/// The encoder computes the features of a margin only and copies those of the rest of the padding.
#[test]
fn copied_features_of_padding_hardly_change_a_mask() {
    let rect = Rect { x: 230.0, y: 150.0, width: 300.0, height: 300.0 };
    let prompt = Prompt { rect: Some(rect), ..Prompt::default() };
    let (network, exact) = &*encoded();
    let copied = network.encode(&picture().as_picture()).unwrap();
    assert_eq!(copied.features().size(), exact.features().size());
    assert!(!copied.features().equal(exact.features()));
    let mask = |embedding| network.decode(embedding, &prompt).unwrap()[0].logits.gt(0.0);
    let (a, b) = (mask(&copied), mask(exact));
    let count = |x: Tensor| x.sum(Kind::Float).double_value(&[]);
    let iou = count(a.logical_and(&b)) / count(a.logical_or(&b));
    assert!(iou > 0.97, "{iou}");
}
