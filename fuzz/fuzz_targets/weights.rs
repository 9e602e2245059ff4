// SPDX-License-Identifier: MPL-2.0

//! Interpreting weights from any bytes gives valid weights or an error; filling a network with them does not panic.

#![no_main]

use std::path::Path;

use gstfastganseg::torch::model::weights::Weights;
use gstfastganseg::torch::model::{Architecture, Lite};
use libfuzzer_sys::fuzz_target;
use tch::{Device, nn};

/// Only networks up to this width are built: a larger one takes milliseconds.
const MAX_WIDTH: f64 = 0.0625;

fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = Weights::from_bytes(bytes, Path::new("fuzz")) else { return };
    let config = weights.config();
    assert!(config.validate().is_ok());
    if config.width <= MAX_WIDTH && config.architecture == Architecture::Lite {
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), config).expect("a valid configuration");
        let _ = weights.fill(&store);
    }
});
