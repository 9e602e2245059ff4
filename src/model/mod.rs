//! The regressor of FaSTGAN, Ŷₜ = φ(Xₜ, M, Ŷₜ₋₁): a Siamese encoder-decoder that cuts the object
//! marked in a reference frame out of every later frame.
//!
//! Images are float tensors (N, 3, H, W) with RGB in [0, 1]; each model normalises them as its
//! backbone wants. Masks are soft, (N, 1, H, W) in [0, 1], float32, and never binarised while they
//! propagate. N counts objects at run time and clips in training.

pub mod config;
pub mod layers;
pub mod lite;
pub mod meter;
pub mod resnet50;
mod tensor_slices;
pub mod weights;
mod zero_init;

pub use config::{Architecture, Config, Matching, TemporalSkip};
pub use lite::Lite;
pub use resnet50::Resnet50;
pub use zero_init::zero_init;

use layers::{Part, channels_last};
use tch::{Device, Kind, Tensor};

use crate::Result;

/// An object is in a frame if somewhere its mask is above this.
const SEEN: f64 = 0.5;

/// What a [`step`](Regressor::step) does with a tensor that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: what is in it never changes, and what takes its place is another tensor.
    Constant,
    /// Nothing either, but others may write into it from step to step.
    Given,
    /// Leaves another in its place, of the same shape.
    Carried,
}

/// Another handle on the same tensors.
pub trait ShallowClone {
    /// Shares memory with `self`, as [`Tensor::shallow_clone`] does.
    #[must_use]
    fn shallow_clone(&self) -> Self;
}

/// What every regressor can do; the tracker drives it, training calls it too.
pub trait Regressor: layers::Visit + Send {
    /// What is computed once per reference.
    type Reference: ShallowClone + Send + 'static;
    /// What is carried from frame to frame.
    type State: ShallowClone + Send + 'static;
    /// What a frame is compared with that does not change with every frame.
    type MemoryRef: Send + 'static;
    /// What is found of a frame without the one before it.
    type EncodedFrame: Send + 'static;

    /// What it was built from.
    fn config(&self) -> &Config;

    /// Encodes the reference frame. `image` is (1 or N, 3, H, W), `masks` (N, 1, H, W).
    fn reference(&self, image: &Tensor, masks: &Tensor) -> Result<Self::Reference>;

    /// Adds another view of the reference frame, so that what is only to be seen there is known as well.
    fn add_view(&self, image: &Tensor, masks: &Tensor, reference: &mut Self::Reference) -> Result<()>;

    /// The recurrent state as it is at the reference frame: its mask, its features, a temporal skip of zeros.
    fn start(&self, reference: &Self::Reference) -> Result<Self::State>;

    /// One frame, `image` (1 or N, 3, H, W): logits (N, 1, H, W) float32 whose sigmoid is the soft mask.
    fn step(&self, image: &Tensor, reference: &Self::Reference, state: &mut Self::State) -> Result<Tensor> {
        self.step_encoded(self.encode_frame(image, &Self::memory_ref(state))?, reference, state)
    }

    /// What [`encode_frame`](Self::encode_frame) needs of the state; it shares memory with it.
    fn memory_ref(state: &Self::State) -> Self::MemoryRef;

    /// The beginning of a [`step`](Self::step), which can be made before the frame ahead of it is done.
    fn encode_frame(&self, image: &Tensor, memory: &Self::MemoryRef) -> Result<Self::EncodedFrame>;

    /// The rest of a [`step`](Self::step), from any frame's state: what has changed meanwhile is looked up anew.
    fn step_encoded(
        &self,
        frame: Self::EncodedFrame,
        reference: &Self::Reference,
        state: &mut Self::State,
    ) -> Result<Tensor>;

    /// Calls `f` on every tensor of reference and state that a [`step`](Self::step) reads, always in the same
    /// order. After the first step their number no longer changes: all that a step is, is then a function of
    /// them and of the image, without a look at any value.
    fn visit_inputs(
        reference: &mut Self::Reference,
        state: &mut Self::State,
        f: &mut dyn FnMut(&mut Tensor, Role) -> Result<()>,
    ) -> Result<()>;

    /// Feeds back the soft masks (N, 1, H, W) that came of the last [`step`](Self::step).
    fn observe(&self, masks: &Tensor, reference: &Self::Reference, state: &mut Self::State) -> Result<()> {
        let seen = masks.f_amax([1i64, 2, 3].as_slice(), false)?.f_gt(SEEN)?.f_to_device(Device::Cpu)?;
        let seen: Vec<bool> = Vec::try_from(&seen)?;
        self.observe_seen(masks, &seen, reference, state)
    }

    /// As [`observe`](Self::observe) where it is known which of the objects are `seen`, so that no value has
    /// to be waited for: those whose mask is above one half somewhere.
    fn observe_seen(
        &self,
        masks: &Tensor,
        seen: &[bool],
        reference: &Self::Reference,
        state: &mut Self::State,
    ) -> Result<()>;

    /// Forgets where the objects were, but not what they look like: the next frame is searched as a whole.
    fn forget_masks(&self, state: &mut Self::State) -> Result<()>;

    /// Frames to come show that `part` of what the last [`step`](Self::step)'s did, in (height, width) pixels: what
    /// is known of that frame is made to fit.
    fn reframe(&self, part: Part, size: (i64, i64), state: &mut Self::State) -> Result<()>;

    /// How much each place of the frame of the last [`step`](Self::step) looks like the reference's objects,
    /// (N, 1, H/s, W/s) float32 at the network's largest stride s; the higher the more.
    fn likeness(&self, reference: &Self::Reference, state: &Self::State) -> Result<Tensor>;

    /// Turns the trained network into its run-time form (batch normalisation folded). Call it
    /// without gradients.
    fn fold(&mut self) -> Result<()>;
}

/// Makes a trained network ready to run: folded, without gradients, on its device, in its kind, its
/// kernels channels last.
pub fn prepare(model: &mut impl Regressor, device: Device, kind: Kind) -> Result<()> {
    model.fold()?;
    model.visit(&mut |tensor| {
        let converted = tensor.f_detach()?.f_to_device(device)?.f_to_kind(kind)?;
        *tensor = if converted.dim() == 4 { channels_last(&converted)? } else { converted };
        Ok(())
    })
}
