// SPDX-License-Identifier: MPL-2.0

use tch::{Device, Kind, Tensor, nn};

use std::collections::BTreeMap;

use super::memory::{Selection, Tokens};
use super::*;
use crate::model::vector::{checked_available, checked_has_bfloat16};
use crate::model::{Architecture, TemporalSkip};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn tiny() -> Config {
    Config { width: 0.125, network_size: [64, 96], ..Config::lite() }
}

fn tiny_large() -> Config {
    Config { width: 0.125, network_size: [64, 96], ..Config::large() }
}

fn build(config: &Config) -> (nn::VarStore, Lite) {
    let store = nn::VarStore::new(Device::Cpu);
    let model = Lite::new(&store.root(), config).unwrap();
    (store, model)
}

fn disk(y: i64, x: i64) -> Tensor {
    let rows = (Tensor::arange(64, FLOAT) - y).square().unsqueeze(1);
    let columns = (Tensor::arange(96, FLOAT) - x).square().unsqueeze(0);
    (rows + columns).le(200.0).to_kind(Kind::Float).reshape([1, 1, 64, 96])
}

/// Returns the reference of an image and masks, and the state at it.
fn start(model: &Lite, image: &Tensor, masks: &Tensor) -> (Reference, State) {
    let reference = model.reference(image, masks).unwrap();
    let state = model.start(&reference).unwrap();
    (reference, state)
}

fn count_tensors(network: &mut impl Visit) -> usize {
    let mut count = 0;
    let visit = &mut |_: &mut Tensor| {
        count += 1;
        Ok(())
    };
    network.visit(visit).unwrap();
    count
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

#[test]
fn parameter_counts_match_the_design() {
    for (config, prefix, expected) in [
        (Config::lite(), "decoder.edge.", 6_948),
        (Config::lite(), "", 1_108_431),
        (Config::lite(), "encoder.", 534_464),
        // ResNet-50 of torchvision up to layer3, and MobileNetV2 up to block 3.
        (Config::large(), "encoder.", 8_558_480),
        (Config::large(), "", 10_374_559),
    ] {
        let variables = build(&config).0.variables().into_iter();
        let trained = variables.filter(|(name, x)| name.starts_with(prefix) && x.requires_grad());
        assert_eq!(
            trained.map(|(_, x)| x.numel()).sum::<usize>(),
            expected,
            "{:?} {prefix}",
            config.architecture
        );
    }
}

#[test]
fn logits_have_the_size_of_the_image() {
    let _guard = tch::no_grad_guard();
    for config in [tiny(), tiny_large()] {
        let (_store, model) = build(&config);
        let image = Tensor::rand([1, 3, 64, 96], FLOAT);
        let masks = Tensor::cat(&[disk(20, 20), disk(40, 60)], 0);
        let (reference, mut state) = start(&model, &image, &masks);
        for _ in 0..3 {
            let logits = model.step(&image, &reference, &mut state).unwrap();
            assert_eq!(logits.size(), [2, 1, 64, 96]);
            assert_eq!(logits.kind(), Kind::Float);
            model.observe(&logits.sigmoid(), &reference, &mut state).unwrap();
        }
    }
}

#[test]
fn folding_the_large_variant_keeps_the_output() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(7);
    let (store, mut model) = build(&tiny_large());
    for (name, mut tensor) in store.variables() {
        if name.contains(".bn") || name.contains("downsample.1") {
            let _ = tensor.uniform_(0.5, 1.5);
        }
    }
    let mask = disk(20, 20);
    let run = |model: &Lite| {
        let image = Tensor::arange(3 * 64 * 96, FLOAT).sin().reshape([1, 3, 64, 96]) * 0.5 + 0.5;
        let (reference, mut state) = start(model, &image, &mask);
        model.step(&image.flip([3]), &reference, &mut state).unwrap()
    };
    let before = run(&model);
    crate::model::prepare(&mut model, Device::Cpu, Kind::Float).unwrap();
    let error = difference(&before, &run(&model));
    let size = before.abs().max().double_value(&[]);
    assert!(error < 1e-3 * size, "{error} of {size}");
}

