//! Cuts any object out of live video from one mask in one frame.

pub mod device;
mod error;
pub mod mask;
pub mod model;
pub mod tracker;

pub use error::{Error, Result};
