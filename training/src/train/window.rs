// SPDX-License-Identifier: MPL-2.0

//! Unrolling of a window, for every regressor. The K frames are predicted in order, each from the predicted soft
//! mask and the temporal skip of the previous frame; the gradient flows through both. The frame before the window
//! supplies the first mask only, and the recurrent state starts at zero.

use std::collections::VecDeque;

use gstfastganseg::torch::model::layers::channels_last;
use gstfastganseg::torch::model::lite::features::Features;
use gstfastganseg::torch::model::lite::matching::Biases;
use gstfastganseg::torch::model::lite::memory::{Selection, Tokens, remember};
use gstfastganseg::torch::model::{Lite, Regressor, Resnet50, ShallowClone, resnet50};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::clips::Batch;

/// Maximum magnitude of a logit that is normalised: a probability of 1e-7, as in the tracker.
const MAX_LOGIT: f64 = 16.118;

/// Options of [`unroll`].
#[derive(Clone, Copy, Debug)]
pub struct UnrollOptions {
    /// Kind of features and activations. Weights, states and losses are float32.
    pub kind: Kind,
    /// Keeps gradients from the encoder.
    pub frozen_encoder: bool,
    /// Probability that a frame is added to the memory bank, 0 to 1. Ignored by networks without one.
    pub remember: f64,
}

/// A regressor that can be unrolled.
pub trait Unroll {
    /// Encoded windows of a batch and the state between frames.
    type Run<'a>
    where
        Self: 'a;

    /// Encodes the reference and the previous mask of a batch.
    ///
    /// # Errors
    /// If the network does not accept the size of the clips, or memory runs out.
    fn begin<'a>(&'a self, batch: &'a Batch, options: &UnrollOptions) -> Result<Self::Run<'a>>;

    /// Returns the logits (B, 1, H, W), float32, of the predicted frame `index`, from 0.
    ///
    /// # Errors
    /// If memory runs out.
    fn predict(&self, run: &mut Self::Run<'_>, index: i64) -> Result<Tensor>;

    /// Sets the soft masks (B, 1, H, W) of the frame predicted last.
    ///
    /// # Errors
    /// If memory runs out.
    fn feed_back(&self, run: &mut Self::Run<'_>, masks: Tensor) -> Result<()>;

    /// Returns the keys (F·B, key, positions), unit length, of all frames of the batch at stride 16, if the network has any.
    fn keys(_: &Self::Run<'_>) -> Option<Tensor> {
        None
    }
}

/// Predictions of a window, differentiable in the weights.
#[derive(Debug)]
pub struct Unrolled {
    /// Logits (K, B, 1, H, W), float32, of all predicted frames.
    pub logits: Tensor,
    /// Keys of all frames; see [`Unroll::keys`].
    pub keys: Option<Tensor>,
}

/// Predicts all frames of a batch.
///
/// # Errors
/// As [`Unroll::begin`].
pub fn unroll<N: Unroll>(network: &N, batch: &Batch, options: &UnrollOptions) -> Result<Unrolled> {
    let frames = batch.images.size()[0] - 2;
    let mut run = network.begin(batch, options)?;
    let mut all = Vec::with_capacity(frames as usize);
    for index in 0..frames {
        let logits = normalised(&network.predict(&mut run, index)?, &batch.objects)?;
        network.feed_back(&mut run, logits.f_sigmoid()?)?;
        all.push(logits);
    }
    Ok(Unrolled { logits: Tensor::f_stack(&all, 0)?, keys: N::keys(&run) })
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

/// Moves a batch to another device.
///
/// # Errors
/// If memory runs out there.
pub fn on_device(batch: Batch, device: Device) -> Result<Batch> {
    Ok(Batch {
        images: batch.images.f_to_device(device)?,
        masks: batch.masks.f_to_device(device)?,
        valid: batch.valid.f_to_device(device)?,
        previous: batch.previous.f_to_device(device)?,
        ..batch
    })
}

/// Run of a batch through `resnet50`.
#[derive(Debug)]
pub struct Resnet50Run<'a> {
    images: &'a Tensor,
    reference: resnet50::Reference,
    state: resnet50::State,
}

impl Unroll for Resnet50 {
    type Run<'a> = Resnet50Run<'a>;

    fn begin<'a>(&'a self, batch: &'a Batch, _: &UnrollOptions) -> Result<Resnet50Run<'a>> {
        let image = channels_last(&batch.images.f_select(0, 0)?)?;
        let reference = self.reference(&image, &batch.masks.f_select(0, 0)?)?;
        let mut state = self.start(&reference)?;
        self.observe(&batch.previous, &reference, &mut state)?;
        Ok(Resnet50Run { images: &batch.images, reference, state })
    }

    fn predict(&self, run: &mut Resnet50Run<'_>, index: i64) -> Result<Tensor> {
        let image = channels_last(&run.images.f_select(0, index + 2)?)?;
        Ok(self.step(&image, &run.reference, &mut run.state)?)
    }

    fn feed_back(&self, run: &mut Resnet50Run<'_>, masks: Tensor) -> Result<()> {
        Ok(self.observe(&masks, &run.reference, &mut run.state)?)
    }
}

/// Run of a batch through `lite`. The encoder takes no masks, so all frames are encoded at once.
#[derive(Debug)]
pub struct LiteRun<'a> {
    batch: &'a Batch,
    features: Features,
    biases: Biases,
    reference: Tokens,
    memory: Tokens,
    remembered: VecDeque<Tokens>,
    mask: Tensor,
    skip: Option<Tensor>,
    /// Whether the frame before each predicted frame is added to the memory bank.
    remember: Vec<bool>,
}

impl LiteRun<'_> {
    fn frame(&self, index: i64) -> Result<Features> {
        let clips = self.batch.images.size()[1];
        Ok(self.features.narrow(index * clips, clips)?)
    }
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

impl Unroll for Lite {
    type Run<'a> = LiteRun<'a>;

