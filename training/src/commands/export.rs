// SPDX-License-Identifier: MPL-2.0

use std::path::{Path, PathBuf};

use fastganseg_training::card::{INT8, card};
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

    /// Default input size of the network in the element; at another size, the scores of the training are left out
    /// [default: that of training]
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size)]
    network_size: Option<[i64; 2]>,
}

/// Converts the weights, and writes them and the model card.
pub fn run(args: &Args) -> Result<()> {
    check_paths(args)?;
    let mut weights = Weights::open(&args.model)?;
    let trained_size = weights.config().network_size;
    if let Some(size) = args.network_size {
        weights.reconfigure(|config| *config = config.at_size(size))?;
    }
    let config = args.recipe.open()?;
    check_described(&args.model, &weights, &config)?;
    let (kind, format) = if args.int8 { (Kind::Int8, INT8) } else { (Kind::Half, "half precision") };
    let scored = weights.config().network_size == trained_size;
    export(&weights, &config.metadata, scored, kind, &args.out)?;
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

/// Checks that no output replaces an input or another output.
fn check_paths(args: &Args) -> Result<()> {
    let mut others = vec![("--model", &args.model), ("--config", &args.recipe.config)];
    for (option, path) in [("--out", Some(&args.out)), ("--card", args.card.as_ref())] {
        let Some(path) = path else { continue };
        if let Some((other, _)) = others.iter().find(|(_, other)| resolved(other) == resolved(path)) {
            let reason = format!(
                "{option} {} is the file of {other}, which it would replace: give another file with {option}",
                path.display()
            );
            return Err(gstfastganseg::Error::Config(reason).into());
        }
        others.push((option, path));
    }
    Ok(())
}

/// Resolves links and relative parts of the path of a file, which may not exist yet.
fn resolved(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default();
    let new = || folder.canonicalize().map_or_else(|_| path.to_owned(), |folder| folder.join(name));
    path.canonicalize().unwrap_or_else(|_| new())
}
