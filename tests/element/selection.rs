// SPDX-License-Identifier: MPL-2.0

//! References from boxes and points.

use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_check::Harness;
use gstreamer_video::{NavigationEvent, NavigationModifierType, VideoFormat};

use crate::util::*;

const SIZE: (u32, u32) = (320, 180);
/// Left, top, width and height of the object.
const OBJECT: (usize, usize, usize, usize) = (120, 50, 80, 90);

fn inside(x: usize, y: usize) -> bool {
    let (left, top, width, height) = OBJECT;
    (left..left + width).contains(&x) && (top..top + height).contains(&y)
}

/// A striped orange rectangle on a textured green background, RGB.
fn picture(number: u64) -> gst::Buffer {
    let pixel = |i: usize| {
        let (x, y) = (i % SIZE.0 as usize, i / SIZE.0 as usize);
        if inside(x, y) {
            if x / 9 % 2 == 0 { [235, 140, 30] } else { [215, 120, 25] }
        } else {
            let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
            [40 + shade, 95 + shade, 50 + shade / 2]
        }
    };
    let mut buffer =
        gst::Buffer::from_mut_slice((0..(SIZE.0 * SIZE.1) as usize).flat_map(pixel).collect::<Vec<u8>>());
    stamp(&mut buffer, number);
    buffer
}

fn rectangle(values: [f64; 4]) -> gst::Array {
    gst::Array::new(values)
}

fn tight() -> [f64; 4] {
    let (x, y, width, height) = OBJECT;
    [x, y, width, height].map(|value| value as f64)
}

fn select_tight(element: &gst::Element) {
    let [x, y, width, height] = tight();
    element.emit_by_name::<()>("select-box", &[&x, &y, &width, &height]);
}

fn points(values: &[[f64; 3]]) -> gst::Array {
    gst::Array::new(values.iter().map(|point| gst::Array::new(*point)))
}

fn new_element() -> gst::Element {
    let element = element();
    element.set_property("device", "cpu");
    element
}

fn interactive_element() -> gst::Element {
    let element = new_element();
    element.set_property("interactive", true);
    element
}

/// An element whose `ref-mask` shows the object of [`picture`].
fn with_object_mask(files: &Files) -> gst::Element {
    with_mask(&files.mask("mask.png", (320, 180), |x, y| if inside(x, y) { 255 } else { 0 }))
}

fn start(element: &gst::Element) -> Harness {
    let mut harness = harness(element, &info(VideoFormat::Rgb, SIZE.0, SIZE.1).to_caps().unwrap());
    // A harness is live unless told otherwise.
    harness.set_live(false);
    harness
}

/// Intersection over union of the alpha of the next frame with the object.
fn overlap(harness: &mut Harness, number: u64) -> f64 {
    overlap_with(harness, picture(number), inside)
}

/// Colour of the output at (x, y) for the next frame.
fn pixel(harness: &mut Harness, number: u64, (x, y): (usize, usize)) -> [u8; 3] {
    harness.push(picture(number)).unwrap();
    let buffer = harness.pull().unwrap();
    let map = buffer.map_readable().unwrap();
    let start = 3 * (y * SIZE.0 as usize + x);
    [map[start], map[start + 1], map[start + 2]]
}

#[test]
fn a_box_selects_the_object_of_the_first_frame() {
    let element = new_element();
    let bus = bus(&element);
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    for number in 0..3 {
        let overlap = overlap(&mut harness, number);
        assert!(overlap > 0.9, "frame {number}: {overlap}");
    }
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    assert_no_messages(&bus);
}

#[test]
fn points_select_and_signals_select_anew_while_playing() {
    let element = new_element();
    element.set_property("ref-points", points(&[[160.0, 95.0, 1.0], [20.0, 20.0, 0.0]]));
    let mut harness = start(&element);
    let first = overlap(&mut harness, 0);
    assert!(first > 0.8, "{first}");
    select_tight(&element);
    let second = overlap(&mut harness, 1);
    assert!(second > 0.9, "{second}");
    element.emit_by_name::<()>("select-point", &[&160.0, &95.0, &true]);
    let third = overlap(&mut harness, 2);
    assert!(third > 0.8, "{third}");
}

