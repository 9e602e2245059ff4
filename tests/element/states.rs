// SPDX-License-Identifier: MPL-2.0

//! Flushes, seeks, segments, EOS and new formats in every state, with and without a reference.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::random::Random;
use crate::rig::{Rig, segment};
use crate::util::*;
use crate::{model, watchdog};

const STATES: [gst::State; 4] =
    [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reference {
    None,
    Armed,
    Seeded,
}

fn small_info() -> VideoInfo {
    info(VideoFormat::I420, 64, 48)
}

fn seek(rate: f64, flags: gst::SeekFlags) -> gst::Event {
    let from = gst::ClockTime::from_mseconds(100);
    gst::event::Seek::new(rate, flags, gst::SeekType::Set, from, gst::SeekType::None, gst::ClockTime::NONE)
}

type Action = (&'static str, fn(&Rig));

const ACTIONS: [Action; 14] = [
    ("flush", Rig::flush),
    ("flush-start", |rig| _ = rig.src.push_event(gst::event::FlushStart::new())),
    ("flush-stop", |rig| _ = rig.src.push_event(gst::event::FlushStop::new(false))),
    ("segments", |rig| {
        for rate in [1.0, 2.0, -1.0] {
            let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
            segment.set_rate(rate);
            segment.set_start(gst::ClockTime::from_seconds(5));
            segment.set_stop(gst::ClockTime::from_seconds(7));
            rig.src.push_event(gst::event::Segment::new(segment.upcast_ref()));
            let _ = rig.src.push(frame(&small_info(), 0));
        }
    }),
    ("a segment of bytes", |rig| {
        let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
        rig.src.push_event(gst::event::Segment::new(segment.upcast_ref()));
        let _ = rig.src.push(frame(&small_info(), 1));
    }),
    ("EOS", |rig| {
        rig.src.push_event(gst::event::Eos::new());
        assert!(rig.src.push(frame(&small_info(), 2)).is_err());
    }),
    ("another format", |rig| {
        for (format, width, height) in
            [(VideoFormat::Rgbx, 64, 48), (VideoFormat::Nv12, 33, 17), (VideoFormat::Ayuv, 1, 1)]
        {
            let info = info(format, width, height);
            rig.src.push_event(gst::event::Caps::new(&info.to_caps().unwrap()));
            let _ = rig.src.push(frame(&info, 3));
        }
    }),
    ("audio caps", |rig| {
        let caps = gst::Caps::new_empty_simple("audio/x-raw");
        rig.src.push_event(gst::event::Caps::new(&caps));
    }),
    ("another stream", |rig| {
        for id in ["other", "yet another"] {
            rig.src.push_event(gst::event::StreamStart::new(id));
        }
    }),
    ("seeks", |rig| {
        let src = rig.element.static_pad("src").unwrap();
        src.send_event(seek(1.0, gst::SeekFlags::FLUSH));
        src.send_event(seek(-1.0, gst::SeekFlags::SEGMENT | gst::SeekFlags::ACCURATE));
    }),
    ("QoS", |rig| {
        let src = rig.element.static_pad("src").unwrap();
        for kind in [gst::QOSType::Underflow, gst::QOSType::Overflow, gst::QOSType::Throttle] {
            src.send_event(gst::event::Qos::new(kind, 9.0, 1_000_000_000, gst::ClockTime::from_seconds(1)));
        }
    }),
    ("renegotiation", |rig| {
        rig.element.static_pad("src").unwrap().send_event(gst::event::Reconfigure::new());
        for output in ["mask", "overlay", "labels", "alpha"] {
            rig.element.set_property_from_str("output", output);
            let _ = rig.src.push(frame(&small_info(), 4));
        }
    }),
    ("a gap and unknown events", |rig| {
        rig.src.push_event(gst::event::Gap::new(gst::ClockTime::ZERO, gst::ClockTime::SECOND));
        rig.src.push_event(gst::event::SegmentDone::new(gst::ClockTime::SECOND));
        rig.src.push_event(gst::event::CustomDownstream::new(gst::Structure::new_empty("unheard-of")));
        rig.src.push_event(gst::event::Tag::new(gst::TagList::new()));
    }),
    ("queries", |rig| {
        let (sink, src) = (rig.element.static_pad("sink").unwrap(), rig.element.static_pad("src").unwrap());
        src.query(&mut gst::query::Latency::new());
        src.query(&mut gst::query::Position::new(gst::Format::Time));
        sink.query(&mut gst::query::Drain::new());
        for caps in [small_info().to_caps().unwrap(), gst::Caps::new_any(), gst::Caps::new_empty()] {
            sink.query_caps(Some(&caps));
            src.query_caps(Some(&caps));
            sink.query(&mut gst::query::Allocation::new(caps.is_fixed().then_some(&caps), true));
        }
    }),
];

/// After any action in any state, a new stream must play without errors.
#[test]
fn everything_in_every_state() {
    watchdog::ends(|| {
        let (_files, mask) = mask_file(disc);
        for state in STATES {
            for reference in [Reference::None, Reference::Armed, Reference::Seeded] {
                for (name, action) in ACTIONS {
                    let what = format!("{name} in {state:?}, reference {reference:?}");
                    let element = element();
                    element.set_property("model-file", model::tiny());
                    if reference != Reference::None {
                        element.set_property("ref-mask", mask.to_str().unwrap());
                    }
                    let rig = Rig::new(element);
                    rig.element.set_state(state).unwrap();
                    if state >= gst::State::Paused {
                        rig.begin("first", &small_info());
                        if reference == Reference::Seeded {
                            for number in 0..2 {
                                rig.src.push(frame(&small_info(), number)).expect(&what);
                            }
                        }
                    } else {
                        let pushed = rig.src.push(frame(&small_info(), 0));
                        assert_eq!(pushed, Err(gst::FlowError::Flushing), "{what}");
                    }
                    action(&rig);
                    rig.assert_no_errors(&what);

                    rig.element.set_state(gst::State::Playing).unwrap();
                    rig.flush();
                    rig.begin("first", &small_info());
                    for number in 0..3 {
                        rig.src.push(frame(&small_info(), number)).expect(&what);
                    }
                    assert_eq!(rig.assert_no_errors(&what), 3, "{what}");
                }
            }
        }
    });
}

/// One thread pushes buffers, while another flushes and changes formats, states, masks and outputs.
#[test]
fn everything_while_another_thread_pushes() {
    watchdog::ends(|| {
        let (files, mask) = mask_file(disc);
        let bad = files.write("bad.png", b"bad");
        let element = with_mask(&mask);
        element.set_property("model-file", model::tiny());
        let rig = Rig::new(element);
        let format = Arc::new(Mutex::new(small_info()));
        // Whether a stream has begun: before that, upstream must not push buffers.
        let streaming = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let pusher = {
            let (src, format, streaming, stop) =
                (rig.src.clone(), format.clone(), streaming.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    {
                        let info = format.lock().unwrap();
                        if streaming.load(Ordering::SeqCst) {
                            let _ = src.push(frame(&info, number));
                            number += 1;
                        }
                    }
                    std::thread::yield_now();
                }
                number
            })
        };
        // Serialised events wait for the buffer in flight.
        let begin = |info: VideoInfo| {
            let mut format = format.lock().unwrap();
            rig.begin("first", &info);
            *format = info;
            streaming.store(true, Ordering::SeqCst);
        };

        let mut random = Random::new(10);
        let mut passed = 0;
        for round in 0..400 {
            if !streaming.load(Ordering::SeqCst) {
                rig.element.set_state(gst::State::Playing).unwrap();
                begin(small_info());
            }
            match random.below(8) {
                0 | 1 => {
                    rig.src.push_event(gst::event::FlushStart::new());
                    let _format = format.lock().unwrap();
                    rig.src.push_event(gst::event::FlushStop::new(random.one_in(2)));
                    rig.src.push_event(segment());
                }
                2 => {
                    let formats = [VideoFormat::I420, VideoFormat::Rgbx, VideoFormat::Yuy2];
                    let (width, height) = (1 + random.below(80) as u32, 1 + random.below(60) as u32);
                    begin(info(*random.pick(&formats), width, height));
                }
                3 => {
                    streaming.store(false, Ordering::SeqCst);
                    rig.element.set_state(*random.pick(&STATES[..3])).unwrap();
                    let _ = rig.element.set_state(*random.pick(&STATES));
                    rig.src.push_event(gst::event::FlushStart::new());
                    let _format = format.lock().unwrap();
                    rig.src.push_event(gst::event::FlushStop::new(true));
                }
                4 => {
                    let path = if random.one_in(2) { &mask } else { &bad };
                    rig.element.set_property("ref-mask", path.to_str().unwrap());
                    // A start needs a good mask.
                    rig.element.set_property("ref-mask", mask.to_str().unwrap());
                }
                5 => {
                    let output = *random.pick(&["alpha", "mask", "labels", "overlay"]);
                    rig.element.set_property_from_str("output", output);
                }
                6 => {
                    let _format = format.lock().unwrap();
                    rig.src.push_event(gst::event::Eos::new());
                    rig.flush();
                    rig.src.push_event(segment());
                }
                _ => {
                    let src = rig.element.static_pad("src").unwrap();
                    src.query(&mut gst::query::Latency::new());
                    src.send_event(seek(1.0, gst::SeekFlags::FLUSH));
                }
            }
            passed += rig.assert_no_errors(&format!("round {round}"));
        }
        stop.store(true, Ordering::SeqCst);
        let pushed = pusher.join().unwrap();
        println!("{pushed} buffers pushed, {passed} received");
        assert!(passed > 0);
        // The stream still works.
        rig.element.set_property_from_str("output", "alpha");
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.flush();
        begin(small_info());
        rig.assert_no_errors("the flush");
        for number in 0..3 {
            rig.src.push(frame(&small_info(), number)).unwrap();
        }
        assert_eq!(rig.assert_no_errors("the end"), 3);
    });
}

