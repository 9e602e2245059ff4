// SPDX-License-Identifier: MPL-2.0

//! A training run from start to end.

use std::path::Path;

use super::config::TrainConfig;
use super::interrupt::Interrupt;
use super::session::Session;
use crate::Result;
use crate::distributed::Ranks;

/// Result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Whether the run reached its end.
    pub complete: bool,
    /// Number of completed steps.
    pub done: u64,
}

/// Trains with `config` until the end or until `interrupt` requests a stop. Resumes from the checkpoint in `out`
/// if there is one. Writes to `out`: `checkpoint.safetensors`, `model.safetensors`, `best.safetensors` if it
/// validates, `curve.csv` and its plot, TensorBoard's files and the effective `config.toml`.
///
/// With several ranks, each trains on its share of every batch, and rank 0 writes the files. A request to stop on any
/// rank stops all of them after the same step.
///
/// # Errors
/// If the data or the configuration is invalid, another run uses the folder, the checkpoint belongs to another run, a
/// loss diverges, memory runs out, or another rank has ended. The last checkpoint is kept.
pub fn run(config: &TrainConfig, out: &Path, interrupt: &Interrupt, ranks: &Ranks) -> Result<Outcome> {
    let mut session = Session::open(config, out, ranks)?;
    let end = session.end();
    if session.done > 0 {
        // The run may have been interrupted between its checkpoint and the validation of it.
        session.validate()?;
    }
    // With several ranks, all stop after the step in which one of them has asked for it.
    let mut stop = ranks.count() == 1 && interrupt.is_requested();
    while session.done < end && !stop {
        stop = session.step(interrupt.is_requested()).inspect_err(|error| session.rescue(error))?;
        stop |= ranks.count() == 1 && interrupt.is_requested();
        if session.checkpoint_is_due() || session.done == end || stop {
            session.save()?;
        }
        session.validate()?;
    }
    let done = session.done;
    let outcome = Outcome { complete: done >= end, done };
    session.close()?;
    if !outcome.complete && ranks.is_first() {
        eprintln!("stopped after {done} of {end} steps; run the same command to resume");
    }
    Ok(outcome)
}
