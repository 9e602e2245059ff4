// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::model::layers::Visit;
use crate::model::weights;

const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Configuration with an eighth of the channels at 64x96 pixels.
fn tiny(temporal_skip: TemporalSkip) -> Config {
    Config { width: 0.125, network_size: [64, 96], temporal_skip, ..Config::resnet50() }
}

/// Builds a network and its variables. Tests run in parallel and share one random generator, so it is not used
/// here.
fn build(config: &Config) -> (VarStore, Resnet50) {
    let store = VarStore::new(Device::Cpu);
    let network = Resnet50::new(&store.root(), config).unwrap();
    fill(&store);
    (store, network)
}

/// Fills the variables with reproducible values; batch normalisation is not the identity.
fn fill(store: &VarStore) {
    let variables: std::collections::BTreeMap<_, _> = store.variables().into_iter().collect();
    for (n, (name, mut variable)) in variables.into_iter().enumerate() {
        let i = Tensor::arange(variable.numel() as i64, (Kind::Double, Device::Cpu));
        let wave = (i * 0.37 + n as f64 * 1.3).sin().reshape(variable.size());
        let value = match variable.size()[..] {
            [_] if name.ends_with("running_var") => wave * 0.2 + 1.0,
            [_] if name.ends_with("weight") => wave * 0.1 + 0.6,
            [_] => wave * 0.1,
            _ => wave * (1.5 / (variable.numel() as f64 / variable.size()[0] as f64)).sqrt(),
        };
        tch::no_grad(|| variable.copy_(&value));
    }
}

/// Returns reproducible waves in [0, 1].
fn waves(size: [i64; 4], phase: f64) -> Tensor {
    let i = Tensor::arange(size.iter().product::<i64>(), OPTIONS);
    ((i * 0.013 + phase).sin() * 0.5 + 0.5).reshape(size)
}

fn image(config: &Config, batch: i64, phase: i64) -> Tensor {
    let (height, width) = config.size();
    waves([batch, 3, height, width], phase as f64)
}

fn masks(config: &Config, batch: i64, phase: i64) -> Tensor {
    let (height, width) = config.size();
    waves([batch, 1, height, width], phase as f64)
}

/// Returns the soft masks of `frames` frames after the reference.
fn run(network: &Resnet50, batch: i64, frames: i64) -> Vec<Tensor> {
    let config = network.config();
    let (reference, mut state) = start(network, batch);
    (0..frames)
        .map(|i| {
            let soft = network.step(&image(config, 1, 10 + i), &reference, &mut state).unwrap().sigmoid();
            network.observe(&soft, &reference, &mut state).unwrap();
            soft
        })
        .collect()
}

