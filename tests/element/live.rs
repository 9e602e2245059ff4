// SPDX-License-Identifier: MPL-2.0

//! Live pipelines.

use gst::prelude::*;
use gstreamer as gst;

use crate::util::*;

fn latency(element: &impl IsA<gst::Element>) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
    let mut query = gst::query::Latency::new();
    assert!(element.query(&mut query));
    query.result()
}

fn upstream_latency(element: &gst::Element) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
    let mut query = gst::query::Latency::new();
    assert!(element.static_pad("sink").unwrap().peer_query(&mut query));
    query.result()
}

#[test]
fn live_pipelines_get_the_latency() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc is-live=true num-buffers=12 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
         fastganseg name=f device=cpu ref-mask={} ! fakesink sync=true",
        mask.display()
    ));
    let element = pipeline.by_name("f").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(pipeline.ends());
    let ((live, min, max), upstream) = (latency(&*pipeline), upstream_latency(&element));
    assert!(live && upstream.0);
    assert!(min > upstream.1, "{min} in total, {} upstream", upstream.1);
    assert_eq!((min - upstream.1).nseconds() % 1_000_000, 0, "whole milliseconds");
    match (max, upstream.2) {
        (Some(max), Some(before)) => assert_eq!(max - before, min - upstream.1),
        (max, before) => assert_eq!(max, before),
    }
    assert_eq!(latency(&*pipeline), (live, min, max), "the answer stays the same");
    assert_eq!(count(&element, "frames"), 12, "no late frame is lost");
}

#[test]
fn latency_is_estimated_before_the_first_frame() {
    let (_files, element) = masked(disc);
    let (mut harness, _) = mask_output(&element);
    harness.set_upstream_latency(gst::ClockTime::from_mseconds(10));
    assert!(harness.query_latency() > Some(gst::ClockTime::from_mseconds(10)));
}

#[test]
fn non_live_pipelines_have_no_latency() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=20 ! video/x-raw,width=64,height=48 ! \
         fastganseg name=f device=cpu ref-mask={} ! fakesink",
        mask.display()
    ));
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Latency];
    loop {
        let message = bus.timed_pop_filtered(WAIT, &kinds).unwrap();
        if message.type_() != gst::MessageType::Latency {
            assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
            break;
        }
        let source = message.src().map(|source| source.name());
        assert_ne!(source.as_deref(), Some("f"), "no latency message in a non-live pipeline");
    }
    assert_eq!(latency(&*pipeline), (false, gst::ClockTime::ZERO, None));
}

#[test]
fn late_frames_of_a_file_hold_the_mask_with_a_synchronised_sink() {
    let (_files, mask) = mask_file(disc);
    // A frame rate above that of the network on any machine.
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=300 ! video/x-raw,width=64,height=48,framerate=1000/1 ! \
         fastganseg name=f device=cpu ref-mask={} ! fakesink sync=true qos=true",
        mask.display()
    ));
    let element = pipeline.by_name("f").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(pipeline.ends());
    let [frames, inferences, held, dropped] =
        ["frames", "inferences", "held", "dropped"].map(|name| count(&element, name));
    assert_eq!((frames, dropped), (300, 0));
    assert_eq!(inferences + held, frames);
    assert!(held > 0 && inferences > 1, "{inferences} inferences, {held} held");
}
