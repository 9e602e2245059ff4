// SPDX-License-Identifier: MPL-2.0

//! Runs a network of any architecture and owns its reference and state.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::frame_stats;
use super::prefetch::{EncodeWorker, PendingEncoding};
use crate::gpu::{Argument, ArgumentUse, Mode, PlanCache, RecordableFn};
use crate::matte::{Extent, RefinerNetwork};
use crate::model::layers::{RelativeRect, copy_of};
use crate::model::{Regressor, Role, ShallowClone, Sight, Tiles};
use crate::team::TeamGuard;
use crate::{Error, Result};

/// Output of a step on the device. The host has not waited for it.
pub struct StepOutput {
    /// Soft masks (N, 1, H, W), float32.
    pub masks: Tensor,
    /// Similarity to the reference, (N, 1, H/s, W/s), float32.
    pub likeness: Tensor,
    /// Frame statistics, see [`frame_stats::compute`].
    pub stats: Tensor,
}

pub enum StepInput {
    /// A frame, (1, 3, H, W).
    Image(Tensor),
    /// A frame that the same runner has begun to encode.
    Prefetched(PrefetchedEncoding),
}

/// Pending encoding of an image. Holds a [`PendingEncoding`] of the network's own type.
#[derive(Debug)]
pub struct PrefetchedEncoding(Box<dyn Any + Send>);

/// Network with its reference and recurrent state.
pub trait ModelRunner: Send {
    /// Returns a function that encodes references on any thread.
    fn reference_encoder(&self) -> EncodeReference;
    /// Sets the reference and starts tracking from it.
    fn set_reference(&mut self, reference: EncodedViews) -> Result<()>;
    /// Adds the reference of another frame and continues tracking from that frame. The first reference and the newest
    /// [`MAX_ADDED_REFERENCES`] others are kept.
    fn add_reference(&mut self, reference: EncodedViews) -> Result<()>;
    /// Resets the state to that of the first reference.
    fn restart(&mut self) -> Result<()>;
    fn clear(&mut self);
    /// Processes a frame. With [`reuses_memory`](Self::reuses_memory) the output is valid until the next step.
    fn step(&mut self, input: StepInput) -> Result<StepOutput>;
    /// Starts to encode an image for a later step. Returns `None` without a prefetch thread or reference.
    fn prefetch(&self, image: Tensor) -> Option<PrefetchedEncoding>;
    /// Returns what refines edges, if the model has it.
    fn refiner(&self) -> Option<Arc<dyn RefinerNetwork>>;
    fn can_prefetch(&self) -> bool;
    /// Updates the state with the final masks of the last step, see [`Regressor::observe_sights`].
    fn observe(&mut self, masks: &Tensor, sights: &[Sight]) -> Result<()>;
    fn forget_masks(&mut self) -> Result<()>;
    /// Replaces the masks of the last step by the places that resemble the objects.
    fn relocate(&mut self) -> Result<()>;
    /// Sets the number of tokens of frames that are remembered from now on.
    fn set_memory_tokens(&mut self, tokens: i64);
    fn move_crop_window(&mut self, part: RelativeRect, size: (i64, i64)) -> Result<()>;
    /// Returns whether steps overwrite the output of the step before.
    fn reuses_memory(&self) -> bool;
    /// Returns a copy of the recurrent state, or `None` without a reference.
    fn save(&self) -> Result<Option<SavedState>>;
    /// Restores a saved state of the present reference.
    fn restore(&mut self, saved: &SavedState) -> Result<()>;
    /// Returns why CUDA graphs have failed and steps are no longer replayed. Each reason is returned once.
    fn take_failure(&mut self) -> Option<String>;
    /// Enables CUDA graphs again after a failure. Returns whether they had failed.
    fn retry(&mut self) -> bool;
}

/// Encodes the views of a reference, pairs of image and masks: first the view that tracking starts from, then other
/// views of the same frame.
pub type EncodeReference = Box<dyn Fn(&[(Tensor, Tensor)]) -> Result<EncodedViews> + Send + Sync>;

/// An encoded reference of the network's own type.
#[derive(Debug)]
pub struct EncodedViews(Box<dyn Any + Send>);

impl EncodedViews {
    fn open<R: 'static>(self) -> Result<R> {
        let reference = self.0.downcast::<R>();
        Ok(*reference.map_err(|_| Error::Config("the reference was encoded by another network".into()))?)
    }
}

