//! The window unrolled, the same for every regressor: K frames are predicted one after another, each from the own
//! soft mask and the temporal skip of the one before, with gradient through both. The frame before the window only
//! seeds the mask, and the recurrent state starts at zeros.

use std::collections::VecDeque;

use gstfastganseg::model::layers::channels_last;
use gstfastganseg::model::lite::matching::{Biases, Features};
use gstfastganseg::model::lite::memory::{Selection, Tokens, remember};
use gstfastganseg::model::{Lite, Regressor, Resnet50, resnet50};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::clips::Batch;

/// How windows are computed.
#[derive(Clone, Copy, Debug)]
pub struct UnrollOptions {
    /// The kind of features and activations; weights, states and losses are float32.
    pub kind: Kind,
    /// No gradient reaches the encoder.
    pub frozen_encoder: bool,
    /// The chance of a frame to be remembered, where the network remembers.
    pub remember: f64,
}

/// A regressor that can be unrolled.
pub trait Unroll {
    /// What is encoded of the windows of a batch, and carried from frame to frame.
    type Run<'a>
    where
        Self: 'a;

    /// Up to the frame before the window, with the mask that it seeds.
    ///
    /// # Errors
    /// Clips of a size that the network does not take, too little memory.
    fn begin<'a>(&'a self, batch: &'a Batch, options: &UnrollOptions) -> Result<Self::Run<'a>>;