/// Logits of the third frame for three objects, with layers, with packed float32, and with packed bfloat16 where the
/// processor has it.
#[test]
fn packed_networks_equal_their_layers() {
    let _guard = tch::no_grad_guard();
    let run = |model: &Lite| {
        let image = Tensor::arange(3 * 64 * 96, FLOAT).sin().reshape([1, 3, 64, 96]) * 0.5 + 0.5;
        let masks = Tensor::cat(&[disk(20, 20), disk(40, 60), disk(30, 80)], 0);
        // Opposite corners belong to each object, so that its surroundings are all of the frame.
        for corner in [0, -1] {
            let _ = masks.select(2, corner).select(2, corner).fill_(0.2);
        }
        let (reference, mut state) = start(model, &image, &masks);
        for _ in 0..2 {
            let _ = model.step(&image.flip([3]), &reference, &mut state).unwrap();
            model.observe(&masks, &reference, &mut state).unwrap();
        }
        model.step(&image, &reference, &mut state).unwrap()
    };
    for config in [tiny(), Config { width: 1.0, ..tiny() }, tiny_large()] {
        let (store, mut layers) = build(&config);
        for (index, (name, mut weight)) in
            store.variables().into_iter().collect::<BTreeMap<_, _>>().into_iter().enumerate()
        {
            if weight.dim() == 4 {
                let inputs = weight.size()[1..].iter().product::<i64>() as f64;
                let values = (Tensor::arange(weight.numel() as i64, FLOAT) * 0.7 + index as f64).sin();
                weight.copy_(&(values.reshape(weight.size()) * (2.0 / inputs).sqrt()));
            } else if name.ends_with("bias") && !name.contains("bn") {
                let _ = weight.fill_(0.05);
            }
        }
        let networks = |kind| {
            let (mut copy, mut model) = build(&config);
            copy.copy(&store).unwrap();
            let prepared = crate::model::prepare_packed(&mut model, Device::Cpu, kind).unwrap();
            (model, prepared)
        };
        crate::model::prepare(&mut layers, Device::Cpu, Kind::Float).unwrap();
        let expected = run(&layers);
        let size = expected.abs().max().double_value(&[]);
        let (packed, prepared) = networks(Kind::Float);
        assert_eq!(prepared.packed, checked_available() && config.architecture == Architecture::Lite);
        let error = difference(&expected, &run(&packed));
        assert!(error < 1e-4 * size, "{error} of {size}");
        if checked_has_bfloat16() {
            let (packed, prepared) = networks(Kind::BFloat16);
            assert_eq!(prepared.kind, Kind::Float);
            let rms = |x: &Tensor| x.square().mean(Kind::Float).sqrt().double_value(&[]);
            let (error, size) = (rms(&(run(&packed) - &expected)), rms(&expected));
            // libtorch rounds all activations of the large backbone.
            let limit = if config.architecture == Architecture::Lite { 0.1 } else { 0.4 };
            assert!((1e-6 * size..limit * size).contains(&error), "{error} of {size}");
        }
    }
}

#[test]
fn each_of_several_objects_is_decoded_in_its_surroundings() {
    let _guard = tch::no_grad_guard();
    let (_store, mut model) = build(&tiny());
    if !crate::model::prepare_packed(&mut model, Device::Cpu, Kind::Float).unwrap().packed {
        return;
    }
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let masks = Tensor::cat(&[disk(8, 8), disk(40, 60) * 0.05], 0);
    let (reference, mut state) = start(&model, &image, &masks);
    let logits = model.step(&image, &reference, &mut state).unwrap();
    let is_outside = |logits: &Tensor| logits.eq(OUTSIDE);
    let first = is_outside(&logits.get(0));
    // The disk of radius 14 ends in the second cell of 16 pixels; half of its width is another cell.
    assert!(!bool::try_from(first.narrow(1, 0, 48).narrow(2, 0, 48).any()).unwrap());
    assert!(bool::try_from(first.narrow(1, 48, 16).all()).unwrap());
    assert!(bool::try_from(first.narrow(2, 48, 48).all()).unwrap());
    assert!(!bool::try_from(is_outside(&logits.get(1)).any()).unwrap(), "it was not seen before");
}

