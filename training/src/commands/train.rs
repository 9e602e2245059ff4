// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::train::{self, Interrupt, shared_settings};

use super::{Processes, Recipe, keep_freed_memory};

/// Trains a model, or resumes an interrupted run in the same folder.
///
/// Writes to OUT the weights (model.safetensors, and best.safetensors with validation), the checkpoint
/// (checkpoint.safetensors), the training curve (curve.csv, curve.png, TensorBoard events) and the effective
/// configuration (config.toml). Ctrl-C saves a checkpoint and stops.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Folder for weights, checkpoint and training curve
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    processes: Processes,
}

/// Trains until the last step or a signal.
pub fn run(args: &Args) -> Result<()> {
    keep_freed_memory();
    let config = args.recipe.open()?;
    args.processes.run(
        || shared_settings(&config),
        |ranks| train::run(&config, &args.out, &Interrupt::on_signals()?, ranks).map(drop),
    )
}
