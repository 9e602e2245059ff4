// SPDX-License-Identifier: MPL-2.0

//! The binary as a user runs it.

mod util;

use std::fs;

use fastganseg_training::LabelMap;
use util::{Fixture, failed_with, succeeded};

/// One sequence of four frames with pictures; its annotations serve as perfect masks.
fn data() -> Fixture {
    let fixture = Fixture::empty();
    util::sequence(fixture.folder.path(), "cow", 4, |_| {
        let ids = (0..20 * 10).map(|i| u8::from(i % 20 < 8)).collect();
        (image::RgbImage::new(20, 10), LabelMap::new(20, 10, ids).unwrap())
    });
    fixture
}

#[test]
fn score_prints_a_table_and_writes_csv() {
    let fixture = data();
    let table = fixture.printed("score --data . --masks Annotations --csv scores.csv");
    let global = table.lines().last().unwrap();
    assert!(global.starts_with("global") && global.contains("100.0"), "{table}");
    let csv = fixture.text("scores.csv");
    assert!(csv.contains("object,cow,1,2,1,1,1,0,1,1,0,"), "{csv}");
}

#[test]
fn eval_of_the_frozen_mask_writes_everything() {
    let fixture = data();
    assert!(fixture.printed("eval --data . --out out --method frozen").contains("fps"));
    for file in ["out/masks/cow/00003.png", "out/scores.csv", "out/sheets/cow.png"] {
        assert!(fixture.path(file).is_file(), "{file}");
    }
}

#[test]
fn prompt_weights_that_nothing_uses_are_refused() {
    let fixture = data();
    let eval = "eval --data . --out out --method frozen --prompt-weights none.safetensors";
    let output = fixture.run_line(eval);
    assert_eq!(output.status.code(), Some(1));
    failed_with(&output, &["--prompt-weights needs --first"]);
    failed_with(&fixture.run_line(&format!("{eval} --first box")), &["none.safetensors"]);
}

#[test]
fn errors_end_with_a_message_and_status_1() {
    let fixture = data();
    let output = fixture.run_line("score --data /nonexistent-data --masks /nonexistent-masks");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with(b"error: "));
    failed_with(&output, &["/nonexistent-data"]);
    let eval = |options: &str| fixture.run_line(&format!("eval --data . --out out {options}"));
    failed_with(&eval("--device nonsense"), &["nonsense", "cuda:N"]);
    let output = eval("--model /nonexistent.safetensors");
    assert_eq!(output.status.code(), Some(1));
    failed_with(&output, &["/nonexistent.safetensors"]);
    failed_with(&eval("--method frozen --model m.safetensors"), &["--model", "frozen"]);
}

/// Two sequences of five frames with their alpha, and mattes that lag behind it.
fn mattes() -> Fixture {
    let fixture = Fixture::empty();
    for (sequence, name) in ["one", "two"].into_iter().enumerate() {
        let sequence = sequence as i32;
        let folders = [format!("data/{name}/alpha"), format!("mattes/{name}"), format!("data/{name}/frame")]
            .map(|folder| fixture.path(&folder));
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
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
            picture.save(folders[2].join(&file)).unwrap();
        }
    }
    fixture
}

#[test]
fn matte_prints_the_errors_of_existing_mattes() {
    let fixture = mattes();
    let table = fixture.printed("matte --data data --mattes mattes --csv m.csv");
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
    assert_eq!(fixture.text("m.csv").lines().count(), 4);

    fs::remove_file(fixture.path("mattes/two/00003.png")).unwrap();
    failed_with(&fixture.run_line("matte --data data --mattes mattes"), &["00003.png"]);
    failed_with(&fixture.run_line("matte --data mattes"), &["SEQUENCE/alpha"]);
}

#[test]
fn a_closed_stdout_is_no_error_and_loses_no_result() {
    for (fixture, line, csv) in [
        (data(), "score --data . --masks Annotations --csv scores.csv", "scores.csv"),
        (mattes(), "matte --data data --mattes mattes --csv scores.csv", "scores.csv"),
        (data(), "eval --data . --out out --method frozen", "out/scores.csv"),
    ] {
        let mut command = fixture.command(&line.split(' ').collect::<Vec<_>>());
        succeeded(&util::without_reader(&mut command));
        assert!(fixture.path(csv).is_file(), "{line}");
    }
}

#[test]
fn missing_mattes_are_told_from_broken_ones() {
    let fixture = mattes();
    let complaint = |words: &[&str]| {
        let output = fixture.run_line("matte --data data --mattes mattes");
        assert_eq!(output.status.code(), Some(1));
        failed_with(&output, words);
        String::from_utf8(output.stderr).unwrap()
    };
    let matte = fixture.path("mattes/two/00003.png");
    fs::write(&matte, "no picture").unwrap();
    complaint(&["two/00003.png: it cannot be decoded", "8-bit grey"]);
    fs::remove_file(&matte).unwrap();
    let missing = complaint(&["two/00003.png: it cannot be opened", "each frame"]);
    assert!(!missing.contains("decoded"), "{missing}");
}

#[test]
fn matte_runs_a_model() {
    let fixture = mattes();
    let table = fixture.printed("matte --data data --out out --network-size 64x96 --precision float32");
    assert_eq!(table.lines().count(), 4);
    let first = |folder: &str| image::open(fixture.path(folder).join("00000.png")).unwrap().into_luma8();
    assert_eq!(first("out/one"), first("data/one/alpha"), "the reference");
    assert!(fixture.path("out/two/00004.png").is_file());
}