/// As in training with mixed precision: the weights are float32.
#[test]
fn a_large_encoder_computes_in_the_kind_of_its_image() {
    let _guard = tch::no_grad_guard();
    let (_store, model) = build(&tiny_large());
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let features = |kind| model.encoder.forward(&image.to_kind(kind)).unwrap().s16;
    let (half, single) = (features(Kind::BFloat16), features(Kind::Float));
    assert_eq!((half.kind(), single.kind()), (Kind::BFloat16, Kind::Float));
    let error = difference(&half.to_kind(Kind::Float), &single);
    let rounding = difference(&single.to_kind(Kind::BFloat16).to_kind(Kind::Float), &single);
    assert!(error > 1.5 * rounding, "only the result was rounded: {error}, {rounding}");
}

#[test]
fn objects_in_a_batch_are_independent() {
    let _guard = tch::no_grad_guard();
    tch::manual_seed(1);
    let (_store, model) = build(&tiny());
    let frames = Tensor::rand([4, 3, 64, 96], FLOAT);
    let run = |masks: &Tensor| {
        let (reference, mut state) = start(&model, &frames.narrow(0, 0, 1), masks);
        let mut last = None;
        for frame in 1..4 {
            let logits = model.step(&frames.narrow(0, frame, 1), &reference, &mut state).unwrap();
            model.observe(&logits.sigmoid(), &reference, &mut state).unwrap();
            last = Some(logits);
        }
        last.unwrap()
    };
    let both = run(&Tensor::cat(&[disk(20, 20), disk(40, 60)], 0));
    assert!(difference(&both.narrow(0, 0, 1), &run(&disk(20, 20))) < 1e-4);
    assert!(difference(&both.narrow(0, 1, 1), &run(&disk(40, 60))) < 1e-4);
}

#[test]
fn memory_stays_bounded() {
    let _guard = tch::no_grad_guard();
    let (_store, model) = build(&tiny());
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let mask = disk(20, 20);
    let (reference, mut state) = start(&model, &image, &mask);
    let (positions, mut lengths) = (4 * 6, Vec::new());
    for _ in 0..20 {
        let _ = model.step(&image, &reference, &mut state).unwrap();
        model.observe(&mask, &reference, &mut state).unwrap();
        lengths.push(state.memory.key16.size()[2] / positions);
    }
    assert_eq!(lengths[..4], [1; 4]);
    assert_eq!(lengths[4..9], [2; 5]);
    assert_eq!(lengths[9..], [3; 11]);
}

#[test]
fn without_the_temporal_skip_the_network_is_smaller_and_ignores_it() {
    let _guard = tch::no_grad_guard();
    let (with, _) = build(&tiny());
    let (without, model) = build(&Config { temporal_skip: TemporalSkip::Off, ..tiny() });
    assert!(without.variables().len() < with.variables().len());
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let mask = disk(20, 20);
    let features = model.encode(&image).unwrap();
    let tokens = model.tokens(&features, &mask, model.config().memory.tokens, Selection::Fixed).unwrap();
    let biases = model.biases(&features).unwrap();
    let skip = Tensor::rand([1, 4, 16, 24], FLOAT);
    let decode =
        |skip: Option<&Tensor>| model.decode(&features, &features, &mask, skip, &tokens, &biases).unwrap().0;
    assert_eq!(difference(&decode(None), &decode(Some(&skip))), 0.0);
}

#[test]
fn fixed_tokens_are_half_object_and_distinct() {
    let _guard = tch::no_grad_guard();
    let (_store, model) = build(&Config {
        memory: crate::model::config::Memory { tokens: 20, ..Config::lite().memory },
        ..tiny()
    });
    let features = model.encode(&Tensor::rand([1, 3, 64, 96], FLOAT)).unwrap();
    let create = || model.tokens(&features, &disk(32, 48), 20, Selection::Fixed).unwrap();
    let tokens: Tokens = create();
    assert_eq!(tokens.key8.size()[2], 20);
    let inside = tokens.mask8.narrow(1, 0, 10).min().double_value(&[]);
    let outside = tokens.mask8.narrow(1, 10, 10).min().double_value(&[]);
    assert!(inside > 0.0 && outside == 0.0, "{inside} {outside}");
    assert_eq!(difference(&tokens.key8, &create().key8), 0.0);
    let keys = tokens.key8.squeeze_dim(0).transpose(0, 1);
    for a in 0..20 {
        for b in 0..a {
            assert!(difference(&keys.get(a), &keys.get(b)) > 0.0, "{a} and {b}");
        }
    }
}

#[test]
fn invalid_configurations_are_refused() {
    let store = nn::VarStore::new(Device::Cpu);
    let error = Lite::new(&store.root(), &Config { width: 0.0, ..tiny() }).unwrap_err().to_string();
    assert!(error.contains("width"), "{error}");
}

