// SPDX-License-Identifier: MPL-2.0

//! Checks and benchmarks a GPU: compares results with the CPU in float32, and times network, tracker and pipeline,
//! plainly and with CUDA graphs. `scripts/bench-gpu.sh` runs it, followed by PyTorch; see `--help`.
//!
//! Each result is printed and written to `results.csv` and `results.json` at once, so that an interrupted run keeps
//! its results.

mod args;
mod clips;
mod measure;
mod results;
mod weights;

use std::error::Error;

use args::{Args, Stage, USAGE};
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
    let names = weights::MODELS.into_iter();
    let names = names.filter(|name| args.model.as_deref().is_none_or(|model| model == *name));
    let models = names.map(|name| Ok((name, weights::file(&args, name)?)));
    let models = models.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let each = || models.iter().map(|(name, path)| (*name, path.as_path()));

    if args.stage != Stage::Table {
        for (name, path) in each() {
            measure::check(&args, &mut results, name, path)?;
        }
    }
    if args.stage == Stage::Check {
        return Ok(());
    }
    for (name, path) in each() {
        weights::golden(&args, name, path)?;
    }
    // The most important results first.
    for (name, path) in each() {
        measure::network(&args, &mut results, name, path)?;
    }
    for (name, path) in each() {
        measure::pipeline(&args, &mut results, name, path)?;
    }
    let mut right = true;
    for (name, path) in each() {
        right &= measure::correctness(&args, &mut results, name, path)?;
    }
    for (name, path) in each() {
        measure::tracker(&args, &mut results, name, path)?;
    }
    for (name, path) in each() {
        right &= measure::drift(&args, &mut results, name, path)?;
    }
    measure::state_changes(&args, &mut results)?;
    if !right {
        return Err("results differ from those of the CPU: see the lines with `wrong`".into());
    }
    Ok(())
}
