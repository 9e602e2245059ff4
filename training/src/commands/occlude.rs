use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::occlusion::{Case, Cover, Finding, WITHIN, measure};
use fastganseg_training::report::write_rows;
use gstfastganseg::tracker::ObjectStats;

use super::model::Model;
use super::{Data, frame_bar};

/// Covers the picture for a while in the midst of every sequence, and tells what the tracker makes of it.
///
/// Region similarity after the cover is compared with that of the same frames without one. An object counts as found
/// in the first frame in which it is at most 0.1 less. Sequences may have an annotation of the first frame alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    #[command(flatten)]
    model: Model,

    /// Covered frames, one run for each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 5, 15, 60])]
    length: Vec<usize>,

    /// What covers the picture [default: all]
    #[arg(long, value_enum, value_name = "COVER,...", value_delimiter = ',')]
    cover: Vec<Cover>,

    /// Write there what the tracker found in every frame, beside the true region similarity, CSV
    #[arg(long, value_name = "FILE")]
    findings: Option<PathBuf>,
}

/// Prints a line a case, and the shares.
pub fn run(args: &Args) -> Result<()> {
    let dataset = args.data.open()?;
    let mut tracker = args.model.tracker()?;
    let bar = frame_bar();
    let mut findings = Vec::new();
    let covers = if args.cover.is_empty() { Cover::ALL.as_slice() } else { &args.cover };
    let cases = measure(&mut tracker, &dataset, covers, &args.length, &bar, &mut findings);
    bar.finish_and_clear();
    let cases = cases?;
    if let Some(path) = &args.findings {
        write_rows(path, spreadsheet(&findings))?;
    }
    println!(
        "{:24} {:12} {:>6} {:>6} {:>13} {:>6} {:>8} {:>8}",
        "sequence", "cover", "frames", "lost", "hallucinated", "found", "second", "deficit"
    );
    for case in &cases {
        let second = case.after.get(WITHIN - 1).map_or(0.0, |(with, without)| without - with);
        println!(
            "{:24} {:12} {:6} {:>6} {:12.0}% {:>6} {:8.3} {:8.3}",
            case.sequence,
            case.cover.name(),
            case.length,
            frames(case.lost_after),
            100.0 * case.hallucinated,
            frames(case.found_after()),
            second,
            case.deficit(),
        );
    }
    for &cover in covers {
        summary(cover.name(), cases.iter().filter(|case| case.cover == cover));
    }
    for &length in &args.length {
        summary(&format!("{length} frames"), cases.iter().filter(|case| case.length == length));
    }
    summary("all", cases.iter());
    Ok(())
}

/// For the CSV file, the header first.
fn spreadsheet(findings: &[Finding]) -> Vec<[String; 7]> {
    let header = ["sequence", "cover", "covered", "area", "certainty", "likeness", "similarity"];
    let mut rows = vec![header.map(str::to_owned)];
    for Finding { sequence, cover, covered, evidence, similarity } in findings {
        let ObjectStats { area, certainty, likeness, .. } = evidence;
        let [certainty, likeness, similarity] =
            [*certainty, *likeness, *similarity].map(|value| format!("{value:.4}"));
        let (cover, covered) = (cover.name().to_owned(), covered.to_string());
        rows.push([sequence.clone(), cover, covered, format!("{area:.5}"), certainty, likeness, similarity]);
    }
    rows
}

fn frames(count: Option<usize>) -> String {
    count.map_or("never".into(), |count| count.to_string())
}

fn summary<'a>(name: &str, cases: impl Iterator<Item = &'a Case>) {
    let cases: Vec<&Case> = cases.collect();
    let mean = |of: &dyn Fn(&Case) -> f64| {
        cases.iter().map(|case| of(case)).sum::<f64>() / cases.len().max(1) as f64
    };
    println!(
        "{name}: {} cases, frames with a false mask {:.1} %, found within {WITHIN} frames {:.1} %, ever {:.1} %, \
         region similarity less by {:.3} after that",
        cases.len(),
        100.0 * mean(&|case| case.hallucinated),
        100.0 * mean(&|case| f64::from(case.found_after().is_some_and(|frames| frames <= WITHIN))),
        100.0 * mean(&|case| f64::from(case.found_after().is_some())),
        mean(&Case::deficit),
    );
}
