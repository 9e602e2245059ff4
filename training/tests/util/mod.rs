// SPDX-License-Identifier: MPL-2.0

//! Fixture of the tests and the bench that run `fastganseg-train`.

// Each test binary uses a part.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fastganseg_training::LabelMap;
use image::{Rgb, RgbImage};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fastganseg-train");
const WIDTH: u32 = 96;
const HEIGHT: u32 = 64;

/// A bright disk over a dark pattern, and its labels.
fn draw(x: f32, y: f32, seed: u32) -> (RgbImage, LabelMap) {
    let inside = |u: u32, v: u32| (u as f32 - x).powi(2) + (v as f32 - y).powi(2) < 150.0;
    let picture = RgbImage::from_fn(WIDTH, HEIGHT, |u, v| match inside(u, v) {
        true => Rgb([230, (u * 5 % 60) as u8, 40]),
        false => Rgb([(u * seed % 50) as u8, (v * 7 % 90) as u8, 80]),
    });
    let ids = (0..HEIGHT).flat_map(|v| (0..WIDTH).map(move |u| u8::from(inside(u, v)))).collect();
    (picture, LabelMap::new(WIDTH as usize, HEIGHT as usize, ids).unwrap())
}

/// Writes a picture as JPEG and its labels as PNG.
pub fn write(picture: &Path, mask: &Path, pixels: &RgbImage, labels: &LabelMap) {
    for path in [picture, mask] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    pixels.save(picture).unwrap();
    labels.save(mask).unwrap();
}

/// Writes a sequence in the layout of DAVIS. `draw` returns the picture and the labels of a frame.
pub fn sequence(root: &Path, name: &str, frames: usize, draw: impl Fn(usize) -> (RgbImage, LabelMap)) {
    let path = |kind: &str, file: String| root.join(kind).join(name).join(file);
    for frame in 0..frames {
        let (pixels, labels) = draw(frame);
        let picture = path("JPEGImages", format!("{frame:05}.jpg"));
        write(&picture, &path("Annotations", format!("{frame:05}.png")), &pixels, &labels);
    }
}

/// A folder in which the program runs.
pub struct Fixture {
    pub folder: tempfile::TempDir,
}

impl Fixture {
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A generated data set and a configuration of a tiny network.
    pub fn new() -> Self {
        let fixture = Self::empty();
        let folder = &fixture.folder;
        for index in 0..3u32 {
            sequence(&folder.path().join("video"), &format!("s{index}"), 8, |frame| {
                draw(20.0 + 5.0 * frame as f32, 20.0 + 8.0 * index as f32, index + 3)
            });
        }
        for still in 0..3u32 {
            for (root, masks, at, seed) in
                [("photos", "Annotations", (40.0, 30.0), 9), ("regions", "Labels", (50.0, 20.0), 5)]
            {
                let path = |kind: &str, extension: &str| {
                    folder.path().join(root).join(kind).join(format!("p{still}.{extension}"))
                };
                let (pixels, labels) = draw(at.0, at.1, still + seed);
                write(&path("JPEGImages", "jpg"), &path(masks, "png"), &pixels, &labels);
            }
        }
        fs::write(fixture.path("run.toml"), fixture.config()).unwrap();
        fixture
    }

    /// A fixture whose configuration has `more` sections.
    pub fn with(more: &[&str]) -> Self {
        let fixture = Self::new();
        fs::write(fixture.path("run.toml"), fixture.config() + &more.concat()).unwrap();
        fixture
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn config(&self) -> String {
        format!(
            r#"
steps = 4
seed = 7
threads = 1
loader_threads = 2
mixed_precision = false
checkpoint_every = 2

[model]
architecture = "lite"
matching = "affinity"
temporal_skip = "refine"
network_size = [64, 96]
width = 0.125
memory = {{ frames = 2, every = 5, tokens = 64 }}

[data]
window = 2
batch = 2
size = [64, 96]

[data.sources.video]
kind = "video"
path = {:?}
ratio = 0.5
exclude = ["s2"]
size = [64, 96]

[data.sources.photos]
kind = "stills"
path = {:?}
ratio = 0.25

[data.sources.regions]
kind = "stills"
path = {:?}
ratio = 0.25

[optimiser]
learning_rate = 1e-3
encoder_learning_rate = 1e-4
betas = [0.9, 0.99]
weight_decay = 1e-4
clip = 1.0
warm_up = 2
decay_power = 0.9

[loss]
cross_entropy = "balanced"
cross_entropy_weight = 1.0
region_weight = 1.0
"#,
            self.path("video"),
            self.path("photos"),
            self.path("regions"),
        )
    }

    /// The program with arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn run_line(&self, line: &str) -> Output {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// What a command prints, for it succeeds.
    pub fn printed(&self, line: &str) -> String {
        let output = self.run_line(line);
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command complains of, for it fails.
    pub fn complaint(&self, line: &str) -> String {
        let output = self.run_line(line);
        assert!(!output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn train(&self, out: &str, settings: &[&str]) -> Output {
        self.run(&train(out, settings))
    }
}

/// Arguments of a training run.
pub fn train<'a>(out: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--config", "run.toml", "--out", out];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    arguments
}

/// The section of a configuration that validates these sequences.
pub fn validation(sequences: &[&str], every: u64) -> String {
    format!("\n[validation]\ndata = \"video\"\nsequences = {sequences:?}\nevery = {every}\n")
}

/// Runs a command whose stdout has no reader, as if it was piped to a program that has ended.
pub fn without_reader(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn failed_with(output: &Output, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

/// The values of a column of a curve, without empty fields.
pub fn column(curve: &str, name: &str) -> Vec<f64> {
    let mut lines = curve.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let index = header.iter().position(|column| *column == name);
    let index = index.unwrap_or_else(|| panic!("no {name} in {header:?}"));
    lines.filter_map(|line| line.split(',').nth(index)?.parse().ok()).collect()
}

/// Settings of a run that does not end.
pub const ENDLESS: [&str; 3] = ["steps=1000000", "report_every=1", "checkpoint_every=1000000"];

/// Both critics, with minimal layers.
pub const CRITICS: &str = r#"
[critics]
steps = 2
learning_rate = 1e-3
shape = { max_channels = 8, width = 1.0 }
"#;
