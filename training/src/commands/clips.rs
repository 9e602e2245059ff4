// SPDX-License-Identifier: MPL-2.0

use std::io;
use std::path::PathBuf;

use fastganseg_training::clips::preview;
use fastganseg_training::{Error, Result};

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
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    batches: u64,
}

/// Draws the clips and writes the picture.
pub fn run(args: &Args) -> Result<()> {
    if !args.out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Err(Error::write(
            &args.out,
            io::Error::other("the picture is a PNG file: give a name that ends in .png"),
        ));
    }
    let config = args.recipe.open()?;
    preview(&config.data, config.seed, args.batches)?.save(&args.out)?;
    eprintln!("clips: {}", args.out.display());
    Ok(())
}