#[test]
fn invalid_selections_at_the_start_are_errors() {
    for (name, value, words) in [
        ("ref-box", gst::Array::new([1.0, 2.0, 3.0]), "four numbers"),
        ("ref-box", gst::Array::new(["a", "b", "c", "d"]), "four numbers"),
        ("ref-box", rectangle([f64::NAN, 0.0, 5.0, 5.0]), "four numbers"),
        ("ref-points", points(&[[1.0, 2.0, 0.5]]), "label 1"),
        ("ref-points", points(&[[1.0, f64::INFINITY, 1.0]]), "label 1"),
        ("ref-points", gst::Array::new([1.0]), "ref-points"),
    ] {
        let element = new_element();
        let bus = bus(&element);
        element.set_property(name, value);
        assert!(element.set_state(gst::State::Paused).is_err(), "{name}");
        let message = next_message(&bus);
        assert!(message.starts_with("error") && message.contains(words), "{words}: {message}");
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_selection_outside_the_first_frame_ends_the_stream_and_a_later_one_is_a_warning() {
    for values in [[10.0, 10.0, 400.0, 20.0], [5.0, 5.0, 0.0, 9.0]] {
        let element = new_element();
        let bus = bus(&element);
        element.set_property("ref-box", rectangle(values));
        let mut harness = start(&element);
        assert!(harness.push(picture(0)).is_err(), "{values:?}");
        let message = next_message(&bus);
        assert!(message.starts_with("error") && message.contains("the box"), "{message}");
    }
    let files = Files::new();
    let element = with_object_mask(&files);
    let bus = bus(&element);
    let mut harness = start(&element);
    assert!(overlap(&mut harness, 0) > 0.99);
    element.emit_by_name::<()>("select-point", &[&999.0, &10.0, &true]);
    assert!(overlap(&mut harness, 1) > 0.8, "the earlier reference stays");
    let warning = warning(&bus);
    assert!(warning.contains("outside"), "{warning}");
}

#[test]
fn a_bad_signal_is_a_warning_also_without_a_reference() {
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    harness.push(picture(0)).unwrap();
    assert!(warning(&bus).contains("no reference"));
    let mut next = |words: &str| {
        harness.push(picture(1)).unwrap();
        let warning = warning(&bus);
        assert!(warning.contains(words), "{warning}");
    };
    for (x, y) in [(-5.0, 10.0), (f64::NAN, 3.0), (999.0, 10.0)] {
        element.emit_by_name::<()>("select-point", &[&x, &y, &true]);
        next("outside");
    }
    element.emit_by_name::<()>("select-box", &[&-50.0, &-9.0, &tight()[2], &3.0]);
    next("not inside");
    element.emit_by_name::<()>("select-point", &[&5.0, &5.0, &false]);
    next("neither a box nor a point");
}

#[test]
fn ref_mask_takes_precedence_over_a_box() {
    let files = Files::new();
    let left = files.mask("left.png", (320, 180), |x, _| if x < 160 { 255 } else { 0 });
    let element = with_mask(&left);
    let bus = bus(&element);
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    assert!(overlap(&mut harness, 0) < 0.5);
    let warning = warning(&bus);
    assert!(warning.contains("ref-mask is set"), "{warning}");
}

#[test]
fn live_frames_do_not_wait_for_a_selection() {
    let element = new_element();
    let bus = bus(&element);
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    harness.set_live(true);
    harness.push(picture(0)).unwrap();
    let first = alpha(&harness.pull().unwrap(), &src_info(&harness));
    assert!(first.iter().all(|&value| value == 255), "opaque until the mask is there");
    let begun = Instant::now();
    let found = (1..).find(|&number| {
        std::thread::sleep(Duration::from_millis(30));
        overlap(&mut harness, number) > 0.8 || begun.elapsed() > Duration::from_secs(60)
    });
    assert!(found.is_some_and(|number| number > 1) && begun.elapsed() < Duration::from_secs(60), "{found:?}");
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
}

/// Presses a button at one position and releases it at another.
fn drag(harness: &mut Harness, button: i32, from: (f64, f64), to: (f64, f64)) {
    let modifiers = NavigationModifierType::empty();
    let press = NavigationEvent::MouseButtonPress { button, x: from.0, y: from.1, modifier_state: modifiers };
    let release = NavigationEvent::MouseButtonRelease { button, x: to.0, y: to.1, modifier_state: modifiers };
    for event in [press, release] {
        let event = gst::event::Navigation::new(event.structure());
        assert!(harness.push_upstream_event(event));
    }
}

/// Pushes frames until `wanted` accepts the overlap with the object, for a minute at most.
fn wait_for(harness: &mut Harness, number: &mut u64, wanted: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        *number += 1;
        let overlap = overlap(harness, *number);
        if wanted(overlap) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{overlap}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Pushes a frame, in which the selection is made, and one in which it becomes the reference.
fn wait_for_seed(harness: &mut Harness, number: &mut u64, bus: &gst::Bus) {
    for state in ["armed", "seeded"] {
        *number += 1;
        overlap(harness, *number);
        assert_eq!(next_message(bus), state);
    }
}

#[test]
fn the_mouse_selects_corrects_and_clears() {
    let element = interactive_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    let mut number = 0;
    let opaque = |overlap: f64| overlap < 0.2;
    wait_for(&mut harness, &mut number, opaque);
    let upstream = harness.upstream_events_received();

    // A click.
    drag(&mut harness, 1, (160.0, 95.0), (160.0, 95.0));
    wait_for(&mut harness, &mut number, |overlap| overlap > 0.8);
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    // A right click beside the object corrects nothing; the mask stays that of the object.
    drag(&mut harness, 3, (20.0, 20.0), (20.0, 20.0));
    wait_for_seed(&mut harness, &mut number, &bus);
    wait_for(&mut harness, &mut number, |overlap| overlap > 0.8);
    // A box.
    drag(&mut harness, 1, (115.0, 45.0), (205.0, 145.0));
    wait_for_seed(&mut harness, &mut number, &bus);
    wait_for(&mut harness, &mut number, |overlap| overlap > 0.9);
    press_key(&mut harness, "Escape");
    wait_for(&mut harness, &mut number, opaque);
    assert_eq!(reference_state(&element), "none");
    assert_eq!(harness.upstream_events_received(), upstream, "handled events are not passed on");
    drag(&mut harness, 1, (-5.0, 10.0), (-5.0, 10.0));
    assert_eq!(harness.upstream_events_received(), upstream + 2, "events beside the picture are");
}

/// The background of [`picture`] with a blue, chequered square that has nothing of the object.
fn other_look(number: u64) -> gst::Buffer {
    let mut buffer = picture(number);
    let pixels = buffer.get_mut().unwrap();
    let mut pixels = pixels.map_writable().unwrap();
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % SIZE.0 as usize, i / SIZE.0 as usize);
        let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
        pixel.copy_from_slice(&match (inside_other(x, y), (x / 8 + y / 8) % 2) {
            (true, 0) => [25, 30, 210],
            (true, _) => [120, 150, 250],
            (false, _) => [40 + shade, 95 + shade, 50 + shade / 2],
        });
    }
    drop(pixels);
    buffer
}

fn inside_other(x: usize, y: usize) -> bool {
    (40..110).contains(&x) && (90..160).contains(&y)
}

/// Intersection over union of the alpha of a buffer with `truth`.
fn overlap_with(harness: &mut Harness, buffer: gst::Buffer, truth: fn(usize, usize) -> bool) -> f64 {
    harness.push(buffer).unwrap();
    let alpha = alpha(&harness.pull().unwrap(), &src_info(harness));
    let (mut both, mut either) = (0, 0);
    for (i, value) in alpha.iter().enumerate() {
        let truth = truth(i % SIZE.0 as usize, i / SIZE.0 as usize);
        both += usize::from(*value > 127 && truth);
        either += usize::from(*value > 127 || truth);
    }
    f64::from(both as u32) / f64::from(either.max(1) as u32)
}

/// A grey mask of the size of [`picture`].
fn grey_sample(value: fn(usize, usize) -> u8) -> gst::Sample {
    let width = SIZE.0 as usize;
    let values: Vec<u8> = (0..width * SIZE.1 as usize).map(|i| value(i % width, i / width)).collect();
    let caps = info(VideoFormat::Gray8, SIZE.0, SIZE.1).to_caps().unwrap();
    gst::Sample::builder().buffer(&gst::Buffer::from_slice(values)).caps(&caps).build()
}

#[test]
fn an_added_reference_shows_another_look_and_the_first_one_stays_in_use() {
    let files = Files::new();
    let element = with_object_mask(&files);
    let bus = bus(&element);
    let mut harness = start(&element);
    let mut number = 0;
    let mut frames = |harness: &mut Harness, other: bool| -> Vec<f64> {
        let mut frame = || {
            number += 1;
            match other {
                true => overlap_with(harness, other_look(number), inside_other),
                false => overlap_with(harness, picture(number), inside),
            }
        };
        [(); 6].map(|()| frame()).to_vec()
    };
    let first = frames(&mut harness, false);
    assert!(first.iter().all(|&overlap| overlap > 0.9), "{first:?}");
    let unknown = frames(&mut harness, true);
    assert!(unknown.iter().all(|&overlap| overlap < 0.5), "the reference does not show it: {unknown:?}");
    let other = grey_sample(|x, y| if inside_other(x, y) { 255 } else { 0 });
    assert!(element.emit_by_name::<bool>("add-reference", &[&other, &None::<gst::Sample>]));
    let added = frames(&mut harness, true);
    assert!(added.iter().all(|&overlap| overlap > 0.8), "{added:?}");
    let before = frames(&mut harness, false);
    assert!(before[2..].iter().all(|&overlap| overlap > 0.8), "the first look: {before:?}");
    let after = frames(&mut harness, true);
    assert!(after[2..].iter().all(|&overlap| overlap > 0.8), "the added look: {after:?}");

    let two = grey_sample(|x, _| (x % 3) as u8);
    assert!(!element.emit_by_name::<bool>("add-reference", &[&two, &None::<gst::Sample>]));
    let text = warning(&bus);
    assert!(text.contains("add-reference") && text.contains("object 2"), "{text}");
}

#[test]
fn a_click_corrects_the_nearest_of_several_objects() {
    let files = Files::new();
    let labels = |x: usize, y: usize| match (inside(x, y), x < 160) {
        (true, true) => 1,
        (true, false) => 2,
        (false, _) => 0,
    };
    let element = with_mask(&files.mask("mask.png", (320, 180), labels));
    element.set_property("interactive", true);
    element.set_property_from_str("output", "labels");
    let bus = bus(&element);
    let mut harness = start(&element);
    let mut number = 0;
    let mut areas = |harness: &mut Harness| {
        number += 1;
        harness.push(picture(number)).unwrap();
        let buffer = harness.pull().unwrap();
        let labels = buffer.map_readable().unwrap();
        [1, 2].map(|id| labels.iter().filter(|&&label| label == id).count() as f64 / (40.0 * 90.0))
    };
    let before = areas(&mut harness);
    assert!(before.iter().all(|area| (0.9..1.1).contains(area)), "{before:?}");
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    // The right half does not belong to the left object, but the whole rectangle looks like one.
    drag(&mut harness, 1, (125.0, 95.0), (125.0, 95.0));
    areas(&mut harness);
    assert_eq!(next_message(&bus), "armed");
    areas(&mut harness);
    assert_eq!(next_message(&bus), "seeded");
    let after = areas(&mut harness);
    assert!(after[0] + after[1] > 1.8, "both objects are still there as a whole: {after:?}");
    let stats = element.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<gst::Array>("objects").unwrap().len(), 2, "{stats}");
}

