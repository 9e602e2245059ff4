//! A training run from beginning to end.

use std::path::Path;

use super::config::TrainConfig;
use super::interrupt::Interrupt;
use super::session::Session;
use crate::Result;

/// Trains as the configuration says, from the checkpoint in `out` if there is one, to the end or until `interrupt`
/// asks to stop; whether it got to the end. Leaves there `checkpoint.safetensors`, `model.safetensors`,
/// `best.safetensors` where it validates, `curve.csv` and its picture, TensorBoard's files and the effective
/// `config.toml`.
///
/// # Errors
/// Bad data or configuration, a checkpoint of another network, a loss that is no number any more, too little
/// memory; the last checkpoint stays as it is.
pub fn run(config: &TrainConfig, out: &Path, interrupt: &Interrupt) -> Result<bool> {
    let mut session = Session::open(config, out)?;
    let end = session.end();
    while session.done < end && !interrupt.is_requested() {
        session.step()?;
        if session.checkpoint_is_due() || session.done == end || interrupt.is_requested() {
            session.save()?;
        }
        session.validate()?;
    }
    let complete = session.done >= end;
    if !complete {
        eprintln!("stopped after {} of {end} steps; the same command goes on from there", session.done);
    }
    session.close();
    Ok(complete)
}
