// SPDX-License-Identifier: MPL-2.0

//! Properties that change while playing, and statistics.

use gst::prelude::*;
use gst_controller::prelude::*;
use gstreamer as gst;
use gstreamer_controller as gst_controller;

use crate::child;
use crate::util::*;

#[test]
fn defaults_and_ranges() {
    let element = element();
    let default = |name: &str| element.find_property(name).unwrap().default_value().clone();
    for name in ["feather", "expand"] {
        assert_eq!(default(name).get::<f64>().unwrap(), 0.0, "{name}");
        assert_eq!(element.property::<f64>(name), 0.0, "{name}");
    }
    assert_eq!(element.property::<u32>("inference-interval"), 1);
    for (name, values) in
        [("edges", ["refine", "bilinear"]), ("late-policy", ["hold", "drop"]), ("roi", ["auto", "off"])]
    {
        let nick = || {
            let value = element.property_value(name);
            glib::EnumValue::from_value(&value).map(|(_, value)| value.nick().to_owned()).unwrap()
        };
        assert_eq!(nick(), values[0]);
        for value in values.into_iter().rev() {
            element.set_property_from_str(name, value);
            assert_eq!(nick(), value);
        }
    }
    let range = |name: &str| {
        let spec = element.find_property(name).unwrap();
        let spec = spec.downcast::<glib::ParamSpecDouble>().unwrap();
        (spec.minimum(), spec.maximum())
    };
    assert_eq!(range("threshold"), (0.0, 1.0));
    assert_eq!(range("feather").0, 0.0);
    assert_eq!(range("expand").0, -range("expand").1);
}

#[test]
fn matte_settings_are_controlled_per_buffer() {
    let (_files, element) = masked(disc);
    for (name, later) in
        [("feather", 2.0), ("expand", -3.0), ("threshold", 0.25), ("inference-interval", 5.0)]
    {
        let source = gst_controller::InterpolationControlSource::new();
        source.set_mode(gst_controller::InterpolationMode::None);
        source.set(gst::ClockTime::ZERO, 1.0);
        source.set(gst::ClockTime::from_mseconds(50), later);
        let binding = gst_controller::DirectControlBinding::new_absolute(&element, name, &source);
        element.add_control_binding(&binding).unwrap();
    }
    let (mut harness, info) = mask_output(&element);
    let now = || {
        let value = |name: &str| element.property::<f64>(name);
        (value("feather"), value("expand"), value("threshold"), element.property::<u32>("inference-interval"))
    };
    values(&mut harness, frame(&info, 1));
    assert_eq!(now(), (1.0, 1.0, 1.0, 1));
    values(&mut harness, frame(&info, 2));
    assert_eq!(now(), (2.0, -3.0, 0.25, 5));
}

#[test]
fn the_network_runs_on_every_nth_frame() {
    let (_files, element) = masked(ramp);
    element.set_property("inference-interval", 3u32);
    let (mut harness, info) = mask_output(&element);
    let mut runs = 0;
    let mut push = |number: u64, change: &dyn Fn()| -> (bool, Vec<u8>) {
        change();
        let values = values(&mut harness, frame(&info, number));
        let before = std::mem::replace(&mut runs, count(&element, "inferences"));
        (runs > before, values)
    };
    let (ran, first) = push(0, &|| ());
    assert!(ran && first == pixels(ramp));
    for number in 1..3 {
        assert_eq!(push(number, &|| ()), (false, first.clone()), "frame {number}");
    }
    let (ran, second) = push(3, &|| ());
    assert!(ran && second != first);
    assert_eq!(push(4, &|| ()), (false, second));
    assert!(
        push(5, &|| element.set_property("inference-interval", 2u32)).0,
        "a new interval applies at once"
    );
    assert!(!push(6, &|| ()).0);
    assert!(push(7, &|| ()).0);
    assert_eq!((count(&element, "frames"), count(&element, "held")), (8, 4));
}

#[test]
fn a_held_matte_is_applied_to_the_current_frame() {
    let (_files, element) = masked(disc);
    element.set_property("inference-interval", 100u32);
    let info = info(gstreamer_video::VideoFormat::I420, 64, 48);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    for (number, grey) in [(0, 50), (1, 100), (2, 150)] {
        let mut buffer = gst::Buffer::from_mut_slice(vec![grey; info.size()]);
        stamp(&mut buffer, number);
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        let info = src_info(&harness);
        assert!(plane(&out, &info, 0, 1).iter().all(|&luma| luma == grey));
        assert_eq!(alpha(&out, &info), pixels(disc));
    }
    assert_eq!(count(&element, "inferences"), 1);

    element.set_property("invert", true);
    harness.push(frame(&info, 3)).unwrap();
    let out = harness.pull().unwrap();
    assert_eq!(alpha(&out, &src_info(&harness))[0], 255, "matte settings apply to a held matte");
}

