// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;
use std::time::Instant;

use fastganseg_training::Result;
use fastganseg_training::distributed::Ranks;
use fastganseg_training::report::{Speed, check_output, table, write_csv};
use fastganseg_training::score::score_folder;

use super::{Data, Processes, arguments, frame_bar, print};

/// Scores existing masks like the official DAVIS-2017 tool.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    /// Folder with SEQUENCE/FRAME.png: indexed PNG, or black and white for a single object
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,

    /// Also write the scores of every object and sequence and the global scores, CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    #[command(flatten)]
    processes: Processes,
}

/// Scores the masks and prints the table.
pub fn run(args: &Args) -> Result<()> {
    args.processes.run(arguments, |ranks| score(args, ranks))
}

fn score(args: &Args, ranks: &Ranks) -> Result<()> {
    let dataset = args.data.open(ranks)?;
    if let Some(path) = args.csv.as_ref().filter(|_| ranks.is_first()) {
        check_output(path)?;
    }
    let begin = Instant::now();
    let bar = frame_bar(ranks);
    let scores = score_folder(&dataset, &args.masks, &bar, ranks);
    bar.finish_and_clear();
    let scores = scores?;
    if !ranks.is_first() {
        return Ok(());
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{} objects scored in {seconds:.1} s", scores.objects());
    if let Some(path) = &args.csv {
        write_csv(path, &scores, &Speed::default())?;
        eprintln!("scores: {}", path.display());
    }
    print(&table(&scores, &Speed::default()))
}
