// SPDX-License-Identifier: MPL-2.0

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::VideoFormat;

use crate::util::*;

#[test]
fn as_many_frames_out_as_in() {
    let (_files, mask) = mask_file(disc);
    for output in ["alpha", "mask", "labels", "overlay"] {
        let outcome = play(&format!(
            "videotestsrc num-buffers=25 ! video/x-raw,width=64,height=48 ! \
             fastganseg device=cpu output={output} ref-mask={} ! appsink name=out",
            mask.display()
        ))
        .ok();
        assert_eq!(outcome.samples.len(), 25, "{output}");
        let times: Vec<_> = outcome.samples.iter().map(|sample| sample.buffer().unwrap().pts()).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(times[24], Some(gst::ClockTime::SECOND * 24 / 30));
    }
}

#[test]
fn clips_play_to_their_end() {
    for name in ["dog", "coffee", "bottle"] {
        let (Some(clip), Some(mask)) =
            (shared(&format!("data/clips/{name}.mp4")), shared(&format!("data/clips/{name}-mask.png")))
        else {
            return;
        };
        let clip = clip.display();
        let count = |launch: &str| play(launch).ok().samples.len();
        let decoded = count(&format!("filesrc location={clip} ! decodebin ! appsink name=out"));
        let cut = count(&format!(
            "filesrc location={clip} ! decodebin ! fastganseg device=cpu ref-mask={} ! appsink name=out",
            mask.display()
        ));
        assert!(decoded > 10);
        assert_eq!(cut, decoded, "{name}");
    }
}

#[test]
fn seek_in_playing() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,width=64,height=48,framerate=30/1 ! \
         fastganseg name=f device=cpu ref-mask={} ! fakesink name=s sync=false",
        mask.display()
    ));
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(WAIT).0.unwrap();
    for second in [1, 0] {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        pipeline.seek_simple(flags, gst::ClockTime::from_seconds(second)).unwrap();
        pipeline.state(WAIT).0.unwrap();
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::from_seconds(1)).unwrap();
    assert!(pipeline.ends());
}

#[test]
fn ten_restarts() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Pipeline::new(&format!(
        "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48 ! \
         fastganseg name=f device=cpu ref-mask={} ! fakesink",
        mask.display()
    ));
    let element = pipeline.by_name("f").unwrap();
    for round in 0..10 {
        pipeline.set_state(gst::State::Playing).unwrap();
        assert!(pipeline.ends(), "round {round}");
        assert_eq!(element.property::<Option<String>>("active-device").as_deref(), Some("cpu"));
        pipeline.set_state(gst::State::Ready).unwrap();
        assert_eq!(element.property::<Option<String>>("active-device"), None);
    }
}

#[test]
fn metas_times_and_flags_are_kept() {
    let (_files, mask) = mask_file(disc);
    for format in [VideoFormat::I420, VideoFormat::Rgbx, VideoFormat::Rgb, VideoFormat::Yuy2] {
        for output in ["alpha", "mask", "overlay"] {
            let element = with_mask(&mask);
            element.set_property_from_str("output", output);
            let (mut harness, info) = small(&element, format);
            let reference = gst::Caps::new_empty_simple("timestamp/x-unix");
            let mut buffer = frame(&info, 4);
            {
                let buffer = buffer.get_mut().unwrap();
                let time = gst::ClockTime::from_seconds(1234);
                gst::ReferenceTimestampMeta::add(buffer, &reference, time, None);
                gstreamer_video::VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4));
                gstreamer_video::VideoCropMeta::add(buffer, (0, 0, 64, 48));
                buffer.set_offset(77);
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::MARKER);
            }
            harness.push(buffer).unwrap();
            let out = harness.pull().unwrap();
            let what = format!("{format:?} {output}");
            let meta = out.meta::<gst::ReferenceTimestampMeta>().expect(&what);
            assert_eq!(meta.timestamp(), gst::ClockTime::from_seconds(1234));
            let meta = out.meta::<gstreamer_video::VideoRegionOfInterestMeta>().expect(&what);
            assert_eq!(meta.rect(), (1, 2, 3, 4));
            assert_eq!(out.iter_meta::<gstreamer_video::VideoRegionOfInterestMeta>().count(), 1);
            assert_eq!(out.pts(), Some(gst::ClockTime::SECOND * 4 / 30));
            assert_eq!(out.duration(), Some(gst::ClockTime::SECOND / 30));
            assert_eq!(out.offset(), 77);
            assert!(out.flags().contains(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::MARKER), "{what}");
        }
    }
}

