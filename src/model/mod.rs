// SPDX-License-Identifier: MPL-2.0

//! The FaSTGAN regressor, Ŷₜ = φ(Xₜ, M, Ŷₜ₋₁): a Siamese encoder-decoder that segments the objects of a reference
//! mask in every later frame.
//!
//! Images are float tensors (N, 3, H, W), RGB in [0, 1]; each model applies the normalisation of its backbone.
//! Masks are soft, (N, 1, H, W) in [0, 1], float32, and are not binarised during propagation. N is the number of
//! objects at run time and of clips in training.

pub mod config;
pub mod layers;
pub mod lite;
pub mod meter;
mod packed;
pub mod person;
pub mod prompt;
pub mod resnet50;
mod shuffle;
mod store;
mod tensor_slices;
mod vector;
pub mod weights;
mod zero_init;

pub use config::{Architecture, Config, Matching, TemporalSkip};
pub use lite::Lite;
use lite::refiner::Refiner;
pub use resnet50::Resnet50;
pub use zero_init::zero_init;

use layers::{RelativeRect, channels_last};
pub(crate) use packed::Map;
pub use packed::{Factors, Run, TILE_SIDE, Tiles};
use tch::{Device, Kind, Tensor, nn};
pub(crate) use tensor_slices::{floats, pixels};
pub use vector::has_bfloat16;

use crate::Result;

/// An object is present in a frame if its mask exceeds this value at any pixel.
const PRESENCE_THRESHOLD: f64 = 0.5;

/// How a [`step`](Regressor::step) uses a tensor that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Only read. Its contents never change; new contents come in another tensor.
    Constant,
    /// Only read by the step. The caller may write into it between steps.
    Input,
    /// Replaced by another tensor of the same shape.
    Recurrent,
}

/// A set of tensors that can be cloned without a copy.
pub trait ShallowClone {
    /// Returns another handle on the same tensors, as [`Tensor::shallow_clone`] does.
    #[must_use]
    fn shallow_clone(&self) -> Self;
}

impl ShallowClone for Tensor {
    fn shallow_clone(&self) -> Self {
        Self::shallow_clone(self)
    }
}

impl<T: ShallowClone> ShallowClone for Option<T> {
    fn shallow_clone(&self) -> Self {
        self.as_ref().map(T::shallow_clone)
    }
}

/// Implements [`ShallowClone`] field by field.
macro_rules! shallow_clone {
    ($type:ty: $($field:ident),+ $(,)?) => {
        impl $crate::model::ShallowClone for $type {
            fn shallow_clone(&self) -> Self {
                use $crate::model::ShallowClone;
                Self { $($field: ShallowClone::shallow_clone(&self.$field)),+ }
            }
        }
    };
}
pub(crate) use shallow_clone;

/// How a frame shows an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Its mask exceeds one half nowhere.
    Absent,
    /// It has a mask, which is not reliable enough to be remembered.
    Doubtful,
    /// It has a reliable mask.
    Clear,
}

/// Interface of all regressors, used by the tracker and by training. Several threads may run a
/// [prepared](prepare) network at the same time.
pub trait Regressor: layers::Visit + Send + Sync {
    /// Whether [`encode_frame`](Self::encode_frame) does a part of the work that is worth a thread of its own.
    const ENCODES_AHEAD: bool = false;
    /// Whether [`pack`](Self::pack) does anything.
    const PACKS: bool = false;

    /// Values computed once per reference.
    type Reference: ShallowClone + Send + 'static;
    /// Recurrent state, carried from frame to frame.
    type State: ShallowClone + Send + 'static;
    /// Part of the state that a frame is encoded with. It does not change with every frame.
    type MemoryRef: Send + 'static;
    /// Encoded frame. It does not depend on the previous frame.
    type EncodedFrame: Send + 'static;

    /// Returns the configuration of the network.
    fn config(&self) -> &Config;

    /// Sets the number of tokens of frames that are remembered from now on. Networks without a memory ignore it.
    fn set_memory_tokens(&self, _tokens: i64) {}

    /// Encodes the reference frame. `image` is (1 or N, 3, H, W), `masks` (N, 1, H, W).
    fn reference(&self, image: &Tensor, masks: &Tensor) -> Result<Self::Reference>;

    /// Adds another view of the reference frame, so that content visible only in that view is matched too.
    fn add_view(&self, image: &Tensor, masks: &Tensor, reference: &mut Self::Reference) -> Result<()>;

    /// Adds the reference of another frame, with the same objects in the same order. Networks with a memory match with
    /// all references, others with the one that was added last.
    fn add_reference(&self, added: &Self::Reference, reference: &mut Self::Reference) -> Result<()>;

    /// Returns the state at the reference frame: its mask, its features, a temporal skip of zeros.
    fn start(&self, reference: &Self::Reference) -> Result<Self::State>;

    /// Returns the state at the frame of `added`, which is one of those that were [added](Self::add_reference) to
    /// `reference`.
    fn start_at(&self, added: &Self::Reference, _reference: &Self::Reference) -> Result<Self::State> {
        self.start(added)
    }

    /// Processes one frame, `image` (1 or N, 3, H, W). Returns logits (N, 1, H, W) float32; their sigmoid is the
    /// soft mask.
    fn step(&self, image: &Tensor, reference: &Self::Reference, state: &mut Self::State) -> Result<Tensor> {
        self.step_encoded(self.encode_frame(image, &Self::memory_ref(state))?, reference, state)
    }

    /// Returns the part of the state that [`encode_frame`](Self::encode_frame) needs; shares memory with the
    /// state.
    fn memory_ref(state: &Self::State) -> Self::MemoryRef;

