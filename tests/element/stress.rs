// SPDX-License-Identifier: MPL-2.0

//! Many state changes.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;

use crate::random::Random;
use crate::rig;
use crate::util::*;
use crate::{child, memory_use, model, watchdog};

const STATES: [gst::State; 4] =
    [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];

/// A pipeline whose output and errors are recorded.
pub struct Watched {
    pub pipeline: Pipeline,
    /// One for each buffer or event that leaves the element.
    passed: Receiver<()>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    /// The element in `launch` is called `f`.
    pub fn new(launch: &str) -> Self {
        let pipeline = Pipeline::new(launch);
        let element = pipeline.by_name("f").unwrap();
        let faults = Arc::new(Mutex::new(Vec::new()));
        pipeline.bus().unwrap().set_sync_handler({
            let (faults, element) = (faults.clone(), element.downgrade());
            move |_, message| {
                // Ignore sources: they report an error when a stream stops, whatever is downstream.
                let own = message.src().zip(element.upgrade()).is_some_and(|(src, own)| *src == own);
                if let (gst::MessageView::Error(error), true) = (message.view(), own) {
                    faults.lock().unwrap().push(format!("{} {:?}", error.error(), error.debug()));
                }
                gst::BusSyncReply::Drop
            }
        });
        let (pass, passed) = channel();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        let pad = element.static_pad("src").unwrap();
        pad.add_probe(kinds, {
            let faults = faults.clone();
            move |pad, info| {
                if let Some(fault) = info.buffer().and_then(|buffer| rig::fault(pad, buffer)) {
                    faults.lock().unwrap().push(fault);
                }
                let _ = pass.send(());
                gst::PadProbeReturn::Ok
            }
        });
        Self { pipeline, passed, faults }
    }

    #[track_caller]
    pub fn assert_no_errors(&self, what: &str) {
        let faults = std::mem::take(&mut *self.faults.lock().unwrap());
        assert!(faults.is_empty(), "{what}: {faults:?}");
    }

    fn set(&self, state: gst::State) {
        self.pipeline.set_state(state).unwrap_or_else(|_| {
            self.assert_no_errors("a change of state");
            panic!("cannot change to {state:?}");
        });
    }

    /// Sets one to four random states, with random pauses, and then NULL.
    fn cycle(&self, random: &mut Random) {
        for _ in 0..1 + random.below(4) {
            let state = *random.pick(&STATES);
            self.set(state);
            match random.below(3) {
                0 => (),
                1 => settle(&self.pipeline),
                // A live pipeline has no output in PAUSED.
                _ if state == gst::State::Playing => {
                    while self.passed.try_recv().is_ok() {}
                    for _ in 0..random.below(4) {
                        // There may be no more output after the end of the stream.
                        let _ = self.passed.recv_timeout(std::time::Duration::from_millis(20));
                    }
                }
                _ => std::thread::yield_now(),
            }
        }
        self.set(gst::State::Null);
        while self.passed.try_recv().is_ok() {}
    }
}

/// Waits up to two seconds for the state that was set last. After quick changes GStreamer 1.22 sometimes misses that
/// the sink has prerolled, also with `videoconvert` in place of the element. A deadlock of the element is detected
/// later: a pipeline that stops waits for its threads.
pub fn settle(pipeline: &gst::Pipeline) {
    pipeline.state(gst::ClockTime::from_seconds(2)).0.unwrap();
}

pub fn launches(mask: &Path) -> [String; 3] {
    let element =
        format!("fastganseg name=f device=cpu model-file={} ref-mask={}", model::tiny(), mask.display());
    let caps = "video/x-raw,width=64,height=48,framerate=120/1";
    [
        format!("videotestsrc num-buffers=50 ! {caps} ! {element} ! fakesink"),
        format!("videotestsrc ! {caps} ! queue ! {element} output=mask ! queue ! fakesink sync=false"),
        format!("videotestsrc is-live=true ! {caps},format=RGBx ! queue ! {element} ! fakesink"),
    ]
}

/// Runs `count` cycles on three pipelines in turn. `each` is called with the number of cycles done.
pub fn cycles(count: usize, mut each: impl FnMut(usize)) {
    let files = Files::new();
    let pipelines = launches(&files.mask("mask.png", (64, 48), disc)).map(|launch| Watched::new(&launch));
    let mut random = Random::new(20);
    for round in 0..count {
        let watched = &pipelines[round % pipelines.len()];
        watched.cycle(&mut random);
        watched.assert_no_errors(&format!("cycle {round}"));
        each(round + 1);
    }
    for watched in &pipelines {
        watched.set(gst::State::Playing);
        watched
            .passed
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("the pipeline has no output any more");
        watched.set(gst::State::Null);
    }
}

#[test]
fn hundreds_of_state_changes() {
    watchdog::ends(|| cycles(150, |_| ()));
}

#[test]
#[ignore = "takes minutes: make soak"]
fn ten_thousand_state_changes() {
    child::passes("stress::ten_thousand_state_changes_alone", &[]);
}

#[test]
#[ignore = "a process of its own for ten_thousand_state_changes"]
fn ten_thousand_state_changes_alone() {
    watchdog::ends_within(std::time::Duration::from_secs(6 * 3600), || {
        let mut samples = Vec::new();
        // A cycle is about three state changes, and back to NULL.
        cycles(10_000, |done| {
            if done.is_multiple_of(20) {
                samples.extend(memory_use::resident());
            }
        });
        memory_use::flat(&samples, 1.0);
    });
}