#[test]
fn colour_metas_are_removed_from_masks() {
    let (_files, mask) = mask_file(disc);
    let (colour_meta, plain_meta) = ("FastganTestColors", "FastganTestNothing");
    init();
    gst::meta::CustomMeta::register(colour_meta, &["colorspace"]);
    gst::meta::CustomMeta::register_simple(plain_meta);
    for (format, output, out_format, kept) in [
        (VideoFormat::Yuy2, "alpha", VideoFormat::Ayuv, true),
        (VideoFormat::Rgb, "alpha", VideoFormat::Rgba, true),
        (VideoFormat::Rgb, "alpha", VideoFormat::Ayuv, false),
        (VideoFormat::I420, "mask", VideoFormat::Gray8, false),
        (VideoFormat::Rgbx, "labels", VideoFormat::Gray8, false),
        (VideoFormat::Gray8, "mask", VideoFormat::Gray8, false),
    ] {
        let element = with_mask(&mask);
        element.set_property_from_str("output", output);
        let (mut harness, info) = small(&element, format);
        let caps = gstreamer_video::VideoCapsBuilder::new().format(out_format).build();
        harness.set_sink_caps(caps);
        let mut buffer = frame(&info, 0);
        for name in [colour_meta, plain_meta] {
            gst::meta::CustomMeta::add(buffer.make_mut(), name).unwrap();
        }
        harness.push(buffer).unwrap();
        let out = harness.pull().unwrap();
        let has = |name| gst::meta::CustomMeta::from_buffer(&out, name).is_ok();
        assert_eq!((has(colour_meta), has(plain_meta)), (kept, true), "{format:?} {output} {out_format:?}");
    }
}

#[test]
fn controlled_properties_follow_the_stream() {
    use gst_controller::prelude::*;
    use gstreamer_controller as gst_controller;
    let (_files, element) = masked(|_, _| 100);
    element.set_property_from_str("output", "mask");
    let source = gst_controller::InterpolationControlSource::new();
    source.set_mode(gst_controller::InterpolationMode::None);
    source.set(gst::ClockTime::ZERO, 0.0);
    source.set(gst::ClockTime::from_mseconds(50), 0.2);
    let binding = gst_controller::DirectControlBinding::new_absolute(&element, "threshold", &source);
    element.add_control_binding(&binding).unwrap();
    let (mut harness, info) = small(&element, VideoFormat::I420);
    for (number, expected) in [(0, 100), (3, 255)] {
        start_new_stream(&mut harness);
        harness.push(frame(&info, number)).unwrap();
        let values = plane(&harness.pull().unwrap(), &src_info(&harness), 0, 1);
        assert_eq!(values[0], expected);
    }
}

#[test]
fn a_handler_of_a_message_can_seek() {
    let (_files, mask) = mask_file(disc);
    for queue in ["", "queue !"] {
        let pipeline = Pipeline::new(&format!(
            "videotestsrc num-buffers=20 ! {queue} video/x-raw,format=I420,width=64,height=48 ! fastganseg device=cpu \
             ref-mask={} ! fakesink",
            mask.display()
        ));
        let seeks = std::sync::atomic::AtomicU32::new(0);
        let weak = pipeline.downgrade();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            let state = message.structure().and_then(|structure| structure.get::<String>("state").ok());
            if state.as_deref() == Some("seeded")
                && seeks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0
                && let Some(pipeline) = weak.upgrade()
            {
                let _ = pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO);
            }
            gst::BusSyncReply::Pass
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        assert!(pipeline.ends());
    }
}
