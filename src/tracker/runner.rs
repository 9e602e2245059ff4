//! A regressor of any architecture together with its reference and state.

use std::any::Any;

use tch::{Kind, Tensor};

use super::frame_stats;
use super::prefetch::{EncodeWorker, PendingEncoding};
use crate::gpu::{Argument, Mode, Recipe, Replays, Use};
use crate::model::layers::{Part, copy_of};
use crate::model::{Regressor, Role, ShallowClone};
use crate::{Error, Result};

/// What a step finds in a frame. Nothing of it has been looked at yet.
pub struct StepOutput {
    /// Soft masks (N, 1, H, W), float32.
    pub masks: Tensor,
    /// The regressor's likeness (N, 1, H/s, W/s), float32.
    pub likeness: Tensor,
    /// What the tracker wants to know of both, see [`frame_stats::write`].
    pub stats: Tensor,
}

/// A frame as a step takes it.
pub enum StepInput {
    /// (1, 3, H, W).
    Image(Tensor),
    /// What became of the image, of the runner's own kind.
    Prefetched(PrefetchedEncoding),
}

/// An image that is looked at while something else is done.
pub struct PrefetchedEncoding(Box<dyn Any + Send>);

pub trait ModelRunner: Send {
    fn set_reference(&mut self, views: &[(Tensor, Tensor)]) -> Result<()>;
    fn restart(&mut self) -> Result<()>;
    fn clear(&mut self);
    /// What it gives is valid until the next step, if [`reuses_memory`](Self::reuses_memory).
    fn step(&mut self, seen: StepInput) -> Result<StepOutput>;
    /// Has an image looked at for a later step; nothing where that cannot be.
    fn prefetch(&self, image: Tensor) -> Option<PrefetchedEncoding>;
    /// Whether images can be looked at before their turn.
    fn can_prefetch(&self) -> bool;
    fn observe(&mut self, masks: &Tensor, seen: &[bool]) -> Result<()>;
    fn forget_masks(&mut self) -> Result<()>;
    fn reframe(&mut self, part: Part, size: (i64, i64)) -> Result<()>;
    fn reuses_memory(&self) -> bool;
    /// The recurrent state as it is now; nothing without a reference.
    fn save(&self) -> Result<Option<SavedState>>;
    /// Takes up a state of the present reference again.
    fn restore(&mut self, saved: &SavedState) -> Result<()>;
    /// Why steps are no longer replayed, though they should be; said once.
    fn take_failure(&mut self) -> Option<String>;
    /// Steps are to be replayed again, if they should be and are not; whether that was so.
    fn retry(&mut self) -> bool;
}

/// State of an runner as [`ModelRunner::save`] gives it.
pub struct SavedState(Box<dyn Any + Send>);

/// What [`SavedState`] holds.
struct Saved<S> {
    state: S,
    under_way: bool,
}

/// Plans of a network at most: for each number of objects, one for each length of the memory.
const PLANS: usize = 12;

/// Looks at an image with what is known of the state.
type Prefetcher<R> = EncodeWorker<(Tensor, <R as Regressor>::MemoryRef), <R as Regressor>::EncodedFrame>;

pub struct Runner<R: Regressor> {
    model: R,
    followed: Option<(R::Reference, R::State)>,
    /// The state is as it is after a step.
    under_way: bool,
    replays: Replays<R>,
    prefetcher: Option<Prefetcher<R>>,
}

impl<R: Regressor> Runner<R> {
    pub fn new(model: R, mode: Mode) -> Self {
        Self {
            model,
            followed: None,
            under_way: false,
            replays: Replays::new(mode, 0, PLANS),
            prefetcher: None,
        }
    }

    /// With someone who looks at images before their turn.
    pub fn with_prefetcher(self, prefetcher: Prefetcher<R>) -> Self {
        Self { prefetcher: Some(prefetcher), ..self }
    }
}

