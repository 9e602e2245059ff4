// SPDX-License-Identifier: MPL-2.0

//! `lite`: the built-in regressor, real-time on two CPU cores; and `large`, the one for GPUs.
//!
//! It follows the paper (Siamese encoder, previous mask as input, refine blocks, temporal skip), with MobileNetV2
//! as the encoder and affinity matching instead of the global convolution. In `large`, the features at strides 8 and 16 are those
//! of a ResNet-50.

mod attention;
pub mod backbone;
mod decoder;
mod encoder;
pub mod features;
mod fused_encoder;
mod matching;
pub mod memory;
pub mod refiner;
mod tokens;
mod upsample_concat;
mod window;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};

use tch::{Kind, Tensor, nn};

use self::backbone::Backbone;
use self::decoder::{Decoder, Inputs};
use self::features::{EncoderFeatures, Features};
use self::matching::Biases;
use self::matching::{Matching, MemoryReadout};
use self::memory::{Selection, Tokens, remember};
use self::refiner::Refiner;
use self::window::Window;
use super::layers::{RelativeRect, Visit, average_pool, channels_last, resample_part};
use super::shuffle::unshuffle;
use super::{Config, Factors, Regressor, Role, ShallowClone, Sight, shallow_clone};
use crate::model::layers::copy_of;
use crate::team::TeamGuard;
use crate::{Error, Result, visit_fields};

/// The built-in regressor.
#[derive(Debug)]
pub struct Lite {
    /// Encodes one frame.
    pub encoder: Backbone,
    matching: Matching,
    decoder: Decoder,
    /// Refines mattes.
    pub refiner: Option<Refiner>,
    config: Config,
    /// Number of tokens of frames that are remembered from now on.
    memory_tokens: AtomicI64,
}

visit_fields!(Lite: encoder, matching, decoder, refiner);

// SAFETY: only `Tensor` is not `Sync`, and libtorch may run a network on several threads as long as nothing writes to its
// weights. Nothing does after `prepare`; during training, one thread has the network.
unsafe impl Sync for Lite {}

/// The reference frame: mask, features and tokens.
#[derive(Debug)]
pub struct Reference {
    mask: Tensor,
    features: Features,
    /// Tokens of the view that tracking starts from.
    tokens: Tokens,
    /// Tokens of all views and of the references that were added.
    views: Tokens,
    biases: Biases,
}

/// Factor from the similarity to the object minus that to its background to the logit of a mask.
const LIKENESS_SCALE: f64 = 20.0;

/// Recurrent state, carried from frame to frame.
#[derive(Debug)]
pub struct State {
    /// Soft mask of the previous frame, (N, 1, H, W) float32.
    pub mask: Tensor,
    /// Features of the previous frame.
    pub features: Features,
    /// Temporal skip, (N, 32, H/4, W/4) float32; absent at the reference.
    pub skip: Option<Tensor>,
    /// Similarity of each position at stride 16 to the reference's object minus that to its background,
    /// (N, 1, H/16, W/16); absent at the reference.
    likeness: Option<Tensor>,
    /// Position biases for the size of the previous frame.
    biases: Biases,
    remembered: VecDeque<Tokens>,
    memory: Tokens,
    frames: usize,
}

/// An encoded frame and its memory readout.
#[derive(Debug)]
pub struct EncodedFrame {
    features: Features,
    /// Absent if the memory is read in [windows](Window), which depend on the previous frame.
    readout: Option<MemoryReadout>,
}

/// Logit outside of an object's [`Window`].
const OUTSIDE: f64 = -16.0;

shallow_clone!(Reference: mask, features, tokens, views, biases);

impl ShallowClone for State {
    fn shallow_clone(&self) -> Self {
        Self {
            mask: self.mask.shallow_clone(),
            features: self.features.shallow_clone(),
            skip: self.skip.as_ref().map(Tensor::shallow_clone),
            likeness: self.likeness.as_ref().map(Tensor::shallow_clone),
            biases: self.biases.shallow_clone(),
            remembered: self.remembered.iter().map(Tokens::shallow_clone).collect(),
            memory: self.memory.shallow_clone(),
            frames: self.frames,
        }
    }
}