/// The process crashed when it exited before the mask was computed.
#[test]
fn the_overlay_shows_points_while_the_mask_is_computed() {
    let element = interactive_element();
    element.set_property_from_str("output", "overlay");
    let mut harness = start(&element);
    let pixel = |harness: &mut Harness, number: u64| pixel(harness, number, (150, 95));
    let plain = pixel(&mut harness, 0);
    drag(&mut harness, 1, (150.5, 95.5), (150.5, 95.5));
    assert_eq!(pixel(&mut harness, 1), [40, 220, 60], "was {plain:?}");
}

/// The point and the busy sign stayed until the next selection.
#[test]
fn the_overlay_shows_no_points_of_a_selection_that_failed() {
    let files = Files::new();
    let element = with_object_mask(&files);
    element.set_property_from_str("output", "overlay");
    let bus = bus(&element);
    let mut harness = start(&element);
    let pixel = |harness: &mut Harness, number: u64| pixel(harness, number, (20, 20));
    let plain = pixel(&mut harness, 0);
    element.emit_by_name::<()>("select-point", &[&20.5, &20.5, &false]);
    pixel(&mut harness, 1);
    assert!(warning(&bus).contains("neither a box nor a point"));
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(pixel(&mut harness, 2), plain);
}

#[test]
fn a_key_saves_the_mask_and_the_frame_for_later_use() {
    let files = Files::new();
    let element = with_object_mask(&files);
    let bus = bus(&element);
    element.set_property("interactive", true);
    let mut harness = start(&element);
    assert!(overlap(&mut harness, 0) > 0.9);
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    let upstream = harness.upstream_events_received();
    press_key(&mut harness, "s");
    assert_eq!(harness.upstream_events_received(), upstream + 1, "passed on without a location");

    let saved = files.path("saved.png");
    element.set_property("mask-location", saved.to_str().unwrap());
    press_key(&mut harness, "s");
    overlap(&mut harness, 1);
    let message =
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Element]).unwrap();
    let structure = message.structure().unwrap();
    assert_eq!(structure.name(), "fastganseg-saved");
    let frame: String = structure.get("frame").unwrap();
    assert!(frame.ends_with("saved-frame.png"), "{frame}");
    let again = with_mask(&saved);
    again.set_property("ref-image", &frame);
    let later = overlap(&mut start(&again), 2);
    assert!(later > 0.9, "{later}");

    // While no object is visible, the file is kept: a black mask would be refused.
    let before = std::fs::read(&saved).unwrap();
    press_key(&mut harness, "s");
    let mut black = gst::Buffer::from_mut_slice(vec![0; src_info(&harness).width() as usize * 180 * 3]);
    stamp(&mut black, 3);
    harness.push_and_pull(black).unwrap();
    let text = warning(&bus);
    assert!(text.contains("no object is visible"), "{text}");
    assert_eq!(std::fs::read(&saved).unwrap(), before);
    overlap(&mut harness, 4);

    element.set_property("mask-location", files.path("no/folder/mask.png").to_str().unwrap());
    press_key(&mut harness, "s");
    overlap(&mut harness, 5);
    let text = warning(&bus);
    assert!(text.contains("no/folder/mask.png") && text.contains("mask-location"), "{text}");
}

