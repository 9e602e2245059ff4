// SPDX-License-Identifier: MPL-2.0

//! Compares `lite` with recorded outputs of its built-in weights, and of its prototype if that recording exists.

use std::collections::HashMap;
use std::path::PathBuf;

use gstfastganseg::torch::model::lite::memory::{Selection, Tokens};
use gstfastganseg::torch::model::weights::Weights;
use gstfastganseg::torch::model::{Config, Lite, Regressor};
use tch::{Device, Kind, Tensor, nn};

fn shared() -> PathBuf {
    std::env::var_os("FASTGANSEG_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
}

/// Maps a tensor name to that of the prototype.
fn prototype_name(name: &str) -> String {
    const NAMES: [(&str, &str); 20] = [
        ("encoder.", "enc."),
        ("matching.value", "fuse"),
        ("matching.key16", "k16"),
        ("matching.key8", "k8"),
        ("matching.sharpness16", "s16"),
        ("matching.sharpness8", "s8"),
        ("matching.distance", "pb"),
        ("matching.offset", "rel"),
        ("decoder.fuse16", "d16a"),
        ("decoder.residual16a", "d16b"),
        ("decoder.residual16b", "d16c"),
        ("decoder.up8", "u8"),
        ("decoder.fuse8", "d8a"),
        ("decoder.residual8", "d8b"),
        ("decoder.up4", "u4"),
        ("decoder.temporal_skip", "ts"),
        ("decoder.fuse4", "d4a"),
        ("decoder.residual4", "d4b"),
        ("decoder.up2", "u2"),
        ("decoder.fuse2", "d2a"),
    ];
    NAMES
        .iter()
        .find_map(|(ours, theirs)| name.strip_prefix(ours).map(|rest| format!("{theirs}{rest}")))
        .unwrap_or_else(|| name.replace("decoder.head", "p"))
}

fn assert_close(what: &str, ours: &Tensor, golden: &Tensor) {
    assert_eq!(ours.size(), golden.size(), "{what}");
    let max_abs = |x: Tensor| x.abs().max().double_value(&[]);
    // Float32 sums round differently on different processors, in proportion to their size.
    let difference = max_abs(ours - golden) / max_abs(golden.shallow_clone());
    println!("{what}: largest difference {difference:.1e} of the largest value");
    assert!(difference <= 5e-6, "{what}: {difference}");
}

/// Logits of the built-in weights for a disc that moves over a pattern, three frames after the reference; and a
/// checksum of each weight tensor, as tensor `weights`.
fn outputs_of_the_built_in_weights() -> Vec<(String, Tensor)> {
    let _guard = tch::no_grad_guard();
    let float = (Kind::Float, Device::Cpu);
    let (height, width) = (64, 96);
    let store = nn::VarStore::new(Device::Cpu);
    let config = Config { network_size: [height, width], ..Config::lite() };
    let lite = Lite::new(&store.root(), &config).unwrap();
    Weights::built_in().unwrap().fill(&store).unwrap();
    let mut sums: Vec<(String, f64)> = store
        .variables()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.abs().sum(Kind::Double).double_value(&[])))
        .collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    let sums: Vec<f64> = sums.into_iter().map(|(_, sum)| sum).collect();
    let mut outputs = vec![("weights".to_owned(), Tensor::from_slice(&sums).to_kind(Kind::Float))];

    let x = Tensor::arange(width, float).reshape([1, 1, 1, width]);
    let y = Tensor::arange(height, float).reshape([1, 1, height, 1]);
    let disc = |t: f64| {
        let (u, v) = (&x - (30.0 + 5.0 * t), &y - (32.0 + 2.0 * t));
        (&u * &u + &v * &v).lt(180.0).to_kind(Kind::Float)
    };
    let frame = |t: f64| {
        let inside = disc(t);
        let pattern = ((&x * 0.35).sin() * (&y * 0.55).cos()) * 0.2;
        let channel = |object: f64, ground: f64| &inside * object + (1.0 - &inside) * (&pattern + ground);
        Tensor::cat(&[channel(0.9, 0.3), channel(0.5, 0.4), channel(0.2, 0.6)], 1)
    };
    let mask = disc(0.0);
    let reference = lite.encode(&frame(0.0)).unwrap();
    let tokens =
        lite.tokens(&reference, &mask, Regressor::config(&lite).memory.tokens, Selection::Fixed).unwrap();
    let biases = lite.biases(&reference).unwrap();
    let (mut previous, mut mask, mut skip) = (reference, mask, None::<Tensor>);
    for t in 1..4 {
        let now = lite.encode(&frame(f64::from(t))).unwrap();
        let (logits, next) = lite.decode(&now, &previous, &mask, skip.as_ref(), &tokens, &biases).unwrap();
        outputs.push((format!("logits{t}"), logits.copy()));
        (previous, mask, skip) = (now, logits.sigmoid(), Some(next));
    }
    outputs
}

