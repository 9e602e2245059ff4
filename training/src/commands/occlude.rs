use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::occlusion::{Case, Cover, Finding, WITHIN, measure};
use fastganseg_training::report::write_rows;
use gstfastganseg::tracker::Evidence;

use super::model::Model;
use super::{Data, frame_bar};

/// Covers the picture for a while in the midst of every sequence, and tells what the tracker makes of it.
///
/// Each sequence is covered once with grey, once with another sequence, once by blur. A case counts as
/// recovered if, within 10 frames of the cover's end, region similarity is within 0.1 of that before it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    #[command(flatten)]
    model: Model,

    /// Covered frames
    #[arg(long, value_name = "N", default_value_t = 30)]
    length: usize,

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
    let cases = measure(&mut tracker, &dataset, args.length, &bar, &mut findings);
    bar.finish_and_clear();
    let cases = cases?;
    if let Some(path) = &args.findings {
        write_rows(path, spreadsheet(&findings))?;
    }
    println!(
        "{:24} {:12} {:>7} {:>6} {:>13} {:>6} {:>10}",
        "sequence", "cover", "before", "lost", "hallucinated", "after", "recovered"
    );
    for case in &cases {
        println!(
            "{:24} {:12} {:7.2} {:>6} {:12.0}% {:6.2} {:>10}",
            case.sequence,
            case.cover.name(),
            case.before,
            frames(case.lost_after),
            100.0 * case.hallucinated,
            case.after,
            frames(case.recovered_after),
        );
    }
    for cover in Cover::ALL {
        summary(cover.name(), cases.iter().filter(|case| case.cover == cover));
    }
    summary("all", cases.iter());
    Ok(())
}

/// For the CSV file, the header first.
fn spreadsheet(findings: &[Finding]) -> Vec<[String; 7]> {
    let header = ["sequence", "cover", "covered", "area", "certainty", "likeness", "similarity"];
    let mut rows = vec![header.map(str::to_owned)];
    for Finding { sequence, cover, covered, evidence, similarity } in findings {
        let Evidence { area, certainty, likeness, .. } = evidence;
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
    let share = |of: &dyn Fn(&Case) -> f64| {
        100.0 * cases.iter().map(|case| of(case)).sum::<f64>() / cases.len().max(1) as f64
    };
    println!(
        "{name}: {} cases, noticed {:.0} %, frames with a false mask {:.1} %, recovered in {WITHIN} frames {:.0} %",
        cases.len(),
        share(&|case| f64::from(case.lost_after.is_some())),
        share(&|case| case.hallucinated),
        share(&|case| f64::from(case.recovered_after.is_some())),
    );
}
