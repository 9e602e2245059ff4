//! The element as applications see it: real pipelines and single pads.

mod bad_input;
mod chaos;
mod child;
mod formats;
mod leaks;
mod live;
mod lost;
mod many;
mod memory;
mod memory_use;
mod model;
mod plugin;
mod qos;
mod random;
mod reference;
mod rig;
mod settings;
mod signals;
mod soak;
mod states;
mod streaming;
mod stress;
mod swap;
mod sync;
mod util;
mod watchdog;
