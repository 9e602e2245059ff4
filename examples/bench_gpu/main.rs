// SPDX-License-Identifier: MPL-2.0

//! Checks and benchmarks a GPU: compares results with the CPU in float32, and times network, tracker and pipeline,
//! eagerly and with CUDA graphs. `scripts/bench-gpu.sh` runs it, followed by PyTorch; see `--help`.
//!
//! Each result is printed and written to `results.csv` and `results.json` at once, so that an interrupted run keeps
//! its results.

mod args;
mod clips;
mod measure;
mod results;
mod weights;

use std::error::Error;

use args::{Args, USAGE};
use results::Results;

fn main() -> Result<(), Box<dyn Error>> {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{USAGE}");
            return Ok(());
        }
        Err(reason) => {
            eprintln!("bench_gpu: error: {reason}\n{USAGE}");
            std::process::exit(2);
        }
    };
    gstreamer::init()?;
    gstfastganseg::element::register_static()?;
    std::fs::create_dir_all(&args.out)?;
    let mut results = Results::create(&args.out)?;
    let resnet50 = weights::resnet50(&args)?;
    let models = [("lite", None), ("resnet50", Some(resnet50))];
    let chosen = models.iter().filter(|(name, _)| args.model.as_deref().is_none_or(|model| model == *name));
    let chosen: Vec<_> = chosen.collect();

    for (name, path) in &chosen {
        weights::golden(&args, name, path.as_deref())?;
    }
    // The most important results first.
    for (name, path) in &chosen {
        measure::network(&args, &mut results, name, path.as_deref())?;
    }
    for (name, path) in &chosen {
        measure::pipeline(&args, &mut results, name, path.as_deref())?;
    }
    let mut right = true;
    for (name, path) in &chosen {
        right &= measure::correctness(&args, &mut results, name, path.as_deref())?;
    }
    for (name, path) in &chosen {
        measure::tracker(&args, &mut results, name, path.as_deref())?;
    }
    for (name, path) in &chosen {
        right &= measure::drift(&args, &mut results, name, path.as_deref())?;
    }
    if !right {
        return Err("results differ from those of the CPU: see the lines with `wrong`".into());
    }
    Ok(())
}
