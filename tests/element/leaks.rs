// SPDX-License-Identifier: MPL-2.0

//! Finds leaked objects with GStreamer's leaks tracer.

use std::process::Command;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::VideoFormat;

use crate::rig::Rig;
use crate::util::*;
use crate::{child, model, plugin, stress};

const TRACER: [(&str, &str); 3] =
    [("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")];

/// Lines of the tracer for GStreamer objects that are alive at the end.
fn alive(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains("object-alive, type-name=(string)Gst")).collect()
}

/// Shuts GStreamer down, at which the tracer reports.
fn deinit() {
    // SAFETY: only one test runs in this process, and it does not use GStreamer after this.
    unsafe { gst::deinit() };
}

#[test]
fn the_tracer_sees_a_leak() {
    let text = child::passes("leaks::leak_alone", &TRACER);
    assert!(alive(&text).iter().any(|line| line.contains("GstFastGanSeg")));
}

#[test]
#[ignore = "a process of its own for the_tracer_sees_a_leak"]
fn leak_alone() {
    std::mem::forget(element());
    deinit();
}

#[test]
fn state_changes_leak_nothing() {
    let text = child::passes("leaks::state_changes_alone", &TRACER);
    assert!(alive(&text).is_empty(), "{:#?}", alive(&text));
}

#[test]
#[ignore = "a process of its own for state_changes_leak_nothing"]
fn state_changes_alone() {
    stress::cycles(30, |_| ());
    deinit();
}

#[test]
fn swaps_errors_and_new_formats_leak_nothing() {
    let text = child::passes("leaks::swaps_errors_and_new_formats_alone", &TRACER);
    assert!(alive(&text).is_empty(), "{:#?}", alive(&text));
}

#[test]
#[ignore = "a process of its own for swaps_errors_and_new_formats_leak_nothing"]
fn swaps_errors_and_new_formats_alone() {
    let files = Files::new();
    let masks = [files.mask("mask.png", (64, 48), disc), files.write("bad.png", b"bad")];
    for output in ["alpha", "mask", "labels", "overlay"] {
        for format in [VideoFormat::I420, VideoFormat::Rgbx, VideoFormat::Rgb, VideoFormat::Yuy2] {
            let element = with_mask(&masks[0]);
            element.set_property("model-file", model::tiny());
            element.set_property_from_str("output", output);
            let rig = Rig::new(element.clone());
            element.set_state(gst::State::Playing).unwrap();
            for size in [64, 33] {
                let info = info(format, size, 48);
                rig.begin("stream", &info);
                for number in 0..6 {
                    element.set_property("ref-mask", masks[number as usize % 2].to_str().unwrap());
                    rig.src.push(frame(&info, number)).unwrap();
                }
            }
            assert_eq!(rig.assert_no_errors("masks"), 12);
            // A buffer that is too small is an error.
            assert!(rig.src.push(gst::Buffer::from_mut_slice(vec![0u8; 7])).is_err());
            // A start that fails.
            element.set_state(gst::State::Null).unwrap();
            element.set_property("ref-mask", masks[1].to_str().unwrap());
            assert!(element.set_state(gst::State::Paused).is_err());
            assert_eq!(rig.take().errors.len(), 2);
            drop(rig);
            // A load in progress holds a reference to the element.
            while element.ref_count() > 1 {
                std::thread::yield_now();
            }
        }
    }
    deinit();
}

/// The plugin as a shared library.
#[test]
fn gst_launch_leaks_nothing() {
    let plugin = plugin::path();
    let (files, mask) = mask_file(disc);
    let registry = files.path("registry.bin");
    let run = |tracer: bool, output: &str| {
        let launch = format!(
            "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48 ! tee name=t \
             t. ! queue ! fastganseg device=cpu model-file={} ref-mask={} output={output} ! queue ! fakesink \
             t. ! queue ! fakesink",
            model::tiny(),
            mask.display()
        );
        let mut command = Command::new("gst-launch-1.0");
        command
            .arg("-q")
            .args(launch.split_whitespace())
            .env("GST_REGISTRY", &registry)
            .env("GST_PLUGIN_PATH", plugin.parent().unwrap())
            .env_remove("LD_LIBRARY_PATH");
        if tracer {
            command.envs(TRACER);
        }
        command.output()
    };
    // The first run creates the registry, without the tracer.
    if run(false, "alpha").is_err() {
        return skip("gst-launch-1.0 is not installed");
    }
    for output in ["alpha", "mask", "overlay"] {
        let result = run(true, output).unwrap();
        let text = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{text}");
        assert!(alive(&text).is_empty(), "{output}: {:#?}", alive(&text));
    }
}
