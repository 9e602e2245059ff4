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
pub fn zero_init<T>(build: impl FnOnce() -> T) -> T {
    let _restore = Restore(BLANK.replace(true));
    build()
}

/// `init`, or zeros within [`zero_init`].
pub(crate) fn unless_zero_init(init: Init) -> Init {
    if BLANK.get() { Init::Const(0.0) } else { init }
}
