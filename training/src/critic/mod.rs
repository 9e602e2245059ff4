//! The critics of FaSTGAN, which exist during training alone: one looks at single frames (D_S), one at all K
//! frames of a window at once (D_T), and both tell masked pictures cut out by the true masks from those cut out
//! by the regressor's.

mod input;
mod network;
mod penalty;
mod real;

pub use input::{spatial, temporal};
pub use network::{Critic, Shape};
pub use penalty::{Reduce, gradient_penalty};
pub use real::{Noise, RealMaskNoise};
