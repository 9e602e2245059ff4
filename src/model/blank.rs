//! Networks whose weights are about to be filled in need no random ones.

use std::cell::Cell;

use tch::nn::Init;

thread_local! {
    static BLANK: Cell<bool> = const { Cell::new(false) };
}

/// Puts back what was there, also when the network cannot be built.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        BLANK.set(self.0);
    }
}

/// What `build` builds on this thread starts from zeros: nothing is drawn from libtorch's generator, whose
/// state a training run depends on, and no time is spent on numbers that nobody uses.
pub fn blank<T>(build: impl FnOnce() -> T) -> T {
    let _restore = Restore(BLANK.replace(true));
    build()
}

/// `init`, or zeros within [`blank`].
pub(crate) fn unless_blank(init: Init) -> Init {
    if BLANK.get() { Init::Const(0.0) } else { init }
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::model::{Config, Lite, Resnet50};

    fn drawn(between: impl FnOnce()) -> f64 {
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
        let undisturbed = drawn(|| ());
        assert_eq!(drawn(|| blank(build)), undisturbed);
        assert_ne!(drawn(build), undisturbed, "networks to be trained are random, also after blank ones");
    }
}
