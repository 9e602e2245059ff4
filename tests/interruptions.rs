// SPDX-License-Identifier: MPL-2.0

//! Tracks drawn clips with the built-in model, through interruptions of the picture and hidden objects.

use gstfastganseg::device::DeviceChoice;
use gstfastganseg::image::{Picture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::Matte;
use gstfastganseg::torch::model::weights::{LARGE, LITE};
use gstfastganseg::tracker::{Options, Presence, Roi, Tracker};

const WIDTH: usize = 480;
const HEIGHT: usize = 270;

/// A striped ellipse that moves at constant speed. Lengths in pixels.
#[derive(Clone, Copy)]
struct Ellipse {
    middle: (f64, f64),
    radius: (f64, f64),
    motion: (f64, f64),
    colors: [[u8; 3]; 2],
}

/// Small and upright, so that its region of interest differs in shape from the frame.
const BOTTLE: Ellipse = Ellipse {
    middle: (120.0, 140.0),
    radius: (16.0, 46.0),
    motion: (0.6, 0.2),
    colors: [[235, 140, 30], [190, 90, 20]],
};
const BALL: Ellipse = Ellipse {
    middle: (350.0, 120.0),
    radius: (34.0, 34.0),
    motion: (-0.8, 0.3),
    colors: [[60, 90, 220], [150, 190, 250]],
};

impl Ellipse {
    fn covers(&self, frame: usize, x: usize, y: usize) -> bool {
        let at = |start: f64, motion: f64| start + motion * frame as f64;
        let (dx, dy) =
            (x as f64 - at(self.middle.0, self.motion.0), y as f64 - at(self.middle.1, self.motion.1));
        (dx / self.radius.0).hypot(dy / self.radius.1) < 1.0
    }
}

/// Draws the objects on a textured background of the given base colour, RGB.
fn draw(objects: &[Ellipse], frame: usize, background: [u8; 3]) -> Vec<u8> {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        match objects.iter().find(|object| object.covers(frame, x, y)) {
            Some(object) => object.colors[(y + 2 * frame) / 9 % 2],
            None => {
                let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
                background.map(|value| value + shade)
            }
        }
    };
    (0..WIDTH * HEIGHT).flat_map(pixel).collect()
}

const BACKGROUND: [u8; 3] = [40, 95, 50];

/// An unrelated scene with another object.
fn other_scene(frame: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let wave = (60.0 + 50.0 * (x as f64 / 70.0 + frame as f64 / 20.0).sin()) as u8;
        let walker = x.abs_diff(90 + frame) < 25 && y > 90;
        if walker { [230, 225, 235 - wave / 4] } else { [wave + (y / 4) as u8, wave, 120 - wave / 2] }
    };
    (0..WIDTH * HEIGHT).flat_map(pixel).collect()
}

fn tracker(objects: &[Ellipse], roi: Roi) -> Tracker {
    tracker_from(&draw(objects, 0, BACKGROUND), objects, roi)
}

/// A tracker of the objects in `picture`, which shows them in frame 0.
fn tracker_from(picture: &[u8], objects: &[Ellipse], roi: Roi) -> Tracker {
    tracker_of(LITE, picture, objects, roi)
}

fn tracker_of(model: &str, picture: &[u8], objects: &[Ellipse], roi: Roi) -> Tracker {
    let options = Options { model: Some(model.into()), device: DeviceChoice::Cpu, roi, ..Options::default() };
    let mut tracker = Tracker::new(&options).unwrap();
    let id = |i: usize| {
        let object = objects.iter().position(|object| object.covers(0, i % WIDTH, i / WIDTH));
        object.map_or(0, |index| index as u8 + 1)
    };
    let ids: Vec<u8> = (0..WIDTH * HEIGHT).map(id).collect();
    let mask = ReferenceMask::from_labels(WIDTH, HEIGHT, &ids).unwrap();
    tracker.set_reference(&mut view(picture), &mask).unwrap();
    tracker
}

fn view(data: &[u8]) -> Picture<'_> {
    Picture { data, width: WIDTH, height: HEIGHT, stride: 3 * WIDTH }
}

/// Intersection over union of an object's mask with the ground truth; 1 if both are empty.
fn iou(matte: &Matte, id: u8, truth: impl Fn(usize, usize) -> bool) -> f64 {
    let mut data = vec![0; WIDTH * HEIGHT];
    let mut plane = PlaneMut { data: &mut data, width: WIDTH, height: HEIGHT, stride: WIDTH };
    matte.write_alpha(Some(id), &mut plane).unwrap();
    let (mut both, mut either) = (0, 0);
    for (i, alpha) in data.into_iter().enumerate() {
        let (found, drawn) = (alpha > 127, truth(i % WIDTH, i / WIDTH));
        both += usize::from(found && drawn);
        either += usize::from(found || drawn);
    }
    if either == 0 { 1.0 } else { f64::from(both as u32) / f64::from(either as u32) }
}

