// SPDX-License-Identifier: MPL-2.0

//! The binary as a user runs it.

mod util;

use std::path::Path;
use std::process::{Command, Output};

use fastganseg_training::LabelMap;

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
    util::sequence(root.path(), "cow", 4, |_| {
        let ids = (0..20 * 10).map(|i| u8::from(i % 20 < 8)).collect();
        (image::RgbImage::new(20, 10), LabelMap::new(20, 10, ids).unwrap())
    });
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
    for file in ["masks/cow/00003.png", "scores.csv", "sheets/cow.png"] {
        assert!(root.path().join("out").join(file).is_file(), "{file}");
    }
}

#[test]
fn prompt_weights_that_nothing_uses_are_refused() {
    let root = data();
    let (data, out) = (path(root.path(), ""), path(root.path(), "out"));
    let weights = ["--prompt-weights", "none.safetensors"];
    let eval = ["eval", "--data", &data, "--out", &out, "--method", "frozen"];
    let output = run(&[&eval[..], &weights[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--prompt-weights needs --first"), "{}", text(&output.stderr));
    let output = run(&[&eval[..], &weights[..], &["--first", "box"]].concat());
    assert!(text(&output.stderr).contains("none.safetensors"), "{}", text(&output.stderr));
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

/// Two sequences of five frames with their alpha, and mattes that lag behind it.
fn mattes() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (sequence, name) in ["one", "two"].into_iter().enumerate() {
        let sequence = sequence as i32;
        let folder = |kind: &str| root.path().join(kind).join(name);
        let folders = [root.path().join("data").join(name).join("alpha"), folder("mattes")];
        let frames = root.path().join("data").join(name).join("frame");
        folders.iter().chain([&frames]).for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        for frame in 0..5 {
            let distance = |x: i32, y: i32, centre: i32| {
                (x - centre - (2 + sequence) * frame).abs() + (y - 16 - sequence).abs()
            };
            let mut alpha = image::GrayImage::new(64, 40);
            let mut matte = alpha.clone();
            let mut picture = image::RgbImage::new(64, 40);
            for (x, y) in (0..64).flat_map(|x| (0..40).map(move |y| (x, y))) {
                let (column, row) = (x as i32, y as i32);
                let value = (128 + 20 * (12 - distance(column, row, 20))).clamp(0, 255) as u8;
                alpha[(x, y)].0 = [value];
                picture[(x, y)].0 = [value, 255 - value, value / 2];
                let blob = (50..53).contains(&x) && (36..38).contains(&y);
                let late = 128 + 12 * (13 - distance(column, row, 21)) - frame % 2 * 10;
                matte[(x, y)].0 = [if blob { 200 } else { late.clamp(0, 255) as u8 }];
            }
            let file = format!("{frame:05}.png");
            alpha.save(folders[0].join(&file)).unwrap();
            matte.save(folders[1].join(&file)).unwrap();
            picture.save(frames.join(&file)).unwrap();
        }
    }
    root
}

#[test]
fn matte_prints_the_errors_of_existing_mattes() {
    let root = mattes();
    let (data, mattes, csv) =
        (path(root.path(), "data"), path(root.path(), "mattes"), path(root.path(), "m.csv"));
    let output = run(&["matte", "--data", &data, "--mattes", &mattes, "--csv", &csv]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["sequence", "MAD", "MSE", "Grad", "Conn", "dtSSD", "band"]);
    // Computed in Python with OpenCV.
    let expected = [
        ("one", [47.99, 8.876, 0.154, 0.108, 5.23, 59.6]),
        ("two", [48.64, 8.993, 0.155, 0.109, 6.92, 59.4]),
        ("all", [48.32, 8.934, 0.154, 0.108, 6.07, 59.5]),
    ];
    let rounding = [0.005, 0.001, 0.001, 0.001, 0.005, 0.05];
    for (row, (name, values)) in rows[1..].iter().zip(expected) {
        assert_eq!(row[0], name);
        for ((found, expected), rounding) in row[1..].iter().zip(values).zip(rounding) {
            let found: f64 = found.parse().unwrap();
            assert!((found - expected).abs() <= rounding + 1e-9, "{name}: {found}, not {expected}\n{table}");
        }
    }
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 4);

    let missing = root.path().join("mattes/two/00003.png");
    std::fs::remove_file(&missing).unwrap();
    let output = run(&["matte", "--data", &data, "--mattes", &mattes]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("00003.png"),
        "{}",
        text(&output.stderr)
    );
    let output = run(&["matte", "--data", &mattes]);
    assert!(text(&output.stderr).contains("SEQUENCE/alpha"), "{}", text(&output.stderr));
}

#[test]
fn a_closed_stdout_is_no_error_and_loses_no_result() {
    let (root, mattes) = (data(), mattes());
    let at = |inner: &str| path(root.path(), inner);
    let matte = |inner: &str| path(mattes.path(), inner);
    let (score_csv, matte_csv) = (at("scores.csv"), matte("scores.csv"));
    for arguments in [
        ["score", "--data", &at(""), "--masks", &at("Annotations"), "--csv", &score_csv],
        ["matte", "--data", &matte("data"), "--mattes", &matte("mattes"), "--csv", &matte_csv],
        ["eval", "--data", &at(""), "--out", &at("out"), "--method", "frozen"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fastganseg-train"));
        let output = util::without_reader(command.args(arguments));
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
    for file in [&score_csv, &matte_csv, &at("out/scores.csv")] {
        assert!(Path::new(file).is_file(), "{file}");
    }
}

#[test]
fn missing_mattes_are_told_from_broken_ones() {
    let root = mattes();
    let (data, mattes) = (path(root.path(), "data"), path(root.path(), "mattes"));
    let complaint = || {
        let output = run(&["matte", "--data", &data, "--mattes", &mattes]);
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let matte = root.path().join("mattes/two/00003.png");
    std::fs::write(&matte, "no picture").unwrap();
    let broken = complaint();
    assert!(
        broken.contains("two/00003.png: it cannot be decoded") && broken.contains("8-bit grey"),
        "{broken}"
    );
    std::fs::remove_file(&matte).unwrap();
    let missing = complaint();
    assert!(
        missing.contains("two/00003.png: it cannot be opened") && missing.contains("each frame"),
        "{missing}"
    );
    assert!(!missing.contains("decoded"), "{missing}");
}

#[test]
fn matte_runs_a_model() {
    let root = mattes();
    let (data, out) = (path(root.path(), "data"), path(root.path(), "out"));
    let output =
        run(&["matte", "--data", &data, "--out", &out, "--network-size", "64x96", "--precision", "float32"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 4);
    let first = |folder: &str| std::fs::read(root.path().join(folder).join("00000.png")).unwrap();
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_luma8();
    assert_eq!(pixels(&first("out/one")), pixels(&first("data/one/alpha")), "the reference");
    assert!(root.path().join("out/two/00004.png").is_file());
}
