use std::path::PathBuf;

use fastganseg_training::train::{self, Interrupt};
use fastganseg_training::{Result, allocator};

use super::Recipe;

/// Trains a model, and goes on where an interrupted run in the same folder stopped.
///
/// Leaves in OUT the weights (model.safetensors, and best.safetensors where it validates), the state to go on from
/// (checkpoint.safetensors), the curve (curve.csv, curve.png, TensorBoard's events) and the configuration as it was
/// used (config.toml). Ctrl-C saves and stops.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Folder for weights, checkpoint and curve
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Trains to the end, or until a signal.
pub fn run(args: &Args) -> Result<()> {
    allocator::keep_freed_memory();
    let config = args.recipe.open()?;
    train::run(&config, &args.out, &Interrupt::on_signals()?).map(drop)
}
