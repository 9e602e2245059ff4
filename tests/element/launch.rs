// SPDX-License-Identifier: MPL-2.0

//! Runs the element's code path of a GPU on the CPU.

use crate::util::*;
use crate::{child, model};

/// Formats that the device reads as planes, and one that GStreamer converts.
const SOURCES: [&str; 6] = ["I420", "NV12", "YUY2", "BGRx", "RGB", "Y42B"];

fn alphas(mask: &str) -> Vec<Vec<u8>> {
    let play_one = |format: &&str| {
        let line = format!(
            "videotestsrc num-buffers=5 pattern=ball ! video/x-raw,format={format},width=96,height=64,framerate=30/1 \
             ! fastganseg roi=off device=cpu precision=float32 edges=refine model-file={} ref-mask={mask} output=mask \
             ! appsink name=out",
            model::tiny()
        );
        let outcome = play(&line).ok();
        let infos = outcome.infos();
        let planes = outcome.samples.iter().zip(&infos);
        planes.map(|(sample, info)| plane(sample.buffer().unwrap(), info, 0, 1)).collect::<Vec<_>>()
    };
    SOURCES.iter().flat_map(play_one).collect()
}

#[test]
fn masks_of_the_gpu_path_match_those_of_the_cpu_path() {
    let files = Files::new();
    let mask = files
        .mask("mask.png", (96, 64), |x, y| if x.abs_diff(40) < 18 && y.abs_diff(30) < 12 { 255 } else { 0 });
    let all = alphas(mask.to_str().unwrap());
    assert_eq!(all.len(), 5 * SOURCES.len());
    let expected = files.write("expected", &all.concat());
    for launch in ["eager", "graph", "fixed"] {
        child::passes(
            "launch::masks_alone",
            &[
                ("FASTGANSEG_LAUNCH", launch),
                ("FASTGANSEG_MASK", mask.to_str().unwrap()),
                ("FASTGANSEG_EXPECTED", expected.to_str().unwrap()),
            ],
        );
    }
}

#[test]
#[ignore = "a process of its own for masks_of_the_gpu_path_match_those_of_the_cpu_path"]
fn masks_alone() {
    let found = alphas(&std::env::var("FASTGANSEG_MASK").unwrap()).concat();
    let expected = std::fs::read(std::env::var("FASTGANSEG_EXPECTED").unwrap()).unwrap();
    assert_eq!(found.len(), expected.len());
    let sum: u64 = found.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    let mean = sum as f64 / found.len() as f64;
    println!("alpha differs by {mean:.3} levels on average");
    assert!(mean < 2.0, "{mean}");
    assert!(found != expected, "the CPU path ran: FASTGANSEG_LAUNCH has no effect");
}

#[test]
fn an_unknown_launch_mode_is_an_error() {
    child::passes("launch::unknown_launch_mode_alone", &[("FASTGANSEG_LAUNCH", "sideways")]);
}

#[test]
#[ignore = "a process of its own for an_unknown_launch_mode_is_an_error"]
fn unknown_launch_mode_alone() {
    let message = play("videotestsrc num-buffers=1 ! fastganseg ! fakesink").error.unwrap().0.to_string();
    assert!(message.contains("sideways") && message.contains("eager"), "{message}");
}
