use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::train::{self, TrainConfig};

/// Trains a model, and goes on where an interrupted run in the same folder stopped.
///
/// Leaves in OUT the weights (model.safetensors), the state to go on from (checkpoint.safetensors),
/// the curve (curve.csv) and the configuration as it was used (config.toml).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Folder for weights, checkpoint and curve
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Changes a value of the configuration, such as optimiser.learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Trains to the end.
pub fn run(args: &Args) -> Result<()> {
    train::run(&TrainConfig::open(&args.config, &args.set)?, &args.out)
}
