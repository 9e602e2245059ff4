// SPDX-License-Identifier: MPL-2.0

//! The commands around training, as a user runs them: a data set drawn here, a tiny network.

mod util;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fastganseg_training::LabelMap;
use fastganseg_training::train::export;
use gstfastganseg::torch::model::{Config, Lite, weights};
use image::{Rgb, RgbImage};
use tch::nn::VarStore;
use tch::{Device, Kind};
use util::Fixture;

/// Two sequences of six frames with two objects, and the weights of a network that was never trained.
fn bench() -> Fixture {
    let bench = Fixture::empty();
    for name in ["a", "b"] {
        util::sequence(&bench.path("data"), name, 6, |frame| {
            let id = |x: usize, y: usize| match (x, y) {
                _ if (8 + 2 * frame..32 + 2 * frame).contains(&x) && (8..40).contains(&y) => 1,
                _ if (60..90).contains(&x) && (20..60).contains(&y) => 2,
                _ => 0,
            };
            let picture = RgbImage::from_fn(96, 64, |x, y| match id(x as usize, y as usize) {
                1 => Rgb([220, 190, 60]),
                2 => Rgb([40, 60, 230]),
                _ => Rgb([30, 90, 50 + 10 * (x % 3) as u8]),
            });
            let ids = (0..96 * 64).map(|i| id(i % 96, i / 96)).collect();
            (picture, LabelMap::new(96, 64, ids).unwrap())
        });
    }
    let config = Config { width: 0.125, network_size: [64, 96], ..Config::lite() };
    let store = VarStore::new(Device::Cpu);
    {
        // libtorch's random numbers are one for the process: another test's draws must not come in between.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(5);
        Lite::new(&store.root(), &config).unwrap();
    }
    let metadata = BTreeMap::from([("licence".to_owned(), "CC0-1.0".to_owned())]);
    weights::save(&bench.path("tiny.safetensors"), &store, &config, &metadata, Kind::Half).unwrap();
    bench
}

const MODEL: &str = "--data data --model tiny.safetensors --device cpu --precision float32";

fn columns(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let own = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let header = own(reader.headers().unwrap());
    (header, reader.records().map(|record| own(&record.unwrap())).collect())
}

fn json(bench: &Fixture, line: &str) -> serde_json::Value {
    serde_json::from_str(&bench.printed(line)).unwrap()
}

