// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::prompt::{self, PromptConfig};
use fastganseg_training::train::Interrupt;
use fastganseg_training::{Result, allocator};

/// Trains the network that turns boxes and clicks into masks, or resumes an interrupted run in the same folder.
///
/// Its image encoder stays as it is. Writes to OUT the weights (model.safetensors), the checkpoint, the training curve (CSV,
/// PNG, TensorBoard events) and the effective configuration. Ctrl-C saves a checkpoint and stops.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration of the run, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Override a value of the configuration, such as optimiser.learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Folder for weights, checkpoint and training curve
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Trains until the last step or a signal.
pub fn run(args: &Args) -> Result<()> {
    allocator::keep_freed_memory();
    let config = PromptConfig::open(&args.config, &args.set)?;
    prompt::run(&config, &args.out, &Interrupt::on_signals()?)
}
