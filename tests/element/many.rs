// SPDX-License-Identifier: MPL-2.0

//! Sixteen elements at once; each must give the same masks as alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::util::*;
use crate::{model, watchdog};

const COUNT: usize = 16;
const FRAMES: usize = 6;
const SOURCE: &str = "videotestsrc num-buffers=6 pattern=zone-plate kx2=20 ky2=20 kt=30 ! video/x-raw,format=I420,width=96,height=64,framerate=30/1";

/// One mask per element: rectangles that do not overlap.
fn masks(files: &Files) -> Vec<PathBuf> {
    (0..COUNT)
        .map(|index| {
            let (left, top) = (index % 4 * 24 + 2, index / 4 * 16 + 2);
            let inside = |x: usize, y: usize| (left..left + 18).contains(&x) && (top..top + 11).contains(&y);
            let data: Vec<u8> = (0..96 * 64).map(|i| if inside(i % 96, i / 96) { 255 } else { 0 }).collect();
            let (color, depth) = (png::ColorType::Grayscale, png::BitDepth::Eight);
            files.png(&format!("{index}.png"), (96, 64), color, depth, &data)
        })
        .collect()
}

/// Launch line of one element. With `roi=auto`, masks of random weights differ by a few levels of 255 between runs.
fn cut(mask: &Path) -> String {
    format!("fastganseg roi=off device=cpu model-file={} ref-mask={}", model::tiny(), mask.display())
}

/// The alpha of every frame.
fn alphas(outcome: &Outcome) -> Vec<Vec<u8>> {
    let infos = outcome.infos();
    outcome
        .samples
        .iter()
        .zip(&infos)
        .map(|(sample, info)| plane(sample.buffer().unwrap(), info, 3, 1))
        .collect()
}

fn alone(mask: &Path) -> Vec<Vec<u8>> {
    alphas(&play(&format!("{SOURCE} ! {} ! video/x-raw,format=A420 ! appsink name=out", cut(mask))).ok())
}

#[test]
fn sixteen_pipelines_side_by_side() {
    watchdog::ends(|| {
        let files = Files::new();
        let masks = masks(&files);
        let expected: Vec<_> = masks.iter().map(|mask| alone(mask)).collect();
        for (a, first) in expected.iter().enumerate() {
            assert_eq!(first.len(), FRAMES);
            for second in &expected[..a] {
                assert!(first[FRAMES - 1] != second[FRAMES - 1], "the masks make no difference");
            }
        }
        let threads: Vec<_> =
            masks.iter().cloned().map(|mask| std::thread::spawn(move || alone(&mask))).collect();
        for (index, (thread, expected)) in threads.into_iter().zip(&expected).enumerate() {
            assert!(thread.join().unwrap() == *expected, "pipeline {index} differs");
        }
    });
}

#[test]
fn sixteen_in_a_row() {
    watchdog::ends(|| {
        let files = Files::new();
        let masks = masks(&files);
        let row: Vec<String> =
            masks.iter().enumerate().map(|(i, mask)| format!("{} name=f{i}", cut(mask))).collect();
        // Drop the alpha: the next element would multiply it with its own.
        let row = row.join(" ! videoconvert ! video/x-raw,format=I420 ! ");
        let pipeline = Pipeline::new(&format!("{SOURCE} ! {row} ! video/x-raw,format=A420 ! fakesink"));
        let alphas_of: Vec<Arc<Mutex<Vec<Vec<u8>>>>> = (0..COUNT)
            .map(|index| {
                let alphas_of: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
                let pad = pipeline.by_name(&format!("f{index}")).unwrap().static_pad("src").unwrap();
                let log = alphas_of.clone();
                pad.add_probe(gst::PadProbeType::BUFFER, move |pad, probe| {
                    let info = gstreamer_video::VideoInfo::from_caps(&pad.current_caps().unwrap()).unwrap();
                    log.lock().unwrap().push(plane(probe.buffer().unwrap(), &info, 3, 1));
                    gst::PadProbeReturn::Ok
                });
                alphas_of
            })
            .collect();
        pipeline.set_state(gst::State::Playing).unwrap();
        assert!(pipeline.ends());
        pipeline.set_state(gst::State::Null).unwrap();
        for (index, (mask, alphas_of)) in masks.iter().zip(alphas_of).enumerate() {
            assert!(alone(mask) == *alphas_of.lock().unwrap(), "element {index} differs");
        }
    });
}

#[test]
fn sixteen_branches_of_one_stream() {
    watchdog::ends(|| {
        let files = Files::new();
        let masks = masks(&files);
        let mut launch = format!("{SOURCE} ! tee name=t");
        for (index, mask) in masks.iter().enumerate() {
            let cut = cut(mask);
            launch += &format!(
                "  t. ! queue ! {cut} ! video/x-raw,format=A420 ! appsink name=out{index} sync=false"
            );
        }
        let pipeline = Pipeline::new(&launch);
        pipeline.set_state(gst::State::Playing).unwrap();
        for (index, mask) in masks.iter().enumerate() {
            let sink = pipeline.by_name(&format!("out{index}")).unwrap();
            let sink = sink.downcast::<gst_app::AppSink>().unwrap();
            let mut outcome = Outcome { samples: Vec::new(), warnings: Vec::new(), error: None };
            while let Ok(sample) = sink.pull_sample() {
                outcome.samples.push(sample);
            }
            assert!(alphas(&outcome) == alone(mask), "branch {index} differs");
        }
        assert!(pipeline.ends());
    });
}