/// Seeks of every kind, in a pipeline with queues.
#[test]
fn seeks_at_random() {
    watchdog::ends(|| {
        let (_files, mask) = mask_file(disc);
        let pipeline = Pipeline::new(&format!(
            "videotestsrc num-buffers=90 ! video/x-raw,width=64,height=48,framerate=30/1 ! queue ! \
             fastganseg device=cpu model-file={} ref-mask={} ! queue ! fakesink sync=false",
            model::tiny(),
            mask.display()
        ));
        let mut random = Random::new(11);
        for state in [gst::State::Ready, gst::State::Null, gst::State::Paused, gst::State::Playing] {
            pipeline.set_state(state).unwrap();
            pipeline.state(WAIT).0.unwrap();
            for _ in 0..25 {
                let rate = *random.pick(&[1.0, 0.5, 2.0, -1.0]);
                // Without a flush a paused pipeline blocks on the buffer in flight.
                let mut flags = gst::SeekFlags::FLUSH;
                if state == gst::State::Playing && random.one_in(3) {
                    flags = gst::SeekFlags::empty();
                }
                if random.one_in(2) {
                    flags |= gst::SeekFlags::ACCURATE;
                }
                let start = gst::ClockTime::from_mseconds(random.below(3000) as u64);
                let stop = start + gst::ClockTime::from_mseconds(1 + random.below(1000) as u64);
                // `None` resets the stop position of the previous seek.
                let stop = Some(stop).filter(|_| random.one_in(2));
                let kind = gst::SeekType::Set;
                let result = pipeline.seek(rate, flags, kind, start, kind, stop);
                assert!(result.is_ok() || state < gst::State::Paused);
            }
        }
        pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(2)).unwrap();
        assert!(pipeline.ends());
    });
}