fn recorded() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden_lite.safetensors")
}

#[test]
fn built_in_weights_reproduce_the_recording() {
    let golden: HashMap<String, Tensor> = Tensor::read_safetensors(recorded()).unwrap().into_iter().collect();
    for (name, output) in outputs_of_the_built_in_weights() {
        if name == "weights" {
            let same =
                output.size() == golden[&name].size() && output.allclose(&golden[&name], 1e-5, 1e-5, false);
            assert!(same, "the weights differ: run cargo test --test golden_lite -- --ignored record");
        } else {
            assert_close(&name, &output, &golden[&name]);
        }
    }
}

#[test]
fn the_recording_segments_the_disc() {
    let golden: HashMap<String, Tensor> = Tensor::read_safetensors(recorded()).unwrap().into_iter().collect();
    for t in 1..4 {
        let mask = golden[&format!("logits{t}")].gt(0.0);
        let at = |x: i64, y: i64| mask.int64_value(&[0, 0, y, x]) == 1;
        assert!(at(30 + 5 * t, 32 + 2 * t) && !at(80, 10) && !at(5, 55), "frame {t}");
        let area = mask.to_kind(Kind::Float).sum(Kind::Float).double_value(&[]);
        assert!((400.0..750.0).contains(&area), "frame {t}: {area} pixels");
    }
}

#[test]
#[ignore = "rewrites the recording: for new weights or an intended change of the network"]
fn record() {
    Tensor::write_safetensors(&outputs_of_the_built_in_weights(), recorded()).unwrap();
}

#[test]
fn lite_equals_its_prototype() {
    let folder = shared().join("lite");
    if !folder.join("golden.safetensors").exists() {
        println!("skipped: no {}", folder.display());
        return;
    }
    let _guard = tch::no_grad_guard();
    let read = |name: &str| -> HashMap<String, Tensor> {
        Tensor::read_safetensors(folder.join(name)).unwrap().into_iter().collect()
    };
    let (golden, weights) = (read("golden.safetensors"), read("prototype.safetensors"));

    let store = nn::VarStore::new(Device::Cpu);
    let lite = Lite::new(
        &store.root(),
        &Config { edge_channels: 0, edge_residual: false, refiner_channels: 0, ..Config::lite() },
    )
    .unwrap();
    let mut used = 0;
    for (name, mut tensor) in store.variables() {
        tensor.copy_(&weights[&prototype_name(&name)]);
        used += 1;
    }
    assert_eq!(used, weights.len(), "unused tensors of the prototype");

    let frames = golden["frames_u8_hwc"].permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    let mask = &golden["reference_mask"];
    let reference = lite.encode(&frames.narrow(0, 0, 1)).unwrap();
    assert_close("stride 2", &reference.s2, &golden["frame0.feature.1"]);
    assert_close("stride 4", &reference.s4, &golden["frame0.feature.3"]);
    assert_close("stride 8", &reference.s8, &golden["frame0.feature.6"]);
    assert_close("stride 16", &reference.s16, &golden["frame0.feature.13"]);
    assert_close("key 16", &reference.key16, &golden["frame0.feature.k16"]);
    assert_close("key 8", &reference.key8, &golden["frame0.feature.k8"]);

    let tokens =
        lite.tokens(&reference, mask, Regressor::config(&lite).memory.tokens, Selection::Fixed).unwrap();
    assert_close("reference key 16", &tokens.key16, &golden["reference.k16"]);
    assert_close("reference value 16", &tokens.value16, &golden["reference.v16"]);
    assert_close("reference mask 16", &tokens.mask16, &golden["reference.m16"]);
    assert_eq!(tokens.key8.size(), golden["reference.k8"].size());

    // The prototype samples its stride-8 tokens at random: use the recorded ones.
    let tokens = Tokens {
        key8: golden["reference.k8"].shallow_clone(),
        value8: golden["reference.v8"].shallow_clone(),
        mask8: golden["reference.m8"].shallow_clone(),
        ..tokens
    };
    let biases = lite.biases(&reference).unwrap();
    let (mut previous, mut mask, mut skip) = (reference, mask.shallow_clone(), None::<Tensor>);
    for t in 1..4 {
        let now = lite.encode(&frames.narrow(0, t, 1)).unwrap();
        let (logits, next) = lite.decode(&now, &previous, &mask, skip.as_ref(), &tokens, &biases).unwrap();
        assert_close(&format!("frame {t} logits"), &logits, &golden[&format!("frame{t}.logits")]);
        assert_close(&format!("frame {t} skip"), &next, &golden[&format!("frame{t}.skip_state")]);
        (previous, mask, skip) = (now, logits.sigmoid(), Some(next));
    }
}
