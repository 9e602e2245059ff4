// SPDX-License-Identifier: MPL-2.0

//! Time limits, so that a deadlock fails one test instead of blocking all.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Time limit of a test on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Runs `body` and panics if it does not end in time.
#[track_caller]
pub fn ends(body: impl FnOnce() + Send + 'static) {
    ends_within(TIMEOUT, body);
}

/// Like [`ends`], with a time limit.
#[track_caller]
pub fn ends_within(timeout: Duration, body: impl FnOnce() + Send + 'static) {
    let (finished, wait) = channel();
    let thread = std::thread::spawn(move || {
        body();
        let _ = finished.send(());
    });
    match wait.recv_timeout(timeout) {
        Err(RecvTimeoutError::Timeout) => panic!("deadlock: the test has not ended in {timeout:?}"),
        // Disconnected: the body has panicked.
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