impl Lite {
    /// Creates a trainable network with random weights.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            encoder: Backbone::new(&(path / "encoder"), config)?,
            matching: Matching::new(&(path / "matching"), config),
            decoder: Decoder::new(&(path / "decoder"), config)?,
            refiner: match config.refiner_channels {
                0 => None,
                _ => Some(Refiner::new(&(path / "refiner"), config)?),
            },
            config: config.clone(),
            memory_tokens: AtomicI64::new(config.memory.tokens),
        })
    }

    /// Encodes images (N, 3, H, W), RGB in [0, 1], in their own kind.
    pub fn encode(&self, images: &Tensor) -> Result<Features> {
        self.features(&self.encoder.forward(images)?, images)
    }

    /// Returns the features of images from the encoder's output for them.
    pub fn features(&self, encoded: &EncoderFeatures, images: &Tensor) -> Result<Features> {
        let features = self.matching.features(encoded)?;
        let detail = self.decoder.has_edge_stage().then(|| unshuffle(images, 2)).transpose()?;
        Ok(Features { detail, ..features })
    }

    /// Returns the memory tokens of a frame with the soft masks (N, 1, H, W), at most `count` at stride 8.
    pub fn tokens(
        &self,
        features: &Features,
        masks: &Tensor,
        count: i64,
        selection: Selection,
    ) -> Result<Tokens> {
        Tokens::new(&self.matching, features, masks, count, selection)
    }

    fn fixed_tokens(&self, features: &Features, masks: &Tensor) -> Result<Tokens> {
        self.tokens(features, masks, self.memory_tokens.load(Ordering::Relaxed), Selection::Fixed)
    }

    /// Returns the position biases for the frame size of these features.
    pub fn biases(&self, features: &Features) -> Result<Biases> {
        let size = features.key8.size();
        self.matching.biases(size[2], size[3], features.key8.kind())
    }

    /// Decodes one frame. Returns logits (N, 1, H, W) and the temporal skip for the next frame.
    pub fn decode(
        &self,
        now: &Features,
        previous: &Features,
        mask: &Tensor,
        skip: Option<&Tensor>,
        memory: &Tokens,
        biases: &Biases,
    ) -> Result<(Tensor, Tensor)> {
        let readout = self.matching.readout(now, memory)?;
        self.decode_readout(now, previous, mask, skip, &readout, biases)
    }

    fn decode_readout(
        &self,
        now: &Features,
        previous: &Features,
        mask: &Tensor,
        skip: Option<&Tensor>,
        readout: &MemoryReadout,
        biases: &Biases,
    ) -> Result<(Tensor, Tensor)> {
        let _team = self.decoder.is_packed().then(TeamGuard::new);
        let n = mask.size()[0];
        let (now, previous) = (now.expand(n)?, previous.expand(n)?);
        let mask4 = average_pool(&mask.f_to_kind(now.s16.kind())?, 4)?;
        let sub8 = unshuffle(&mask4, 2)?;
        let sub16 = unshuffle(&mask4, 4)?;
        let read16 = self.matching.read16(&now, &previous, &sub16, readout, biases)?;
        let read8 = self.matching.read8(&now, &previous, &sub8, readout, biases)?;
        self.decoder.forward(&Inputs {
            detail: now.detail.as_ref(),
            s2: &now.s2,
            s4: &now.s4,
            s8: &now.s8,
            s16: &now.s16,
            mask4: &mask4,
            sub8: &sub8,
            sub16: &sub16,
            read8: &read8,
            read16: &read16,
            skip,
        })
    }

    /// Whether `objects` are decoded one by one, each in its [`Window`].
    fn uses_windows(&self, objects: i64) -> bool {
        objects > 1 && self.decoder.is_packed()
    }

    /// As [`decode_readout`](Self::decode_readout), of each object in its window.
    fn decode_in_windows(&self, now: &Features, state: &State) -> Result<(Tensor, Tensor)> {
        let _team = TeamGuard::new();
        let (mut logits, mut skips) = (Vec::new(), Vec::new());
        for object in 0..state.mask.size()[0] {
            let of_object = |x: &Tensor| x.f_narrow(0, object.min(x.size()[0] - 1), 1);
            let mask = of_object(&state.mask)?;
            let skip = state.skip.as_ref().map(of_object).transpose()?;
            let memory = Tokens::combine(&[&state.memory], |fields| Ok(of_object(fields[0])?))?;
            let window = Window::around(&mask)?;
            if window.is_whole() {
                let (previous, biases) = (&state.features, &state.biases);
                let (logit, skip) = self.decode(now, previous, &mask, skip.as_ref(), &memory, biases)?;
                logits.push(logit);
                skips.push(skip);
                continue;
            }
            let now = window.of_features(now)?;
            let (logit, skip) = self.decode(
                &now,
                &window.of_previous(&state.features)?,
                &window.of(&mask)?,
                skip.map(|skip| window.of(&skip)).transpose()?.as_ref(),
                &memory,
                &state.biases.part(&window)?,
            )?;
            logits.push(window.placed(&logit, OUTSIDE)?);
            skips.push(window.placed(&skip, 0.0)?);
        }
        Ok((Tensor::f_cat(&logits, 0)?, Tensor::f_cat(&skips, 0)?))
    }
}