    fn begin<'a>(&'a self, batch: &'a Batch, options: &UnrollOptions) -> Result<LiteRun<'a>> {
        let [frames, clips] = [0, 1].map(|dim| batch.images.size()[dim]);
        let images = channels_last(&batch.images.f_flatten(0, 1)?)?.f_to_kind(options.kind)?;
        let features = if options.frozen_encoder {
            let features = tch::no_grad(|| self.encoder.forward(&images))?;
            self.features(&features, &images)?
        } else {
            self.encode(&images)?
        };
        let first = features.narrow(0, clips)?;
        let reference = tokens(self, batch, 0, &first, &batch.masks.f_select(0, 0)?)?;
        tch::manual_seed(batch.seed);
        let drawn = Vec::<f64>::try_from(&Tensor::f_rand([frames - 2], (Kind::Double, Device::Cpu))?)?;
        Ok(LiteRun {
            batch,
            biases: self.biases(&first)?,
            memory: reference.shallow_clone(),
            features,
            reference,
            remembered: VecDeque::new(),
            mask: batch.previous.shallow_clone(),
            skip: None,
            remember: drawn.into_iter().map(|drawn| drawn < options.remember).collect(),
        })
    }

    fn predict(&self, run: &mut LiteRun<'_>, index: i64) -> Result<Tensor> {
        let (previous, now) = (run.frame(index + 1)?, run.frame(index + 2)?);
        if run.remember[index as usize] {
            let tokens = tokens(self, run.batch, index + 1, &previous, &run.mask.f_detach()?)?;
            let limit = self.config().memory.frames;
            run.memory = remember(&run.reference, &mut run.remembered, tokens, limit)?;
        }
        let (logits, skip) =
            self.decode(&now, &previous, &run.mask, run.skip.as_ref(), &run.memory, &run.biases)?;
        run.skip = Some(skip);
        Ok(logits)
    }

    fn feed_back(&self, run: &mut LiteRun<'_>, masks: Tensor) -> Result<()> {
        run.mask = masks;
        Ok(())
    }

    fn keys(run: &LiteRun<'_>) -> Option<Tensor> {
        Some(run.features.key16.shallow_clone())
    }
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
        let logits = unroll(&network, &batch, &OPTIONS).unwrap().logits;
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
            let logits = unroll(&network, &batch(), &OPTIONS).unwrap().logits;
            // The input of the skip is zero in the first frame.
            assert_eq!(gradient(&store, &logits, 0, "temporal.weight"), 0.0, "{skip:?}");
            assert!(gradient(&store, &logits, 1, "temporal.weight") > 0.0, "{skip:?}");
        }
        let (store, network) = resnet50(TemporalSkip::Off);
        let logits = unroll(&network, &batch(), &OPTIONS).unwrap().logits;
        assert!(gradient(&store, &logits, 1, "head") > 0.0);
        assert!(store.variables().keys().all(|name| !name.starts_with("temporal")));
    }

    #[test]
    fn gradient_flows_through_the_previous_soft_mask() {
        let (_store, network) = resnet50(TemporalSkip::Off);
        let batch = batch();
        let mut run = network.begin(&batch, &OPTIONS).unwrap();
        let first = network.predict(&mut run, 0).unwrap().sigmoid();
        network.feed_back(&mut run, first.shallow_clone()).unwrap();
        let second = network.predict(&mut run, 1).unwrap().square().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[second], &[&first], false, false).remove(0);
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
        unroll(&network, &batch(), &OPTIONS).unwrap().logits.mean(Kind::Float).backward();
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
        let logits = |batch: &Batch| unroll(&network, batch, &OPTIONS).unwrap().logits;
        assert!(logits(&original).equal(&logits(&cleared)));
    }

    #[test]
    fn bfloat16_keeps_weights_and_logits_in_float32() {
        let (store, mut network) = resnet50(TemporalSkip::Head);
        let exact = unroll(&network, &batch(), &OPTIONS).unwrap().logits;
        network.compute_in(Kind::BFloat16);
        let options = UnrollOptions { kind: Kind::BFloat16, ..OPTIONS };
        let rounded = unroll(&network, &batch(), &options).unwrap().logits;
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
            let logits = unroll(&lite, &batch(), &options).unwrap().logits;
            assert_eq!(logits.size(), [2, 1, 1, 64, 64]);
            assert_eq!(gradient(&store, &logits, 1, "encoder") == 0.0, frozen_encoder);
            assert!(gradient(&store, &logits, 1, "matching") > 0.0);
            assert!(gradient(&store, &logits, 1, "decoder.temporal_skip") > 0.0);
        }
    }
}