/// The object came back with id 1.
#[test]
fn a_saved_mask_of_one_object_keeps_its_id() {
    let files = Files::new();
    let element = with_mask(&files.mask("seven.png", (320, 180), |x, y| if inside(x, y) { 7 } else { 0 }));
    let bus = bus(&element);
    let saved = files.path("saved.png");
    element.set_properties(&[("interactive", &true), ("mask-location", &saved.to_str().unwrap())]);
    let mut harness = start(&element);
    assert!(overlap(&mut harness, 0) > 0.9);
    press_key(&mut harness, "s");
    overlap(&mut harness, 1);
    let is_saved = |message: &gst::Message| {
        message.structure().is_some_and(|structure| structure.name() == "fastganseg-saved")
    };
    let next = || bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Element]);
    while !is_saved(&next().expect("a message about the saved mask")) {}
    let again = with_mask(&saved);
    again.set_property("object", 7u32);
    let later = overlap(&mut start(&again), 2);
    assert!(later > 0.9, "{later}");
}

fn press_key(harness: &mut Harness, key: &str) {
    let key = NavigationEvent::KeyPress { key: key.into(), modifier_state: NavigationModifierType::empty() };
    assert!(harness.push_upstream_event(gst::event::Navigation::new(key.structure())));
}

/// Pushes frames for as long as a selection may take.
fn play(harness: &mut Harness, number: &mut u64) -> f64 {
    let begun = Instant::now();
    let mut last = 0.0;
    while begun.elapsed() < Duration::from_secs(4) {
        *number += 1;
        last = overlap(harness, *number);
        std::thread::sleep(Duration::from_millis(30));
    }
    last
}

