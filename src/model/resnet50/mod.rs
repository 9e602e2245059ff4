//! `resnet50`: the regressor as the paper has it.
//!
//! A Siamese ResNet-50 encodes the current frame with the previous mask, and the reference frame
//! with its mask; a global convolution compares the two at stride 32; three refine blocks bring the
//! result to stride 4 along skip connections; what they made of the previous frame enters through
//! the temporal skip connection. 51.6 M parameters, 95 GMAC a frame at 512x512.

pub(in crate::model) mod encoder;
mod head;
mod matching;
mod norm;
mod refine;

use tch::{Kind, Tensor, nn};

use super::config::{Config, Matching, TemporalSkip};
use super::layers::{Part, Visit, average_pool, channels_last, mean_under, part_of};
use super::{Regressor, Role, ShallowClone};
use crate::{Error, Result, visit_fields};
use encoder::Encoder;
use head::{Head, Temporal};
use matching::{GlobalConvolution, ReferenceHalf};
use refine::{Refine, Residual};

/// The paper's regressor.
#[derive(Debug)]
pub struct Resnet50 {
    config: Config,
    encoder: Encoder,
    matching: GlobalConvolution,
    residual: Residual,
    refine4: Refine,
    refine3: Refine,
    refine2: Refine,
    temporal: Option<Temporal>,
    head: Head,
}

visit_fields!(Resnet50: encoder, matching, residual, refine4, refine3, refine2, temporal, head);

/// What is computed once per reference.
#[derive(Debug)]
pub struct Reference {
    /// (N, 1, H, W), float32.
    masks: Tensor,
    half: ReferenceHalf,
    /// The objects' mean features at stride 32, (N, channels).
    look: Tensor,
}

/// What one frame leaves for the next, float32.
#[derive(Debug)]
pub struct State {
    /// (N, 1, H, W) in [0, 1].
    masks: Tensor,
    /// (N, 32, H/4, W/4), where there is a temporal skip.
    temporal: Option<Tensor>,
    /// Features at stride 32, once there was a frame.
    seen: Option<Tensor>,
}

impl ShallowClone for Reference {
    fn shallow_clone(&self) -> Self {
        Self {
            masks: self.masks.shallow_clone(),
            half: self.half.shallow_clone(),
            look: self.look.shallow_clone(),
        }
    }
}

impl ShallowClone for State {
    fn shallow_clone(&self) -> Self {
        Self {
            masks: self.masks.shallow_clone(),
            temporal: self.temporal.as_ref().map(Tensor::shallow_clone),
            seen: self.seen.as_ref().map(Tensor::shallow_clone),
        }
    }
}

impl Resnet50 {
    /// The trainable network, its variables under `path` and initialised at random.
    ///
    /// # Errors
    /// [`Error::Config`] on a configuration that is not one of `resnet50`, [`Error::Torch`] when memory
    /// runs out.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        config.validate()?;
        if config.matching != Matching::GlobalConvolution {
            return Err(Error::Config("matching of the paper's resnet50 is global-convolution".into()));
        }
        let channels = config.channels(256);
        let eighth = config.channels(32);
        let [stride4, stride8, stride16, stride32] = Encoder::channels(config);
        let extra = |here| if config.temporal_skip == here { eighth } else { 0 };
        let temporal = (config.temporal_skip != TemporalSkip::Off)
            .then(|| Temporal::new(&(path / "temporal"), channels, eighth));
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(&(path / "encoder"), config)?,
            matching: GlobalConvolution::new(&(path / "matching"), stride32, channels),
            residual: Residual::new(&(path / "residual"), ["conv1", "conv2"], channels, 0),
            refine4: Refine::new(&(path / "refine4"), stride16, channels, 0),
            refine3: Refine::new(&(path / "refine3"), stride8, channels, 0),
            refine2: Refine::new(&(path / "refine2"), stride4, channels, extra(TemporalSkip::Refine)),
            temporal,
            head: Head::new(&(path / "head"), channels + extra(TemporalSkip::Head)),
        })
    }
}

impl Resnet50 {
    /// Computes in `kind` from now on while the weights stay as they are: float32 weights train in bfloat16.
    pub fn compute_in(&mut self, kind: Kind) {
        self.encoder.compute_in(kind);
    }
}

impl Regressor for Resnet50 {
    type Reference = Reference;
    type State = State;
    type MemoryRef = ();
    /// The image: its encoder sees the mask of the frame before as well.
    type EncodedFrame = Tensor;

