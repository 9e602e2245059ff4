// SPDX-License-Identifier: MPL-2.0

//! Unrolling of a window, for every regressor. The K frames are predicted in order, each from the predicted soft
//! mask and the temporal skip of the previous frame; the gradient flows through both. The frame before the window
//! supplies the first mask only, and the recurrent state starts at zero.

use std::collections::VecDeque;

use gstfastganseg::torch::model::layers::channels_last;
use gstfastganseg::torch::model::lite::features::Features;
use gstfastganseg::torch::model::lite::memory::{Selection, Tokens, remember};
use gstfastganseg::torch::model::{Lite, Regressor, Resnet50, ShallowClone};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::clips::Batch;

/// Maximum magnitude of a logit that is normalised: a probability of 1e-7, as in the tracker.
const MAX_LOGIT: f64 = 16.118;

/// Options of the unrolling.
#[derive(Clone, Copy, Debug)]
pub struct UnrollOptions {
    /// Kind of features and activations. Weights, states and losses are float32.
    pub kind: Kind,
    /// Keeps gradients from the encoder.
    pub frozen_encoder: bool,
    /// Probability that a frame is added to the memory bank, 0 to 1. Ignored by networks without one.
    pub remember: f64,
}

/// Predictions of a window, differentiable in the weights.
#[derive(Debug)]
pub struct Unrolled {
    /// Logits (K, B, 1, H, W), float32, of all predicted frames.
    pub logits: Tensor,
    /// Keys (F·B, key, positions), unit length, of all frames of the batch at stride 16, if the network has any.
    pub keys: Option<Tensor>,
}

