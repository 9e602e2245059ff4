// SPDX-License-Identifier: MPL-2.0

//! Tracks a drawn clip with the built-in model; the object is covered for a second.

use gstfastganseg::device::DeviceChoice;
use gstfastganseg::image::{Picture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::tracker::{Options, Presence, Tracker};

const WIDTH: usize = 480;
const HEIGHT: usize = 270;
const COVERED: std::ops::Range<usize> = 8..38;
const FRAMES: usize = 50;

/// Whether a pixel of a frame belongs to the object: a disk that moves to the right and back.
fn inside(frame: usize, x: usize, y: usize) -> bool {
    let middle = (180.0 + 40.0 * (frame as f64 / 15.0).sin(), 130.0 + 10.0 * (frame as f64 / 9.0).cos());
    (x as f64 - middle.0).hypot(y as f64 - middle.1) < 45.0
}

/// A striped orange disk on a textured green background, RGB.
fn draw(frame: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        if inside(frame, x, y) {
            let shift = (40.0 * (frame as f64 / 15.0).sin()) as usize;
            if ((x + 100 - shift) / 9).is_multiple_of(2) { [235, 140, 30] } else { [190, 90, 20] }
        } else {
            let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
            [40 + shade, 95 + shade, 50 + shade / 2]
        }
    };
    (0..WIDTH * HEIGHT).flat_map(pixel).collect()
}

fn view(data: &[u8]) -> Picture<'_> {
    Picture { data, width: WIDTH, height: HEIGHT, stride: 3 * WIDTH }
}

fn object(matte: &Matte) -> Vec<bool> {
    let mut data = vec![0; WIDTH * HEIGHT];
    let mut plane = PlaneMut { data: &mut data, width: WIDTH, height: HEIGHT, stride: WIDTH };
    matte.write_alpha(None, &mut plane).unwrap();
    data.into_iter().map(|alpha| alpha > 127).collect()
}

fn iou(mask: &[bool], frame: usize) -> f64 {
    let truth = |i: usize| inside(frame, i % WIDTH, i / WIDTH);
    let count = |f: &dyn Fn(usize) -> bool| (0..mask.len()).filter(|&i| f(i)).count() as f64;
    count(&|i| mask[i] && truth(i)) / count(&|i| mask[i] || truth(i))
}

#[test]
fn a_covered_object_is_lost_and_found_again() {
    let options = Options { device: DeviceChoice::Cpu, ..Options::default() };
    let mut tracker = Tracker::new(&options).unwrap();
    let alpha = (0..WIDTH * HEIGHT).map(|i| if inside(0, i % WIDTH, i / WIDTH) { 255 } else { 0 }).collect();
    let mask = ReferenceMask::from_soft(WIDTH, HEIGHT, alpha).unwrap();
    tracker.set_reference(&mut view(&draw(0)), &mask).unwrap();

    let grey = vec![128; 3 * WIDTH * HEIGHT];
    let mut ious = vec![1.0; FRAMES];
    for (frame, value) in ious.iter_mut().enumerate().skip(1) {
        let picture = if COVERED.contains(&frame) { grey.clone() } else { draw(frame) };
        let mask = object(&tracker.step(&mut view(&picture)).unwrap());
        if COVERED.contains(&frame) {
            assert!(!mask.contains(&true), "frame {frame}: the object is covered");
            let lost = tracker.presence() == Presence::Lost;
            assert_eq!(lost, frame >= COVERED.start + 2, "frame {frame}");
        } else {
            *value = iou(&mask, frame);
        }
    }
    let before = ious[COVERED.start - 1];
    assert!(before > 0.8, "{before}");
    let found = (COVERED.end..COVERED.end + 10).find(|&frame| ious[frame] > before - 0.1);
    assert!(found.is_some(), "{:?} after {before}", &ious[COVERED.end..]);
    assert_eq!(tracker.presence(), Presence::Seen);
    assert!(ious[FRAMES - 1] > before - 0.1);
}
