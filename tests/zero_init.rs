// SPDX-License-Identifier: MPL-2.0

//! `zero_init` builds networks without random numbers. A binary of its own: libtorch's random generator is global.

use gstfastganseg::torch::model::{Config, Lite, Resnet50, zero_init};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn random_number_after(action: impl FnOnce()) -> f64 {
    tch::manual_seed(5);
    action();
    Tensor::rand([1], (Kind::Double, Device::Cpu)).double_value(&[0])
}

#[test]
fn zero_initialised_networks_use_no_random_numbers() {
    let narrow = |config: Config| Config { width: 0.125, ..config };
    let build = || {
        let store = VarStore::new(Device::Cpu);
        Lite::new(&(store.root() / "a"), &narrow(Config::lite())).unwrap();
        Resnet50::new(&(store.root() / "b"), &narrow(Config::resnet50())).unwrap();
    };
    let expected = random_number_after(|| ());
    assert_eq!(random_number_after(|| zero_init(build)), expected);
    assert_ne!(random_number_after(build), expected, "networks built outside zero_init are random");
}