/// Tracks the bottle through `length` frames of `cover`. Returns the IoU of the frame before them and of the second
/// frame after them. With `hides`, the mask must be empty during the interruption.
fn track_through(roi: Roi, length: usize, hides: bool, cover: impl Fn(usize) -> Vec<u8>) -> (f64, f64) {
    const START: usize = 8;
    let objects = [BOTTLE];
    let mut tracker = tracker(&objects, roi);
    let mut ious = vec![1.0; START + length + 4];
    for (frame, value) in ious.iter_mut().enumerate().skip(1) {
        let covered = (START..START + length).contains(&frame);
        let picture = if covered { cover(frame) } else { draw(&objects, frame, BACKGROUND) };
        let matte = tracker.step(&mut view(&picture)).unwrap();
        *value = iou(&matte, 1, |x, y| !covered && BOTTLE.covers(frame, x, y));
        assert!(!covered || !hides || *value == 1.0, "{roi:?}: frame {frame} does not show the object");
    }
    (ious[START - 1], ious[START + length + 1])
}

#[test]
fn an_object_is_back_two_frames_after_an_interruption() {
    let plain = |color: [u8; 3]| move |_| color.repeat(WIDTH * HEIGHT);
    for roi in [Roi::Auto, Roi::Frame, Roi::Off] {
        for length in [2, 20] {
            let cases = [
                ("black", track_through(roi, length, true, plain([0; 3]))),
                ("green", track_through(roi, length, true, plain([0, 135, 0]))),
                ("frozen", track_through(roi, length, false, |_| draw(&[BOTTLE], 7, BACKGROUND))),
                ("other scene", track_through(roi, length, true, other_scene)),
            ];
            for (name, (before, after)) in cases {
                assert!(before > 0.8, "{name}, {roi:?}: {before}");
                assert!(after > before - 0.05, "{length} frames of {name}, {roi:?}: {after} after {before}");
            }
        }
    }
}

#[test]
fn both_built_in_models_track_two_objects_through_black_frames() {
    let objects = [BOTTLE, BALL];
    for model in [LITE, LARGE] {
        let mut tracker = tracker_of(model, &draw(&objects, 0, BACKGROUND), &objects, Roi::Auto);
        for frame in 1..16 {
            let covered = (8..10).contains(&frame);
            let picture =
                if covered { vec![0; 3 * WIDTH * HEIGHT] } else { draw(&objects, frame, BACKGROUND) };
            let matte = tracker.step(&mut view(&picture)).unwrap();
            for (id, object) in (1..).zip(&objects).filter(|_| frame != 10) {
                let found = iou(&matte, id, |x, y| !covered && object.covers(frame, x, y));
                assert!(found > 0.8, "{model}, frame {frame}, object {id}: {found}");
            }
        }
    }
}

#[test]
fn a_hidden_object_of_two_is_found_again_and_the_other_keeps_its_quality() {
    const HIDDEN: std::ops::Range<usize> = 8..28;
    let run = |roi: Roi| {
        let mut tracker = tracker(&[BOTTLE, BALL], roi);
        let (mut visible, mut found, mut lost) = (Vec::new(), 0.0, 0);
        for frame in 1..36 {
            let hidden = HIDDEN.contains(&frame);
            let objects = if hidden { &[BOTTLE][..] } else { &[BOTTLE, BALL] };
            let matte = tracker.step(&mut view(&draw(objects, frame, BACKGROUND))).unwrap();
            visible.push(iou(&matte, 1, |x, y| BOTTLE.covers(frame, x, y)));
            found = iou(&matte, 2, |x, y| !hidden && BALL.covers(frame, x, y));
            let present: Vec<bool> = tracker.present().collect();
            assert!(present[0], "{roi:?}: frame {frame}");
            lost += usize::from(!present[1]);
            if (HIDDEN.start + 4..HIDDEN.end).contains(&frame) {
                assert!(!present[1], "{roi:?}: frame {frame}: the object is hidden");
            }
        }
        assert!((14..24).contains(&lost), "{roi:?}: lost in {lost} frames");
        (visible.iter().sum::<f64>() / visible.len() as f64, found)
    };
    let (off, found) = run(Roi::Off);
    assert!(found > 0.8, "{found}");
    for roi in [Roi::Auto, Roi::Frame] {
        let (visible, found) = run(roi);
        assert!(visible > off - 0.03, "{roi:?}: {visible} against {off}");
        assert!(found > 0.8, "{roi:?}: {found}");
    }
}

