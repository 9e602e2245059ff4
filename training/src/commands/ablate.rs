use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::train::{Interrupt, TrainConfig, ablate};

/// Trains one configuration without critics, with each and with both, and compares their scores.
///
/// Every run has the same seed and as many regressor steps, in a folder of OUT; finished ones are not run again.
/// Leaves ablation.csv and ablation.png in OUT.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's configuration, TOML, with [critics] and [validation]
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Folder for the runs and their comparison
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Changes a value of the configuration, such as steps=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Trains all and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let config = TrainConfig::open(&args.config, &args.set)?;
    if let Some(ablation) = ablate(&config, &args.out, &Interrupt::on_signals()?)? {
        print!("{}", ablation.table());
    }
    Ok(())
}
