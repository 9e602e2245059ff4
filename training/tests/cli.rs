// SPDX-License-Identifier: MPL-2.0

//! The binary as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

use fastganseg_training::{LabelMap, indexed_png};

fn run(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_fastganseg-train");
    Command::new(binary).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One sequence of four frames with pictures; its annotations serve as perfect masks.
fn data() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let folders = ["JPEGImages/cow", "Annotations/cow"].map(|folder| root.path().join(folder));
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    for frame in 0..4 {
        let ids = (0..20 * 10).map(|i| u8::from(i % 20 < 8)).collect();
        let map = LabelMap::new(20, 10, ids).unwrap();
        indexed_png::write(&folders[1].join(format!("{frame}.png")), &map).unwrap();
        image::RgbImage::new(20, 10).save(folders[0].join(format!("{frame}.jpg"))).unwrap();
    }
    root
}

fn path(root: &Path, inner: &str) -> String {
    root.join(inner).to_str().unwrap().to_string()
}

#[test]
fn score_prints_a_table_and_writes_csv() {
    let root = data();
    let (masks, csv) = (path(root.path(), "Annotations"), path(root.path(), "scores.csv"));
    let data = path(root.path(), "");
    let output = run(&["score", "--data", &data, "--masks", &masks, "--csv", &csv]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let global = table.lines().last().unwrap();
    assert!(global.starts_with("global") && global.contains("100.0"), "{table}");
    let csv = std::fs::read_to_string(csv).unwrap();
    assert!(csv.contains("object,cow,1,2,1,1,1,0,1,1,0,"), "{csv}");
}

#[test]
fn eval_of_the_frozen_mask_writes_everything() {
    let root = data();
    let (data, out) = (path(root.path(), ""), path(root.path(), "out"));
    let output = run(&["eval", "--data", &data, "--out", &out, "--method", "frozen"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fps"));
    for file in ["masks/cow/3.png", "scores.csv", "sheets/cow.png"] {
        assert!(root.path().join("out").join(file).is_file(), "{file}");
    }
}

#[test]
fn errors_end_with_a_message_and_status_1() {
    let output = run(&["score", "--data", "/nonexistent-data", "--masks", "/nonexistent-masks"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: ") && message.contains("/nonexistent-data"), "{message}");
    let root = data();
    let (data, out) = (path(root.path(), ""), path(root.path(), "out"));
    let output = run(&["eval", "--data", &data, "--out", &out, "--device", "nonsense"]);
    let message = text(&output.stderr);
    assert!(message.contains("nonsense") && message.contains("cuda:N"), "{message}");
    let output = run(&["eval", "--data", &data, "--out", &out, "--model", "/nonexistent.safetensors"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent.safetensors"));
    let frozen = ["eval", "--data", &data, "--out", &out, "--method", "frozen", "--model", "m.safetensors"];
    let message = text(&run(&frozen).stderr);
    assert!(message.contains("--model") && message.contains("frozen"), "{message}");
}
