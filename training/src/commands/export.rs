use std::path::PathBuf;

use fastganseg_training::card::card;
use fastganseg_training::info::Info;
use fastganseg_training::train::export;
use fastganseg_training::{Error, Result};
use gstfastganseg::model::weights::Weights;

use super::Recipe;
use super::model::size;

/// Writes final weights: half precision, with metadata, and a model card if wanted.
///
/// The configuration's `[metadata]` goes into the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Weights of a run, .safetensors
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    #[command(flatten)]
    recipe: Recipe,

    /// The final weights, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Also write a model card: configuration, data, licence, scores and cost of these weights, Markdown
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// Size at which frames enter the network in use [default: that of training]
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size)]
    network_size: Option<[i64; 2]>,
}

/// Reads, changes, writes.
pub fn run(args: &Args) -> Result<()> {
    let mut weights = Weights::open(&args.model)?;
    if let Some(size) = args.network_size {
        weights.reconfigure(|config| config.network_size = size)?;
    }
    let config = args.recipe.open()?;
    export(&weights, &config.metadata, &args.out)?;
    eprintln!("weights: {}", args.out.display());
    if let Some(path) = &args.card {
        let written = Weights::open(&args.out)?;
        let bytes = std::fs::metadata(&args.out).map_err(|source| Error::write(&args.out, source))?.len();
        let name = args.out.file_name().unwrap_or(args.out.as_os_str()).to_string_lossy();
        let text = card(&name, bytes, &Info::of(&written)?, &config);
        std::fs::write(path, text).map_err(|source| Error::write(path, source))?;
        eprintln!("model card: {}", path.display());
    }
    Ok(())
}
