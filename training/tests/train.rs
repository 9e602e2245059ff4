//! A training run in small: a data set drawn here, a tiny network, a few steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fastganseg_training::LabelMap;
use fastganseg_training::indexed_png;
use gstfastganseg::model::weights::Weights;
use image::{Rgb, RgbImage};

const WIDTH: u32 = 96;
const HEIGHT: u32 = 64;

/// A bright disk that moves over a dark pattern.
fn draw(x: f32, y: f32, seed: u32) -> (RgbImage, LabelMap) {
    let inside = |u: u32, v: u32| (u as f32 - x).powi(2) + (v as f32 - y).powi(2) < 150.0;
    let picture = RgbImage::from_fn(WIDTH, HEIGHT, |u, v| match inside(u, v) {
        true => Rgb([230, (u * 5 % 60) as u8, 40]),
        false => Rgb([(u * seed % 50) as u8, (v * 7 % 90) as u8, 80]),
    });
    let ids = (0..HEIGHT).flat_map(|v| (0..WIDTH).map(move |u| u8::from(inside(u, v)))).collect();
    (picture, LabelMap::new(WIDTH as usize, HEIGHT as usize, ids).unwrap())
}

fn write(folder: &Path, annotations: &str, name: &str, (picture, labels): (RgbImage, LabelMap)) {
    for (kind, extension) in [("JPEGImages", "jpg"), (annotations, "png")] {
        let path = folder.join(kind).join(name).with_extension(extension);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match extension {
            "jpg" => picture.save(&path).unwrap(),
            _ => indexed_png::write(&path, &labels).unwrap(),
        }
    }
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for sequence in 0..3u32 {
            for frame in 0..8u32 {
                let name = format!("s{sequence}/{frame:05}");
                let at = (20.0 + 5.0 * frame as f32, 20.0 + 8.0 * sequence as f32);
                write(&folder.path().join("video"), "Annotations", &name, draw(at.0, at.1, sequence + 3));
            }
        }
        for still in 0..3u32 {
            let name = format!("p{still}");
            write(&folder.path().join("photos"), "Annotations", &name, draw(40.0, 30.0, still + 9));
            write(&folder.path().join("regions"), "Labels", &name, draw(50.0, 20.0, still + 5));
        }
        let bench = Self { folder };
        fs::write(bench.path("run.toml"), bench.config()).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
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

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fastganseg-train"))
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn train(&self, out: &str, settings: &[&str]) -> Output {
        let mut arguments = vec!["train", "--config", "run.toml", "--out", out];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        self.run(&arguments)
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn failed_with(output: &Output, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[test]
fn a_run_leaves_weights_that_can_be_evaluated() {
    let bench = Bench::new();
    succeeded(&bench.train("out", &["steps=25", "checkpoint_every=25"]));
    let curve = fs::read_to_string(bench.path("out/curve.csv")).unwrap();
    assert_eq!(curve.lines().count(), 2, "{curve}");
    let seed = fs::read_to_string(bench.path("out/config.toml")).unwrap();
    assert!(seed.contains("steps = 25"), "the configuration as it was used");
    let model = ["--model", "out/model.safetensors", "--device", "cpu"];
    let output = bench.run(&[&["eval", "--data", "video", "--out", "masks"], &model[..]].concat());
    succeeded(&output);
    assert!(bench.path("masks/masks/s0/00007.png").exists());
}

#[test]
fn exported_weights_say_what_they_are() {
    let bench = Bench::new();
    let with_metadata = format!("{}\n[metadata]\nlicence = \"CC0-1.0\"\n", bench.config());
    fs::write(bench.path("run.toml"), with_metadata).unwrap();
    succeeded(&bench.train("out", &["steps=1"]));
    let from = ["--model", "out/model.safetensors", "--config", "run.toml"];
    let to = ["--out", "final.safetensors", "--network-size", "96x128"];
    succeeded(&bench.run(&[&["export"], &from[..], &to[..]].concat()));
    let weights = Weights::open(&bench.path("final.safetensors")).unwrap();
    assert_eq!(weights.config().network_size, [96, 128]);
    assert_eq!(weights.metadata()["licence"], "CC0-1.0");
    assert_eq!(weights.metadata()["steps"], "1");
}

#[test]
fn a_model_card_says_what_is_known() {
    let bench = Bench::new();
    let metadata = "\n[metadata]\nlicence = \"CC0-1.0\"\ntraining_data = \"disks\"\n";
    fs::write(bench.path("run.toml"), bench.config() + metadata).unwrap();
    succeeded(&bench.train("out", &["steps=1"]));
    let line =
        "export --model out/model.safetensors --config run.toml --out final.safetensors --card CARD.md";
    succeeded(&bench.run(&line.split(' ').collect::<Vec<_>>()));
    let card = fs::read_to_string(bench.path("CARD.md")).unwrap();
    for word in
        ["# final.safetensors", "| licence | CC0-1.0 |", "| data | disks |", "| steps | 1 |", "| seed | 7 |"]
    {
        assert!(card.contains(word), "{word} in {card}");
    }
    assert!(card.contains("GMAC") && card.contains("not validated") && card.contains("batch = 2"), "{card}");

    // With scores, as validation leaves them.
    let weights = Weights::open(&bench.path("final.safetensors")).unwrap();
    let mut metadata = weights.metadata().clone();
    for (key, value) in [
        ("validation_j_and_f", "0.75"),
        ("validation_j", "0.8"),
        ("validation_f", "0.7"),
        ("validation_by_sequence", r#"{"s1":[0.9,0.6],"s0":[0.7,0.8]}"#),
    ] {
        metadata.insert(key.into(), value.into());
    }
    fastganseg_training::train::export(&weights, &metadata, &bench.path("out/model.safetensors")).unwrap();
    succeeded(&bench.run(&line.split(' ').collect::<Vec<_>>()));
    let card = fs::read_to_string(bench.path("CARD.md")).unwrap();
    let table = "| s0 | 75.0 | 70.0 | 80.0 |\n| s1 | 75.0 | 90.0 | 60.0 |\n| all | 75.0 | 80.0 | 70.0 |";
    assert!(card.contains(table), "{card}");
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let bench = Bench::new();
    succeeded(&bench.train("whole", &[]));
    // The schedule looks at the length of the whole run, so the run is cut by its checkpoint.
    succeeded(&bench.train("parts", &[]));
    let first = fs::read(bench.path("whole/checkpoint.safetensors")).unwrap();
    assert!(first == fs::read(bench.path("parts/checkpoint.safetensors")).unwrap(), "same seed, same run");

    succeeded(&bench.train("half", &["stop_after=2"]));
    let half = fs::read(bench.path("half/checkpoint.safetensors")).unwrap();
    assert!(half != first);
    succeeded(&bench.train("half", &[]));
    assert!(first == fs::read(bench.path("half/checkpoint.safetensors")).unwrap(), "2 + 2 steps = 4 steps");
}

#[test]
fn the_curve_of_a_resumed_run_has_each_step_once() {
    let bench = Bench::new();
    succeeded(&bench.train("out", &["steps=55", "stop_after=30", "checkpoint_every=10"]));
    // As if it had gone on past its last checkpoint before it was killed.
    let path = bench.path("out/curve.csv");
    let mut curve = fs::read_to_string(&path).unwrap();
    curve.push_str("50,9,9,9,9,9\n");
    fs::write(&path, curve).unwrap();
    succeeded(&bench.train("out", &["steps=55", "checkpoint_every=10"]));
    let curve = fs::read_to_string(&path).unwrap();
    let rows: Vec<Vec<f64>> = curve
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|field| field.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [25.0, 50.0], "{curve}");
    assert!(rows[1][2] > 0.3 * rows[0][2] && rows[1][2] < 1.0, "means, not sums over fewer steps: {curve}");
}

#[test]
fn footage_of_which_no_clip_can_be_made_is_an_error() {
    let bench = Bench::new();
    failed_with(
        &bench
            .train("out", &["data.window=20", "data.sources.photos.ratio=0", "data.sources.regions.ratio=0"]),
        &["data.window"],
    );
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let bench = Bench::new();
    failed_with(&bench.train("out", &["optimiser.learning_rat=1"]), &["run.toml", "learning_rat"]);
    failed_with(&bench.train("out", &["data.remember=2"]), &["run.toml", "data.remember"]);
    failed_with(&bench.train("out", &["model.network_size=[60, 96]"]), &["run.toml", "network_size"]);
    failed_with(&bench.train("out", &["steps"]), &["run.toml", "key=value"]);
    failed_with(&bench.train("out", &["data.sources.video.path=nowhere"]), &["nowhere"]);
    failed_with(
        &bench.train("out", &["data.sources.video.exclude=['s0', 's1', 's2']"]),
        &["no annotated sequence"],
    );
    failed_with(&bench.train("out", &["backbone=none.safetensors"]), &["none.safetensors"]);
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let bench = Bench::new();
    succeeded(&bench.train("out", &[]));
    let other = bench.train("out", &["model.width=0.25", "steps=8"]);
    failed_with(&other, &["out/checkpoint.safetensors", "no tensor"]);
}

#[test]
fn broken_pictures_are_named() {
    let bench = Bench::new();
    fs::write(bench.path("video/JPEGImages/s1/00003.jpg"), b"no picture").unwrap();
    let preload = "data.sources.video.preload=true";
    let limited = bench.train("out", &[preload, "data.broken_limit=0"]);
    failed_with(&limited, &["s1/00003.jpg", "data.broken_limit"]);
    let output = bench.train("out", &[preload, "steps=1"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("s1/00003.jpg"), "left out, but not in silence");
}

#[test]
fn clips_can_be_looked_at() {
    let bench = Bench::new();
    let output = bench.run(&["clips", "--config", "run.toml", "--out", "clips.png", "--batches", "1"]);
    succeeded(&output);
    let sheet = image::open(bench.path("clips.png")).unwrap();
    assert!(sheet.width() > 640 && sheet.height() > 400);
}