#[test]
fn info_tells_what_a_file_holds() {
    let bench = bench();
    let text = bench.printed("info tiny.safetensors");
    for word in ["architecture   lite", "64x96", "licence: CC0-1.0", "encoder", "matching", "total"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json = json(&bench, "info lite --json");
    assert_eq!(json["total"]["parameters"], 1_108_431);
    assert_eq!(json["config"]["network_size"], serde_json::json!([192, 336]));
    assert_eq!(json["metadata"]["format"], "1");
    let blocks = json["blocks"].as_array().unwrap();
    let sum: f64 = blocks.iter().map(|block| block["frame"].as_f64().unwrap()).sum();
    assert!((sum - json["total"]["frame"].as_f64().unwrap()).abs() < 1.0);
}

#[test]
fn the_cost_of_a_network_is_known_without_weights() {
    let bench = bench();
    let built_in = json(&bench, "info lite --json");
    let json = json(&bench, "info --architecture lite --json");
    assert_eq!(json["blocks"], built_in["blocks"]);
    assert_eq!(json["metadata"], serde_json::json!({}));
}

#[test]
fn info_refuses_what_are_no_weights() {
    let bench = bench();
    assert!(bench.complaint("info nowhere.safetensors").contains("cannot read nowhere.safetensors"));
    let picture = bench.complaint("info data/JPEGImages/a/00000.jpg");
    assert!(picture.contains("00000.jpg") && picture.contains("not a safetensors file"), "{picture}");
    let bytes = bench.read("tiny.safetensors");
    fs::write(bench.path("cut.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let cut = bench.complaint("info cut.safetensors");
    assert!(cut.contains("cut.safetensors") && cut.contains("truncated"), "{cut}");
    assert!(bench.complaint("info").contains("FILE"));
    assert!(bench.complaint("info tiny.safetensors --architecture lite").contains("--architecture"));
}

#[test]
fn weights_without_a_training_configuration_are_exported() {
    let bench = bench();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/lite.toml");
    bench.printed(&format!("export --model tiny.safetensors --config {config} --out final.safetensors"));
    let weights = weights::Weights::open(&bench.path("final.safetensors")).unwrap();
    assert_eq!(weights.metadata()["licence"], "CC-BY-NC-4.0");
    let half = fs::metadata(bench.path("final.safetensors")).unwrap().len();
    let int8 = format!(
        "export --model tiny.safetensors --config {config} --int8 --out final.safetensors --card card.md"
    );
    bench.printed(&int8);
    assert!(fs::metadata(bench.path("final.safetensors")).unwrap().len() < half);
    assert!(bench.text("card.md").contains("int8"));
    assert!(bench.printed("info final.safetensors").contains("architecture   lite"));
}

#[test]
fn export_does_not_replace_its_inputs() {
    let bench = bench();
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/lite.toml"), bench.path("run.toml")).unwrap();
    let read = || ["tiny.safetensors", "run.toml"].map(|name| bench.read(name));
    let before = read();
    for (outputs, words) in [
        ("--out data/../tiny.safetensors", ["--out data/../tiny.safetensors", "--model"]),
        ("--out new.safetensors --card tiny.safetensors", ["--card tiny.safetensors", "--model"]),
        ("--out new.safetensors --card ./new.safetensors", ["--card ./new.safetensors", "--out"]),
        ("--out new.safetensors --card run.toml", ["--card run.toml", "--config"]),
    ] {
        let complaint =
            bench.complaint(&format!("export --model tiny.safetensors --config run.toml {outputs}"));
        assert!(words.iter().all(|word| complaint.contains(word)), "{complaint}");
        assert!(read() == before && !bench.path("new.safetensors").exists(), "{outputs}");
    }
}

#[test]
fn a_card_has_no_scores_of_another_size_and_says_where_those_of_int8_come_from() {
    let bench = bench();
    let weights = weights::Weights::open(&bench.path("tiny.safetensors")).unwrap();
    let scores = [("j_and_f", "0.75"), ("j", "0.8"), ("f", "0.7"), ("set", "{}")];
    let scores = scores.map(|(key, value)| (format!("validation_{key}"), value.to_owned()));
    export(&weights, &scores.into(), true, Kind::Half, &bench.path("scored.safetensors")).unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/lite.toml");
    let card = |options: &str| {
        let files = "--model scored.safetensors --out final.safetensors --card card.md";
        bench.printed(&format!("export {files} --config {config} {options}"));
        let written = weights::Weights::open(&bench.path("final.safetensors")).unwrap();
        let scored = written.metadata().keys().any(|key| key.starts_with("validation"));
        (bench.text("card.md"), scored)
    };
    let row = "| all | 75.0 | 80.0 | 70.0 |";
    let (same, scored) = card("--network-size 64x96");
    assert!(scored && same.contains(row) && !same.contains("before they were reduced"), "{same}");
    let (int8, scored) = card("--int8");
    assert!(scored && int8.contains(row) && int8.contains("before they were reduced to int8"), "{int8}");
    let (other, scored) = card("--network-size 96x128");
    assert!(!scored && !other.contains(row) && other.contains("not validated"), "{other}");
}

#[test]
fn loops_play_sequences_forwards_and_backwards() {
    let bench = bench();
    let text = bench.printed(&format!("eval {MODEL} --out out --loop 25"));
    assert!(text.contains("global"), "{text}");
    let masks = fs::read_dir(bench.path("out/masks/a")).unwrap().count();
    assert_eq!(masks, 25, "two tours of ten frames and a half");
    let (header, rows) = columns(&bench.path("out/scores.csv"));
    assert_eq!(header[..4], ["scope", "sequence", "object", "frames"]);
    assert!(rows.iter().filter(|row| row[0] == "sequence").all(|row| row[3] == "23"), "{rows:?}");
}

#[test]
fn confidence_is_compared_with_truth() {
    let bench = bench();
    for options in ["--frame-threading", "--edges bilinear", ""] {
        confidence_is_written(&bench, options);
    }
    // An output that cannot be written is known before the first sequence runs.
    let complaint = bench.complaint(&format!("eval {MODEL} --out late --confidence data"));
    assert!(complaint.contains("cannot write data") && !bench.path("late").exists(), "{complaint}");
    bench.printed(&format!("eval {MODEL} --out out --confidence new/folder/c.csv"));
    assert!(bench.path("new/folder/c.csv").is_file());
}

#[test]
fn a_closed_stdout_does_not_lose_the_confidence() {
    let bench = bench();
    let line = format!("eval {MODEL} --out out --confidence c.csv");
    let mut command = bench.command(&line.split_whitespace().collect::<Vec<_>>());
    util::succeeded(&util::without_reader(&mut command));
    assert_eq!(columns(&bench.path("c.csv")).1.len(), 2 * 2 * 4);
}

fn confidence_is_written(bench: &Fixture, options: &str) {
    let text = bench.printed(&format!("eval {MODEL} --out out --confidence c.csv {options}"));
    assert!(text.contains("expected calibration error"), "{text}");
    let (header, rows) = columns(&bench.path("c.csv"));
    assert_eq!(header[..4], ["sequence", "frame", "object", "confidence"]);
    assert_eq!(rows.len(), 2 * 2 * 4, "two sequences, two objects, all frames but the first and the last");
    for row in &rows {
        let [confidence, area, region] =
            [&row[3], &row[5], &row[6]].map(|field| field.parse::<f64>().unwrap());
        assert_eq!(area > 0.0, confidence > 0.0, "{row:?}");
        assert!((0.0..=1.0).contains(&confidence) && (0.0..=1.0).contains(&region), "{row:?}");
    }
}

#[test]
fn covers_are_reported_by_case_and_in_the_mean() {
    let bench = bench();
    let complaint = bench.complaint(&format!("eval {MODEL} --cover black --cover-length 2"));
    assert!(complaint.contains("frames") && complaint.contains("needed"), "too short: {complaint}");
    let both = bench.complaint(&format!("eval {MODEL} --cover black --loop 25"));
    assert!(both.contains("--cover") && both.contains("--loop"), "{both}");
    fs::write(bench.path("one.txt"), "a\n").unwrap();
    let single = bench.complaint(&format!("eval {MODEL} --split one.txt --cover other-scene"));
    assert!(single.contains("two sequences"), "{single}");
    let other = bench.complaint("eval --data data --method frozen --cover black");
    assert!(other.contains("--method model"), "{other}");
    for option in ["--sheet-frames 3", "--bare-sheets", "--edges refine"] {
        let complaint = bench.complaint(&format!("eval {MODEL} --cover black {option}"));
        assert!(complaint.contains("--cover") && complaint.contains(&option[..7]), "{complaint}");
    }
    for name in ["a", "b"] {
        // Frames without an annotation are compared with the masks of a run without the cover.
        for frame in 6..16 {
            let picture = bench.path(&format!("data/JPEGImages/{name}/00005.jpg"));
            fs::copy(picture, bench.path(&format!("data/JPEGImages/{name}/{frame:05}.jpg"))).unwrap();
        }
    }
    let text = bench.printed(&format!("eval {MODEL} --cover black,frozen --cover-length 1,2"));
    let cases = text.lines().filter(|line| line.starts_with("a ") || line.starts_with("b ")).count();
    assert_eq!(cases, 2 * 2 * 2, "{text}");
    assert!(text.contains("all: 8 cases"), "{text}");
    // The results do not depend on the covers that were measured before.
    let of = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains(" frozen ")).map(str::to_owned).collect()
    };
    let alone = bench.printed(&format!("eval {MODEL} --cover frozen --cover-length 1,2"));
    assert_eq!((of(&text).len(), of(&text)), (4, of(&alone)));
    let empty = LabelMap::background(96, 64);
    empty.save(&bench.path("data/Annotations/b/00000.png")).unwrap();
    let complaint = bench.complaint(&format!("eval {MODEL} --cover black --cover-length 1"));
    assert!(complaint.contains("Annotations/b/00000.png"), "{complaint}");
}

#[test]
fn methods_need_an_output_folder_and_their_own_options() {
    let bench = bench();
    assert!(bench.complaint("eval --data data").contains("--out"));
    for (options, part) in [
        ("--method frozen --confidence c.csv", "--confidence needs"),
        ("--method frozen --edges bilinear", "--edges needs"),
        ("--method frozen --memory-frames 2", "--memory-frames needs"),
        ("--method frozen --precision float32", "--precision needs"),
        ("--method frozen --roi off", "--roi needs"),
        ("--loop 2", "at least 3"),
    ] {
        let complaint = bench.complaint(&format!("eval --data data --out out {options}"));
        assert!(complaint.contains(part), "{options}: {complaint}");
    }
    let both = bench.complaint(&format!("eval {MODEL} --out out --frame-threading --edges refine"));
    assert!(both.contains("--frame-threading") && both.contains("--edges"), "{both}");
}
