// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::distributed::Ranks;
use fastganseg_training::matte::{score_mattes, score_model, sequences};
use fastganseg_training::report::{check_output, write_rows};
use fastganseg_training::score::MatteScore;
use gstfastganseg::matte::MatteSettings;

use super::model::Model;
use super::{Edges, frame_bar, print};

/// Makes mattes of videos whose alpha is known, and prints their errors.
///
/// DIR has SEQUENCE/frame/FRAME.png (or .jpg) and SEQUENCE/alpha/FRAME.png, grey or with an alpha channel, of the same
/// size. The alpha of the first frame is the reference mask and is not scored; every later frame needs alpha. MAD, MSE and
/// band x 1000, dtSSD x 100; Grad and Conn are thousandths of the sum over the pixels of a frame (Rhemann et al. 2009,
/// Erofeev et al. 2015).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with SEQUENCE/frame/*.png and SEQUENCE/alpha/*.png
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Score the existing mattes DIR/SEQUENCE/FRAME.png instead of those of a model
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "Model", "edges"])]
    mattes: Option<PathBuf>,

    /// Also write the mattes, OUT/SEQUENCE/FRAME.png
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Also write the table, CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    #[command(flatten)]
    model: Model,

    /// Enlargement of the network's mask, as in the element
    #[arg(long, value_enum, default_value_t = Edges::Refine)]
    edges: Edges,
}

/// Name, factor and value of a measure.
type Measure = (&'static str, f64, fn(&MatteScore) -> Option<f64>);

const MEASURES: [Measure; 6] = [
    ("MAD", 1e3, |score| Some(score.errors.mad)),
    ("MSE", 1e3, |score| Some(score.errors.mse)),
    ("Grad", 1.0, |score| Some(score.errors.gradient)),
    ("Conn", 1.0, |score| Some(score.errors.connectivity)),
    ("dtSSD", 1e2, |score| Some(score.flicker)),
    ("band", 1e3, |score| score.errors.band),
];

/// Scores every sequence and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let ranks = Ranks::single();
    let sequences = sequences(&args.data)?;
    args.csv.as_deref().map_or(Ok(()), check_output)?;
    let mut tracker = match args.mattes {
        Some(_) => None,
        None => Some(args.model.tracker(false, &ranks)?),
    };
    let settings = MatteSettings { edges: args.edges.into(), ..MatteSettings::default() };
    let bar = frame_bar(&ranks);
    bar.set_length(sequences.iter().map(|sequence| sequence.frames() as u64 - 1).sum());
    let mut rows =
        vec![["sequence".to_owned()].into_iter().chain(MEASURES.map(|(name, ..)| name.into())).collect()];
    let mut scores = Vec::new();
    for sequence in &sequences {
        bar.set_message(sequence.name().to_owned());
        let score = match (&mut tracker, &args.mattes) {
            (Some(tracker), _) => score_model(tracker, &settings, sequence, args.out.as_deref(), &bar)?,
            (None, mattes) => score_mattes(sequence, mattes.as_deref().unwrap_or(&args.data), &bar)?,
        };
        rows.push(row(sequence.name(), &score));
        scores.push(score);
    }
    rows.push(row("all", &MatteScore::mean(scores.iter())));
    bar.finish_and_clear();
    if let Some(path) = &args.csv {
        write_rows(path, &rows)?;
        eprintln!("table: {}", path.display());
    }
    let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let values: String = row[1..].iter().map(|value| format!(" {value:>8}")).collect();
        format!("{:width$}{values}\n", row[0])
    };
    print(&rows.iter().map(line).collect::<String>())
}

fn row(name: &str, score: &MatteScore) -> Vec<String> {
    let values = MEASURES.map(|(_, factor, measure)| {
        measure(score).map_or_else(String::new, |value| format!("{:.3}", factor * value))
    });
    [name.to_owned()].into_iter().chain(values).collect()
}
