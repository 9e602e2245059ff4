// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::prompt::{self, PromptConfig};
use fastganseg_training::train::Interrupt;

use super::{Recipe, keep_freed_memory};

/// Trains the network that turns boxes and clicks into masks, or resumes an interrupted run in the same folder.
///
/// Its image encoder stays as it is. Writes to OUT the weights (model.safetensors), the checkpoint, the training curve (CSV,
/// PNG, TensorBoard events) and the effective configuration. Ctrl-C saves a checkpoint and stops.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Folder for weights, checkpoint and training curve
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Trains until the last step or a signal.
pub fn run(args: &Args) -> Result<()> {
    keep_freed_memory();
    let config = PromptConfig::open(&args.recipe.config, &args.recipe.set)?;
    prompt::run(&config, &args.out, &Interrupt::on_signals()?)
}
