//! The element as applications see it: real pipelines and single pads.

mod bad_input;
mod formats;
mod memory;
mod plugin;
mod reference;
mod streaming;
mod util;
