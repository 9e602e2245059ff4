// SPDX-License-Identifier: MPL-2.0

//! Frame threading: the next frame is encoded while the current one is segmented, so that output is one frame late.

use gst::prelude::*;
use gst_video::VideoFormat;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_check::Harness;
use gstreamer_video as gst_video;

use crate::rig::Rig;
use crate::util::*;

const SIZE: (u32, u32) = (64, 48);

/// An element with frame threading and the mask [`disc`], and the folder of the mask.
fn threaded() -> (Files, gst::Element) {
    let (files, element) = masked(disc);
    element.set_property("frame-threading", true);
    (files, element)
}

/// Records the output of the element in order: "buffer" or the name of an event.
fn record_output(element: &gst::Element) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    let seen = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let log = seen.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    element.static_pad("src").unwrap().add_probe(kinds, move |_, info| {
        let name = match &info.data {
            Some(gst::PadProbeData::Event(event)) => format!("{:?}", event.type_()),
            _ => "buffer".into(),
        };
        log.lock().unwrap().push(name);
        gst::PadProbeReturn::Ok
    });
    seen
}

/// A frame with a square that moves to the right by four pixels per frame.
fn moved(info: &gst_video::VideoInfo, number: u64) -> gst::Buffer {
    let mut buffer = frame(info, number);
    let mut video =
        gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.get_mut().unwrap(), info).unwrap();
    let stride = video.plane_stride()[0] as usize;
    for (y, row) in video.plane_data_mut(0).unwrap().chunks_mut(stride).enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = if square(number, x, y) { 230 } else { 40 };
        }
    }
    drop(video);
    buffer
}

fn square(number: u64, x: usize, y: usize) -> bool {
    let left = 16 + 4 * number as usize;
    (left..left + 20).contains(&x) && (14..34).contains(&y)
}

fn pull(harness: &mut Harness) -> gst::Buffer {
    harness.try_pull().expect("a buffer")
}

#[test]
fn masks_are_the_same_one_frame_later() {
    let (_files, mask) = mask_file(disc);
    let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
    // The whole frame: with frame threading a region is planned one frame earlier, so that masks would differ.
    let run = |threading: bool, interval: u32| {
        let element = with_mask(&mask);
        element.set_property("frame-threading", threading);
        element.set_property("inference-interval", interval);
        element.set_property_from_str("roi", "off");
        let (mut harness, _) = mask_output(&element);
        for number in 0..12 {
            harness.push(moved(&info, number)).unwrap();
            let expected = if threading { number } else { number + 1 };
            assert_eq!(count(&element, "frames"), expected);
        }
        assert!(harness.push_event(gst::event::Eos::new()));
        (0..12)
            .map(|_| {
                let buffer = pull(&mut harness);
                (buffer.pts(), plane(&buffer, &src_info(&harness), 0, 1))
            })
            .collect::<Vec<_>>()
    };
    for interval in [1, 3] {
        let (later, now) = (run(true, interval), run(false, interval));
        assert_eq!(later, now, "every {interval}");
        assert!(
            now.iter().any(|(_, values)| values.iter().any(|value| *value > 0)),
            "some masks are not empty"
        );
    }
}

#[test]
fn the_pending_frame_leaves_before_later_events() {
    let (_files, element) = threaded();
    let seen = record_output(&element);
    let (mut harness, info) = mask_output(&element);
    let buffers = || seen.lock().unwrap().iter().filter(|name| *name == "buffer").count();

    harness.push(frame(&info, 0)).unwrap();
    harness.push(frame(&info, 1)).unwrap();
    assert_eq!(buffers(), 1);
    assert!(harness.push_event(gst::event::Gap::new(gst::ClockTime::from_mseconds(80), None)));
    harness.push(frame(&info, 4)).unwrap();
    let out_of_band = gst::event::CustomDownstreamOob::new(gst::Structure::new_empty("now"));
    assert!(harness.push_event(out_of_band));
    assert_eq!(buffers(), 2, "an out-of-band event does not push the pending frame");

    let smaller = crate::util::info(VideoFormat::I420, 32, 24);
    assert!(harness.push_event(gst::event::Caps::new(&smaller.to_caps().unwrap())));
    harness.push(frame(&smaller, 5)).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    let order = seen.lock().unwrap();
    let order: Vec<&str> = order.iter().map(String::as_str).skip_while(|name| *name != "buffer").collect();
    assert_eq!(order, ["buffer", "buffer", "Gap", "CustomDownstreamOob", "buffer", "Caps", "buffer", "Eos"]);
    let sizes: Vec<usize> = (0..4).map(|_| pull(&mut harness).size()).collect();
    assert!(sizes[2] > sizes[3], "{sizes:?}: each frame has the caps that it came with");
}

