//! Cuts any object out of live video from one mask in one frame.

mod error;
pub mod model;

pub use error::{Error, Result};