/// State returned by [`ModelRunner::save`]: that of the network's own type, and whether it comes from a step.
#[derive(Debug)]
pub struct SavedState(Box<dyn Any + Send>);

/// Maximum number of references beside the first one. Each takes time in every step.
pub const MAX_ADDED_REFERENCES: usize = 4;

/// Maximum number of plans. There is one for each number of objects and length of the memory.
const MAX_PLANS: usize = 12;

/// Encodes an image with the memory of the state.
type Prefetcher<R> = EncodeWorker<(Tensor, <R as Regressor>::MemoryRef), <R as Regressor>::EncodedFrame>;

pub struct Runner<R: Regressor> {
    model: Arc<R>,
    /// All references together, and the state.
    tracked: Option<(R::Reference, R::State)>,
    /// The reference that was set.
    first: Option<R::Reference>,
    /// The references that were added to it, the newest last.
    added: VecDeque<R::Reference>,
    /// The state comes from a step, so it has all tensors of [`Regressor::visit_inputs`].
    has_stepped: bool,
    replays: PlanCache<R>,
    /// Encodes images ahead of time.
    pub prefetcher: Option<Prefetcher<R>>,
}

impl<R: Regressor> Runner<R> {
    pub fn new(model: Arc<R>, mode: Mode) -> Self {
        Self {
            model,
            tracked: None,
            first: None,
            added: VecDeque::new(),
            has_stepped: false,
            replays: PlanCache::new(mode, 0, MAX_PLANS),
            prefetcher: None,
        }
    }

    /// Returns a copy of the state that later steps do not write to.
    fn detached(&self, reference: &R::Reference, state: &R::State) -> Result<R::State> {
        let mut state = state.shallow_clone();
        if !self.replays.is_direct() {
            R::visit_inputs(&mut reference.shallow_clone(), &mut state, &mut |tensor, role| {
                if role != Role::Constant {
                    *tensor = copy_of(tensor)?;
                }
                Ok(())
            })?;
        }
        Ok(state)
    }
}

