use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::train::{TrainConfig, export};
use gstfastganseg::model::weights::Weights;

use super::model::size;

/// Writes final weights: half precision, with metadata.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Weights of a run, .safetensors
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// The run's configuration, TOML; its `[metadata]` goes into the file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The final weights, .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

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
    let config = TrainConfig::open(&args.config, &[])?;
    export(&weights, &config.metadata, &args.out)?;
    eprintln!("weights: {}", args.out.display());
    Ok(())
}