/// The object appeared although the user had pressed `Escape` after the click.
#[test]
fn escape_ends_the_selection_that_runs() {
    let element = interactive_element();
    let mut harness = start(&element);
    let mut number = 0;
    drag(&mut harness, 1, (115.0, 45.0), (205.0, 145.0));
    overlap(&mut harness, number);
    press_key(&mut harness, "Escape");
    let last = play(&mut harness, &mut number);
    assert!(last < 0.3, "the frame is opaque: {last}");
    assert_eq!(reference_state(&element), "none");
}

/// The older selection replaced the mask when it was finished.
#[test]
fn a_mask_that_is_set_during_a_selection_stays() {
    let element = interactive_element();
    let mut harness = start(&element);
    let mut number = 0;
    drag(&mut harness, 1, (2.0, 2.0), (60.0, 60.0));
    overlap(&mut harness, number);
    let mask = grey_sample(|x, y| if inside(x, y) { 255 } else { 0 });
    assert!(element.emit_by_name::<bool>("set-reference", &[&mask, &None::<gst::Sample>]));
    let last = play(&mut harness, &mut number);
    assert!(last > 0.8, "{last}");
}

/// The second correction was made from the mask before the first one, which was lost.
#[test]
fn clicks_in_quick_succession_all_count() {
    let element = interactive_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    drag(&mut harness, 1, (115.0, 45.0), (205.0, 145.0));
    overlap(&mut harness, 0);
    drag(&mut harness, 3, (20.0, 20.0), (20.0, 20.0));
    drag(&mut harness, 3, (40.0, 160.0), (40.0, 160.0));
    let mut number = 0;
    // The selection, in one or two steps, then one correction with both clicks, and nothing for a while.
    let mut states = Vec::new();
    let armed = |states: &[String]| states.iter().filter(|state| *state == "armed").count();
    let (begun, mut last) = (Instant::now(), Instant::now());
    while begun.elapsed() < Duration::from_secs(60)
        && (armed(&states) < 2 || last.elapsed() < Duration::from_secs(4))
    {
        number += 1;
        overlap(&mut harness, number);
        while let Some(message) = bus.pop_filtered(&[gst::MessageType::Element, gst::MessageType::Warning]) {
            let structure = message.structure().unwrap();
            states.push(structure.get::<String>("state").unwrap_or_else(|_| structure.name().to_string()));
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!((2..=3).contains(&armed(&states)), "{states:?}");
    assert!(overlap(&mut harness, number + 1) > 0.8);
}

/// Removing the mask also removed what the box selected, or nothing was selected at all.
#[test]
fn a_box_selects_when_the_mask_is_unset() {
    let files = Files::new();
    let left = files.mask("left.png", (320, 180), |x, _| if x < 160 { 255 } else { 0 });
    for (box_first, live) in [(true, false), (false, false), (false, true)] {
        let element = with_mask(&left);
        if box_first {
            element.set_property("ref-box", rectangle(tight()));
        }
        let mut harness = start(&element);
        harness.set_live(live);
        assert!(overlap(&mut harness, 0) < 0.5);
        element.set_property("ref-mask", None::<&str>);
        if !box_first {
            element.set_property("ref-box", rectangle(tight()));
        }
        let mut number = 0;
        wait_for(&mut harness, &mut number, |overlap| overlap > 0.9);
        for _ in 0..10 {
            number += 1;
            let overlap = overlap(&mut harness, number);
            assert!(overlap > 0.8, "box_first={box_first} live={live}: {overlap}");
        }
    }
}

/// The mask removed the request, because it was in use later than the request was made.
#[test]
fn a_selection_after_a_mask_replaces_it_however_long_the_mask_is_read() {
    let files = Files::new();
    let left = files.mask("left.png", (320, 180), |x, _| if x < 160 { 255 } else { 0 });
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    overlap(&mut harness, 0);
    assert!(warning(&bus).contains("no reference"));
    element.set_property("ref-mask", left.to_str().unwrap());
    select_tight(&element);
    assert_eq!(next_message(&bus), "armed", "the mask");
    let overlap = overlap(&mut harness, 1);
    assert!(overlap > 0.9, "{overlap}");
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
}

/// The request was dropped without a message.
#[test]
fn a_selection_before_another_stream_is_made_in_its_first_frame() {
    for by_property in [false, true] {
        let element = new_element();
        if by_property {
            element.set_property("ref-box", rectangle(tight()));
        }
        let mut harness = start(&element);
        if !by_property {
            select_tight(&element);
        }
        start_new_stream(&mut harness);
        let overlap = overlap(&mut harness, 0);
        assert!(overlap > 0.9, "by_property={by_property}: {overlap}");
    }
}

#[test]
fn another_stream_ends_selections_with_a_warning() {
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    harness.set_live(true);
    select_tight(&element);
    harness.push(picture(0)).unwrap();
    start_new_stream(&mut harness);
    let text = warning(&bus);
    assert!(text.contains("another stream"), "{text}");

    let files = Files::new();
    let element = with_object_mask(&files);
    element.set_property("interactive", true);
    let bus = crate::util::bus(&element);
    let mut harness = start(&element);
    overlap(&mut harness, 0);
    drag(&mut harness, 3, (20.0, 20.0), (20.0, 20.0));
    start_new_stream(&mut harness);
    let text = warning(&bus);
    assert!(text.contains("another stream"), "{text}");
}

/// Frames did not wait, and a short clip ended without a mask.
#[test]
fn the_first_frame_waits_for_the_box_also_with_interactive() {
    let element = interactive_element();
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    let overlap = overlap(&mut harness, 0);
    assert!(overlap > 0.9, "{overlap}");
}

/// [`picture`] with the object `SHIFT` pixels to the right.
fn shifted(number: u64) -> gst::Buffer {
    let original = picture(number);
    let mut buffer = original.copy_deep().unwrap();
    let (original, pixels) = (original.map_readable().unwrap(), buffer.get_mut().unwrap());
    let mut pixels = pixels.map_writable().unwrap();
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % SIZE.0 as usize, i / SIZE.0 as usize);
        let shade = ((x / 23 * 31 + y / 17 * 57) % 40) as u8;
        match inside_shifted(x, y) {
            true => pixel.copy_from_slice(&original[3 * (i - SHIFT)..][..3]),
            false => pixel.copy_from_slice(&[40 + shade, 95 + shade, 50 + shade / 2]),
        }
    }
    drop(pixels);
    buffer
}

