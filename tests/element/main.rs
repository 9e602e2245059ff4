// SPDX-License-Identifier: MPL-2.0

//! Tests of the element through its public interface: pipelines, harnesses and single pads.

mod background;
mod bad_input;
mod chaos;
mod child;
mod downstream;
mod formats;
mod frame_threading;
mod input_alpha;
mod launch;
mod leaks;
mod live;
mod lost;
mod many;
mod mask_warnings;
mod memory;
mod memory_use;
mod model;
mod person;
#[path = "../person_picture/mod.rs"]
mod person_picture;
mod plugin;
mod qos;
mod quality;
mod random;
mod reference;
mod rig;
mod selection;
mod settings;
mod signals;
mod soak;
mod states;
mod streaming;
mod streams;
mod stress;
mod swap;
mod sync;
mod util;
mod watchdog;
