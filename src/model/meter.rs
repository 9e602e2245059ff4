// SPDX-License-Identifier: MPL-2.0

//! Counts the multiply-accumulate operations (MACs) of a running network, layer by layer.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;

/// MACs per layer, named as in the weights file.
pub type Work = BTreeMap<String, u64>;

thread_local! {
    static METER: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// Calls `run` and counts the MACs of its convolutions and matrix products on this thread. Elementwise operations
/// (normalisation, activations, resizing) are not counted, as is usual.
pub fn measure<T>(run: impl FnOnce() -> T) -> (T, Work) {
    METER.set(Some(Work::new()));
    let result = run();
    (result, METER.take().unwrap_or_default())
}

/// Adds to the count of `layer` during a measurement.
pub(crate) fn count(layer: &str, macs: impl FnOnce() -> i64) {
    METER.with_borrow_mut(|meter| {
        if let Some(work) = meter {
            *work.entry(layer.to_owned()).or_default() += macs().unsigned_abs();
        }
    });
}

/// Returns the batched product of `x` (N, a, b) and `y` (N, b, c), counted under `layer`.
pub(crate) fn product(layer: &str, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    count(layer, || x.size().iter().product::<i64>() * y.size().last().copied().unwrap_or(0));
    Ok(x.f_bmm(y)?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};

    use super::*;
    use crate::model::layers::{Conv, ConvSpec};

    #[test]
    fn convolutions_and_products_are_counted_while_measured() {
        let store = nn::VarStore::new(Device::Cpu);
        let spec = ConvSpec::square(4, 6, 3).stride(2);
        let whole = Conv::new(&(store.root() / "a" / "b"), spec);
        let depthwise = Conv::new(&(store.root() / "c"), ConvSpec::square(4, 4, 3).depthwise());
        let x = Tensor::zeros([2, 4, 8, 10], (Kind::Float, Device::Cpu));
        let run = || {
            drop(whole.forward(&x).unwrap());
            drop(whole.forward(&x).unwrap());
            drop(depthwise.forward(&x).unwrap());
            let (x, y) = (x.reshape([2, 8, 40]), x.reshape([2, 40, 8]));
            product("d", &x, &y).unwrap().size()
        };
        let (size, work) = measure(run);
        assert_eq!(size, [2, 8, 8]);
        let expected = [("a.b", 2 * 2 * 6 * (4 * 5) * 4 * 9), ("c", 2 * 4 * 80 * 9), ("d", 2 * 8 * 40 * 8)];
        assert_eq!(work, expected.map(|(name, macs)| (name.to_owned(), macs)).into());
        run();
        assert_eq!(measure(|| ()).1, Work::new(), "nothing is counted outside a measurement");
    }
}
