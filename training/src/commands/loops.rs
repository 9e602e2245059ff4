use std::path::{Path, PathBuf};

use fastganseg_training::looping::{COLLAPSED, Loop, play};
use fastganseg_training::{Error, Result};

use super::model::Model;
use super::{Data, frame_bar};

/// Plays every sequence forwards and backwards again and again, and tells what is left of the mask at each
/// return to the first frame, where the truth is the reference itself.
///
/// A mask counts as collapsed from the return on from which region similarity J stays below 0.5 to the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    #[command(flatten)]
    model: Model,

    /// Frames of each sequence, up to which it is played in whole tours
    #[arg(long, value_name = "N", default_value_t = 1000)]
    length: usize,

    /// Also write every return, CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Prints a line a sequence.
pub fn run(args: &Args) -> Result<()> {
    let dataset = args.data.open()?;
    let mut tracker = args.model.tracker()?;
    let bar = frame_bar();
    let loops = play(&mut tracker, &dataset, args.length, &bar);
    bar.finish_and_clear();
    let loops = loops?;
    if let Some(path) = &args.csv {
        write_csv(path, &loops)?;
    }
    println!(
        "{:24} {:>6} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6} {:>10}",
        "sequence", "frames", "played", "returns", "first", "last", "worst", "mean", "collapsed"
    );
    for outcome in &loops {
        let regions = || outcome.returns.iter().map(|back| 100.0 * back.region);
        println!(
            "{:24} {:6} {:7} {:7} {:6.1} {:6.1} {:6.1} {:6.1} {:>10}",
            outcome.sequence,
            outcome.frames,
            outcome.returns.last().map_or(0, |back| back.frame),
            outcome.returns.len(),
            regions().next().unwrap_or(0.0),
            regions().next_back().unwrap_or(0.0),
            regions().fold(f64::INFINITY, f64::min),
            100.0 * outcome.mean(),
            outcome.collapsed().map_or("no".into(), |frame| format!("at {frame}")),
        );
    }
    let collapsed = loops.iter().filter(|outcome| outcome.collapsed().is_some()).count();
    let mean = loops.iter().map(Loop::mean).sum::<f64>() / loops.len().max(1) as f64;
    println!(
        "mean J at returns {:.1}; {collapsed} of {} collapsed (J below {COLLAPSED} to the end)",
        100.0 * mean,
        loops.len()
    );
    Ok(())
}

fn write_csv(path: &Path, loops: &[Loop]) -> Result<()> {
    let failed = |source: csv::Error| Error::write(path, std::io::Error::other(source));
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(["sequence", "frame", "J"]).map_err(failed)?;
    for outcome in loops {
        for back in &outcome.returns {
            let fields = [outcome.sequence.clone(), back.frame.to_string(), back.region.to_string()];
            writer.write_record(fields).map_err(failed)?;
        }
    }
    writer.flush().map_err(|source| Error::write(path, source))
}
