use std::path::PathBuf;

use clap::ValueEnum;
use fastganseg_training::info::{Block, Info};
use fastganseg_training::{Error, Result};
use gstfastganseg::model::Config;
use gstfastganseg::model::weights::Weights;

/// Tells what is in a weights file: configuration, metadata, parameters and multiply-adds.
///
/// Multiply-adds are counted in the layers as they run on one object. DRAWN is a frame as the paper draws the
/// network, FRAME one in use (what is known of the reference is not computed again, memory is full), REFERENCE
/// what a new reference takes.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("network").required(true))]
pub struct Args {
    /// The weights, .safetensors
    #[arg(value_name = "FILE", group = "network")]
    file: Option<PathBuf>,

    /// The built-in lite model in the place of a file
    #[arg(long, group = "network")]
    built_in: bool,

    /// A network without weights in the place of a file: the paper's, or the built-in one's
    #[arg(long, value_enum, group = "network")]
    architecture: Option<Architecture>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Architecture {
    /// The paper's
    Resnet50,
    /// The built-in model's
    Lite,
    /// The built-in model's with a ResNet-50 for features
    Large,
}

/// Reads, runs the network once, prints.
pub fn run(args: &Args) -> Result<()> {
    let info = match (&args.file, args.architecture) {
        (Some(path), _) => Info::of(&Weights::open(path)?)?,
        (None, Some(Architecture::Resnet50)) => Info::of_config(&Config::resnet50())?,
        (None, Some(Architecture::Large)) => Info::of_config(&Config::large())?,
        (None, Some(Architecture::Lite)) => Info::of_config(&Config::lite())?,
        (None, None) => Info::of(&Weights::built_in()?)?,
    };
    if args.json {
        let failed = |error: serde_json::Error| Error::write("stdout".as_ref(), error.into());
        println!("{}", serde_json::to_string_pretty(&info).map_err(failed)?);
    } else {
        print!("{}", text(&info));
    }
    Ok(())
}

fn text(info: &Info) -> String {
    let config = &info.config;
    let [architecture, matching, temporal_skip] = info.names();
    let mut lines = vec![
        format!("architecture   {architecture}"),
        format!("matching       {matching}"),
        format!("temporal skip  {temporal_skip}"),
        format!("network size   {}x{} (height x width)", config.network_size[0], config.network_size[1]),
        format!("width          {}", config.width),
        format!(
            "memory         {} frames, every {}, {} tokens each",
            config.memory.frames, config.memory.every, config.memory.tokens
        ),
        String::new(),
    ];
    if !info.metadata.is_empty() {
        lines.extend(info.metadata.iter().map(|(key, value)| format!("{key}: {value}")));
        lines.push(String::new());
    }
    lines.push(format!(
        "{:12} {:>12} {:>12} {:>12} {:>12}",
        "GMAC", "parameters", "drawn", "frame", "reference"
    ));
    let row = |block: &Block| {
        let giga = |macs: f64| format!("{:.3}", macs / 1e9);
        format!(
            "{:12} {:>12} {:>12} {:>12} {:>12}",
            block.name,
            block.parameters,
            giga(block.drawn as f64),
            giga(block.frame),
            giga(block.reference as f64)
        )
    };
    lines.extend(info.blocks.iter().map(row));
    lines.push(row(&info.total));
    lines.join("\n") + "\n"
}
