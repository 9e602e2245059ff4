// SPDX-License-Identifier: MPL-2.0

//! End of the process. Applications that exit without stopping their pipelines crash if a network runs while the destructors
//! of libtorch do. Therefore, an exit handler waits for work that has begun, and no other work begins. It does not wait for the
//! encoding of the next frame with `frame-threading`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Maximum time for which the end of the process waits.
const MAX_DELAY: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Read by those who use libtorch.
static WORK: RwLock<()> = RwLock::new(());
static ENDS: AtomicBool = AtomicBool::new(false);

/// Returns whether the process ends.
pub fn has_begun() -> bool {
    ENDS.load(Ordering::SeqCst)
}

/// Returns a permission to use libtorch, or `None` when the process ends. A thread that ends the process while it holds one,
/// such as a handler of messages, waits for the maximum time.
pub fn permission() -> Option<RwLockReadGuard<'static, ()>> {
    let permission = match WORK.try_read() {
        Ok(permission) => permission,
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    (!has_begun()).then_some(permission)
}

/// Registers the exit handler. Handlers and destructors run in the reverse order of their registration, and libtorch registers
/// destructors when an operation is first used. Therefore, this is called before and after networks run for the first time. A
/// process that ends during that time, some tenths of a second, may still crash.
pub fn register_handler() {
    // SAFETY: the handler does not unwind, and plugins are never unloaded.
    unsafe { libc::atexit(wait_for_work) };
}

extern "C" fn wait_for_work() {
    if ENDS.swap(true, Ordering::SeqCst) {
        return;
    }
    let begun = Instant::now();
    while begun.elapsed() < MAX_DELAY {
        if let Ok(all) = WORK.try_write() {
            // Never unlocked.
            std::mem::forget(all);
            return;
        }
        sleep(POLL_INTERVAL);
    }
}