/// Returns a reference of `batch` objects and the state at it.
fn start(network: &Resnet50, batch: i64) -> (Reference, State) {
    let config = network.config();
    let reference = network.reference(&image(config, 1, 1), &masks(config, batch, 2)).unwrap();
    let state = network.start(&reference).unwrap();
    (reference, state)
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn features_state_and_logits_have_their_shapes() {
    let config = tiny(TemporalSkip::Head);
    let (_store, network) = build(&config);
    let _guard = tch::no_grad_guard();
    assert_eq!(Encoder::channels(&config), [32, 64, 128, 256]);
    let features = network.encoder.forward(&image(&config, 1, 1), &masks(&config, 3, 2)).unwrap();
    assert_eq!(features.stride4.size(), [3, 32, 16, 24]);
    assert_eq!(features.stride8.size(), [3, 64, 8, 12]);
    assert_eq!(features.stride16.size(), [3, 128, 4, 6]);
    assert_eq!(features.stride32.size(), [3, 256, 2, 3]);

    let (reference, mut state) = start(&network, 3);
    assert_eq!(state.temporal.as_ref().unwrap().size(), [3, 4, 16, 24]);
    let logits = network.step(&image(&config, 1, 3), &reference, &mut state).unwrap();
    assert_eq!(logits.size(), [3, 1, 64, 96]);
    assert_eq!(logits.kind(), Kind::Float);
    assert_eq!(state.temporal.as_ref().unwrap().size(), [3, 4, 16, 24]);
}

#[test]
fn objects_in_a_batch_are_independent() {
    let config = tiny(TemporalSkip::Head);
    let (_store, network) = build(&config);
    let _guard = tch::no_grad_guard();
    let all = masks(&config, 2, 2);
    let step = |masks: &Tensor| {
        let reference = network.reference(&image(&config, 1, 1), masks).unwrap();
        let mut state = network.start(&reference).unwrap();
        network.step(&image(&config, 1, 3), &reference, &mut state).unwrap()
    };
    let together = step(&all);
    for i in 0..2 {
        let alone = step(&all.narrow(0, i, 1));
        assert!(difference(&together.narrow(0, i, 1), &alone) < 1e-4);
    }
}

#[test]
fn folding_keeps_the_output() {
    for temporal_skip in [TemporalSkip::Head, TemporalSkip::Refine, TemporalSkip::Off] {
        let (_store, mut network) = build(&tiny(temporal_skip));
        let _guard = tch::no_grad_guard();
        let expected = run(&network, 2, 3);
        network.fold().unwrap();
        let mut tensors = 0;
        network
            .visit(&mut |_| {
                tensors += 1;
                Ok(())
            })
            .unwrap();
        let found = run(&network, 2, 3);
        for (a, b) in expected.iter().zip(&found) {
            assert!(difference(a, b) < 1e-4, "{temporal_skip:?}: {}", difference(a, b));
        }
        network.fold().unwrap();
        let again = run(&network, 2, 3);
        assert!(again[2].equal(&found[2]), "a second fold has no effect");
        // 53 folded convolutions, 2 constants, 6 of matching, 4 of the residual, 3 x 10 of the
        // refine blocks, 2 of the head and of the temporal skip.
        let temporal = if temporal_skip == TemporalSkip::Off { 0 } else { 2 };
        assert_eq!(tensors, 2 * 53 + 2 + (2 * 2 + 3 * 2) + 4 + 30 + 2 + temporal);
    }
}

/// Compares both positions of the temporal skip with the plain concatenation, computed from the variables.
#[test]
fn temporal_skip_equals_its_definition() {
    let conv = |store: &VarStore, name: &str, x: &Tensor| {
        let variables = store.variables();
        let weight = &variables[&format!("{name}.weight")];
        x.conv2d(weight, Some(&variables[&format!("{name}.bias")]), [1, 1], [1, 1], [1, 1], 1)
    };
    for position in [TemporalSkip::Head, TemporalSkip::Refine] {
        let config = tiny(position);
        let (store, network) = build(&config);
        let _guard = tch::no_grad_guard();
        let (eighth, channels) = (config.channels(32), config.channels(256));
        let at_head = if position == TemporalSkip::Head { eighth } else { 0 };
        let sizes = store.variables();
        assert_eq!(sizes["head.weight"].size()[1], channels + at_head);
        assert_eq!(sizes["refine2.g1.weight"].size()[1], channels + eighth - at_head);

        let (reference, mut state) = start(&network, 1);
        // Output of refine2 for the previous frame, computed from the definition.
        let mut previous = Tensor::zeros([1, channels, 16, 24], OPTIONS);
        let mut logits = Vec::new();
        for i in 0..3 {
            let frame = image(&config, 1, 20 + i);
            let features = network.encoder.forward(&frame, &state.masks).unwrap();
            let x = network.matching.forward(&features.stride32, &reference.half).unwrap();
            let x = network.residual.forward(&x, None).unwrap();
            let x = network.refine4.forward(&features.stride16, &x, None).unwrap();
            let x = network.refine3.forward(&features.stride8, &x, None).unwrap();
            let temporal = conv(&store, "temporal", &previous);
            let s = conv(&store, "refine2.f1", &features.stride4);
            let s = &s + conv(&store, "refine2.f3", &conv(&store, "refine2.f2", &s.relu()).relu());
            let m = s + x.upsample_bilinear2d([16, 24], false, None, None);
            let inner = match position {
                TemporalSkip::Refine => Tensor::cat(&[&m, &temporal], 1),
                _ => m.shallow_clone(),
            };
            let m = &m + conv(&store, "refine2.g2", &conv(&store, "refine2.g1", &inner.relu()).relu());
            let end = match position {
                TemporalSkip::Head => Tensor::cat(&[&m, &temporal], 1),
                _ => m.shallow_clone(),
            };
            let classes = conv(&store, "head", &end).upsample_bilinear2d([64, 96], false, None, None);
            let expected = classes.softmax(1, Kind::Float).narrow(1, 1, 1);
            previous = m;

            let found = network.step(&frame, &reference, &mut state).unwrap();
            let soft = found.sigmoid();
            assert!(difference(&soft, &expected) < 1e-5, "{position:?}, frame {i}");
            network.observe(&soft, &reference, &mut state).unwrap();
            logits.push(found);
        }

        // The same frame with the initial state gives another mask.
        let mut fresh = network.start(&reference).unwrap();
        network.observe(&state.masks, &reference, &mut fresh).unwrap();
        let frame = image(&config, 1, 30);
        let with = network.step(&frame, &reference, &mut state).unwrap();
        let without = network.step(&frame, &reference, &mut fresh).unwrap();
        assert!(difference(&with, &without) > 1e-4);
    }
}

#[test]
fn statistics_stay_frozen_in_training() {
    let (store, network) = build(&tiny(TemporalSkip::Head));
    let before: Vec<(String, Tensor)> =
        store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    let mut optimiser = nn::Adam::default().build(&store, 1e-3).unwrap();
    for _ in 0..2 {
        let frames = run(&network, 2, 3);
        let loss: Tensor = frames.iter().map(|soft| soft.square().mean(Kind::Float)).sum();
        optimiser.backward_step(&loss);
    }
    let after = store.variables();
    for (name, tensor) in before {
        if name.contains("running_") {
            assert!(after[&name].equal(&tensor), "{name} changed");
        } else {
            assert!(!after[&name].equal(&tensor), "{name} was not trained");
        }
    }
}

#[test]
fn half_precision_keeps_its_state_in_float32() {
    let (_store, mut network) = build(&tiny(TemporalSkip::Head));
    let _guard = tch::no_grad_guard();
    let expected = run(&network, 1, 3);
    network.fold().unwrap();
    network
        .visit(&mut |tensor| {
            *tensor = tensor.to_kind(Kind::BFloat16);
            Ok(())
        })
        .unwrap();
    let found = run(&network, 1, 3);
    assert!(difference(&expected[2], &found[2]) < 0.1, "{}", difference(&expected[2], &found[2]));
    let (reference, mut state) = start(&network, 1);
    let logits = network.step(&image(network.config(), 1, 3), &reference, &mut state).unwrap();
    assert_eq!(logits.kind(), Kind::Float);
    assert_eq!(state.masks.kind(), Kind::Float);
    assert_eq!(state.temporal.unwrap().kind(), Kind::Float);
}

#[test]
fn other_architectures_are_refused() {
    let store = VarStore::new(Device::Cpu);
    let error = Resnet50::new(&store.root(), &Config::lite()).unwrap_err();
    assert!(error.to_string().contains("resnet50"), "{error}");
    let config = Config { network_size: [500, 512], ..Config::resnet50() };
    let error = Resnet50::new(&store.root(), &config).unwrap_err();
    assert!(error.to_string().contains("512x500"), "{error}");
}

/// Returns the folder of backbones, if it exists.
fn backbones() -> Option<PathBuf> {
    let shared = std::env::var_os("FASTGANSEG_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("data/backbones");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is missing", folder.display());
    None
}

/// All ImageNet weights load by name, and layer3 gives the output of PyTorch.
#[test]
fn imagenet_weights_load_by_name() {
    let Some(folder) = backbones() else { return };
    let store = VarStore::new(Device::Cpu);
    let mut network = Resnet50::new(&store.root(), &Config::resnet50()).unwrap();
    let path = folder.join("resnet50_imagenet1k_v1_stem_to_layer3.safetensors");
    let partial = weights::load_partial(&path, &store, "encoder").unwrap();
    assert_eq!(partial.loaded.len(), 220);
    assert!(partial.unused.is_empty(), "{:?}", partial.unused);
    assert!(partial.missing.contains(&"encoder.conv1_mask.weight".to_owned()));
    assert!(partial.missing.iter().all(|name| name.contains("layer4") || name.contains("conv1_mask")));

    // The expected values are those of float32 weights; the file may have half precision.
    let stored = safetensors::SafeTensors::read_metadata(&std::fs::read(&path).unwrap()).unwrap().1;
    let is_half = stored.info("conv1.weight").unwrap().dtype == safetensors::Dtype::F16;
    let tolerance = if is_half { 5e-4 } else { 1e-4 };

    let _guard = tch::no_grad_guard();
    let image = waves([1, 3, 64, 96], 0.0);
    let masks = Tensor::zeros([1, 1, 64, 96], OPTIONS);
    // The mask convolution is random; with a mask of zeros only its bias has an effect.
    let _ = store.variables()["encoder.conv1_mask.bias"].shallow_clone().fill_(0.0);
    for _ in 0..2 {
        let x = network.encoder.forward(&image, &masks).unwrap().stride16;
        let statistics = [
            x.mean(Kind::Double).double_value(&[]),
            x.max().double_value(&[]),
            x.double_value(&[0, 7, 2, 3]),
            x.double_value(&[0, 1023, 0, 1]),
            x.double_value(&[0, 640, 2, 2]),
        ];
        for (found, expected) in statistics.iter().zip(LAYER3) {
            assert!((found - expected).abs() < tolerance, "{statistics:?}, expected {LAYER3:?}");
        }
        network.fold().unwrap();
    }
}

/// Computed with PyTorch: mean, maximum and three values of layer3's output for [`waves`] of phase 0.
const LAYER3: [f64; 5] = [0.061_771_390, 2.446_086_4, 0.038_599_55, 0.015_307_534, 0.134_938_33];

/// Compares three frames with an independent implementation in PyTorch: mean, minimum, maximum and two values of
/// the logits.
#[test]
fn equals_an_independent_implementation() {
    for (position, frames) in [(TemporalSkip::Head, HEAD), (TemporalSkip::Refine, REFINE)] {
        let config = tiny(position);
        let (_store, mut network) = build(&config);
        let _guard = tch::no_grad_guard();
        for _ in 0..2 {
            let reference = network.reference(&image(&config, 1, 0), &masks(&config, 1, 1)).unwrap();
            let mut state = network.start(&reference).unwrap();
            for (t, expected) in frames.iter().enumerate() {
                let logits = network.step(&image(&config, 1, 2 + t as i64), &reference, &mut state).unwrap();
                network.observe(&logits.sigmoid(), &reference, &mut state).unwrap();
                let found = [
                    logits.mean(Kind::Float).double_value(&[]),
                    logits.min().double_value(&[]),
                    logits.max().double_value(&[]),
                    logits.double_value(&[0, 0, 5, 7]),
                    logits.double_value(&[0, 0, 40, 80]),
                ];
                for (a, b) in found.iter().zip(expected) {
                    assert!((a - b).abs() < 1e-4, "{position:?} {t}: {found:?}, expected {expected:?}");
                }
            }
            network.fold().unwrap();
        }
    }
}

const HEAD: [[f64; 5]; 3] = [
    [-0.156_457_56, -0.480_436_30, 0.213_175_54, 0.151_940_76, -0.182_022_39],
    [-0.093_771_17, -0.418_498_25, 0.219_966_11, 0.150_425_91, -0.114_229_20],
    [-0.095_574_80, -0.430_753_71, 0.235_873_91, 0.163_473_61, -0.127_987_21],
];
const REFINE: [[f64; 5]; 3] = [
    [0.171_565_31, -0.072_673_81, 0.295_249_31, 0.004_328_37, 0.195_873_14],
    [0.168_986_99, -0.060_339_81, 0.291_424_33, 0.002_172_23, 0.200_559_08],
    [0.170_097_29, -0.058_233_50, 0.295_868_69, 0.002_230_88, 0.204_249_74],
];
