//! Stopping a run from outside without losing any of it.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Result;

/// What a shell reports of a program ended by SIGINT.
const KILLED: i32 = 130;

/// Whether a run is to stop after the step that it is at. Clones are of one wish.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Heeds SIGINT, SIGTERM and SIGHUP of this process: the first asks to stop, the second ends the process.
    ///
    /// # Errors
    /// Handlers that are there already.
    pub fn on_signals() -> Result<Self> {
        let interrupt = Self::default();
        let wish = interrupt.clone();
        ctrlc::set_handler(move || {
            if wish.0.swap(true, Ordering::Relaxed) {
                process::exit(KILLED);
            }
            eprintln!("stopping after this step; once more to stop at once");
        })?;
        Ok(interrupt)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether anyone did.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
