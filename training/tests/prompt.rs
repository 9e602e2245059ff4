// SPDX-License-Identifier: MPL-2.0

//! Training of the prompt network's decoder.

mod util;

use std::fs::File;
use std::path::Path;

use fastganseg_training::LabelMap;
use fastganseg_training::prompt::{PromptConfig, run};
use fastganseg_training::train::Interrupt;
use gstfastganseg::torch::model::prompt::{ENCODER, PromptNetwork, built_in};
use gstfastganseg::torch::model::weights::open_tensors;
use image::{Rgb, RgbImage};
use tch::{Device, Kind};

/// Writes a picture of a bright square and its mask.
fn write_stills(root: &Path) {
    let inside = |x: u32, y: u32| (20..44).contains(&x) && (16..40).contains(&y);
    let picture = RgbImage::from_fn(64, 48, |x, y| Rgb(if inside(x, y) { [240, 200, 60] } else { [30; 3] }));
    let ids = (0..64 * 48).map(|i| u8::from(inside(i % 64, i / 64))).collect();
    let labels = LabelMap::new(64, 48, ids).unwrap();
    util::write(&root.join("JPEGImages/square.jpg"), &root.join("Annotations/square.png"), &picture, &labels);
}

fn config(data: &Path, seed: u64, steps: u64) -> PromptConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/prompt.toml");
    let sources = ["vsb", "youtube", "desk", "coco", "people"].map(|name| format!("sources.{name}.ratio=0"));
    let mut settings: Vec<String> = sources.into_iter().collect();
    settings.extend([
        format!("sources.portraits.path={:?}", data.display().to_string()),
        format!("seed={seed}"),
        format!("steps={steps}"),
        "batch=1".into(),
        "clicks=2".into(),
        "report_every=1".into(),
    ]);
    let mut config = PromptConfig::open(&path, &settings).unwrap();
    config.sources.retain(|name, _| name == "portraits");
    config
}

#[test]
fn a_folder_in_use_by_another_run_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let other = File::create(out.path().join(".lock")).unwrap();
    other.lock().unwrap();
    let error = run(&config(Path::new("nowhere"), 1, 2), out.path(), &Interrupt::default()).unwrap_err();
    assert!(error.to_string().contains("another run uses the folder"), "{error}");
    assert_eq!(out.path().read_dir().unwrap().count(), 1, "nothing is written");
}

#[test]
fn a_run_trains_the_decoder_and_resumes_only_with_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    write_stills(&data);
    let config = |seed: u64, steps: u64| config(&data, seed, steps);
    run(&config(1, 2), &out, &Interrupt::default()).unwrap();

    let path = out.join("model.safetensors");
    let (trained, metadata) = open_tensors(&path).unwrap();
    PromptNetwork::from_tensors(&trained, &path, Device::Cpu, Kind::Float).unwrap();
    assert!(metadata["training_data"].contains("SA-1B"));
    let before = built_in().unwrap();
    assert!(before.keys().eq(trained.keys()));
    let changed = |name: &String| (&before[name] - &trained[name]).abs().max().double_value(&[]) > 0.0;
    for name in before.keys().filter(|name| name.starts_with(ENCODER)) {
        assert!(!changed(name), "{name}");
    }
    let decoder = before.keys().filter(|name| name.starts_with("mask_decoder"));
    assert!(decoder.filter(|name| changed(name)).count() > 50);

    let error = run(&config(2, 2), &out, &Interrupt::default()).unwrap_err().to_string();
    assert!(error.contains("checkpoint.safetensors") && error.contains("--out"), "{error}");
    // Nothing is left to do.
    run(&config(1, 2), &out, &Interrupt::default()).unwrap();
}