#[test]
fn a_covered_object_is_lost_and_found_again() {
    const COVERED: std::ops::Range<usize> = 8..38;
    let objects = [BALL];
    let mut tracker = tracker(&objects, Roi::Auto);
    let grey = vec![128; 3 * WIDTH * HEIGHT];
    let mut ious = vec![1.0; 50];
    for (frame, value) in ious.iter_mut().enumerate().skip(1) {
        let covered = COVERED.contains(&frame);
        let picture = if covered { grey.clone() } else { draw(&objects, frame, BACKGROUND) };
        let matte = tracker.step(&mut view(&picture)).unwrap();
        *value = iou(&matte, 1, |x, y| !covered && BALL.covers(frame, x, y));
        if covered {
            assert_eq!(*value, 1.0, "frame {frame}: the mask is not empty");
            let lost = tracker.presence() == Presence::Lost;
            assert_eq!(lost, frame >= COVERED.start + 2, "frame {frame}");
        }
    }
    let before = ious[COVERED.start - 1];
    assert!(before > 0.8, "{before}");
    let after = &ious[COVERED.end..];
    assert!(after[..10].iter().any(|iou| *iou > before - 0.1), "{after:?} after {before}");
    assert_eq!(tracker.presence(), Presence::Seen);
    assert!(ious[49] > before - 0.1);
}

/// All look-alikes were included.
#[test]
fn after_a_gap_an_object_among_look_alikes_is_found_where_it_was() {
    let beside = |x: f64| Ellipse { middle: (x, 140.0), ..BOTTLE };
    let objects = [beside(240.0), beside(90.0), beside(390.0)];
    let picture = draw(&objects, 0, BACKGROUND);
    let inside = |x: usize, y: usize| objects[0].covers(0, x, y);
    let mut tracker = tracker_from(&picture, &objects[..1], Roi::Auto);
    tracker.relocate(&mut view(&picture)).unwrap();
    let found = iou(&tracker.step(&mut view(&picture)).unwrap(), 1, inside);
    assert!(found > 0.8, "{found}");
}

#[test]
fn after_a_gap_an_object_is_found_far_from_where_it_was() {
    for roi in [Roi::Auto, Roi::Off] {
        let mut tracker = tracker(&[BOTTLE], roi);
        let moved = Ellipse { middle: (370.0, 110.0), ..BOTTLE };
        let picture = draw(&[moved], 0, BACKGROUND);
        tracker.relocate(&mut view(&picture)).unwrap();
        let found = iou(&tracker.step(&mut view(&picture)).unwrap(), 1, |x, y| moved.covers(0, x, y));
        assert!(found > 0.6, "{roi:?}: {found}");
    }
}

/// The state from before a black frame was tried again whenever a part of the picture changed and came back.
#[test]
fn a_tracked_object_is_not_replaced_by_a_look_alike_at_its_old_place() {
    const BLACK: usize = 3;
    const MOVED: usize = 36;
    const CURTAIN: std::ops::Range<usize> = MOVED..MOVED + 5;
    let object = Ellipse { motion: (5.0, 0.0), ..BOTTLE };
    let look_alike = Ellipse { middle: (120.0, 140.0 + 6.0 * MOVED as f64), motion: (0.0, -6.0), ..BOTTLE };
    let mut tracker = tracker(&[object], Roi::Auto);
    for frame in 1..CURTAIN.end + 6 {
        let mut picture = draw(&[object, look_alike], frame.min(MOVED), BACKGROUND);
        if CURTAIN.contains(&frame) {
            let curtain = other_scene(0);
            picture[3 * WIDTH * 170..].copy_from_slice(&curtain[3 * WIDTH * 170..]);
        }
        if frame == BLACK {
            picture.fill(0);
        }
        let matte = tracker.step(&mut view(&picture)).unwrap();
        let found = iou(&matte, 1, |x, y| object.covers(frame.min(MOVED), x, y));
        assert!(found > 0.5 || frame < MOVED, "frame {frame}: {found}");
    }
}

/// Such frames counted as blank.
#[test]
fn a_small_object_on_a_plain_background_is_tracked() {
    let ball =
        Ellipse { middle: (200.0, 120.0), radius: (8.0, 8.0), motion: (2.0, 1.0), colors: [[230; 3]; 2] };
    let picture = |frame: usize| -> Vec<u8> {
        let pixel = |i: usize| if ball.covers(frame, i % WIDTH, i / WIDTH) { [230; 3] } else { [128; 3] };
        (0..WIDTH * HEIGHT).flat_map(pixel).collect()
    };
    let mut tracker = tracker_from(&picture(0), &[ball], Roi::Auto);
    for frame in 1..12 {
        let matte = tracker.step(&mut view(&picture(frame))).unwrap();
        let found = iou(&matte, 1, |x, y| ball.covers(frame, x, y));
        assert!(found > 0.7, "frame {frame}: {found}");
        let region = tracker.object_regions()[0].unwrap();
        assert!((12..=24).contains(&region.width) && (12..=24).contains(&region.height), "{region:?}");
    }
}