impl<R: Regressor + 'static> ModelRunner for Runner<R> {
    fn reference_encoder(&self) -> EncodeReference {
        let model = self.model.clone();
        Box::new(move |views| {
            let [(image, masks), others @ ..] = views else { return Err(Error::NoReference) };
            let mut reference = model.reference(image, masks)?;
            for (image, masks) in others {
                model.add_view(image, masks, &mut reference)?;
            }
            Ok(EncodedViews(Box::new(reference)))
        })
    }

    fn set_reference(&mut self, reference: EncodedViews) -> Result<()> {
        let reference: R::Reference = reference.open()?;
        let state = self.model.start(&reference)?;
        self.first = Some(reference.shallow_clone());
        self.added.clear();
        self.tracked = Some((reference, state));
        self.has_stepped = false;
        Ok(())
    }

    fn add_reference(&mut self, reference: EncodedViews) -> Result<()> {
        let newest: R::Reference = reference.open()?;
        let mut joined = self.first.as_ref().ok_or(Error::NoReference)?.shallow_clone();
        let dropped = (self.added.len() + 1).saturating_sub(MAX_ADDED_REFERENCES);
        for added in self.added.iter().skip(dropped).chain([&newest]) {
            self.model.add_reference(added, &mut joined)?;
        }
        let state = self.model.start_at(&newest, &joined)?;
        self.added.drain(..dropped);
        self.added.push_back(newest);
        self.tracked = Some((joined, state));
        self.has_stepped = false;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        if let Some((reference, state)) = &mut self.tracked {
            *state = self.model.start(reference)?;
        }
        self.has_stepped = false;
        Ok(())
    }

    fn clear(&mut self) {
        (self.tracked, self.first) = (None, None);
        self.added.clear();
    }

    fn step(&mut self, input: StepInput) -> Result<StepOutput> {
        let Self { model, tracked, has_stepped, replays, .. } = self;
        let model = &**model;
        let (reference, state) = tracked.as_mut().ok_or(Error::NoReference)?;
        let image = match input {
            StepInput::Image(image) => image,
            StepInput::Prefetched(PrefetchedEncoding(pending)) => {
                let pending =
                    pending.downcast::<PendingEncoding<R::EncodedFrame>>().map_err(|_| Error::NoPrefetch)?;
                *has_stepped = true;
                return run_step(model, pending.take()?, reference, state);
            }
        };
        if replays.is_direct() || !*has_stepped {
            *has_stepped = true;
            let encoded = model.encode_frame(&image, &R::memory_ref(state))?;
            return run_step(model, encoded, reference, state);
        }
        let mut arguments = vec![Argument::new(&image, ArgumentUse::Model(Role::Input))];
        R::visit_inputs(reference, state, &mut |tensor, role| {
            arguments.push(Argument::new(tensor, ArgumentUse::Model(role)));
            Ok(())
        })?;
        let results = replays.run(model, 0, arguments, || recipe(reference, state))?;
        let mut results = results.into_iter();
        R::visit_inputs(reference, state, &mut |tensor, role| {
            if role == Role::Recurrent {
                *tensor = next_result(&mut results)?;
            }
            Ok(())
        })?;
        Ok(StepOutput {
            masks: next_result(&mut results)?,
            likeness: next_result(&mut results)?,
            stats: next_result(&mut results)?,
        })
    }

    fn prefetch(&self, image: Tensor) -> Option<PrefetchedEncoding> {
        let (_, state) = self.tracked.as_ref()?;
        let prefetcher = self.prefetcher.as_ref()?;
        Some(PrefetchedEncoding(Box::new(prefetcher.encode((image, R::memory_ref(state))))))
    }

    fn refiner(&self) -> Option<Arc<dyn RefinerNetwork>> {
        self.model.refiner()?;
        Some(Arc::new(RefinerOf(self.model.clone())))
    }

    fn can_prefetch(&self) -> bool {
        self.prefetcher.is_some()
    }

    fn observe(&mut self, masks: &Tensor, sights: &[Sight]) -> Result<()> {
        let (reference, state) = self.tracked.as_mut().ok_or(Error::NoReference)?;
        self.model.observe_sights(masks, sights, reference, state)
    }

    fn set_memory_tokens(&mut self, tokens: i64) {
        self.model.set_memory_tokens(tokens);
    }

    fn forget_masks(&mut self) -> Result<()> {
        let (_, state) = self.tracked.as_mut().ok_or(Error::NoReference)?;
        self.model.forget_masks(state)
    }

    fn relocate(&mut self) -> Result<()> {
        let (_, state) = self.tracked.as_mut().ok_or(Error::NoReference)?;
        self.model.relocate(state)
    }

    fn move_crop_window(&mut self, part: RelativeRect, size: (i64, i64)) -> Result<()> {
        let (_, state) = self.tracked.as_mut().ok_or(Error::NoReference)?;
        self.model.move_crop_window(part, size, state)
    }

    fn reuses_memory(&self) -> bool {
        !self.replays.is_direct()
    }

    fn save(&self) -> Result<Option<SavedState>> {
        let Some((reference, state)) = &self.tracked else { return Ok(None) };
        let state = self.detached(reference, state)?;
        Ok(Some(SavedState(Box::new((state, self.has_stepped)))))
    }

    fn restore(&mut self, saved: &SavedState) -> Result<()> {
        let (Some((reference, _)), Some((saved, has_stepped))) =
            (&self.tracked, saved.0.downcast_ref::<(R::State, bool)>())
        else {
            return Err(Error::NoReference);
        };
        let restored = self.detached(reference, saved)?;
        if let Some((_, state)) = &mut self.tracked {
            *state = restored;
        }
        self.has_stepped = *has_stepped;
        Ok(())
    }

    fn take_failure(&mut self) -> Option<String> {
        self.replays.take_failure()
    }

    fn retry(&mut self) -> bool {
        self.replays.retry()
    }
}

struct RefinerOf<R>(Arc<R>);

impl<R> std::fmt::Debug for RefinerOf<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("RefinerOf")
    }
}

impl<R: Regressor> RefinerNetwork for RefinerOf<R> {
    fn extent(&self) -> Extent {
        match self.0.refiner() {
            Some(refiner) if refiner.is_packed() => Extent::Tiles,
            Some(refiner) if refiner.options().1 == Device::Cpu => Extent::Bounds,
            // cuDNN searches for the fastest algorithm for every new size.
            _ => Extent::Whole,
        }
    }