impl<R: Regressor + 'static> ModelRunner for Runner<R> {
    /// Image and masks of the view that tracking starts from, and of others of the same frame.
    fn set_reference(&mut self, views: &[(Tensor, Tensor)]) -> Result<()> {
        let [(image, masks), others @ ..] = views else { return Err(Error::NoReference) };
        let mut reference = self.model.reference(image, masks)?;
        for (image, masks) in others {
            self.model.add_view(image, masks, &mut reference)?;
        }
        let state = self.model.start(&reference)?;
        self.followed = Some((reference, state));
        self.under_way = false;
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        if let Some((reference, state)) = &mut self.followed {
            *state = self.model.start(reference)?;
        }
        self.under_way = false;
        Ok(())
    }

    fn clear(&mut self) {
        self.followed = None;
    }

    fn step(&mut self, seen: StepInput) -> Result<StepOutput> {
        let Self { model, followed, under_way, replays, .. } = self;
        let (reference, state) = followed.as_mut().ok_or(Error::NoReference)?;
        let image = match seen {
            StepInput::Image(image) => image,
            StepInput::Prefetched(PrefetchedEncoding(pending)) => {
                let pending =
                    pending.downcast::<PendingEncoding<R::EncodedFrame>>().map_err(|_| Error::NoPrefetch)?;
                *under_way = true;
                return run_step(model, pending.take()?, reference, state);
            }
        };
        if replays.is_direct() || !*under_way {
            *under_way = true;
            let sight = model.encode_frame(&image, &R::memory_ref(state))?;
            return run_step(model, sight, reference, state);
        }
        let mut arguments = vec![Argument::new(&image, Use::Model(Role::Given))];
        R::visit_inputs(reference, state, &mut |tensor, role| {
            arguments.push(Argument::new(tensor, Use::Model(role)));
            Ok(())
        })?;
        let results = replays.run(model, 0, arguments, || recipe(reference, state))?;
        let mut results = results.into_iter();
        R::visit_inputs(reference, state, &mut |tensor, role| {
            if role == Role::Carried {
                *tensor = next(&mut results)?;
            }
            Ok(())
        })?;
        Ok(StepOutput {
            masks: next(&mut results)?,
            likeness: next(&mut results)?,
            stats: next(&mut results)?,
        })
    }

    fn prefetch(&self, image: Tensor) -> Option<PrefetchedEncoding> {
        let (_, state) = self.followed.as_ref()?;
        let prefetcher = self.prefetcher.as_ref()?;
        Some(PrefetchedEncoding(Box::new(prefetcher.encode((image, R::memory_ref(state))))))
    }

    fn can_prefetch(&self) -> bool {
        self.prefetcher.is_some()
    }

    fn observe(&mut self, masks: &Tensor, seen: &[bool]) -> Result<()> {
        let (reference, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.observe_seen(masks, seen, reference, state)
    }

    fn forget_masks(&mut self) -> Result<()> {
        let (_, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.forget_masks(state)
    }

    fn reframe(&mut self, part: Part, size: (i64, i64)) -> Result<()> {
        let (_, state) = self.followed.as_mut().ok_or(Error::NoReference)?;
        self.model.reframe(part, size, state)
    }

    fn reuses_memory(&self) -> bool {
        !self.replays.is_direct()
    }

    fn save(&self) -> Result<Option<SavedState>> {
        let Some((reference, state)) = &self.followed else { return Ok(None) };
        let state = self.detached(reference, state)?;
        Ok(Some(SavedState(Box::new(Saved { state, under_way: self.under_way }))))
    }

    fn restore(&mut self, saved: &SavedState) -> Result<()> {
        let (Some((reference, _)), Some(saved)) = (&self.followed, saved.0.downcast_ref::<Saved<R::State>>())
        else {
            return Err(Error::NoReference);
        };
        let restored = self.detached(reference, &saved.state)?;
        if let Some((_, state)) = &mut self.followed {
            *state = restored;
        }
        self.under_way = saved.under_way;
        Ok(())
    }

    fn take_failure(&mut self) -> Option<String> {
        self.replays.take_failure()
    }

    fn retry(&mut self) -> bool {
        self.replays.retry()
    }
}

impl<R: Regressor> Runner<R> {
    /// A state that later steps do not write into.
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

fn next(results: &mut impl Iterator<Item = Tensor>) -> Result<Tensor> {
    results.next().ok_or_else(|| Error::Config("a step has left nothing in the place of its state".into()))
}

/// A step as a function of what it reads: what it carries over, then masks, likeness and report.
fn recipe<R: Regressor>(reference: &R::Reference, state: &R::State) -> Recipe<R> {
    // Of these only what no step reads is used: all else is put in from the arguments.
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
        let sight = model.encode_frame(image, &R::memory_ref(&state))?;
        let found = run_step(model, sight, &reference, &mut state)?;
        let mut results = Vec::new();
        R::visit_inputs(&mut reference, &mut state, &mut |tensor, role| {
            if role == Role::Carried {
                results.push(tensor.shallow_clone());
            }
            Ok(())
        })?;
        results.extend([found.masks, found.likeness, found.stats]);
        Ok(results)
    })
}

/// All of a step that needs no decision.
fn run_step<R: Regressor>(
    model: &R,
    sight: R::EncodedFrame,
    reference: &R::Reference,
    state: &mut R::State,
) -> Result<StepOutput> {
    let logits = model.step_encoded(sight, reference, state)?;
    let masks = normalise(&logits)?;
    let likeness = model.likeness(reference, state)?;
    let stats = frame_stats::write(&masks, &likeness)?;
    Ok(StepOutput { masks, likeness, stats })
}