#[test]
fn a_flush_drops_the_pending_frame() {
    let (_files, element) = threaded();
    let (mut harness, info) = mask_output(&element);
    harness.push(frame(&info, 0)).unwrap();
    harness.push(frame(&info, 1)).unwrap();
    assert_eq!(pull(&mut harness).pts(), frame(&info, 0).pts());
    flush(&mut harness);
    harness.push(frame(&info, 7)).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    assert_eq!(pull(&mut harness).pts(), frame(&info, 7).pts());
    assert_eq!(harness.buffers_in_queue(), 0);
}

#[test]
fn stopping_drops_the_pending_frame() {
    let (_files, element) = threaded();
    let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
    let alive = std::sync::Arc::new(());
    let mut buffer = gst::Buffer::from_slice(Held(alive.clone(), vec![90; info.size()]));
    stamp(&mut buffer, 0);
    let (mut harness, _) = mask_output(&element);
    harness.push(buffer).unwrap();
    assert_eq!(std::sync::Arc::strong_count(&alive), 2, "the frame is pending");
    element.set_state(gst::State::Null).unwrap();
    assert_eq!(std::sync::Arc::strong_count(&alive), 1);
}

/// Buffer memory with a reference count.
struct Held(#[allow(dead_code)] std::sync::Arc<()>, Vec<u8>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

#[test]
fn latency_includes_the_pending_frame() {
    let (_files, mask) = mask_file(disc);
    let latency = |threading: bool| {
        let element = with_mask(&mask);
        element.set_property("frame-threading", threading);
        let (mut harness, _) = mask_output(&element);
        harness.set_upstream_latency(gst::ClockTime::from_mseconds(10));
        let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
        harness.push(frame(&info, 0)).unwrap();
        let duration = u64::try_from(info.fps().denom()).unwrap() * 1_000_000_000
            / u64::try_from(info.fps().numer()).unwrap();
        (harness.query_latency().unwrap().nseconds(), duration)
    };
    let (latency_ns, frame) = latency(true);
    assert!(latency_ns >= 10_000_000 + frame, "{latency_ns} ns with frames of {frame}");
}

#[test]
fn moving_objects_are_tracked_while_the_region_moves() {
    let files = Files::new();
    let mask = files.mask("mask.png", (160, 48), |x, y| if square(0, x, y) { 255 } else { 0 });
    let element = with_mask(&mask);
    element.set_property("frame-threading", true);
    element.set_property_from_str("output", "mask");
    let info = info(VideoFormat::I420, 160, 48);
    let mut harness = harness(&element, &info.to_caps().unwrap());
    for number in 0..25 {
        harness.push(moved(&info, number)).unwrap();
    }
    assert!(harness.push_event(gst::event::Eos::new()));
    let last = (0..25).map(|_| pull(&mut harness)).last().unwrap();
    let values = plane(&last, &src_info(&harness), 0, 1);
    let (mut both, mut either) = (0, 0);
    for (i, value) in values.iter().enumerate() {
        let inside = square(24, i % 160, i / 160);
        both += usize::from(inside && *value > 127);
        either += usize::from(inside || *value > 127);
    }
    assert!(both * 10 > either * 7, "{both} of {either}");
}

#[test]
fn a_drain_query_pushes_the_pending_frame() {
    let (_files, element) = threaded();
    let (mut harness, info) = mask_output(&element);
    harness.push(frame(&info, 0)).unwrap();
    harness.push(frame(&info, 1)).unwrap();
    assert_eq!(harness.buffers_in_queue(), 1);
    element.static_pad("sink").unwrap().query(&mut gst::query::Drain::new());
    assert_eq!(harness.buffers_in_queue(), 2);
}

#[test]
fn the_allocation_query_asks_for_the_buffers_that_are_held() {
    let (_files, mask) = mask_file(disc);
    let min_buffers = |threading: bool, downstream: u32| {
        let element = with_mask(&mask);
        element.set_property("frame-threading", threading);
        let src = element.static_pad("src").unwrap();
        src.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Query(query)) = &mut info.data
                && let gst::QueryViewMut::Allocation(query) = query.view_mut()
            {
                query.add_allocation_pool(None::<&gst::BufferPool>, 9, downstream, 0);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
        let (_harness, _) = mask_output(&element);
        let caps = info(VideoFormat::I420, SIZE.0, SIZE.1).to_caps().unwrap();
        let mut query = gst::query::Allocation::new(Some(&caps), true);
        assert!(element.static_pad("sink").unwrap().query(&mut query));
        query.allocation_pools().map(|(_, _, min_buffers, _)| min_buffers).max()
    };
    let all = [(false, 0), (true, 0), (false, 5), (true, 5)];
    assert_eq!(all.map(|(threading, downstream)| min_buffers(threading, downstream)), [1, 2, 6, 7].map(Some));
}

#[test]
fn a_reference_applies_to_the_next_buffer() {
    let (_files, element) = threaded();
    let bus = bus(&element);
    let (mut harness, info) = mask_output(&element);
    let set_ramp = || assert!(set_reference(&element, &grey(ramp), None));
    for number in 0..3 {
        harness.push(frame(&info, number)).unwrap();
    }
    assert_eq!([next_message(&bus), next_message(&bus)], ["armed", "seeded"]);
    set_ramp();
    assert_eq!((next_message(&bus), reference_state(&element)), ("armed".into(), "armed".into()));
    harness.push(frame(&info, 3)).unwrap();
    assert_eq!(reference_state(&element), "armed", "the reference is pending with its buffer");
    harness.push(frame(&info, 4)).unwrap();
    assert_eq!((next_message(&bus), reference_state(&element)), ("seeded".into(), "seeded".into()));
    let drawn: Vec<bool> =
        (0..4).map(|_| plane(&pull(&mut harness), &src_info(&harness), 0, 1) == pixels(ramp)).collect();
    assert_eq!(drawn, [false, false, false, true]);

    // A flush drops the buffer but keeps the reference.
    set_ramp();
    harness.push(frame(&info, 5)).unwrap();
    flush(&mut harness);
    harness.push(frame(&info, 9)).unwrap();
    assert!(harness.push_event(gst::event::Eos::new()));
    let last = std::iter::from_fn(|| harness.try_pull()).last().unwrap();
    assert_eq!(last.pts(), frame(&info, 9).pts());
    assert_eq!(plane(&last, &src_info(&harness), 0, 1), pixels(ramp));
}

#[test]
fn discont_flags_stay_on_their_buffers() {
    let (_files, element) = threaded();
    let (mut harness, info) = mask_output(&element);
    for number in 0..7 {
        let mut buffer = frame(&info, number);
        if number % 3 == 0 {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        harness.push(buffer).unwrap();
        if number == 4 {
            harness.push_event(gst::event::Gap::new(gst::ClockTime::SECOND, None));
        }
    }
    assert!(harness.push_event(gst::event::Eos::new()));
    let discont: Vec<bool> =
        (0..7).map(|_| pull(&mut harness).flags().contains(gst::BufferFlags::DISCONT)).collect();
    assert_eq!(discont, [true, false, false, true, false, false, true]);
}

#[test]
fn the_frame_after_a_dropped_one_has_discont() {
    let (_files, element) = threaded();
    element.set_property_from_str("late-policy", "drop");
    let (mut harness, info) = mask_output(&element);
    let times: Vec<_> = (0..7).map(|number| frame(&info, number).pts()).collect();
    for number in 0..4 {
        harness.push(frame(&info, number)).unwrap();
        if number == 2 {
            // Frames before the fourth are late.
            let late = i64::try_from((times[3].unwrap() - times[2].unwrap()).nseconds()).unwrap() / 4;
            harness.push_upstream_event(gst::event::Qos::new(gst::QOSType::Underflow, 1.5, late, times[2]));
        }
    }
    harness.push_event(gst::event::Gap::new(times[4].unwrap(), None));
    for number in 4..7 {
        harness.push(frame(&info, number)).unwrap();
    }
    assert!(harness.push_event(gst::event::Eos::new()));
    let out: Vec<_> = std::iter::from_fn(|| harness.try_pull()).collect();
    let dropped = count(&element, "dropped");
    assert!(dropped > 0 && out.len() as u64 == 7 - dropped, "{dropped} dropped");
    for pair in out.windows(2) {
        let index = |buffer: &gst::Buffer| times.iter().position(|time| *time == buffer.pts()).unwrap();
        let missing = index(&pair[1]) > index(&pair[0]) + 1;
        let discont = pair[1].flags().contains(gst::BufferFlags::DISCONT);
        assert_eq!(discont, missing, "frame {}", index(&pair[1]));
    }
}

#[test]
fn late_frames_are_not_prefetched_and_masks_are_the_same() {
    let (_files, mask) = mask_file(disc);
    let run = |threading: bool| {
        let element = with_mask(&mask);
        element.set_property("frame-threading", threading);
        element.set_property_from_str("roi", "off");
        let (mut harness, info) = mask_output(&element);
        harness.push(moved(&info, 0)).unwrap();
        let second = i64::try_from(gst::ClockTime::SECOND.nseconds()).unwrap();
        let event = gst::event::Qos::new(gst::QOSType::Underflow, 1.5, second, moved(&info, 0).pts());
        harness.push_upstream_event(event);
        for number in 1..15 {
            harness.push(moved(&info, number)).unwrap();
        }
        assert!(harness.push_event(gst::event::Eos::new()));
        let held = count(&element, "held");
        (held, (0..15).map(|_| plane(&pull(&mut harness), &src_info(&harness), 0, 1)).collect::<Vec<_>>())
    };
    let (later, now) = (run(true), run(false));
    assert!(now.0 > 8, "{} held", now.0);
    assert_eq!(later, now);
}

/// The frame before a pause waited for the end of it, much longer than the latency that was reported.
#[test]
fn live_frames_of_a_variable_rate_do_not_wait() {
    for live in [true, false] {
        let (_files, element) = threaded();
        let varying = gst_video::VideoInfo::builder(VideoFormat::I420, SIZE.0, SIZE.1)
            .fps(gst::Fraction::new(0, 1))
            .build()
            .unwrap();
        element.set_property_from_str("output", "mask");
        let mut harness = harness(&element, &varying.to_caps().unwrap());
        harness.set_live(live);
        for number in 0..3 {
            harness.push(frame(&varying, number)).unwrap();
            let output = number + u64::from(live);
            assert_eq!(u64::from(harness.buffers_in_queue()), output, "live: {live}");
        }
    }
}

/// The pending frame was pushed in the format of before, which ended the stream.
#[test]
fn the_pending_frame_has_the_format_that_another_element_accepts() {
    let (_files, element) = threaded();
    let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_sink_caps(gst_video::VideoCapsBuilder::new().format(VideoFormat::A420).build());
    harness.set_src_caps(info.to_caps().unwrap());
    for number in 0..2 {
        harness.push(frame(&info, number)).unwrap();
    }
    assert_eq!(src_info(&harness).format(), VideoFormat::A420);
    harness.pull().unwrap();
    harness.set_sink_caps(gst_video::VideoCapsBuilder::new().format(VideoFormat::Rgba).build());
    harness.push_upstream_event(gst::event::Reconfigure::new());
    element.static_pad("sink").unwrap().query(&mut gst::query::Drain::new());
    assert_eq!(src_info(&harness).format(), VideoFormat::Rgba);
    assert_eq!(harness.pull().unwrap().size(), (4 * SIZE.0 * SIZE.1) as usize);
}

/// The next stream of a playlist ended with its first buffer.
#[test]
fn another_stream_does_not_inherit_the_end_of_the_one_before() {
    let (_files, element) = threaded();
    let rig = Rig::new(element);
    rig.element.set_state(gst::State::Playing).unwrap();
    let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
    rig.begin("first", &info);
    rig.src.push(frame(&info, 0)).unwrap();
    *rig.refusal.lock().unwrap() = Some(gst::FlowError::Eos);
    rig.src.push_event(gst::event::StreamStart::new("second"));
    *rig.refusal.lock().unwrap() = None;
    rig.begin("second", &info);
    for number in 0..2 {
        rig.src.push(frame(&info, number)).unwrap();
    }
    rig.assert_no_errors("the second stream");
}

#[test]
fn flow_errors_of_the_pending_frame_are_reported() {
    let (_files, element) = threaded();
    let rig = Rig::new(element);
    rig.element.set_state(gst::State::Playing).unwrap();
    let info = info(VideoFormat::I420, SIZE.0, SIZE.1);
    let refuse = |error| *rig.refusal.lock().unwrap() = error;
    // After the last buffer the error is posted on the bus, and the EOS event fails. Whether a pad without a link is an error
    // is decided upstream.
    let end = |error| {
        let is_failure = error == gst::FlowError::NotNegotiated;
        assert_eq!(rig.src.push_event(gst::event::Eos::new()), !is_failure);
        refuse(None);
        let errors = rig.take().errors;
        assert_eq!(errors.len(), usize::from(is_failure), "{errors:?}");
        rig.flush();
    };
    for error in [gst::FlowError::NotLinked, gst::FlowError::Eos, gst::FlowError::NotNegotiated] {
        rig.begin("stream", &info);
        rig.src.push(frame(&info, 0)).unwrap();
        refuse(Some(error));
        rig.src.push_event(gst::event::Gap::new(gst::ClockTime::ZERO, None));
        refuse(None);
        assert_eq!(rig.src.push(frame(&info, 1)), Err(error), "the next push returns the error");
        assert!(rig.src.push(frame(&info, 2)).is_ok(), "the error is returned once");

        refuse(Some(error));
        end(error);

        // Also if another event has output the last buffer.
        rig.begin("stream", &info);
        rig.src.push(frame(&info, 0)).unwrap();
        refuse(Some(error));
        rig.src.push_event(gst::event::Gap::new(gst::ClockTime::ZERO, None));
        end(error);
    }
}
