//! Deadlocks fail a test instead of stopping them all.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Longer than any test takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `body`, which must come to an end.
#[track_caller]
pub fn ends(body: impl FnOnce() + Send + 'static) {
    ends_within(PATIENCE, body);
}

#[track_caller]
pub fn ends_within(patience: Duration, body: impl FnOnce() + Send + 'static) {
    let (finished, wait) = channel();
    let thread = std::thread::spawn(move || {
        body();
        let _ = finished.send(());
    });
    match wait.recv_timeout(patience) {
        Err(RecvTimeoutError::Timeout) => panic!("a deadlock: nothing has ended in {patience:?}"),
        // The sender goes without a word when the body panics.
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