impl Regressor for Lite {
    const ENCODES_AHEAD: bool = true;
    const PACKS: bool = true;

    type Reference = Reference;
    type State = State;
    type MemoryRef = Tokens;
    type EncodedFrame = EncodedFrame;

    fn config(&self) -> &Config {
        &self.config
    }

    fn set_memory_tokens(&self, tokens: i64) {
        self.memory_tokens.store(tokens, Ordering::Relaxed);
    }

    fn reference(&self, image: &Tensor, masks: &Tensor) -> Result<Reference> {
        let features = self.encode(&image.f_to_kind(self.decoder.kind())?)?;
        let tokens = self.fixed_tokens(&features, masks)?;
        let biases = self.biases(&features)?;
        let views = tokens.shallow_clone();
        Ok(Reference { mask: masks.shallow_clone(), features, tokens, views, biases })
    }

    fn add_view(&self, image: &Tensor, masks: &Tensor, reference: &mut Reference) -> Result<()> {
        let features = self.encode(&image.f_to_kind(self.decoder.kind())?)?;
        let tokens = self.fixed_tokens(&features, masks)?;
        reference.views = reference.views.with_coarse(&tokens)?;
        Ok(())
    }

    fn add_reference(&self, added: &Reference, reference: &mut Reference) -> Result<()> {
        reference.views = Tokens::concatenate(&[&reference.views, &added.views])?;
        Ok(())
    }

    fn start_at(&self, added: &Reference, reference: &Reference) -> Result<State> {
        Ok(State { memory: reference.views.shallow_clone(), ..self.start(added)? })
    }

    fn start(&self, reference: &Reference) -> Result<State> {
        Ok(State {
            mask: reference.mask.shallow_clone(),
            features: reference.features.shallow_clone(),
            skip: None,
            likeness: None,
            biases: reference.biases.shallow_clone(),
            remembered: VecDeque::new(),
            memory: reference.views.shallow_clone(),
            frames: 0,
        })
    }

    fn memory_ref(state: &State) -> Tokens {
        state.memory.shallow_clone()
    }

    fn encode_frame(&self, image: &Tensor, memory: &Tokens) -> Result<EncodedFrame> {
        let features = self.encode(&image.f_to_kind(self.decoder.kind())?)?;
        let in_windows = self.uses_windows(memory.mask16.size()[0]);
        let readout = (!in_windows).then(|| self.matching.readout(&features, memory)).transpose()?;
        Ok(EncodedFrame { features, readout })
    }

    fn step_encoded(&self, frame: EncodedFrame, reference: &Reference, state: &mut State) -> Result<Tensor> {
        let EncodedFrame { features: now, readout } = frame;
        let (logits, skip) = if self.uses_windows(state.mask.size()[0]) {
            self.decode_in_windows(&now, state)?
        } else {
            let readout = match readout.filter(|readout| readout.was_read_from(&state.memory)) {
                Some(readout) => readout,
                None => self.matching.readout(&now, &state.memory)?,
            };
            let (previous, mask, skip) = (&state.features, &state.mask, state.skip.as_ref());
            self.decode_readout(&now, previous, mask, skip, &readout, &state.biases)?
        };
        state.likeness = Some(self.matching.likeness(&now, &reference.views)?);
        state.features = now;
        state.skip = Some(skip);
        Ok(logits)
    }

