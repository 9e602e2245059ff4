// SPDX-License-Identifier: MPL-2.0

//! Weights files of small networks, for fast tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Config, Lite};
use tch::{Device, Kind, Tensor, nn};

/// Input size of both networks: width and height in pixels.
pub const SIZE: (usize, usize) = (96, 64);

fn small_config() -> Config {
    Config { network_size: [SIZE.1 as i64, SIZE.0 as i64], ..Config::lite() }
}

/// A network with few channels and untrained weights, for tests that do not depend on the masks.
pub fn tiny() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let config = Config { width: 0.0625, ..small_config() };
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), &config).unwrap();
        fill_reproducibly(&store);
        save("tiny", &store, &config)
    })
}

/// The built-in weights with a small input size.
pub fn small() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let config = small_config();
        let store = nn::VarStore::new(Device::Cpu);
        Lite::new(&store.root(), &config).unwrap();
        Weights::built_in().unwrap().fill(&store).unwrap();
        save("small", &store, &config)
    })
}

/// Fills the weights reproducibly. libtorch's random generator is shared by all threads.
fn fill_reproducibly(store: &nn::VarStore) {
    let _guard = tch::no_grad_guard();
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let mut state = 1u32;
    for (name, mut variable) in variables {
        let size = variable.size();
        let scale = match size.as_slice() {
            [_, inputs, rows, columns] => (6.0 / (inputs * rows * columns) as f32).sqrt(),
            _ if name.ends_with("bias") => 0.1,
            _ => continue,
        };
        let values: Vec<f32> = (0..variable.numel())
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                scale * (f32::from((state >> 16) as u16) / 32_768.0 - 1.0)
            })
            .collect();
        variable.copy_(&Tensor::from_slice(&values).reshape(size));
    }
}

/// Saves the weights. The write is atomic and the contents are constant: several processes can share the file.
fn save(name: &str, store: &nn::VarStore, config: &Config) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("safetensors");
    weights::save(&path, store, config, &BTreeMap::new(), Kind::Float).unwrap();
    path.to_str().unwrap().to_owned()
}