/// Soft masks from logits, both (N, 1, H, W). Several objects are normalised against each other and
/// against the background, ∏(1 − pᵢ); one object alone would only be sharpened by that.
fn normalise(logits: &Tensor) -> Result<Tensor> {
    let single = logits.f_sigmoid()?;
    if logits.size()[0] == 1 {
        return Ok(single);
    }
    let background = single.f_neg()?.f_add_scalar(1.0)?.f_prod_dim_int(0, true, None::<Kind>)?;
    let odds = Tensor::f_cat(&[background, single], 0)?.f_clamp(1e-7, 1.0 - 1e-7)?.f_logit(None)?;
    let shares = odds.f_softmax(0, None::<Kind>)?;
    Ok(shares.f_narrow(0, 1, logits.size()[0])?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::model::{Config, Lite, Resnet50};

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn runner<R: Regressor>(mut model: R, mode: Mode) -> Runner<R> {
        crate::model::prepare(&mut model, Device::Cpu, Kind::Float).unwrap();
        Runner::new(model, mode)
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

    /// Fifty frames with all that happens to a tracker: another reference, another number of objects, a
    /// restart, another view, objects that are lost and found. All masks, likenesses and reports.
    fn story<R: Regressor + 'static>(runner: &mut Runner<R>) -> Vec<Tensor> {
        let mut found = Vec::new();
        let views = |seeds: &[i64], objects| -> Vec<(Tensor, Tensor)> {
            seeds.iter().map(|&seed| (image(seed), masks(objects))).collect()
        };
        for frame in 0..50i64 {
            match frame {
                0 => runner.set_reference(&views(&[1000], 1)).unwrap(),
                14 => runner.set_reference(&views(&[1001], 1)).unwrap(),
                20 => runner.set_reference(&views(&[1002, 1003], 3)).unwrap(),
                33 => runner.restart().unwrap(),
                38 => runner.set_reference(&views(&[1004, 1005], 1)).unwrap(),
                44 => {
                    runner.clear();
                    assert!(runner.step(StepInput::Image(image(0))).is_err());
                    runner.set_reference(&views(&[1000], 1)).unwrap();
                }
                _ => (),
            }
            let StepOutput { masks, likeness, stats } = runner.step(StepInput::Image(image(frame))).unwrap();
            found.extend([&masks, &likeness, &stats].map(Tensor::copy));
            let objects = masks.size()[0] as usize;
            let lost = (26..29).contains(&frame);
            let seen: Vec<bool> = (0..objects).map(|n| !lost || (n == 1 && frame == 27)).collect();
            let masks = if lost { masks * 0.5 } else { masks };
            runner.observe(&masks, &seen).unwrap();
            if frame % 11 == 7 {
                let part = Part { x: 0.1, y: -0.1, width: 0.8, height: 0.9 };
                runner.reframe(part, (64, 96)).unwrap();
            }
        }
        found
    }

    #[test]
    fn replayed_steps_are_those_that_are_not() {
        let _guard = tch::no_grad_guard();
        let models = |store: &nn::VarStore| Lite::new(&store.root(), &tiny(Config::lite())).unwrap();
        compare(models, 7);
        // One length of the memory, whose two numbers of objects make two plans.
        compare(|store| Resnet50::new(&store.root(), &tiny(Config::resnet50())).unwrap(), 2);
    }

    fn compare<R: Regressor + 'static>(model: impl Fn(&nn::VarStore) -> R, most: usize) {
        tch::manual_seed(7);
        let store = nn::VarStore::new(Device::Cpu);
        let direct = model(&store);
        let stored: Vec<(String, Tensor)> = store.variables().into_iter().collect();
        let copy = nn::VarStore::new(Device::Cpu);
        let fixed = model(&copy);
        for (name, tensor) in copy.variables() {
            let (_, value) = stored.iter().find(|(known, _)| *known == name).unwrap();
            tensor.shallow_clone().copy_(value);
        }
        let expected = story(&mut runner(direct, Mode::Direct));
        let mut runner = runner(fixed, Mode::Fixed);
        let found = story(&mut runner);
        assert_eq!(expected.len(), found.len());
        for (index, (a, b)) in expected.iter().zip(&found).enumerate() {
            assert!(a.equal(b), "frame {}, part {}", index / 3, index % 3);
        }
        let plans = runner.replays.count();
        assert!((1..=most).contains(&plans), "shapes change from frame to frame: {plans} plans");
        assert!(found.iter().zip(&found[3..]).all(|(a, b)| a.size() != b.size() || !a.equal(b)));
    }
}