    /// Logits (B, 1, H, W), float32, of the predicted frame `index`, counted from 0.
    ///
    /// # Errors
    /// Too little memory.
    fn predict(&self, run: &mut Self::Run<'_>, index: i64) -> Result<Tensor>;

    /// Hands back the soft masks (B, 1, H, W) that came of it.
    ///
    /// # Errors
    /// Too little memory.
    fn feed_back(&self, run: &mut Self::Run<'_>, masks: Tensor) -> Result<()>;
}

/// Logits (K, B, 1, H, W), float32, of all predicted frames; differentiable in the weights unless gradients are
/// off.
///
/// # Errors
/// As [`Unroll::begin`].
pub fn unroll<N: Unroll>(network: &N, batch: &Batch, options: &UnrollOptions) -> Result<Tensor> {
    let frames = batch.images.size()[0] - 2;
    let mut run = network.begin(batch, options)?;
    let mut all = Vec::with_capacity(frames as usize);
    for index in 0..frames {
        let logits = network.predict(&mut run, index)?;
        network.feed_back(&mut run, logits.f_sigmoid()?)?;
        all.push(logits);
    }
    Ok(Tensor::f_stack(&all, 0)?)
}

/// The windows on another device.
///
/// # Errors
/// Too little memory there.
pub fn on_device(batch: Batch, device: Device) -> Result<Batch> {
    Ok(Batch {
        images: batch.images.f_to_device(device)?,
        masks: batch.masks.f_to_device(device)?,
        valid: batch.valid.f_to_device(device)?,
        previous: batch.previous.f_to_device(device)?,
    })
}

/// A window as `resnet50` sees it.
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

/// A window as `lite` sees it: its encoder knows nothing of masks, so that all frames are encoded at once.
#[derive(Debug)]
pub struct LiteRun {
    clips: i64,
    features: Features,
    biases: Biases,
    reference: Tokens,
    memory: Tokens,
    remembered: VecDeque<Tokens>,
    mask: Tensor,
    skip: Option<Tensor>,
    remember: f64,
}

impl LiteRun {
    fn frame(&self, index: i64) -> Result<Features> {
        Ok(self.features.narrow(index * self.clips, self.clips)?)
    }
}

impl Unroll for Lite {
    type Run<'a> = LiteRun;

    fn begin<'a>(&'a self, batch: &'a Batch, options: &UnrollOptions) -> Result<LiteRun> {
        let clips = batch.images.size()[1];
        let images = channels_last(&batch.images.f_flatten(0, 1)?)?.f_to_kind(options.kind)?;
        let features = if options.frozen_encoder {
            let features = tch::no_grad(|| self.encoder.forward(&images))?;
            self.matching.features(&features)?
        } else {
            self.encode(&images)?
        };
        let first = features.narrow(0, clips)?;
        let reference = self.tokens(&first, &batch.masks.f_select(0, 0)?, Selection::Random)?;
        Ok(LiteRun {
            clips,
            biases: self.biases(&first)?,
            memory: reference.shallow_clone(),
            features,
            reference,
            remembered: VecDeque::new(),
            mask: batch.previous.shallow_clone(),
            skip: None,
            remember: options.remember,
        })
    }

    fn predict(&self, run: &mut LiteRun, index: i64) -> Result<Tensor> {
        let (previous, now) = (run.frame(index + 1)?, run.frame(index + 2)?);
        let drawn = Tensor::f_rand([1], (Kind::Float, Device::Cpu))?.double_value(&[0]);
        if drawn < run.remember {
            let seen = self.tokens(&previous, &run.mask.f_detach()?, Selection::Random)?;
            let limit = self.config().memory.frames;
            run.memory = remember(&run.reference, &mut run.remembered, seen, limit)?;
        }
        let (logits, skip) =
            self.decode(&now, &previous, &run.mask, run.skip.as_ref(), &run.memory, &run.biases)?;
        run.skip = Some(skip);
        Ok(logits)
    }

    fn feed_back(&self, run: &mut LiteRun, masks: Tensor) -> Result<()> {
        run.mask = masks;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gstfastganseg::model::{Config, TemporalSkip};
    use tch::nn;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
    const MANNER: UnrollOptions = UnrollOptions { kind: Kind::Float, frozen_encoder: false, remember: 0.0 };

    fn waves(size: &[i64], phase: f64) -> Tensor {
        let i = Tensor::arange(size.iter().product::<i64>(), FLOAT);
        ((i * 0.013 + phase).sin() * 0.5 + 0.5).reshape(size)
    }

    /// Two predicted frames of one clip.
    fn batch() -> Batch {
        Batch {
            images: waves(&[4, 1, 3, 64, 64], 0.0),
            masks: waves(&[4, 1, 1, 64, 64], 1.0),
            valid: Tensor::ones([4, 1, 1, 64, 64], FLOAT),
            previous: waves(&[1, 1, 64, 64], 2.0),
        }
    }

    fn config(base: Config, temporal_skip: TemporalSkip) -> Config {
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

    /// The gradient of the sum of one predicted frame in the variables whose names begin so.
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
    fn resnet50_is_the_run_time_network_frame_by_frame() {
        let (_store, network) = resnet50(TemporalSkip::Head);
        let batch = batch();
        let logits = unroll(&network, &batch, &MANNER).unwrap();
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
    fn gradient_flows_through_the_temporal_skip_in_both_readings() {
        for reading in [TemporalSkip::Head, TemporalSkip::Refine] {
            let (store, network) = resnet50(reading);
            let logits = unroll(&network, &batch(), &MANNER).unwrap();
            // Of the first frame the skip sees zeros: only its bias has a part in it.
            assert_eq!(gradient(&store, &logits, 0, "temporal.weight"), 0.0, "{reading:?}");
            assert!(gradient(&store, &logits, 1, "temporal.weight") > 0.0, "{reading:?}");
        }
        let (store, network) = resnet50(TemporalSkip::Off);
        let logits = unroll(&network, &batch(), &MANNER).unwrap();
        assert!(gradient(&store, &logits, 1, "head") > 0.0);
        assert!(store.variables().keys().all(|name| !name.starts_with("temporal")));
    }

    #[test]
    fn gradient_flows_through_the_soft_mask_of_the_frame_before() {
        let (_store, network) = resnet50(TemporalSkip::Off);
        let batch = batch();
        let mut run = network.begin(&batch, &MANNER).unwrap();
        let first = network.predict(&mut run, 0).unwrap().sigmoid();
        network.feed_back(&mut run, first.shallow_clone()).unwrap();
        let second = network.predict(&mut run, 1).unwrap().square().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[second], &[&first], false, false).remove(0);
        assert!(gradient.defined() && gradient.abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn statistics_of_batch_normalisation_stay() {
        let (store, network) = resnet50(TemporalSkip::Head);
        let statistics = || -> Vec<Tensor> {
            let mut all: Vec<_> = store.variables().into_iter().collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.retain(|(name, _)| name.contains("running_"));
            all.into_iter().map(|(_, tensor)| tensor.copy()).collect()
        };
        let before = statistics();
        assert!(!before.is_empty());
        unroll(&network, &batch(), &MANNER).unwrap().mean(Kind::Float).backward();
        assert!(before.iter().zip(statistics()).all(|(a, b)| a.equal(&b)));
    }

    #[test]
    fn the_true_mask_of_the_frame_before_is_not_seen() {
        let (_store, network) = resnet50(TemporalSkip::Head);
        let whole = batch();
        let mut other = batch();
        other.masks = other.masks.copy();
        let _ = other.masks.get(1).fill_(0.0);
        let _ = other.masks.get(2).fill_(0.0);
        let of = |batch: &Batch| unroll(&network, batch, &MANNER).unwrap();
        assert!(of(&whole).equal(&of(&other)), "truth comes in by reference and seed alone");
    }

    #[test]
    fn bfloat16_keeps_weights_and_logits_in_float32() {
        let (store, mut network) = resnet50(TemporalSkip::Head);
        let exact = unroll(&network, &batch(), &MANNER).unwrap();
        network.compute_in(Kind::BFloat16);
        let options = UnrollOptions { kind: Kind::BFloat16, ..MANNER };
        let half = unroll(&network, &batch(), &options).unwrap();
        assert_eq!(half.kind(), Kind::Float);
        let difference = (&exact - &half).abs().max().double_value(&[]);
        let size = exact.abs().max().double_value(&[]);
        assert!(difference > 0.0 && difference < 0.05 * size + 0.02, "{difference} of {size}");
        half.square().mean(Kind::Float).backward();
        let trained = store.variables().into_values().filter(Tensor::requires_grad);
        assert!(trained.map(|variable| variable.grad()).all(|gradient| gradient.kind() == Kind::Float));
    }

    #[test]
    fn a_frozen_encoder_of_lite_gets_no_gradient_and_the_rest_does() {
        tch::manual_seed(4);
        for (base, frozen_encoder) in [
            (Config::lite(), true),
            (Config::lite(), false),
            (Config::large(), true),
            (Config::large(), false),
        ] {
            let store = nn::VarStore::new(Device::Cpu);
            let lite = Lite::new(&store.root(), &config(base, TemporalSkip::Refine)).unwrap();
            let options = UnrollOptions { frozen_encoder, remember: 1.0, ..MANNER };
            let logits = unroll(&lite, &batch(), &options).unwrap();
            assert_eq!(logits.size(), [2, 1, 1, 64, 64]);
            assert_eq!(gradient(&store, &logits, 1, "encoder") == 0.0, frozen_encoder);
            assert!(gradient(&store, &logits, 1, "matching") > 0.0);
            assert!(gradient(&store, &logits, 1, "decoder.temporal_skip") > 0.0);
        }
    }
}
