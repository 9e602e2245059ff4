// SPDX-License-Identifier: MPL-2.0

//! Critics of FaSTGAN, used in training only. D_S takes single frames, D_T all K frames of a window at once. Both
//! distinguish pictures masked by true masks from pictures masked by the regressor's.

mod input;
mod network;
pub mod penalty;
mod real;

pub use input::CriticKind;
pub use network::{Critic, Shape};
pub use penalty::{Reduce, gradient_penalty};
pub use real::Noise;
