// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::clips::preview;

use super::Recipe;

/// Draws the training clips of a configuration with their masks.
///
/// Pixels without ground truth (void, or outside the image) are magenta.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// Output picture, PNG
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Number of training steps to draw
    #[arg(long, value_name = "N", default_value_t = 2)]
    batches: u64,
}

/// Draws the clips and writes the picture.
pub fn run(args: &Args) -> Result<()> {
    let config = args.recipe.open()?;
    preview(&config.data, config.seed, args.batches)?.save(&args.out)?;
    eprintln!("clips: {}", args.out.display());
    Ok(())
}
