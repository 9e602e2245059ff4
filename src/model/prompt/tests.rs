// SPDX-License-Identifier: MPL-2.0

use std::sync::{Mutex, MutexGuard, OnceLock};

use super::*;
use crate::image::OwnedPicture;

const SIZE: (usize, usize) = (64, 48);

fn network() -> MutexGuard<'static, PromptNetwork> {
    static NETWORK: OnceLock<Mutex<PromptNetwork>> = OnceLock::new();
    let load = || Mutex::new(PromptNetwork::load(Device::Cpu, Kind::Float).unwrap());
    NETWORK.get_or_init(load).lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A red disc of radius 8 at (44, 16) on green.
fn inside(x: usize, y: usize) -> bool {
    (x as f64 + 0.5 - 44.0).hypot(y as f64 + 0.5 - 16.0) < 8.0
}

fn disc() -> OwnedPicture {
    let pixels = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
    let rgb = pixels.flat_map(|(x, y)| if inside(x, y) { [220, 40, 30] } else { [40, 150, 60] });
    OwnedPicture::from_rgb(SIZE.0, SIZE.1, rgb.collect()).unwrap()
}

fn point(x: f64, y: f64, positive: bool) -> Prompt {
    Prompt { points: vec![Point { x, y, positive }], ..Prompt::default() }
}

fn rect(x: f64, y: f64, width: f64, height: f64) -> Prompt {
    Prompt { rect: Some(Rect { x, y, width, height }), ..Prompt::default() }
}

fn iou(alpha: &[u8]) -> f64 {
    assert_eq!(alpha.len(), SIZE.0 * SIZE.1);
    let pixels = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| inside(x, y)));
    let (mut both, mut any) = (0, 0);
    for (alpha, inside) in alpha.iter().zip(pixels) {
        both += u32::from(*alpha > 127 && inside);
        any += u32::from(*alpha > 127 || inside);
    }
    f64::from(both) / f64::from(any)
}

#[test]
fn prompts_that_select_nothing_are_refused() {
    let nan = f64::NAN;
    for (prompt, word) in [
        (Prompt::default(), "neither a box nor a point"),
        (point(5.0, 5.0, false), "neither a box nor a point"),
        (point(64.5, 5.0, true), "outside"),
        (point(5.0, -0.5, true), "outside"),
        (point(nan, 5.0, true), "outside"),
        (point(5.0, f64::INFINITY, true), "outside"),
        (rect(5.0, 5.0, 0.0, 5.0), "empty"),
        (rect(5.0, 5.0, 5.0, -5.0), "empty"),
        (rect(60.0, 5.0, 5.0, 5.0), "not inside"),
        (rect(-1.0, 5.0, 5.0, 5.0), "not inside"),
        (rect(nan, 5.0, 5.0, 5.0), "not finite"),
        (rect(5.0, 5.0, f64::INFINITY, 5.0), "not finite"),
        (
            Prompt { points: vec![Point { x: 1.0, y: 1.0, positive: true }; 65], ..Prompt::default() },
            "at most 64",
        ),
        (
            Prompt {
                mask: Some(Tensor::zeros([64, 64], (Kind::Float, Device::Cpu))),
                ..point(5.0, 5.0, true)
            },
            "256",
        ),
    ] {
        let error = prompt.check(SIZE).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        assert!(error.to_string().contains(word), "{error}");
    }
    for prompt in [point(0.0, 0.0, true), point(64.0, 48.0, true), rect(0.0, 0.0, 64.0, 48.0)] {
        prompt.check(SIZE).unwrap();
    }
}

#[test]
fn bad_prompts_and_pictures_are_refused_before_encoding() {
    let picture = disc();
    let error = network().select(&picture.as_picture(), &point(5.0, 50.0, true)).unwrap_err();
    assert!(error.to_string().contains("outside"), "{error}");
    for picture in [
        Picture { data: &[0; 10], width: 2, height: 2, stride: 6 },
        Picture { data: &[], width: 0, height: 2, stride: 0 },
        Picture { data: &[0; 10], width: 1 << 40, height: 1 << 40, stride: 6 },
    ] {
        assert!(matches!(network().encode(&picture), Err(Error::Config(_))), "{picture:?}");
    }
}

#[test]
fn a_box_and_a_click_select_a_disc() {
    let picture = disc();
    for prompt in [rect(36.0, 8.0, 16.0, 16.0), point(44.0, 16.0, true)] {
        let selection = network().select(&picture.as_picture(), &prompt).unwrap();
        let score = iou(&selection.alpha);
        println!("IoU {score:.3}, predicted {:.3}", selection.iou);
        assert!(score > 0.9, "{prompt:?}: {score}");
        assert!(selection.iou > 0.8);
    }
}

#[test]
fn candidates_have_the_size_of_the_picture() {
    let network = network();
    let embedding = network.encode(&disc().as_picture()).unwrap();
    let candidates = network.decode(&embedding, &rect(36.0, 8.0, 16.0, 16.0)).unwrap();
    assert_eq!(candidates.len(), 4);
    assert!(iou(&candidates[0].alpha().unwrap()) > 0.9);
    let stability = candidates[0].stability().unwrap();
    assert!((0.8..=1.0).contains(&stability), "{stability}");
    assert!(network.decode(&embedding, &point(70.0, 5.0, true)).is_err());
}

