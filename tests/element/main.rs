//! The element as applications see it: real pipelines and single pads.

mod bad_input;
mod formats;
mod live;
mod lost;
mod memory;
mod plugin;
mod qos;
mod reference;
mod settings;
mod signals;
mod streaming;
mod util;
