//! Networks that are built without random numbers. A test of its own process, for libtorch's random numbers are the process's.

use gstfastganseg::model::{Config, Lite, Resnet50, zero_init};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn drawn_after(between: impl FnOnce()) -> f64 {
    tch::manual_seed(5);
    between();
    Tensor::rand([1], (Kind::Double, Device::Cpu)).double_value(&[0])
}

#[test]
fn blank_networks_draw_nothing_from_the_generator() {
    let narrow = |config: Config| Config { width: 0.125, ..config };
    let build = || {
        let store = VarStore::new(Device::Cpu);
        Lite::new(&(store.root() / "a"), &narrow(Config::lite())).unwrap();
        Resnet50::new(&(store.root() / "b"), &narrow(Config::resnet50())).unwrap();
    };
    let undisturbed = drawn_after(|| ());
    assert_eq!(drawn_after(|| zero_init(build)), undisturbed);
    assert_ne!(
        drawn_after(build),
        undisturbed,
        "networks to be trained are random, also after those without"
    );
}
