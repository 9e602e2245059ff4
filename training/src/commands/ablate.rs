// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::train::{Interrupt, ablate, shared_settings};

use super::{Processes, Recipe, keep_freed_memory, print};

/// Trains one configuration without critics, with each critic and with both, and compares the scores.
///
/// The configuration needs `[critics]` and `[validation]`. All runs have the same seed and number of regressor
/// steps, each in a folder of OUT; finished runs are not repeated. Writes OUT/ablation.csv and OUT/ablation.png.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Folder for the runs and their comparison
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    processes: Processes,
}

/// Runs the trainings and prints the table.
pub fn run(args: &Args) -> Result<()> {
    keep_freed_memory();
    let config = args.recipe.open()?;
    args.processes.run(
        || shared_settings(&config),
        |ranks| {
            let table = ablate(&config, &args.out, &Interrupt::on_signals()?, ranks)?;
            table.map_or(Ok(()), |table| print(&table))
        },
    )
}
