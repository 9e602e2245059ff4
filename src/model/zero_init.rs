// SPDX-License-Identifier: MPL-2.0

//! Zero initialisation of networks whose weights are loaded afterwards.

use std::cell::Cell;

use tch::nn::Init;

thread_local! {
    static ZERO_INIT: Cell<bool> = const { Cell::new(false) };
}

/// Restores the previous value when dropped, also on a panic.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        ZERO_INIT.set(self.0);
    }
}

/// Calls `build` with weights on this thread initialised to zero. It draws nothing from libtorch's generator,
/// whose state a training run depends on, and saves the time of random initialisation.
pub fn zero_init<T>(build: impl FnOnce() -> T) -> T {
    let _restore = Restore(ZERO_INIT.replace(true));
    build()
}

/// Returns `init`, or zeros within [`zero_init`].
pub(crate) fn unless_zero_init(init: Init) -> Init {
    if ZERO_INIT.get() { Init::Const(0.0) } else { init }
}
