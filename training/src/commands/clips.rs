use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::clips::preview;

use super::Recipe;

/// Draws the clips that a configuration trains on, with their masks, to be looked at.
///
/// Where the truth is not known (void, or beyond a picture's border) they are magenta.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: Recipe,

    /// The picture, PNG
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Training steps to draw
    #[arg(long, value_name = "N", default_value_t = 2)]
    batches: u64,
}

/// Draws and saves.
pub fn run(args: &Args) -> Result<()> {
    let config = args.recipe.open()?;
    preview(&config.data, config.seed, args.batches)?.save(&args.out)?;
    eprintln!("clips: {}", args.out.display());
    Ok(())
}
