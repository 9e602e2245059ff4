// SPDX-License-Identifier: MPL-2.0

//! Mask changes while playing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::VideoFormat;

use crate::random::Random;
use crate::rig::Rig;
use crate::util::*;
use crate::{model, watchdog};

const SWAPS: usize = 1000;

/// Writes a uniform mask. The frame that seeds carries its value, which identifies the mask.
fn write_good_mask(files: &Files, value: u8) -> String {
    let (color, depth) = (png::ColorType::Grayscale, png::BitDepth::Eight);
    files.png(&format!("{value}.png"), (8, 8), color, depth, &[value; 64]).to_str().unwrap().to_owned()
}

#[test]
fn a_thousand_swaps_while_playing() {
    watchdog::ends(|| {
        let files = Files::new();
        let values: Vec<u8> = (20..=255).collect();
        let good_masks: Vec<String> = values.iter().map(|&value| write_good_mask(&files, value)).collect();
        let whole = std::fs::read(&good_masks[0]).unwrap();
        let bad_masks: Vec<String> = [
            files.path("nowhere.png"),
            files.write("text.png", b"text"),
            files.write("truncated.png", &whole[..whole.len() - 20]),
            files.mask("black.png", (8, 8), |_, _| 0),
        ]
        .iter()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();

        let element = element();
        element.set_property("model-file", model::tiny());
        element.set_property_from_str("output", "mask");
        element.set_property("ref-mask", &good_masks[0]);
        let rig = Rig::new(element);
        rig.element.set_state(gst::State::Playing).unwrap();
        let info = info(VideoFormat::I420, 64, 48);
        rig.begin("stream", &info);

        // Values of the uniform output frames.
        let (sender, uniform_values) = channel();
        let sender = Mutex::new(sender);
        rig.element.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
            let map = probe.buffer().unwrap().map_readable().unwrap();
            if map.iter().all(|&value| value == map[0]) {
                let _ = sender.lock().unwrap().send(map[0]);
            }
            gst::PadProbeReturn::Ok
        });
        let (stop, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let pusher = {
            let (src, stop, pushed) = (rig.src.clone(), stop.clone(), pushed.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let number = pushed.fetch_add(1, Ordering::SeqCst) as u64;
                    src.push(frame(&info, number)).unwrap();
                }
            })
        };

        let mut random = Random::new(30);
        let (mut swaps, mut last) = (0, 0);
        while swaps < SWAPS {
            // Good and bad masks in turn, several at a time; the last good one differs from the active one.
            let mut chosen = last;
            for _ in 0..1 + random.below(6) {
                if swaps % 2 == 0 || chosen == last {
                    chosen = (last + 1 + random.below(good_masks.len() - 1)) % good_masks.len();
                    rig.element.set_property("ref-mask", &good_masks[chosen]);
                } else {
                    rig.element.set_property("ref-mask", random.pick(&bad_masks));
                }
                swaps += 1;
            }
            while uniform_values.recv().unwrap() != values[chosen] {}
            last = chosen;
        }
        stop.store(true, Ordering::SeqCst);
        pusher.join().unwrap();
        let pushed = pushed.load(Ordering::SeqCst);
        println!("{swaps} swaps in {pushed} frames");
        assert_eq!(rig.assert_no_errors("swapping"), pushed, "frames out = frames in");
    });
}

/// Regression: the bad mask was loaded twice and the good one never.
#[test]
fn a_bad_mask_right_after_a_good_one_does_not_undo_it() {
    watchdog::ends(|| {
        let files = Files::new();
        // A mask without warnings.
        let half = |x: usize, _: usize| if x < 4 { 255 } else { 0 };
        let path = |name: &str| files.mask(name, (8, 8), half).to_str().unwrap().to_owned();
        let (first, second) = (path("first.png"), path("second.png"));
        let bad = files.write("text.png", b"text");
        let element = element();
        element.set_property("model-file", model::tiny());
        let bus = bus(&element);
        element.set_property("ref-mask", &first);
        element.set_state(gst::State::Paused).unwrap();
        assert_eq!(next_message(&bus), "armed");
        for _ in 0..20 {
            element.set_property("ref-mask", &second);
            element.set_property("ref-mask", bad.to_str().unwrap());
            let mut both = [next_message(&bus), next_message(&bus)];
            both.sort();
            assert_eq!(both[0], "armed");
            assert!(both[1].starts_with("warning"), "{both:?}");
        }
        element.set_state(gst::State::Null).unwrap();
    });
}
