use std::path::PathBuf;

use fastganseg_training::train::{Interrupt, ablate};
use fastganseg_training::{Result, allocator};

use super::Recipe;

/// Trains one configuration without critics, with each and with both, and compares their scores.
///
/// The configuration needs `[critics]` and `[validation]`. Every run has the same seed and as many regressor steps, in
/// a folder of OUT; finished ones are not run again. Leaves ablation.csv and ablation.png in OUT.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Folder for the runs and their comparison
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Trains all and prints the table.
pub fn run(args: &Args) -> Result<()> {
    allocator::keep_freed_memory();
    let config = args.recipe.open()?;
    if let Some(ablation) = ablate(&config, &args.out, &Interrupt::on_signals()?)? {
        print!("{}", ablation.table());
    }
    Ok(())
}
