// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::card::card;
use fastganseg_training::info::Info;
use fastganseg_training::train::{check_described, export};
use fastganseg_training::{Error, Result};
use gstfastganseg::torch::model::weights::Weights;
use tch::Kind;

use super::Recipe;
use super::model::size;

/// Writes the final weights in half precision or int8, with the `[metadata]` of the configuration, and optionally a model card.
///
/// Give the configuration of the run, config.toml in its folder: one with another network or other data is refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Weights of a training run, .safetensors
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    #[command(flatten)]
    recipe: Recipe,

    /// Output file of the final weights, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Write weights in int8, with a scale for each output channel
    #[arg(long)]
    int8: bool,

    /// Also write a model card (configuration, data, licence, scores, cost), Markdown
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,

    /// Default input size of the network in the element [default: that of training]
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size)]
    network_size: Option<[i64; 2]>,
}

/// Converts the weights, and writes them and the model card.
pub fn run(args: &Args) -> Result<()> {
    let mut weights = Weights::open(&args.model)?;
    if let Some(size) = args.network_size {
        weights.reconfigure(|config| *config = config.at_size(size))?;
    }
    let config = args.recipe.open()?;
    check_described(&args.model, &weights, &config)?;
    let (kind, format) = if args.int8 { (Kind::Int8, "int8") } else { (Kind::Half, "half precision") };
    export(&weights, &config.metadata, kind, &args.out)?;
    eprintln!("weights: {}", args.out.display());
    if let Some(path) = &args.card {
        let written = Weights::open(&args.out)?;
        let bytes = std::fs::metadata(&args.out).map_err(|source| Error::write(&args.out, source))?.len();
        let name = args.out.file_name().unwrap_or(args.out.as_os_str()).to_string_lossy();
        let text = card(&name, (bytes, format), &Info::of(&written)?, &config);
        std::fs::write(path, text).map_err(|source| Error::write(path, source))?;
        eprintln!("model card: {}", path.display());
    }
    Ok(())
}