    fn visit_inputs(
        reference: &mut Reference,
        state: &mut State,
        f: &mut dyn FnMut(&mut Tensor, Role) -> Result<()>,
    ) -> Result<()> {
        reference.views.visit(&mut |x| f(x, Role::Constant))?;
        state.biases.visit(&mut |x| f(x, Role::Constant))?;
        state.memory.visit(&mut |x| f(x, Role::Constant))?;
        f(&mut state.mask, Role::Input)?;
        // Steps read no other features of the previous frame.
        let Features { s16, key16, key8, .. } = &mut state.features;
        [s16, key16, key8].into_iter().try_for_each(|x| f(x, Role::Recurrent))?;
        state.skip.iter_mut().try_for_each(|x| f(x, Role::Recurrent))
    }

    fn observe_sights(
        &self,
        masks: &Tensor,
        sights: &[Sight],
        reference: &Reference,
        state: &mut State,
    ) -> Result<()> {
        state.mask = masks.f_to_kind(Kind::Float)?;
        state.frames += 1;
        let device = state.mask.device();
        let flags = |is: fn(&Sight) -> bool| -> Result<Tensor> {
            let flags: Vec<bool> = sights.iter().map(is).collect();
            Ok(Tensor::f_from_slice(&flags)?.f_to_device(device)?.f_reshape([-1, 1, 1, 1])?)
        };
        if sights.contains(&Sight::Absent) {
            // An absent object is matched with the reference only: temporal skip and memory of frames without it
            // would suppress it.
            if let Some(skip) = &mut state.skip {
                *skip = skip.f_mul(&flags(|&sight| sight != Sight::Absent)?)?;
            }
            if sights.iter().all(|&sight| sight == Sight::Absent) {
                if !state.remembered.is_empty() {
                    state.remembered.clear();
                    state.memory = reference.views.shallow_clone();
                }
                return Ok(());
            }
        }
        let memory = self.config.memory;
        let is_clear = sights.contains(&Sight::Clear);
        if memory.frames > 0 && state.frames.is_multiple_of(memory.every) && is_clear {
            let mut tokens = self.fixed_tokens(&state.features, &state.mask)?;
            // The keys share memory with the features, which later steps may overwrite.
            tokens.key16 = copy_of(&tokens.key16)?;
            if sights.iter().any(|&sight| sight != Sight::Clear) {
                let others = reference.tokens.resampled_to_length_of(&tokens)?;
                tokens = tokens.where_present(&flags(|&sight| sight == Sight::Clear)?, &others)?;
            }
            state.memory = remember(&reference.views, &mut state.remembered, tokens, memory.frames)?;
        }
        Ok(())
    }

    fn relocate(&self, state: &mut State) -> Result<()> {
        let Some(likeness) = &state.likeness else { return Ok(()) };
        let size = state.mask.size();
        let mask = likeness.f_to_kind(Kind::Float)?.f_mul_scalar(LIKENESS_SCALE)?.f_sigmoid()?;
        self.forget_masks(state)?;
        state.mask = mask.f_upsample_bilinear2d([size[2], size[3]], false, None, None)?;
        Ok(())
    }

    fn forget_masks(&self, state: &mut State) -> Result<()> {
        state.mask = state.mask.f_zeros_like()?;
        if let Some(skip) = &mut state.skip {
            *skip = skip.f_zeros_like()?;
        }
        Ok(())
    }

    fn move_crop_window(
        &self,
        part: RelativeRect,
        (height, width): (i64, i64),
        state: &mut State,
    ) -> Result<()> {
        state.features = state.features.part(part, (height, width))?;
        if state.mask.size()[2..] != [height, width] {
            state.biases = self.biases(&state.features)?;
        }
        state.mask = resample_part(&state.mask, part, (height, width), true)?;
        if let Some(skip) = &mut state.skip {
            *skip = channels_last(&resample_part(skip, part, (height / 4, width / 4), false)?)?;
        }
        Ok(())
    }

    fn likeness(&self, _: &Reference, state: &State) -> Result<Tensor> {
        let Some(likeness) = &state.likeness else { return Err(Error::NoReference) };
        Ok(likeness.f_to_kind(Kind::Float)?)
    }

    fn refiner(&self) -> Option<&Refiner> {
        self.refiner.as_ref()
    }

    fn fold(&mut self) -> Result<()> {
        self.encoder.fold()
    }

    fn pack(&mut self, factors: Factors) -> Result<bool> {
        self.matching.pack(factors)?;
        self.decoder.pack(factors)?;
        self.refiner.iter_mut().try_for_each(|refiner| refiner.pack(factors))?;
        self.encoder.pack(factors)
    }
}

#[cfg(test)]
mod tests;
