// SPDX-License-Identifier: MPL-2.0

//! Late frames and QoS.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_check::Harness;

use crate::util::*;

fn time(number: u64) -> gst::ClockTime {
    gst::ClockTime::SECOND * number / 30
}

/// Sends a QoS event: frame `number` was `late` frames late.
fn report_late(harness: &mut Harness, number: u64, late: u64) {
    let late = i64::try_from(time(late).nseconds()).unwrap();
    let event = gst::event::Qos::new(gst::QOSType::Underflow, 1.5, late, time(number));
    // The return value is meaningless: a harness is not an element.
    harness.push_upstream_event(event);
}

fn qos_messages(bus: &gst::Bus) -> Vec<gst::Message> {
    std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Qos])).collect()
}

fn late(policy: &str) -> (Files, gst::Element, Harness, gstreamer_video::VideoInfo) {
    let (files, element) = masked(ramp);
    element.set_property_from_str("late-policy", policy);
    let (harness, info) = mask_output(&element);
    (files, element, harness, info)
}

#[test]
fn late_frames_hold_the_mask() {
    let (_files, element, mut harness, info) = late("hold");
    let bus = bus(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    // Late until 0 + 2 * 2 + 1 frames.
    report_late(&mut harness, 0, 2);
    for number in 1..5 {
        assert_eq!(values(&mut harness, frame(&info, number)), pixels(ramp), "frame {number}");
    }
    assert_ne!(values(&mut harness, frame(&info, 6)), pixels(ramp), "on time again");
    let counts = ["frames", "inferences", "held", "dropped"].map(|name| count(&element, name));
    assert_eq!(counts, [6, 2, 4, 0]);

    let messages = qos_messages(&bus);
    assert_eq!(messages.len(), 4);
    let gst::MessageView::Qos(qos) = messages[1].view() else { unreachable!() };
    let got = qos.get();
    assert_eq!((got.1, got.2, got.3), (Some(time(2)), Some(time(2)), Some(time(2))));
    assert_eq!(got.4, Some(time(1)));
    let (jitter, proportion, quality) = qos.values();
    assert!((jitter - i64::try_from(time(3).nseconds()).unwrap()).abs() < 10, "{jitter}");
    assert_eq!((proportion, quality), (1.5, 1_000_000 / 3));
    let (processed, dropped) = qos.stats();
    assert_eq!((processed.value(), dropped.value()), (2, 0));
    assert_eq!(processed.format(), gst::Format::Buffers);
}

#[test]
fn late_frames_are_dropped_if_asked() {
    let (_files, element, mut harness, info) = late("drop");
    let bus = bus(&element);
    assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp));
    report_late(&mut harness, 0, 2);
    for number in 1..5 {
        harness.push(frame(&info, number)).unwrap();
        assert!(harness.try_pull().is_none(), "frame {number}");
    }
    harness.push(frame(&info, 6)).unwrap();
    let out = harness.pull().unwrap();
    assert_eq!(out.pts(), Some(time(6)));
    assert!(out.flags().contains(gst::BufferFlags::DISCONT));
    let counts = ["frames", "inferences", "held", "dropped"].map(|name| count(&element, name));
    assert_eq!(counts, [2, 2, 0, 4]);

    let messages = qos_messages(&bus);
    assert_eq!(messages.len(), 4);
    let gst::MessageView::Qos(qos) = messages[3].view() else { unreachable!() };
    let (processed, dropped) = qos.stats();
    assert_eq!((processed.value(), dropped.value()), (1, 4));
    assert_eq!(qos.values().2, 1_000_000);
}

#[test]
fn the_policy_changes_while_playing() {
    let (_files, element, mut harness, info) = late("hold");
    values(&mut harness, frame(&info, 0));
    report_late(&mut harness, 0, 4);
    values(&mut harness, frame(&info, 1));
    element.set_property_from_str("late-policy", "drop");
    harness.push(frame(&info, 2)).unwrap();
    assert!(harness.try_pull().is_none());
    element.set_property_from_str("late-policy", "hold");
    values(&mut harness, frame(&info, 3));
    assert_eq!((count(&element, "held"), count(&element, "dropped")), (2, 1));
}

#[test]
fn the_mask_is_updated_at_times_even_if_every_frame_is_late() {
    for (policy, frames) in [("hold", 12), ("drop", 2)] {
        let (_files, element, mut harness, info) = late(policy);
        // Timestamps so far apart that the network fits in between on any machine.
        let mut push = |number: u64| {
            let mut buffer = frame(&info, 3000 * number);
            buffer.get_mut().unwrap().set_flags(gst::BufferFlags::empty());
            report_late(&mut harness, 3000 * number, 30);
            harness.push(buffer).unwrap();
        };
        for number in 0..11 {
            push(number);
        }
        assert_eq!(count(&element, "inferences"), 1, "{policy}");
        push(11);
        assert_eq!((count(&element, "inferences"), count(&element, "frames")), (2, frames), "{policy}");
    }
}

#[test]
fn late_frames_still_become_the_reference() {
    for policy in ["hold", "drop"] {
        let (_files, element, mut harness, info) = late(policy);
        report_late(&mut harness, 100, 100);
        assert_eq!(values(&mut harness, frame(&info, 0)), pixels(ramp), "{policy}: nothing to hold");
        start_new_stream(&mut harness);
        start_new_stream(&mut harness);
        // A new stream begins a segment, which resets lateness.
        report_late(&mut harness, 100, 100);
        assert_eq!(values(&mut harness, frame(&info, 1)), pixels(ramp), "{policy}: armed again");
        assert_eq!(count(&element, "inferences"), 2);
    }
}

#[test]
fn without_a_reference_late_frames_pass() {
    let element = element();
    element.set_property_from_str("late-policy", "drop");
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    for number in 0..3 {
        report_late(&mut harness, 100, 100);
        assert_eq!(values(&mut harness, frame(&info, number))[0], 255);
    }
    assert!(qos_messages(&bus).is_empty());
}

#[test]
fn flush_and_segment_reset_lateness() {
    let (_files, element, mut harness, info) = late("drop");
    values(&mut harness, frame(&info, 0));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    report_late(&mut harness, 1000, 100);
    harness.push_event(gst::event::Segment::new(segment.upcast_ref()));
    values(&mut harness, frame(&info, 1));
    report_late(&mut harness, 1000, 100);
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(segment.upcast_ref()));
    values(&mut harness, frame(&info, 2));
    values(&mut harness, frame(&info, 3));
    assert_eq!(count(&element, "dropped"), 0);
}

#[test]
fn qos_events_are_forwarded_upstream() {
    let (_files, _element, mut harness, info) = late("hold");
    values(&mut harness, frame(&info, 0));
    while harness.try_pull_upstream_event().is_some() {}
    report_late(&mut harness, 0, 2);
    let events = std::iter::from_fn(|| harness.try_pull_upstream_event());
    assert!(events.into_iter().any(|event| event.type_() == gst::EventType::Qos));
}
