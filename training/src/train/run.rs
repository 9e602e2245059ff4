//! A training run from beginning to end.

use std::path::Path;

use super::config::TrainConfig;
use super::interrupt::Interrupt;
use super::session::Session;
use crate::Result;

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// It got to its end.
    pub complete: bool,
    /// What the last validation found, where there was one.
    pub scores: Option<FinalScores>,
}

/// Scores of a validation, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct FinalScores {
    /// Region similarity J.
    pub region: f64,
    /// Contour accuracy F.
    pub contour: f64,
    /// J&F.
    pub both: f64,
}

/// Trains as the configuration says, from the checkpoint in `out` if there is one, to the end or until `interrupt`
/// asks to stop. Leaves there `checkpoint.safetensors`, `model.safetensors`, `best.safetensors` where it validates,
/// `curve.csv` and its picture, TensorBoard's files and the effective `config.toml`.
///
/// # Errors
/// Bad data or configuration, a checkpoint of another network, a loss that is no number any more, too little
/// memory; the last checkpoint stays as it is.
pub fn run(config: &TrainConfig, out: &Path, interrupt: &Interrupt) -> Result<Outcome> {
    let mut session = Session::open(config, out)?;
    let end = session.end();
    if session.done >= end {
        // It may have been stopped before its last validation.
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
        eprintln!("stopped after {} of {end} steps; the same command goes on from there", session.done);
    }
    session.close()?;
    Ok(outcome)
}