const SHIFT: usize = 24;

fn inside_shifted(x: usize, y: usize) -> bool {
    x >= SHIFT && inside(x - SHIFT, y)
}

/// The mask of the frame before a seek was corrected with the picture after it.
#[test]
fn a_correction_uses_mask_and_picture_of_the_same_frame() {
    let files = Files::new();
    let element = with_object_mask(&files);
    element.set_property("interactive", true);
    let bus = bus(&element);
    let mut harness = start(&element);
    for number in 0..3 {
        assert!(overlap(&mut harness, number) > 0.9);
    }
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    drag(&mut harness, 3, (20.0, 20.0), (20.0, 20.0));
    flush(&mut harness);
    let mut next = |number| overlap_with(&mut harness, shifted(number), inside_shifted);
    let before = next(90);
    assert!(before > 0.8, "the object is found again: {before}");
    assert_eq!(next_message(&bus), "armed");
    for number in 91..96 {
        let after = next(number);
        assert!(after > 0.8, "frame {number}: {after}");
    }
    assert_eq!(next_message(&bus), "seeded");
}

/// Masks were wrong for some frames.
#[test]
fn an_added_reference_from_an_earlier_picture_does_not_disturb_tracking() {
    let files = Files::new();
    let element = with_object_mask(&files);
    let mut harness = start(&element);
    let mut tracked = |number| overlap_with(&mut harness, shifted(number), inside_shifted);
    for number in 0..6 {
        tracked(number);
    }
    let before = tracked(6);
    assert!(before > 0.9, "{before}");
    let mask = grey_sample(|x, y| if inside(x, y) { 255 } else { 0 });
    let caps = info(VideoFormat::Rgb, SIZE.0, SIZE.1).to_caps().unwrap();
    let image = gst::Sample::builder().buffer(&picture(0)).caps(&caps).build();
    assert!(element.emit_by_name::<bool>("add-reference", &[&mask, &Some(image)]));
    for number in 7..11 {
        let after = tracked(number);
        assert!(after > 0.9, "frame {number}: {after}, before {before}");
    }
}

