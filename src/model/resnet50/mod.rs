// SPDX-License-Identifier: MPL-2.0

//! `resnet50`: the paper's regressor.
//!
//! A Siamese ResNet-50 encodes the current frame with the previous mask, and the reference frame with its mask. A
//! global convolution compares the two at stride 32. Three refine blocks bring the result to stride 4 along skip
//! connections. The decoder features of the previous frame enter through the temporal skip connection. 51.6 M
//! parameters, 95 GMAC per frame at 512x512.

pub(in crate::model) mod encoder;
mod head;
mod matching;
mod norm;
mod refine;

use tch::{Kind, Tensor, nn};

use super::config::{Config, Matching, TemporalSkip};
use super::layers::{RelativeRect, Visit, average_pool, channels_last, masked_mean, resample_part};
use super::{Regressor, Role, ShallowClone, Sight, shallow_clone};
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

// SAFETY: as of `Lite`.
unsafe impl Sync for Resnet50 {}

/// Values computed once per reference.
#[derive(Debug)]
pub struct Reference {
    /// Masks (N, 1, H, W), float32.
    masks: Tensor,
    half: ReferenceHalf,
    /// The objects' mean features at stride 32, (N, channels).
    appearance: Tensor,
}

/// Recurrent state, carried from frame to frame.
#[derive(Debug)]
pub struct State {
    /// Masks of the previous frame, (N, 1, H, W) in [0, 1], float32.
    masks: Tensor,
    /// Temporal skip, (N, 32, H/4, W/4) float32, if the network has one.
    temporal: Option<Tensor>,
    /// Features of the previous frame at stride 32; absent at the reference.
    features: Option<Tensor>,
}

shallow_clone!(Reference: masks, half, appearance);

shallow_clone!(State: masks, temporal, features);

impl Resnet50 {
    /// Creates a trainable network with random weights, its variables under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid or its matching is not the global convolution;
    /// [`Error::Torch`] when memory runs out.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        config.validate()?;
        if config.matching != Matching::GlobalConvolution {
            return Err(Error::Config("matching of the paper's resnet50 must be global-convolution".into()));
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

    /// Sets the kind to compute in without converting the weights: float32 weights train in bfloat16.
    pub fn compute_in(&mut self, kind: Kind) {
        self.encoder.compute_in(kind);
    }
}

impl Regressor for Resnet50 {
    type Reference = Reference;
    type State = State;
    type MemoryRef = ();
    /// The image itself, as the encoder also needs the mask of the previous frame.
    type EncodedFrame = Tensor;

    fn config(&self) -> &Config {
        &self.config
    }

    fn reference(&self, image: &Tensor, masks: &Tensor) -> Result<Reference> {
        let features = self.encoder.forward(image, masks)?;
        Ok(Reference {
            masks: masks.f_to_kind(Kind::Float)?,
            appearance: masked_mean(&features.stride32, &average_pool(&masks.f_to_kind(Kind::Float)?, 32)?)?,
            half: self.matching.reference(&features.stride32)?,
        })
    }

    /// Does nothing: the global convolution compares with one image only.
    fn add_view(&self, _image: &Tensor, _masks: &Tensor, _: &mut Reference) -> Result<()> {
        Ok(())
    }

    fn add_reference(&self, added: &Reference, reference: &mut Reference) -> Result<()> {
        let Reference { appearance, half, .. } = added.shallow_clone();
        (reference.appearance, reference.half) = (appearance, half);
        Ok(())
    }

    fn start(&self, reference: &Reference) -> Result<State> {
        let size = reference.masks.size();
        let zeros = |temporal: &Temporal| temporal.zeros(size[0], size[2] / 4, size[3] / 4);
        let temporal = self.temporal.as_ref().map(zeros).transpose()?;
        Ok(State { masks: reference.masks.shallow_clone(), temporal, features: None })
    }

    fn memory_ref(_: &State) {}

    fn encode_frame(&self, image: &Tensor, (): &()) -> Result<Tensor> {
        Ok(image.shallow_clone())
    }

    fn step_encoded(&self, image: Tensor, reference: &Reference, state: &mut State) -> Result<Tensor> {
        let features = self.encoder.forward(&image, &state.masks)?;
        let kind = features.stride4.kind();
        let previous = state.temporal.as_ref().map(|previous| previous.f_to_kind(kind)).transpose()?;
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
        state.features = Some(features.stride32);
        Ok(logits)
    }

    fn visit_inputs(
        reference: &mut Reference,
        state: &mut State,
        f: &mut dyn FnMut(&mut Tensor, Role) -> Result<()>,
    ) -> Result<()> {
        reference.half.visit(&mut |x| f(x, Role::Constant))?;
        f(&mut reference.appearance, Role::Constant)?;
        f(&mut state.masks, Role::Input)?;
        state.temporal.iter_mut().try_for_each(|x| f(x, Role::Recurrent))
    }

    fn observe_sights(&self, masks: &Tensor, _: &[Sight], _: &Reference, state: &mut State) -> Result<()> {
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

    fn move_crop_window(
        &self,
        part: RelativeRect,
        (height, width): (i64, i64),
        state: &mut State,
    ) -> Result<()> {
        state.masks = resample_part(&state.masks, part, (height, width), true)?;
        if let Some(temporal) = &mut state.temporal {
            *temporal = channels_last(&resample_part(temporal, part, (height / 4, width / 4), false)?)?;
        }
        Ok(())
    }

    fn likeness(&self, reference: &Reference, state: &State) -> Result<Tensor> {
        let Some(features) = &state.features else { return Err(Error::NoReference) };
        let appearance = reference.appearance.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let likeness = Tensor::f_cosine_similarity(&features.f_to_kind(Kind::Float)?, &appearance, 1, 1e-6)?;
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
