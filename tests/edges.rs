// SPDX-License-Identifier: MPL-2.0

//! Edges of the built-in models' mattes on a drawn clip.

use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::image::{Picture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::{Edges, Guide, Matte, MatteSettings, PostProcessor};
use gstfastganseg::tracker::{Options, Tracker};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

fn inside(frame: usize, x: usize, y: usize) -> bool {
    let (u, v) = (500.0 + 12.0 * frame as f64, 360.0 + 5.0 * frame as f64);
    let (x, y) = (x as f64 - u, y as f64 - v);
    // A disk with lobes.
    x.hypot(y) < 180.0 + 30.0 * (7.0 * y.atan2(x)).sin()
}

/// A textured orange object on a textured blue background.
fn pixels(frame: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let texture = ((x / 20 * 5 + y / 20 * 11) % 40) as u8;
        if inside(frame, x, y) {
            [190 + texture, 110 + texture, 20]
        } else {
            [30 + texture, 50, 140 - texture]
        }
    };
    (0..WIDTH * HEIGHT).flat_map(pixel).collect()
}

fn picture(data: &[u8]) -> Picture<'_> {
    Picture { data, width: WIDTH, height: HEIGHT, stride: 3 * WIDTH }
}

fn truth(frame: usize) -> Vec<u8> {
    (0..WIDTH * HEIGHT).map(|i| if inside(frame, i % WIDTH, i / WIDTH) { 255 } else { 0 }).collect()
}

fn tracker(model: &str) -> Tracker {
    let options = Options {
        model: Some(model.into()),
        device: DeviceChoice::Cpu,
        precision: Precision::Float32,
        ..Options::default()
    };
    let mut tracker = Tracker::new(&options).unwrap();
    let mask = ReferenceMask::from_soft(WIDTH, HEIGHT, truth(0)).unwrap();
    tracker.set_reference(&mut picture(&pixels(0)), &mask).unwrap();
    tracker
}

fn alpha(matte: &Matte, edges: Edges, data: &[u8]) -> Vec<u8> {
    let settings = MatteSettings { edges, ..MatteSettings::default() };
    let mut alpha = vec![7; WIDTH * HEIGHT];
    let plane = &mut PlaneMut { data: &mut alpha, width: WIDTH, height: HEIGHT, stride: WIDTH };
    let guide = Guide::from_picture(&picture(data));
    PostProcessor::default().write_alpha(&settings, Some(matte), guide.as_ref(), plane).unwrap();
    alpha
}

#[test]
fn refined_edges_are_closer_to_those_of_the_object() {
    for model in ["lite", "large"] {
        let mut tracker = tracker(model);
        let (mut bilinear, mut refined) = (0, 0);
        for frame in 1..6 {
            let data = pixels(frame);
            let matte = tracker.step(&mut picture(&data)).unwrap();
            let truth = truth(frame);
            let error = |edges: Edges| -> u64 {
                let alpha = alpha(&matte, edges, &data);
                alpha.iter().zip(&truth).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
            };
            bilinear += error(Edges::Bilinear);
            refined += error(Edges::Refine);
        }
        println!("{model}: {bilinear} bilinear, {refined} refined");
        assert!(10 * refined < 8 * bilinear, "{model}: {bilinear} bilinear, {refined} refined");
    }
}

#[test]
fn a_held_matte_follows_the_edges_of_its_new_frame() {
    let mut tracker = tracker("lite");
    let (first, second) = (pixels(1), pixels(2));
    let held = tracker.step(&mut picture(&first)).unwrap();
    let fresh = alpha(&held, Edges::Refine, &first);
    tracker.step(&mut picture(&second)).unwrap();
    assert!(fresh == alpha(&held, Edges::Refine, &first), "later steps do not change a matte");
    assert!(fresh != alpha(&held, Edges::Refine, &second));
    assert!(alpha(&held, Edges::Bilinear, &first) == alpha(&held, Edges::Bilinear, &second));
}