/// Predicts the frames of a batch in order. `predict` returns the logits (B, 1, H, W), float32, of a frame of the batch from
/// the soft masks (B, 1, H, W) of the frame before.
fn predict_all(batch: &Batch, mut predict: impl FnMut(i64, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut masks = batch.previous.shallow_clone();
    let mut all = Vec::new();
    for frame in 2..batch.images.size()[0] {
        let logits = normalised(&predict(frame, &masks)?, &batch.objects)?;
        masks = logits.f_sigmoid()?;
        all.push(logits);
    }
    Ok(Tensor::f_stack(&all, 0)?)
}

/// Normalises the logits (B, 1, H, W) of the objects of each window against each other and against the background, as
/// the tracker does: with the background's probability ∏(1 − pᵢ), the softmax over the logits of background and
/// objects. A single object is not normalised. `objects` are the numbers of objects of the windows.
fn normalised(logits: &Tensor, objects: &[i64]) -> Result<Tensor> {
    if objects.iter().all(|&count| count == 1) {
        return Ok(logits.shallow_clone());
    }
    let mut first = 0;
    let mut parts = Vec::with_capacity(objects.len());
    for &count in objects {
        let window = logits.f_narrow(0, first, count)?;
        first += count;
        if count == 1 {
            parts.push(window);
            continue;
        }
        let window = window.f_clamp(-MAX_LOGIT, MAX_LOGIT)?;
        let log_background =
            window.f_softplus()?.f_sum_dim_intlist(&[0i64][..], true, Kind::Float)?.f_neg()?;
        // The clamp keeps the logit of a background probability of 1 finite.
        let log_objects = log_background.f_clamp_max(-1e-7)?.f_expm1()?.f_neg()?.f_log()?;
        let background = log_background.f_sub(&log_objects)?;
        let all = Tensor::f_cat(&[&background, &window], 0)?;
        for object in 1..=count {
            let others: Vec<i64> = (0..=count).filter(|&other| other != object).collect();
            let others = all.f_index_select(0, &Tensor::from_slice(&others).f_to_device(logits.device())?)?;
            parts.push(all.f_narrow(0, object, 1)?.f_sub(&others.f_logsumexp(&[0i64][..], true)?)?);
        }
    }
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Predicts all frames of a batch.
pub fn unroll_resnet50(network: &Resnet50, batch: &Batch) -> Result<Unrolled> {
    let image = |frame: i64| -> Result<Tensor> { Ok(channels_last(&batch.images.f_select(0, frame)?)?) };
    let reference = network.reference(&image(0)?, &batch.masks.f_select(0, 0)?)?;
    let mut state = network.start(&reference)?;
    let logits = predict_all(batch, |frame, masks| {
        network.observe(masks, &reference, &mut state)?;
        Ok(network.step(&image(frame)?, &reference, &mut state)?)
    })?;
    Ok(Unrolled { logits, keys: None })
}

/// Predicts all frames of a batch. The encoder takes no masks, so all frames are encoded at once.
pub fn unroll_lite(network: &Lite, batch: &Batch, options: &UnrollOptions) -> Result<Unrolled> {
    let [frames, clips] = [0, 1].map(|dim| batch.images.size()[dim]);
    let images = channels_last(&batch.images.f_flatten(0, 1)?)?.f_to_kind(options.kind)?;
    let features = if options.frozen_encoder {
        let features = tch::no_grad(|| network.encoder.forward(&images))?;
        network.features(&features, &images)?
    } else {
        network.encode(&images)?
    };
    let of_frame = |frame: i64| features.narrow(frame * clips, clips);
    let first = of_frame(0)?;
    let reference = tokens(network, batch, 0, &first, &batch.masks.f_select(0, 0)?)?;
    tch::manual_seed(batch.seed);
    let drawn = Vec::<f64>::try_from(&Tensor::f_rand([frames - 2], (Kind::Double, Device::Cpu))?)?;
    let biases = network.biases(&first)?;
    let (mut memory, mut remembered, mut skip) = (reference.shallow_clone(), VecDeque::new(), None);
    let logits = predict_all(batch, |frame, masks| {
        let (previous, now) = (of_frame(frame - 1)?, of_frame(frame)?);
        if drawn[frame as usize - 2] < options.remember {
            let tokens = tokens(network, batch, frame - 1, &previous, &masks.f_detach()?)?;
            memory = remember(&reference, &mut remembered, tokens, network.config().memory.frames)?;
        }
        let (logits, next) = network.decode(&now, &previous, masks, skip.as_ref(), &memory, &biases)?;
        skip = Some(next);
        Ok(logits)
    })?;
    Ok(Unrolled { logits, keys: Some(features.key16.shallow_clone()) })
}

/// Returns the tokens of frame `index` of a batch, selected at random for each clip; as many as at run time at this
/// size.
fn tokens(network: &Lite, batch: &Batch, index: i64, features: &Features, masks: &Tensor) -> Result<Tokens> {
    let size = masks.size();
    let count = network.config().at_size([size[2], size[3]]).memory.tokens;
    let mut clips = Vec::with_capacity(batch.seeds.len());
    for (seed, clip) in batch.seeds.iter().zip(0..) {
        tch::manual_seed(seed.wrapping_add(index));
        let (features, mask) = (features.narrow(clip, 1)?, masks.f_narrow(0, clip, 1)?);
        clips.push(network.tokens(&features, &mask, count, Selection::Random)?);
    }
    Ok(Tokens::combine(&clips.iter().collect::<Vec<_>>(), |parts| Ok(Tensor::f_cat(parts, 0)?))?)
}

#[cfg(test)]
pub mod tests {
    use gstfastganseg::torch::model::{Config, TemporalSkip};
    use tch::nn;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
    pub const OPTIONS: UnrollOptions =
        UnrollOptions { kind: Kind::Float, frozen_encoder: false, remember: 0.0 };

    fn waves(size: &[i64], phase: f64) -> Tensor {
        let i = Tensor::arange(size.iter().product::<i64>(), FLOAT);
        ((i * 0.013 + phase).sin() * 0.5 + 0.5).reshape(size)
    }

    #[test]
    fn logits_of_several_objects_are_normalised_as_by_the_tracker() {
        let logits = (waves(&[5, 1, 4, 6], 0.3) * 20.0 - 10.0).to_kind(Kind::Double);
        let masks = normalised(&logits, &[1, 3, 1]).unwrap().sigmoid();
        let single = logits.sigmoid();
        for clip in [0, 4] {
            assert!((masks.get(clip) - single.get(clip)).abs().max().double_value(&[]) < 1e-6);
        }
        let objects = single.narrow(0, 1, 3);
        let background = (-&objects + 1.0).prod_dim_int(0, true, None::<Kind>);
        let odds = Tensor::cat(&[background, objects], 0).clamp(1e-7, 1.0 - 1e-7).logit(None::<f64>);
        let shares = odds.softmax(0, None::<Kind>).narrow(0, 1, 3);
        assert!((masks.narrow(0, 1, 3) - shares).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn normalised_extreme_logits_have_finite_gradients() {
        let logits =
            Tensor::from_slice(&[90f32, -90.0, 40.0, -90.0]).reshape([2, 1, 1, 2]).set_requires_grad(true);
        let masks = normalised(&logits, &[2]).unwrap();
        masks.sum(Kind::Float).backward();
        assert!(bool::try_from(masks.isfinite().all()).unwrap());
        assert!(bool::try_from(logits.grad().isfinite().all()).unwrap());
    }

    /// Two predicted frames of one clip.
    pub fn batch() -> Batch {
        Batch {
            images: waves(&[4, 1, 3, 64, 64], 0.0),
            masks: waves(&[4, 1, 1, 64, 64], 1.0),
            valid: Tensor::ones([4, 1, 1, 64, 64], FLOAT),
            previous: waves(&[1, 1, 64, 64], 2.0),
            seed: 5,
            seeds: vec![6],
            objects: vec![1],
        }
    }

    pub fn config(base: Config, temporal_skip: TemporalSkip) -> Config {
        let mut config = Config { width: 0.125, network_size: [64, 64], temporal_skip, ..base };
        config.memory.tokens = config.memory.tokens.min(16);
        config
    }

    fn resnet50(temporal_skip: TemporalSkip) -> (nn::VarStore, Resnet50) {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let network = Resnet50::new(&store.root(), &config(Config::resnet50(), temporal_skip)).unwrap();
        (store, network)
    }

    /// The largest absolute gradient of one predicted frame in the variables whose names start with `prefix`.
    fn gradient(store: &nn::VarStore, logits: &Tensor, frame: i64, prefix: &str) -> f64 {
        let mut names: Vec<_> = store.variables().into_iter().collect();
        names.retain(|(name, variable)| name.starts_with(prefix) && variable.requires_grad());
        let variables: Vec<Tensor> = names.into_iter().map(|(_, variable)| variable).collect();
        let sum = logits.get(frame).square().sum(Kind::Float);
        let gradients = Tensor::run_backward(&[sum], &variables, true, false);
        gradients
            .iter()
            .filter(|gradient| gradient.defined())
            .map(|gradient| gradient.abs().max().double_value(&[]))
            .fold(0.0, f64::max)
    }

    #[test]
    fn resnet50_unrolls_to_the_same_logits_as_frame_by_frame() {
        let (_store, network) = resnet50(TemporalSkip::Head);
        let batch = batch();
        let logits = unroll_resnet50(&network, &batch).unwrap().logits;
        assert_eq!(logits.size(), [2, 1, 1, 64, 64]);
        let reference = network.reference(&batch.images.get(0), &batch.masks.get(0)).unwrap();
        let mut state = network.start(&reference).unwrap();
        network.observe(&batch.previous, &reference, &mut state).unwrap();
        for frame in 0..2 {
            let expected = network.step(&batch.images.get(frame + 2), &reference, &mut state).unwrap();
            network.observe(&expected.sigmoid(), &reference, &mut state).unwrap();
            let difference = (logits.get(frame) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-4, "{difference}");
        }
    }

    #[test]
    fn gradient_flows_through_both_kinds_of_temporal_skip() {
        for skip in [TemporalSkip::Head, TemporalSkip::Refine] {
            let (store, network) = resnet50(skip);
            let logits = unroll_resnet50(&network, &batch()).unwrap().logits;
            // The input of the skip is zero in the first frame.
            assert_eq!(gradient(&store, &logits, 0, "temporal.weight"), 0.0, "{skip:?}");
            assert!(gradient(&store, &logits, 1, "temporal.weight") > 0.0, "{skip:?}");
        }
        let (store, network) = resnet50(TemporalSkip::Off);
        let logits = unroll_resnet50(&network, &batch()).unwrap().logits;
        assert!(gradient(&store, &logits, 1, "head") > 0.0);
        assert!(store.variables().keys().all(|name| !name.starts_with("temporal")));
    }

    #[test]
    fn gradient_flows_through_the_previous_soft_mask() {
        let (_store, network) = resnet50(TemporalSkip::Off);
        // Without a temporal skip, the mask before the first frame reaches the second one through that of the first.
        let batch = Batch { previous: batch().previous.set_requires_grad(true), ..batch() };
        let second = unroll_resnet50(&network, &batch).unwrap().logits.get(1).square().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[second], &[&batch.previous], false, false).remove(0);
        assert!(gradient.defined() && gradient.abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn batch_normalisation_statistics_do_not_change() {
        let (store, network) = resnet50(TemporalSkip::Head);
        let statistics = || -> Vec<Tensor> {
            let mut all: Vec<_> = store.variables().into_iter().collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.retain(|(name, _)| name.contains("running_"));
            all.into_iter().map(|(_, tensor)| tensor.copy()).collect()
        };
        let before = statistics();
        assert!(!before.is_empty());
        unroll_resnet50(&network, &batch()).unwrap().logits.mean(Kind::Float).backward();
        assert!(before.iter().zip(statistics()).all(|(a, b)| a.equal(&b)));
    }

    #[test]
    fn true_masks_after_the_reference_are_not_used() {
        let (_store, network) = resnet50(TemporalSkip::Head);
        let original = batch();
        let mut cleared = batch();
        cleared.masks = cleared.masks.copy();
        let _ = cleared.masks.get(1).fill_(0.0);
        let _ = cleared.masks.get(2).fill_(0.0);
        let logits = |batch: &Batch| unroll_resnet50(&network, batch).unwrap().logits;
        assert!(logits(&original).equal(&logits(&cleared)));
    }

    #[test]
    fn bfloat16_keeps_weights_and_logits_in_float32() {
        let (store, mut network) = resnet50(TemporalSkip::Head);
        let exact = unroll_resnet50(&network, &batch()).unwrap().logits;
        network.compute_in(Kind::BFloat16);
        let rounded = unroll_resnet50(&network, &batch()).unwrap().logits;
        assert_eq!(rounded.kind(), Kind::Float);
        let difference = (&exact - &rounded).abs().max().double_value(&[]);
        let largest = exact.abs().max().double_value(&[]);
        assert!(difference > 0.0 && difference < 0.05 * largest + 0.02, "{difference} of {largest}");
        rounded.square().mean(Kind::Float).backward();
        let trained = store.variables().into_values().filter(Tensor::requires_grad);
        assert!(trained.map(|variable| variable.grad()).all(|gradient| gradient.kind() == Kind::Float));
    }

    #[test]
    fn only_a_frozen_encoder_of_lite_gets_no_gradient() {
        tch::manual_seed(4);
        for (base, frozen_encoder) in [
            (Config::lite(), true),
            (Config::lite(), false),
            (Config::large(), true),
            (Config::large(), false),
        ] {
            let store = nn::VarStore::new(Device::Cpu);
            let lite = Lite::new(&store.root(), &config(base, TemporalSkip::Refine)).unwrap();
            let options = UnrollOptions { frozen_encoder, remember: 1.0, ..OPTIONS };
            let logits = unroll_lite(&lite, &batch(), &options).unwrap().logits;
            assert_eq!(logits.size(), [2, 1, 1, 64, 64]);
            assert_eq!(gradient(&store, &logits, 1, "encoder") == 0.0, frozen_encoder);
            assert!(gradient(&store, &logits, 1, "matching") > 0.0);
            assert!(gradient(&store, &logits, 1, "decoder.temporal_skip") > 0.0);
        }
    }
}