#[test]
fn nothing_is_held_across_references_and_seeks() {
    let (files, element) = masked(ramp);
    element.set_property("inference-interval", 1000u32);
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    assert_eq!(values(&mut harness, frame(&info, 1)), pixels(ramp));
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);

    let mask = files.mask("other.png", (64, 48), disc);
    element.set_property("ref-mask", mask.to_str().unwrap());
    assert_eq!(next_message(&bus), "armed");
    assert_eq!(values(&mut harness, frame(&info, 2)), pixels(disc));

    flush(&mut harness);
    assert_ne!(values(&mut harness, frame(&info, 0)), pixels(disc), "after a seek");
    let before = count(&element, "inferences");
    let mut jump = frame(&info, 3000);
    jump.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
    values(&mut harness, jump);
    assert_eq!(count(&element, "inferences"), before + 1);
}

#[test]
fn without_a_reference_nothing_is_held() {
    let element = element();
    element.set_property("inference-interval", 3u32);
    let (mut harness, info) = mask_output(&element);
    for number in 0..4 {
        assert!(values(&mut harness, frame(&info, number)).iter().all(|&value| value == 255));
    }
    let counts = ["frames", "inferences", "held", "dropped"].map(|name| count(&element, name));
    assert_eq!(counts, [4, 0, 0, 0]);
}

#[test]
fn statistics_count_frames_and_times() {
    let (_files, element) = masked(disc);
    assert_eq!(reference_state(&element), "none");
    let (mut harness, info) = mask_output(&element);
    assert_eq!(reference_state(&element), "armed");
    for number in 0..3 {
        values(&mut harness, frame(&info, number));
    }
    assert_eq!(reference_state(&element), "seeded");
    let stats = element.property::<gst::Structure>("stats");
    assert_eq!(stats.name(), "fastganseg-stats");
    assert_eq!((count(&element, "frames"), count(&element, "inferences")), (3, 3));
    let time = |name: &str| stats.get::<f64>(name).unwrap();
    assert!(time("mean-inference-ms") > 0.0);
    assert!(time("p99-inference-ms") >= time("mean-inference-ms"));
    assert!(time("mean-total-ms") > time("mean-inference-ms"), "{stats}");
    assert!((0.0..=1.0).contains(&time("confidence")), "{stats}");
    assert_eq!(stats.get::<&str>("device").unwrap(), "cpu");

    element.set_state(gst::State::Ready).unwrap();
    let stats = element.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<Option<&str>>("device").unwrap(), None);
    assert_eq!(reference_state(&element), "none");
    assert_eq!(count(&element, "frames"), 3, "readable after the element has stopped");
    element.set_state(gst::State::Paused).unwrap();
    assert_eq!(count(&element, "frames"), 0, "counters restart with the element");
}

#[test]
fn the_threads_property_sets_the_network_threads() {
    child::passes("settings::threads_alone", &[("OMP_NUM_THREADS", "2")]);
}

/// The network runs on the thread that pushes buffers, which is that of the test.
#[test]
#[ignore = "a process of its own for the_threads_property_sets_the_network_threads"]
fn threads_alone() {
    let files = Files::new();
    let threads_with = |threads: Option<u32>| {
        let element = with_mask(&files.mask("mask.png", (64, 48), disc));
        if let Some(threads) = threads {
            element.set_property("threads", threads);
        }
        let (mut harness, info) = mask_output(&element);
        values(&mut harness, frame(&info, 0));
        values(&mut harness, frame(&info, 1));
        tch::get_num_threads()
    };
    let process_wide = || std::thread::spawn(tch::get_num_threads).join().unwrap();
    assert!((1..=2).contains(&threads_with(None)), "automatic: at most OMP_NUM_THREADS");
    assert_eq!(threads_with(Some(3)), 3);
    assert_eq!(process_wide(), 2, "other threads keep their number");
    assert!((1..=2).contains(&threads_with(None)));
    assert_eq!(threads_with(Some(1)), 1);
    assert_eq!(process_wide(), 2);
}
