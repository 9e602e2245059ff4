// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use clap::ValueEnum;
use fastganseg_training::info::{Block, Info};
use fastganseg_training::{Error, Result};
use gstfastganseg::torch::model::Config;
use gstfastganseg::torch::model::weights::Weights;

/// Prints the configuration, metadata, parameters and multiply-adds of a weights file.
///
/// Multiply-adds are counted in the layers for one object. `drawn` is a frame of the network as drawn in the paper,
/// `frame` a frame in use (cached reference, full memory), `reference` a new reference.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("network").required(true))]
pub struct Args {
    /// Weights: a .safetensors file, or the name of a built-in model, lite or large
    #[arg(value_name = "FILE", group = "network")]
    file: Option<PathBuf>,

    /// Network without weights
    #[arg(long, value_enum, group = "network")]
    architecture: Option<Architecture>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Architecture {
    /// Network of the paper
    Resnet50,
    /// Network of the model lite
    Lite,
    /// Network of the model large, with features of a ResNet-50
    Large,
}

/// Runs the network once and prints the information.
pub fn run(args: &Args) -> Result<()> {
    let info = match (&args.file, args.architecture) {
        (Some(path), _) => Info::of(&Weights::of_model(path)?)?,
        (None, Some(Architecture::Resnet50)) => Info::of_config(&Config::resnet50())?,
        (None, Some(Architecture::Large)) => Info::of_config(&Config::large())?,
        (None, Some(Architecture::Lite) | None) => Info::of_config(&Config::lite())?,
    };
    if args.json {
        let failed = |error: serde_json::Error| Error::write(super::STDOUT.as_ref(), error.into());
        super::print(&format!("{}\n", serde_json::to_string_pretty(&info).map_err(failed)?))
    } else {
        super::print(&text(&info))
    }
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
    let row = |[name, rest @ ..]: [String; 5]| {
        format!("{name:12}") + &rest.map(|value| format!(" {value:>12}")).concat()
    };
    lines.push(row(["GMAC", "parameters", "drawn", "frame", "reference"].map(str::to_owned)));
    let giga = |macs: f64| format!("{:.3}", macs / 1e9);
    for Block { name, parameters, drawn, frame, reference } in info.blocks.iter().chain([&info.total]) {
        let [drawn, frame, reference] = [*drawn as f64, *frame, *reference as f64].map(giga);
        lines.push(row([name.clone(), parameters.to_string(), drawn, frame, reference]));
    }
    lines.join("\n") + "\n"
}