#[test]
fn absent_objects_are_matched_with_the_reference_only() {
    let _guard = tch::no_grad_guard();
    let (_store, model) = build(&tiny());
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let mask = disk(20, 20);
    let (reference, mut state) = start(&model, &image, &mask);
    let mut follow = |masks: &Tensor| {
        let _ = model.step(&image, &reference, &mut state).unwrap();
        model.observe(masks, &reference, &mut state).unwrap();
        let carried = state.skip.as_ref().unwrap().abs().max().double_value(&[]);
        (state.memory.key16.size()[2] / (4 * 6), carried > 0.0)
    };
    for _ in 0..4 {
        assert_eq!(follow(&mask), (1, true));
    }
    assert_eq!(follow(&mask), (2, true));
    for _ in 0..12 {
        assert_eq!(follow(&mask.zeros_like()), (1, false));
    }
    assert_eq!(follow(&mask), (1, true));
}

#[test]
fn an_absent_object_does_not_stop_the_memory_of_others() {
    let _guard = tch::no_grad_guard();
    let (_store, model) = build(&tiny());
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let both = Tensor::cat(&[disk(20, 20), disk(40, 60)], 0);
    let reference = model.reference(&image, &both).unwrap();
    // The region of interest may have another shape than in the reference.
    for (h, w) in [(64, 96), (48, 96), (80, 112)] {
        let mut state = model.start(&reference).unwrap();
        let whole = RelativeRect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        model.move_crop_window(whole, (h, w), &mut state).unwrap();
        let other = Tensor::rand([1, 3, h, w], FLOAT);
        let one =
            Tensor::cat(&[disk(30, 30), disk(40, 60).zeros_like()], 0).upsample_nearest2d([h, w], None, None);
        for _ in 0..5 {
            let _ = model.step(&other, &reference, &mut state).unwrap();
            model.observe(&one, &reference, &mut state).unwrap();
        }
        let remembered = state.remembered.back().unwrap();
        let (count, own) = (h * w / 256, 64 * 96 / 256);
        let spread: Vec<i64> = (0..count).map(|index| index * own / count).collect();
        let of_reference = reference.tokens.key16.index_select(2, &Tensor::from_slice(&spread));
        let from_reference =
            |object: i64| difference(&remembered.key16.get(object), &of_reference.get(object)) == 0.0;
        assert!(!from_reference(0), "a present object is added to the memory");
        assert!(from_reference(1), "an absent object keeps the tokens of the reference");
        let _ = model.step(&other, &reference, &mut state).unwrap();
    }
}

#[test]
fn an_edge_stage_starts_without_effect_and_corrects_single_pixels() {
    let _guard = tch::no_grad_guard();
    let (store, mut plain) = build(&Config { edge_channels: 0, edge_residual: false, ..tiny() });
    let (edge_store, mut edge) = build(&Config { edge_channels: 64, edge_residual: true, ..tiny() });
    let variables = edge_store.variables();
    for (name, value) in store.variables() {
        variables[&name].shallow_clone().copy_(&value);
    }
    let image = Tensor::rand([1, 3, 64, 96], FLOAT);
    let step = |model: &Lite| {
        let reference = model.reference(&image, &disk(20, 20)).unwrap();
        model.step(&image, &reference, &mut model.start(&reference).unwrap()).unwrap()
    };
    let before = step(&plain);
    assert_eq!(difference(&before, &step(&edge)), 0.0, "the correction starts at zero");
    let names = ["head.weight", "head.bias", "residual.weight", "residual.bias"];
    for name in names.map(|name| format!("decoder.edge.{name}")) {
        let mut variable = variables[&name].shallow_clone();
        let values = Tensor::randn(variable.size(), FLOAT);
        variable.copy_(&values);
    }
    let correction = step(&edge) - before;
    let quarters = correction.pixel_unshuffle(2);
    let spread = quarters.max_dim(1, false).0 - quarters.min_dim(1, false).0;
    assert!(spread.min().double_value(&[]) > 0.0, "the four pixels of a position differ");
    let counts = [&mut edge, &mut plain].map(|model| count_tensors(&mut model.decoder));
    assert_eq!(counts[0] - counts[1], 6, "weights and biases of three convolutions");
}
