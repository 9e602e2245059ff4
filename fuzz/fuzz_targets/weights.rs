//! Any bytes are weights or an error, and no weights fill a network of another shape.

#![no_main]

use std::path::Path;

use gstfastganseg::model::weights::Weights;
use gstfastganseg::model::{Architecture, Lite};
use libfuzzer_sys::fuzz_target;
use tch::{Device, nn};

/// Building a network takes milliseconds, so only the smallest are built.
const SMALL: f64 = 0.0625;

fuzz_target!(|bytes: &[u8]| {
    let Ok(weights) = Weights::from_bytes(bytes, Path::new("fuzz")) else { return };
    let config = weights.config();
    assert!(config.validate().is_ok());
    if config.width <= SMALL && config.architecture == Architecture::Lite {
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), config).expect("a valid configuration");
        let _ = weights.fill(&store);
    }
});