    fn corrections(&self, input: &Tensor, tiles: &Tiles) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let Some(refiner) = self.0.refiner() else {
            return Err(Error::Config("the network has no refiner".into()));
        };
        let (kind, device) = refiner.options();
        let _team = refiner.is_packed().then(TeamGuard::new);
        let input = input.f_to_device(device)?.f_to_kind(kind)?;
        Ok(refiner.forward_tiles(&input, tiles)?.f_to_device(Device::Cpu)?)
    }
}

fn next_result(results: &mut impl Iterator<Item = Tensor>) -> Result<Tensor> {
    results.next().ok_or_else(|| Error::Config("a recorded step returned too few results".into()))
}

/// Returns a step as a function of its input tensors. Its results are the carried tensors, then masks, similarity
/// and frame statistics.
fn recipe<R: Regressor>(reference: &R::Reference, state: &R::State) -> RecordableFn<R> {
    // The arguments replace all tensors that a step reads; only the rest of these copies is used.
    let (reference, state) = (reference.shallow_clone(), state.shallow_clone());
    Box::new(move |model, tensors| {
        let (mut reference, mut state) = (reference.shallow_clone(), state.shallow_clone());
        let [image, inputs @ ..] = tensors else { return Err(Error::NoReference) };
        let mut inputs = inputs.iter();
        R::visit_inputs(&mut reference, &mut state, &mut |tensor, _| {
            if let Some(input) = inputs.next() {
                *tensor = input.shallow_clone();
            }
            Ok(())
        })?;
        let encoded = model.encode_frame(image, &R::memory_ref(&state))?;
        let output = run_step(model, encoded, &reference, &mut state)?;
        let mut results = Vec::new();
        R::visit_inputs(&mut reference, &mut state, &mut |tensor, role| {
            if role == Role::Recurrent {
                results.push(tensor.shallow_clone());
            }
            Ok(())
        })?;
        results.extend([output.masks, output.likeness, output.stats]);
        Ok(results)
    })
}

/// Runs the part of a step that needs no decision on the host.
fn run_step<R: Regressor>(
    model: &R,
    encoded: R::EncodedFrame,
    reference: &R::Reference,
    state: &mut R::State,
) -> Result<StepOutput> {
    let logits = model.step_encoded(encoded, reference, state)?;
    let masks = normalise(&logits)?;
    let likeness = model.likeness(reference, state)?;
    let stats = frame_stats::compute(&masks, &likeness)?;
    Ok(StepOutput { masks, likeness, stats })
}

/// Magnitude to which the logits of several objects are limited: probabilities of 1e-7 and 1 − 1e-7.
const MAX_LOGIT: f64 = 16.118;