#[test]
fn corrections_at_other_places_than_the_picture_are_refused() {
    let (picture, alpha) = (disc(), vec![255; SIZE.0 * SIZE.1]);
    let correct = |alpha: &[u8], x: f64| {
        network().correct(&picture.as_picture(), alpha, &[Point { x, y: 5.0, positive: false }])
    };
    for (result, word) in [(correct(&alpha, 64.5), "outside"), (correct(&alpha[1..], 5.0), "another size")] {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Config(reason) if reason.contains(word)), "{error}");
    }
}

/// A mask that lacks a quarter of a small disc, in a corner of a large picture.
#[test]
fn a_positive_click_adds_what_is_missing_and_changes_nothing_else() {
    let (width, height) = (320, 240);
    let inside = |x: usize, y: usize| (x as f64 + 0.5 - 44.0).hypot(y as f64 + 0.5 - 36.0) < 20.0;
    let missing = |x: usize, y: usize| x >= 44 && y >= 36;
    let pixels = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb = pixels().flat_map(|(x, y)| if inside(x, y) { [220, 40, 30] } else { [40, 150, 60] });
    let picture = OwnedPicture::from_rgb(width, height, rgb.collect()).unwrap();
    let alpha: Vec<u8> = pixels().map(|(x, y)| u8::from(inside(x, y) && !missing(x, y)) * 255).collect();
    let points = [Point { x: 50.0, y: 42.0, positive: true }];
    let corrected = network().correct(&picture.as_picture(), &alpha, &points).unwrap();
    let wrong = pixels().zip(&corrected).filter(|&((x, y), &value)| inside(x, y) != (value > 127)).count();
    assert!(wrong < 60, "{wrong} pixels of 1257");
    let far = |(x, y): (usize, usize)| x > 100 || y > 90;
    assert!(pixels().zip(&corrected).all(|(at, &value)| !far(at) || value == 0));
}

/// The mask is the head of a figure, and the click far below it is on the rest.
#[test]
fn a_click_away_from_the_mask_adds_all_of_the_part() {
    let (width, height) = (240, 320);
    let head = |x: usize, y: usize| (100..140).contains(&x) && (20..60).contains(&y);
    let body = |x: usize, y: usize| (80..160).contains(&x) && (60..280).contains(&y);
    let pixels = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb = pixels().flat_map(|(x, y)| match (head(x, y), body(x, y)) {
        (true, _) => [220, 40, 30],
        (_, true) => [30, 60, 220],
        _ => [40, 150, 60],
    });
    let picture = OwnedPicture::from_rgb(width, height, rgb.collect()).unwrap();
    let alpha: Vec<u8> = pixels().map(|(x, y)| u8::from(head(x, y)) * 255).collect();
    let points = [Point { x: 120.0, y: 130.0, positive: true }];
    let corrected = network().correct(&picture.as_picture(), &alpha, &points).unwrap();
    let covered = pixels().zip(&corrected).filter(|&((x, y), &value)| body(x, y) && value > 127).count();
    assert!(covered > 80 * 220 * 9 / 10, "{covered} pixels of the body");
    assert!(network().correct(&picture.as_picture(), &alpha, &[]).is_err(), "no point");
}

/// A click removed the cup together with the hand that held it.
#[test]
fn a_negative_click_removes_only_the_object_at_the_click() {
    let square = |x: usize, y: usize| (20..36).contains(&x) && (8..24).contains(&y);
    let pixels = || (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
    let rgb = pixels().flat_map(|(x, y)| match (inside(x, y), square(x, y)) {
        (true, _) => [220, 40, 30],
        (_, true) => [30, 60, 220],
        _ => [40, 150, 60],
    });
    let picture = OwnedPicture::from_rgb(SIZE.0, SIZE.1, rgb.collect()).unwrap();
    let alpha: Vec<u8> = pixels().map(|(x, y)| u8::from(inside(x, y) || square(x, y)) * 255).collect();
    let points = [Point { x: 44.0, y: 16.0, positive: false }];
    let corrected = network().correct(&picture.as_picture(), &alpha, &points).unwrap();
    let left = |wanted: &dyn Fn(usize, usize) -> bool| {
        let all = pixels().filter(|&(x, y)| wanted(x, y)).count();
        let kept = pixels().zip(&corrected).filter(|&((x, y), &value)| wanted(x, y) && value > 127).count();
        kept as f64 / all as f64
    };
    assert!(left(&square) > 0.95, "{}", left(&square));
    assert!(left(&inside) < 0.05, "{}", left(&inside));
}

#[cfg(feature = "plugin")]
#[test]
fn a_box_is_clipped_to_the_picture_if_any_of_it_is_inside() {
    let clipped = |x: f64, y: f64, width: f64, height: f64| {
        let rect = Some(Rect { x, y, width, height });
        let Rect { x, y, width, height } =
            Prompt { rect, ..Prompt::default() }.clipped((60, 40)).rect.unwrap();
        [x, y, width, height]
    };
    assert_eq!(clipped(-10.0, 30.0, 20.0, 20.0), [0.0, 30.0, 10.0, 10.0]);
    assert_eq!(clipped(50.0, -5.0, 20.0, 50.0), [50.0, 0.0, 10.0, 40.0]);
    assert_eq!(clipped(1.0, 2.0, 3.0, 4.0), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(clipped(61.0, 2.0, 3.0, 4.0), [61.0, 2.0, 3.0, 4.0], "outside, an error later");
    assert!(clipped(f64::NAN, 2.0, 3.0, 4.0)[0].is_nan());
}
