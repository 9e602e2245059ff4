// SPDX-License-Identifier: MPL-2.0

//! Interruption of a run without loss of its state.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Result;

/// Exit status of a program ended by SIGINT.
const EXIT_SIGINT: i32 = 130;

/// Time in which several signals count as one. A launcher may pass on a signal that its processes get anyway.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Request to stop a run after the current step. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Handles SIGINT, SIGTERM and SIGHUP of this process: the first signal requests a stop, the second exits.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Self::default();
        let request = interrupt.clone();
        let mut first = None;
        ctrlc::set_handler(move || {
            request.request();
            match first {
                None => first = Some(Instant::now()),
                Some(first) if first.elapsed() < ONE_SIGNAL => return,
                Some(_) => process::exit(EXIT_SIGINT),
            }
            eprintln!("stopping after this step; interrupt again to exit at once");
        })?;
        Ok(interrupt)
    }

    /// Requests a stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether a stop is requested.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
