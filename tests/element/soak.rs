// SPDX-License-Identifier: MPL-2.0

//! Memory over thousands of frames; `make soak` plays a hundred thousand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;

use crate::stress::Watched;
use crate::util::*;
use crate::{child, memory_use, model};

const FRAMES: usize = 3000;

#[test]
fn memory_is_flat_over_thousands_of_frames() {
    child::passes("soak::memory_is_flat_alone", &[]);
}

#[test]
#[ignore = "a process of its own for memory_is_flat_over_thousands_of_frames"]
fn memory_is_flat_alone() {
    let (_files, mask) = mask_file(disc);
    let pipeline = Watched::new(&format!(
        "videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,format=I420,width=128,height=96 ! queue ! \
         fastganseg name=f device=cpu model-file={} ref-mask={} ! queue ! fakesink name=s sync=false",
        model::tiny(),
        mask.display()
    ));
    let samples: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (passed, wait) = std::sync::mpsc::channel();
    let sink = pipeline.pipeline.by_name("s").unwrap().static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, {
        let samples = samples.clone();
        let frames = AtomicUsize::new(0);
        move |_, probe| {
            if probe.buffer().is_some() {
                if frames.fetch_add(1, Ordering::SeqCst).is_multiple_of(20) {
                    samples.lock().unwrap().extend(memory_use::resident());
                }
            } else if probe.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                let _ = passed.send(frames.load(Ordering::SeqCst));
            }
            gst::PadProbeReturn::Ok
        }
    });
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(wait.recv_timeout(std::time::Duration::from_secs(600)), Ok(FRAMES));
    pipeline.pipeline.set_state(gst::State::Null).unwrap();
    pipeline.assert_no_errors("the soak");
    memory_use::flat(&samples.lock().unwrap(), 1.0);
}
