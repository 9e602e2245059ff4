// SPDX-License-Identifier: MPL-2.0

//! A training run from start to end.

use std::path::Path;

use super::config::TrainConfig;
use super::interrupt::Interrupt;
use super::session::Session;
use super::validate::FinalScores;
use crate::Result;

/// Result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Whether the run reached its end.
    pub complete: bool,
    /// Scores of the last validation, if any.
    pub scores: Option<FinalScores>,
}

/// Trains with `config` until the end or until `interrupt` requests a stop. Resumes from the checkpoint in `out`
/// if there is one. Writes to `out`: `checkpoint.safetensors`, `model.safetensors`, `best.safetensors` if it
/// validates, `curve.csv` and its plot, TensorBoard's files and the effective `config.toml`.
///
/// # Errors
/// If the data or the configuration is invalid, the checkpoint belongs to another run, a loss diverges, or memory
/// runs out. The last checkpoint is kept.
pub fn run(config: &TrainConfig, out: &Path, interrupt: &Interrupt) -> Result<Outcome> {
    let mut session = Session::open(config, out)?;
    let end = session.end();
    if session.done >= end {
        // The run may have been interrupted before its last validation.
        session.validate()?;
    }
    while session.done < end && !interrupt.is_requested() {
        session.step()?;
        if session.checkpoint_is_due() || session.done == end || interrupt.is_requested() {
            session.save()?;
        }
        session.validate()?;
    }
    let outcome = Outcome { complete: session.done >= end, scores: session.scores() };
    if !outcome.complete {
        eprintln!("stopped after {} of {end} steps; run the same command to resume", session.done);
    }
    session.close()?;
    Ok(outcome)
}