    /// First part of a [`step`](Self::step). It can run before the previous frame is finished.
    fn encode_frame(&self, image: &Tensor, memory: &Self::MemoryRef) -> Result<Self::EncodedFrame>;

    /// Second part of a [`step`](Self::step). If the memory has changed since
    /// [`encode_frame`](Self::encode_frame), the memory readout is computed again.
    fn step_encoded(
        &self,
        frame: Self::EncodedFrame,
        reference: &Self::Reference,
        state: &mut Self::State,
    ) -> Result<Tensor>;

    /// Calls `f` on every tensor of reference and state that a [`step`](Self::step) reads, always in the same
    /// order. After the first step their number is constant, and a step depends on nothing but these tensors and
    /// the image. It reads no tensor value on the host.
    fn visit_inputs(
        reference: &mut Self::Reference,
        state: &mut Self::State,
        f: &mut dyn FnMut(&mut Tensor, Role) -> Result<()>,
    ) -> Result<()>;

    /// Feeds back the soft masks (N, 1, H, W) of the last [`step`](Self::step).
    fn observe(&self, masks: &Tensor, reference: &Self::Reference, state: &mut Self::State) -> Result<()> {
        let maxima = masks.f_amax([1i64, 2, 3].as_slice(), false)?;
        let present = maxima.f_gt(PRESENCE_THRESHOLD)?.f_to_device(Device::Cpu)?;
        let present: Vec<bool> = Vec::try_from(&present)?;
        let sight = |present| if present { Sight::Clear } else { Sight::Absent };
        let sights: Vec<Sight> = present.into_iter().map(sight).collect();
        self.observe_sights(masks, &sights, reference, state)
    }

    /// As [`observe`](Self::observe), but does not wait for the device: `sights` tells how each object is seen.
    fn observe_sights(
        &self,
        masks: &Tensor,
        sights: &[Sight],
        reference: &Self::Reference,
        state: &mut Self::State,
    ) -> Result<()>;

    /// Replaces the masks of the last [`step`](Self::step) by the places that resemble the references' objects, so that the
    /// next step with the same frame finds objects that are far from where they were. The default keeps the masks.
    fn relocate(&self, _state: &mut Self::State) -> Result<()> {
        Ok(())
    }

    /// Clears the previous masks but keeps the appearance of the objects: the whole next frame is searched.
    fn forget_masks(&self, state: &mut Self::State) -> Result<()>;

    /// Adapts the state to a new crop window: later frames show `part` of the last [`step`](Self::step)'s frame,
    /// at `size` (height, width) in pixels.
    fn move_crop_window(&self, part: RelativeRect, size: (i64, i64), state: &mut Self::State) -> Result<()>;

    /// Returns the similarity of each position of the last [`step`](Self::step)'s frame to the reference's
    /// objects, (N, 1, H/s, W/s) float32 with s the largest stride of the network. Higher is more similar.
    fn likeness(&self, reference: &Self::Reference, state: &Self::State) -> Result<Tensor>;

    /// Returns the refiner of mattes, if the network has one.
    fn refiner(&self) -> Option<&Refiner> {
        None
    }

    /// Converts the trained network to its run-time form (batch normalisation folded). Call it with gradients
    /// disabled.
    fn fold(&mut self) -> Result<()>;

    /// Packs the weights of a network that is [prepared](prepare) in float32 for faster inference on the CPU, with factors of
    /// this format. They must not change afterwards. Returns whether all large layers are packed.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    fn pack(&mut self, _factors: Factors) -> Result<bool> {
        Ok(false)
    }
}

/// Builds the network of a configuration with weights of zero, and passes it on.
///
/// # Errors
/// No network can be built from the configuration, and errors of `visitor`.
pub fn build<V: NetworkVisitor>(path: &nn::Path, config: &Config, visitor: V) -> Result<V::Output> {
    match config.matching {
        Matching::Affinity => visitor.visit(zero_init(|| Lite::new(path, config))?),
        Matching::GlobalConvolution => visitor.visit(zero_init(|| Resnet50::new(path, config))?),
    }
}

/// What to do with a network of any type, see [`build`].
pub trait NetworkVisitor {
    /// Result of the visit.
    type Output;

    /// Takes the network.
    ///
    /// # Errors
    /// Those of the visitor.
    fn visit<R: Regressor + 'static>(self, network: R) -> Result<Self::Output>;
}

/// Prepares a trained network for inference: folds it, detaches its weights, moves them to `device` and `kind`,
/// and stores kernels channels last.
pub fn prepare(model: &mut impl Regressor, device: Device, kind: Kind) -> Result<()> {
    model.fold()?;
    model.visit(&mut |tensor| {
        let converted = tensor.f_detach()?.f_to_device(device)?.f_to_kind(kind)?;
        *tensor = if converted.dim() == 4 { channels_last(&converted)? } else { converted };
        Ok(())
    })
}

/// How a network computes.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    /// Kind of its tensors. A network that packs has tensors of float32 even if it computes in bfloat16.
    pub kind: Kind,
    /// Whether all large layers are packed, so that libtorch needs no threads.
    pub packed: bool,
}

/// [Prepares](prepare) a trained network and packs its weights, if the device and its own kind allow it.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) when memory runs out.
pub fn prepare_packed<R: Regressor>(model: &mut R, device: Device, kind: Kind) -> Result<Prepared> {
    let factors = match (device, kind) {
        (Device::Cpu, Kind::Float) => Factors::Float32,
        (Device::Cpu, Kind::BFloat16) if R::PACKS && has_bfloat16() => Factors::Bfloat16,
        _ => {
            prepare(model, device, kind)?;
            return Ok(Prepared { kind, packed: false });
        }
    };
    prepare(model, device, Kind::Float)?;
    Ok(Prepared { kind: Kind::Float, packed: model.pack(factors)? })
}