    fn config(&self) -> &Config {
        &self.config
    }

    fn reference(&self, image: &Tensor, masks: &Tensor) -> Result<Reference> {
        let features = self.encoder.forward(image, masks)?;
        Ok(Reference {
            masks: masks.f_to_kind(Kind::Float)?,
            look: mean_under(&features.stride32, &average_pool(&masks.f_to_kind(Kind::Float)?, 32)?)?,
            half: self.matching.reference(&features.stride32)?,
        })
    }

    /// The global convolution compares with one picture only.
    fn add_view(&self, _image: &Tensor, _masks: &Tensor, _: &mut Reference) -> Result<()> {
        Ok(())
    }

    fn start(&self, reference: &Reference) -> Result<State> {
        let size = reference.masks.size();
        let temporal = match &self.temporal {
            Some(temporal) => Some(temporal.zeros(size[0], size[2] / 4, size[3] / 4)?),
            None => None,
        };
        Ok(State { masks: reference.masks.shallow_clone(), temporal, seen: None })
    }

    fn memory_ref(_: &State) {}

    fn encode_frame(&self, image: &Tensor, (): &()) -> Result<Tensor> {
        Ok(image.shallow_clone())
    }

    fn step_encoded(&self, image: Tensor, reference: &Reference, state: &mut State) -> Result<Tensor> {
        let features = self.encoder.forward(&image, &state.masks)?;
        let previous = match &state.temporal {
            Some(previous) => Some(previous.f_to_kind(features.stride4.kind())?),
            None => None,
        };
        let (at_refine, at_head) = match self.config.temporal_skip {
            TemporalSkip::Refine => (previous.as_ref(), None),
            TemporalSkip::Head | TemporalSkip::Off => (None, previous.as_ref()),
        };
        let x = self.matching.forward(&features.stride32, &reference.half)?;
        let x = self.residual.forward(&x, None)?;
        let x = self.refine4.forward(&features.stride16, &x, None)?;
        let x = self.refine3.forward(&features.stride8, &x, None)?;
        let x = self.refine2.forward(&features.stride4, &x, at_refine)?;
        let logits = match at_head {
            Some(previous) => self.head.forward(&Tensor::f_cat(&[&x, previous], 1)?)?,
            None => self.head.forward(&x)?,
        };
        if let Some(temporal) = &self.temporal {
            state.temporal = Some(temporal.forward(&x)?);
        }
        state.seen = Some(features.stride32);
        Ok(logits)
    }

    fn visit_inputs(
        reference: &mut Reference,
        state: &mut State,
        f: &mut dyn FnMut(&mut Tensor, Role) -> Result<()>,
    ) -> Result<()> {
        reference.half.visit(&mut |x| f(x, Role::Constant))?;
        f(&mut reference.look, Role::Constant)?;
        f(&mut state.masks, Role::Given)?;
        state.temporal.iter_mut().try_for_each(|x| f(x, Role::Carried))
    }

    fn observe_seen(&self, masks: &Tensor, _: &[bool], _: &Reference, state: &mut State) -> Result<()> {
        state.masks = masks.f_to_kind(Kind::Float)?;
        Ok(())
    }

    fn forget_masks(&self, state: &mut State) -> Result<()> {
        state.masks = state.masks.f_zeros_like()?;
        if let Some(temporal) = &mut state.temporal {
            *temporal = temporal.f_zeros_like()?;
        }
        Ok(())
    }

    fn reframe(&self, part: Part, (height, width): (i64, i64), state: &mut State) -> Result<()> {
        state.masks = part_of(&state.masks, part, (height, width), true)?;
        if let Some(temporal) = &mut state.temporal {
            *temporal = channels_last(&part_of(temporal, part, (height / 4, width / 4), false)?)?;
        }
        Ok(())
    }

    fn likeness(&self, reference: &Reference, state: &State) -> Result<Tensor> {
        let Some(seen) = &state.seen else { return Err(Error::NoReference) };
        let look = reference.look.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let likeness = Tensor::f_cosine_similarity(&seen.f_to_kind(Kind::Float)?, &look, 1, 1e-6)?;
        Ok(likeness.f_unsqueeze(1)?)
    }

    fn fold(&mut self) -> Result<()> {
        self.encoder.fold()?;
        self.matching.fold()?;
        self.head.fold()
    }
}

#[cfg(test)]
mod tests;