/// It became a selection in place of the reference.
#[test]
fn a_correction_before_another_frame_size_remains_one() {
    let files = Files::new();
    let element = with_object_mask(&files);
    element.set_property("interactive", true);
    let bus = bus(&element);
    let mut harness = start(&element);
    overlap(&mut harness, 0);
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    drag(&mut harness, 3, (20.0, 20.0), (20.0, 20.0));
    let (small, large) = (info(VideoFormat::Rgb, SIZE.0, SIZE.1), info(VideoFormat::Rgb, 640, 360));
    assert!(harness.push_event(gst::event::Caps::new(&large.to_caps().unwrap())));
    let mut next = |number| {
        let mut buffer = converted(&picture(number), &small, &large);
        stamp(&mut buffer, number);
        harness.push_and_pull(buffer).unwrap();
    };
    next(1);
    assert_eq!(next_message(&bus), "armed");
    next(2);
    assert_eq!(next_message(&bus), "seeded");
}

/// It was an error, which ended the stream.
#[test]
fn a_bad_image_for_a_box_that_is_set_while_playing_is_a_warning() {
    let element = new_element();
    let bus = bus(&element);
    let mut harness = start(&element);
    overlap(&mut harness, 0);
    assert!(warning(&bus).contains("no reference"));
    element.set_properties(&[("ref-image", &"/nowhere.png"), ("ref-box", &rectangle(tight()))]);
    overlap(&mut harness, 1);
    let text = warning(&bus);
    assert!(text.contains("/nowhere.png"), "{text}");
    element.set_property("ref-image", None::<&str>);
    let overlap = overlap(&mut harness, 2);
    assert!(overlap > 0.9, "the box selects in the frame: {overlap}");
}

/// The image that was set first remained in use.
#[test]
fn another_image_is_selected_in_with_the_same_box() {
    let files = Files::new();
    let frame = picture(0);
    let pixels = frame.map_readable().unwrap();
    let save = |name: &str| {
        let path = files.path(name);
        image::save_buffer(&path, &pixels, SIZE.0, SIZE.1, image::ExtendedColorType::Rgb8).unwrap();
        path
    };
    let [first, second] = ["first.png", "second.png"].map(save);
    let element = new_element();
    let bus = bus(&element);
    element.set_property("ref-image", first.to_str().unwrap());
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    overlap(&mut harness, 0);
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
    element.set_property("ref-image", second.to_str().unwrap());
    assert!(overlap(&mut harness, 1) > 0.8);
    assert_eq!([(); 2].map(|()| next_message(&bus)), ["armed", "seeded"]);
}

