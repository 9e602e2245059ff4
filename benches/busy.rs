// SPDX-License-Identifier: MPL-2.0

//! Frames per second of a pipeline on a machine with other busy processes, by number of threads.
//!
//! Run with `cargo bench --bench busy`. The bench starts the busy processes itself. `-- CLIP MASK.png` uses a clip
//! instead of the drawn ball; `-- --short` takes fewer measurements. Settings alternate, so that all have the same
//! conditions.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

const ROUNDS: usize = 3;
const PIPELINES: usize = 16;

/// Column name and properties of the element.
const SETTINGS: [(&str, &str); 4] = [
    ("automatic", ""),
    ("threads=1", "threads=1"),
    ("threads=2", "threads=2"),
    ("prefetch", "frame-threading=true"),
];

/// Argument that makes this program a busy process, which uses one core.
const SPIN: &str = "--spin";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == SPIN) {
        let parent = std::os::unix::process::parent_id();
        // Ends with its parent, even if that is killed.
        while std::os::unix::process::parent_id() == parent {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(200) {
                std::hint::spin_loop();
            }
        }
        return;
    }
    gst::init().expect("GStreamer");
    gstfastganseg::element::register_static().expect("the plugin");
    let short = arguments.iter().any(|argument| argument == "--short");
    let files: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let source = match files[..] {
        [clip, mask] => Source::clip(clip, mask),
        _ => Source::ball(folder.path(), if short { 100 } else { 250 }),
    };
    let rounds = if short { 1 } else { ROUNDS };

    println!("frames per second, median of {rounds}; ratio: automatic to the best fixed number of threads");
    print!("{:<24}", "load");
    SETTINGS.iter().for_each(|(name, _)| print!(" {name:>10}"));
    println!(" {:>10}", "ratio");
    for (count, niceness) in [(0, 0), (1, 0), (2, 0), (4, 0), (1, 10), (2, 10), (4, 10)] {
        let busy = Busy::start(count, niceness);
        let name = match count {
            0 => "nothing".into(),
            _ => format!("{count} busy, nice {niceness}"),
        };
        table_row(&name, rounds, |setting| source.frames_per_second(setting, 1));
        drop(busy);
    }
    if !short {
        let name = format!("{PIPELINES} pipelines");
        table_row(&name, 1, |setting| source.frames_per_second(setting, PIPELINES));
    }
}

/// Measures each setting `rounds` times, in turn, and prints the medians.
fn table_row(name: &str, rounds: usize, measure: impl Fn(&str) -> f64) {
    let mut rates = vec![Vec::new(); SETTINGS.len()];
    for _ in 0..rounds {
        for ((_, setting), rates) in SETTINGS.iter().zip(&mut rates) {
            rates.push(measure(setting));
        }
    }
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    print!("{name:<24}");
    medians.iter().for_each(|rate| print!(" {rate:>10.1}"));
    println!(" {:>10.2}", medians[0] / medians[1].max(medians[2]));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processes that use one core each.
struct Busy(Vec<Child>);

impl Busy {
    fn start(count: usize, niceness: i32) -> Self {
        let program = std::env::current_exe().expect("this program");
        let start = |_| {
            let mut command = Command::new("nice");
            command.args(["-n", &niceness.to_string()]).arg(&program).arg(SPIN).stdout(Stdio::null());
            command.spawn().expect("a busy process")
        };
        Self((0..count).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Launch line of a clip, and its mask.
struct Source {
    elements: String,
    mask: PathBuf,
}

impl Source {
    fn clip(clip: &str, mask: &str) -> Self {
        Self { elements: format!("filesrc location={clip} ! decodebin"), mask: mask.into() }
    }

    /// A white ball at 720p, and a mask of its first frame.
    fn ball(folder: &Path, frames: usize) -> Self {
        let elements = format!(
            "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1"
        );
        let pipeline = gst::parse::launch(&format!(
            "{elements} ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=sink"
        ))
        .expect("a pipeline")
        .downcast::<gst::Pipeline>()
        .expect("a pipeline");
        let sink = pipeline.by_name("sink").and_downcast::<AppSink>().expect("the sink");
        pipeline.set_state(gst::State::Playing).expect("playing");
        let sample = sink.pull_sample().expect("a frame");
        pipeline.set_state(gst::State::Null).expect("stopped");
        let frame = sample.buffer().expect("a buffer").map_readable().expect("readable");
        let ball: Vec<u8> =
            frame.iter().take(1280 * 720).map(|&luma| if luma > 128 { 255 } else { 0 }).collect();
        let mask = folder.join("ball.png");
        image::save_buffer(&mask, &ball, 1280, 720, image::ColorType::L8).expect("a mask");
        Self { elements, mask }
    }

    /// Frame rate of all pipelines together, from the first output frame to the last.
    fn frames_per_second(&self, setting: &str, pipelines: usize) -> f64 {
        let Self { elements, mask } = self;
        let line = format!(
            "{elements} ! queue ! fastganseg device=cpu ref-mask={} {setting} ! queue ! appsink name=sink sync=false max-buffers=2",
            mask.display()
        );
        let runs: Vec<_> = (0..pipelines)
            .map(|_| {
                let pipeline = gst::parse::launch(&line).expect("a pipeline");
                let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
                std::thread::spawn(move || {
                    let sink = pipeline.by_name("sink").and_downcast::<AppSink>().expect("the sink");
                    pipeline.set_state(gst::State::Playing).expect("playing");
                    let mut times = Vec::new();
                    while sink.pull_sample().is_ok() {
                        times.push(Instant::now());
                    }
                    pipeline.set_state(gst::State::Null).expect("stopped");
                    times
                })
            })
            .collect();
        let times: Vec<Vec<Instant>> = runs.into_iter().map(|run| run.join().expect("a run")).collect();
        let first = times.iter().filter_map(|times| times.first()).min().expect("frames");
        let last = times.iter().filter_map(|times| times.last()).max().expect("frames");
        let frames: usize = times.iter().map(|times| times.len() - 1).sum();
        frames as f64 / (*last - *first).as_secs_f64()
    }
}