/// Converts logits to soft masks, both (N, 1, H, W).
///
/// Several objects are normalised against each other and against the background, ∏(1 − pᵢ). A single object is
/// not, because that would only sharpen its mask.
fn normalise(logits: &Tensor) -> Result<Tensor> {
    if logits.size()[0] == 1 {
        return Ok(logits.f_sigmoid()?);
    }
    let odds = logits.f_clamp(-MAX_LOGIT, MAX_LOGIT)?.f_exp()?;
    let mut background = odds.f_add_scalar(1.0)?.f_prod_dim_int(0, true, None::<Kind>)?.f_reciprocal()?;
    let background = background.f_clamp_(1e-7, 1.0 - 1e-7)?;
    let background_odds = background.f_div(&background.f_neg()?.f_add_scalar(1.0)?)?;
    let total = odds.f_sum_dim_intlist(&[0i64][..], true, None::<Kind>)?.f_add(&background_odds)?;
    Ok(odds.f_div(&total)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::model::{Config, Lite, Resnet50};

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn runner<R: Regressor>(mut model: R, mode: Mode) -> Runner<R> {
        crate::model::prepare(&mut model, Device::Cpu, Kind::Float).unwrap();
        Runner::new(Arc::new(model), mode)
    }

    fn tiny(config: Config) -> Config {
        Config { width: 0.0625, network_size: [64, 96], ..config }
    }

    fn image(seed: i64) -> Tensor {
        tch::manual_seed(seed);
        crate::model::layers::channels_last(&Tensor::rand([1, 3, 64, 96], FLOAT)).unwrap()
    }

    fn masks(objects: i64) -> Tensor {
        let masks = Tensor::zeros([objects, 1, 64, 96], FLOAT);
        (0..objects).for_each(|n| drop(masks.get(n).narrow(2, 20 * n, 30).fill_(1.0)));
        masks
    }

    fn set<R: Regressor + 'static>(runner: &mut Runner<R>, views: &[(Tensor, Tensor)]) {
        let encoded = (runner.reference_encoder())(views).unwrap();
        runner.set_reference(encoded).unwrap();
    }

    /// Runs fifty frames with changes of the reference, the number of objects and the crop window, a restart, and
    /// objects that are lost and found. Returns all masks, similarities and statistics.
    fn run_scenario<R: Regressor + 'static>(runner: &mut Runner<R>) -> Vec<Tensor> {
        let mut outputs = Vec::new();
        let views = |seeds: &[i64], objects| -> Vec<(Tensor, Tensor)> {
            seeds.iter().map(|&seed| (image(seed), masks(objects))).collect()
        };
        for frame in 0..50i64 {
            match frame {
                0 => set(runner, &views(&[1000], 1)),
                14 => set(runner, &views(&[1001], 1)),
                20 => set(runner, &views(&[1002, 1003], 3)),
                33 => runner.restart().unwrap(),
                38 => set(runner, &views(&[1004, 1005], 1)),
                44 => {
                    runner.clear();
                    assert!(runner.step(StepInput::Image(image(0))).is_err());
                    set(runner, &views(&[1000], 1));
                }
                _ => (),
            }
            let StepOutput { masks, likeness, stats } = runner.step(StepInput::Image(image(frame))).unwrap();
            outputs.extend([&masks, &likeness, &stats].map(Tensor::copy));
            let objects = masks.size()[0] as usize;
            let lost = (26..29).contains(&frame);
            let sight = |n: usize| match (!lost || (n == 1 && frame == 27), frame % 10) {
                (false, _) => Sight::Absent,
                (true, 4) => Sight::Doubtful,
                (true, _) => Sight::Clear,
            };
            let sights: Vec<Sight> = (0..objects).map(sight).collect();
            let masks = if lost { masks * 0.5 } else { masks };
            runner.observe(&masks, &sights).unwrap();
            if frame % 11 == 7 {
                let part = RelativeRect { x: 0.1, y: -0.1, width: 0.8, height: 0.9 };
                runner.move_crop_window(part, (64, 96)).unwrap();
            }
        }
        outputs
    }

    #[test]
    fn several_objects_and_the_background_share_each_pixel() {
        let logits = Tensor::randn([3, 1, 4, 6], FLOAT) * 4.0;
        let _ = logits.get(0).get(0).get(0).fill_(-200.0);
        let single = logits.to_kind(Kind::Double).sigmoid();
        let background = (-&single + 1.0).prod_dim_int(0, true, None::<Kind>);
        let odds = Tensor::cat(&[background, single], 0).clamp(1e-7, 1.0 - 1e-7).logit(None::<f64>);
        let expected = odds.softmax(0, None::<Kind>).narrow(0, 1, 3);
        let shares = normalise(&logits).unwrap();
        assert!((shares - expected).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn replayed_steps_equal_direct_steps() {
        let _guard = tch::no_grad_guard();
        let models = |store: &nn::VarStore| Lite::new(&store.root(), &tiny(Config::lite())).unwrap();
        assert_equal_outputs(models, 7);
        // One memory length and two numbers of objects make two plans.
        assert_equal_outputs(|store| Resnet50::new(&store.root(), &tiny(Config::resnet50())).unwrap(), 2);
    }

    fn assert_equal_outputs<R: Regressor + 'static>(model: impl Fn(&nn::VarStore) -> R, max_plans: usize) {
        tch::manual_seed(7);
        let store = nn::VarStore::new(Device::Cpu);
        let direct = model(&store);
        let mut copy = nn::VarStore::new(Device::Cpu);
        let fixed = model(&copy);
        copy.copy(&store).unwrap();
        let expected = run_scenario(&mut runner(direct, Mode::Direct));
        let mut runner = runner(fixed, Mode::Fixed);
        let outputs = run_scenario(&mut runner);
        assert_eq!(expected.len(), outputs.len());
        for (index, (a, b)) in expected.iter().zip(&outputs).enumerate() {
            assert!(a.equal(b), "frame {}, part {}", index / 3, index % 3);
        }
        let plans = runner.replays.count();
        assert!((1..=max_plans).contains(&plans), "{plans} plans, so shapes change from frame to frame");
        assert!(outputs.iter().zip(&outputs[3..]).all(|(a, b)| a.size() != b.size() || !a.equal(b)));
    }
}