/// They ended the stream.
#[test]
fn frames_wider_than_pictures_may_be_pass() {
    let (files, mask) = mask_file(ramp);
    let element = with_mask(&mask);
    element.set_property("interactive", true);
    element.set_property("mask-location", files.path("saved.png").to_str().unwrap());
    element.set_property_from_str("output", "mask");
    let bus = bus(&element);
    let info = info(VideoFormat::I420, 17_000, 16);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    values(&mut harness, frame(&info, 0));
    press_key(&mut harness, "s");
    values(&mut harness, frame(&info, 1));
    let begun = Instant::now();
    while !warning(&bus).contains("is not saved") {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

/// The signals selected in `ref-image`, with coordinates of the frame.
#[test]
fn signals_select_in_the_frame_and_properties_in_the_image() {
    let files = Files::new();
    let image = image::RgbImage::from_fn(64, 36, |x, y| {
        image::Rgb(if (8..24).contains(&x) && (8..24).contains(&y) { [20, 30, 230] } else { [90, 160, 90] })
    });
    let path = files.path("small.png");
    image.save(&path).unwrap();
    let element = new_element();
    element.set_property("ref-image", path.to_str().unwrap());
    let mut harness = start(&element);
    select_tight(&element);
    assert!(overlap(&mut harness, 0) > 0.9);

    for interactive in [false, true] {
        let element = new_element();
        let bus = bus(&element);
        element.set_property("ref-image", path.to_str().unwrap());
        element.set_property("interactive", interactive);
        element.set_property("ref-box", rectangle(tight()));
        assert!(element.set_state(gst::State::Paused).is_err());
        let message = next_message(&bus);
        assert!(message.contains("64x36"), "interactive={interactive}: {message}");
        element.set_state(gst::State::Null).unwrap();
    }
}

/// The box was dropped without a message.
#[test]
fn a_box_that_is_set_after_a_mask_from_memory_selects() {
    let element = new_element();
    let everything = grey_sample(|_, _| 255);
    assert!(set_reference(&element, &everything, None));
    element.set_property("ref-box", rectangle(tight()));
    assert!(overlap(&mut start(&element), 0) > 0.9);

    // In the other order, the mask applies.
    let element = new_element();
    element.set_property("ref-box", rectangle(tight()));
    assert!(set_reference(&element, &everything, None));
    assert!(overlap(&mut start(&element), 0) < 0.5);
}

/// The element locked the same state twice.
#[test]
fn a_handler_of_a_message_can_send_eos() {
    let files = Files::new();
    let element = with_object_mask(&files);
    let bus = bus(&element);
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (flag, weak) = (sent.clone(), element.downgrade());
    bus.set_sync_handler(move |_, message| {
        let state = message.structure().and_then(|structure| structure.get::<String>("state").ok());
        if state.as_deref() == Some("seeded")
            && let Some(pad) = weak.upgrade().and_then(|element| element.static_pad("sink"))
        {
            pad.send_event(gst::event::Eos::new());
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        gst::BusSyncReply::Pass
    });
    let mut harness = start(&element);
    crate::watchdog::ends_within(Duration::from_secs(60), move || {
        let _ = harness.push(picture(0));
    });
    assert!(sent.load(std::sync::atomic::Ordering::SeqCst));
}

/// The signals were lost.
#[test]
fn signals_before_the_start_select_in_the_first_frame() {
    let element = new_element();
    select_tight(&element);
    let mut harness = start(&element);
    let overlap = overlap(&mut harness, 0);
    assert!(overlap > 0.9, "{overlap}");
}

/// The element waited for the thread that stopped it.
#[test]
fn a_message_of_a_selection_can_stop_the_element() {
    let element = interactive_element();
    let bus = bus(&element);
    let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (flag, weak) = (stopped.clone(), element.downgrade());
    bus.set_sync_handler(move |_, message| {
        let is_armed =
            message.structure().is_some_and(|structure| structure.name() == "fastganseg-reference");
        if is_armed && let Some(element) = weak.upgrade() {
            element.set_state(gst::State::Null).unwrap();
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        gst::BusSyncReply::Pass
    });
    let mut harness = start(&element);
    drag(&mut harness, 1, (115.0, 45.0), (205.0, 145.0));
    harness.push(picture(0)).unwrap();
    let begun = Instant::now();
    while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

/// The flush waited for the selection, which was then lost.
#[test]
fn a_selection_that_a_flush_ends_is_made_in_the_next_frame() {
    let element = new_element();
    element.set_property("ref-box", rectangle(tight()));
    let mut harness = start(&element);
    let pad = element.static_pad("sink").unwrap();
    let (sender, arrived) = std::sync::mpsc::channel();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = sender.send(());
        gst::PadProbeReturn::Ok
    });
    let flush_soon = std::thread::spawn(move || {
        arrived.recv().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pad.send_event(gst::event::FlushStart::new()));
    });
    assert_eq!(harness.push(picture(0)), Err(gst::FlowError::Flushing));
    flush_soon.join().unwrap();
    flush(&mut harness);
    let overlap = overlap(&mut harness, 1);
    assert!(overlap > 0.9, "{overlap}");
}

/// The network ran while the destructors of libtorch did, which crashed.
#[test]
fn a_process_that_exits_during_a_selection_does_not_crash() {
    for delay in ["0", "50", "150", "300"] {
        let output = crate::child::run("selection::exit_alone", &[("FASTGANSEG_TEST_DELAY", delay)]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
}

#[test]
#[ignore = "run by the test above"]
fn exit_alone() {
    let delay = std::env::var("FASTGANSEG_TEST_DELAY").unwrap().parse().unwrap();
    let pipeline = Pipeline::new(
        "videotestsrc ! video/x-raw,width=320,height=180 ! fastganseg name=element ref-box=<60,40,160,100> \
         ! fakesink sync=true",
    );
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Element]).unwrap();
    pipeline.by_name("element").unwrap().emit_by_name::<()>("select-point", &[&80.0, &60.0, &true]);
    std::thread::sleep(Duration::from_millis(delay));
    std::process::exit(7);
}
