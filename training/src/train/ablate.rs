// SPDX-License-Identifier: MPL-2.0

//! Ablation of the critics, as in Table 1 of the paper: one configuration trained without critics, with each
//! critic and with both, all with the same seed and the same number of regressor steps.

use std::fmt::Write;
use std::path::Path;

use image::RgbImage;
use plotters::prelude::{IntoFont, Text};

use super::checkpoint::CHECKPOINT;
use super::config::TrainConfig;
use super::interrupt::Interrupt;
use super::record::CURVE;
use super::record::curve::Curve;
use super::record::plot::{Chart, draw_chart};
use super::session::run;
use crate::distributed::Ranks;
use crate::report::canvas::{FONT, INK, paint};
use crate::{Error, Result, report};

/// J&F of the paper's full model on the validation set of DAVIS 2016, per cent. The figures of the paper's other
/// rows are not available.
const PAPER: f64 = 81.9;
/// The name of the full model's loss.
const FULL: &str = "CE + S + T";
/// Left edges of the table's columns in the right part of the chart, pixels.
const COLUMNS: [i32; 5] = [10, 140, 200, 260, 330];
/// Width and height of the chart, pixels.
const SIZE: (u32, u32) = (1100, 460);

/// The critics of one run.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    folder: &'static str,
    spatial: bool,
    temporal: bool,
}

const VARIANTS: [Variant; 4] = [
    Variant { name: "CE", folder: "ce", spatial: false, temporal: false },
    Variant { name: "CE + S", folder: "ce-s", spatial: true, temporal: false },
    Variant { name: "CE + T", folder: "ce-t", spatial: false, temporal: true },
    Variant { name: FULL, folder: "ce-s-t", spatial: true, temporal: true },
];

impl Variant {
    fn configure(self, config: &TrainConfig) -> TrainConfig {
        let mut config = config.clone();
        if let Some(critics) = &mut config.critics {
            critics.spatial_weight *= f64::from(u8::from(self.spatial));
            critics.temporal_weight *= f64::from(u8::from(self.temporal));
        }
        if !self.spatial && !self.temporal {
            config.critics = None;
        }
        config
    }
}

/// One run of an ablation.
#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    /// J, F and J&F, 0 to 1.
    scores: [f64; 3],
    /// J&F by step, per cent.
    curve: Vec<(f64, f64)>,
}

#[derive(Clone, Debug)]
struct Ablation {
    steps: u64,
    seed: u64,
    rows: Vec<Row>,
}

/// Trains all four variants in subfolders of `out` and writes `ablation.csv` and `ablation.png` there. A variant
/// with a checkpoint is resumed. Returns the table of scores; `None` if `interrupt` stopped a run, and on ranks above 0.
///
/// # Errors
/// [`Error::Core`] if the configuration lacks one of the critics or `[validation]`, gives its length in epochs, or
/// has runs that end without a validation; [`Error::Checkpoint`] if a run has already trained longer;
/// [`Error::Curve`] if a finished run has no scores; the errors of [`run`].
pub fn ablate(
    config: &TrainConfig,
    out: &Path,
    interrupt: &Interrupt,
    ranks: &Ranks,
) -> Result<Option<String>> {
    let refuse = |reason: &str| Err(Error::Core(gstfastganseg::Error::Config(reason.into())));
    let Some(steps) = config.steps else {
        return refuse(
            "the runs of an ablation must have the same number of regressor steps: set steps, not epochs",
        );
    };
    if config.critics.as_ref().is_none_or(|critics| critics.spatial_weight * critics.temporal_weight == 0.0) {
        return refuse("an ablation needs a section [critics] with both weights above 0");
    }
    let Some(validation) = &config.validation else {
        return refuse("an ablation needs a section [validation] to score its runs");
    };
    let end = config.stop_after.map_or(steps, |stop| stop.min(steps));
    if !validation.is_due(end, steps) {
        return refuse(&format!(
            "the runs of an ablation must end with a validation, and there is none at stop_after = {end}: set \
             stop_after to a multiple of validation.every = {}, or remove it",
            validation.every
        ));
    }
    let mut rows = Vec::new();
    for variant in VARIANTS {
        if ranks.is_first() {
            eprintln!("{}:", variant.name);
        }
        let folder = out.join(variant.folder);
        let outcome = run(&variant.configure(config), &folder, interrupt, ranks)?;
        if !outcome.complete {
            return Ok(None);
        }
        if outcome.done > end {
            let reason = format!(
                "it is at step {}, but the runs of this ablation end at step {end}: raise or remove stop_after, or set \
                 another folder with --out",
                outcome.done
            );
            return Err(Error::Checkpoint(folder.join(CHECKPOINT), reason));
        }
        if !ranks.is_first() {
            continue;
        }
        rows.push(row(variant.name, &folder.join(CURVE), end)?);
    }
    if !ranks.is_first() {
        return Ok(None);
    }
    let ablation = Ablation { steps: end, seed: config.seed, rows };
    let path = out.join("ablation.csv");
    report::write_rows(&path, ablation.rows())?;
    report::save_png(&ablation.draw()?, &out.join("ablation.png"))?;
    Ok(Some(ablation.table()))
}

impl Ablation {
    /// The table, header first: the scores in per cent and the paper's J&F.
    fn cells(&self) -> Vec<[String; 5]> {
        let mut cells = vec![["loss", "J", "F", "J&F", "paper's J&F"].map(str::to_owned)];
        for row in &self.rows {
            let [region, contour, both] = row.scores.map(|score| format!("{:.1}", 100.0 * score));
            let paper = if row.name == FULL { format!("{PAPER:.1}") } else { "-".to_owned() };
            cells.push([row.name.to_owned(), region, contour, both, paper]);
        }
        cells
    }

    /// Formats the table for a terminal.
    fn table(&self) -> String {
        let mut text = String::new();
        for [name, region, contour, both, paper] in self.cells() {
            let _ = writeln!(text, "{name:<12}{region:>7}{contour:>7}{both:>7}{paper:>13}");
        }
        let _ = writeln!(
            text,
            "{} regressor steps each, seed {}. The paper's figure is for its full model on DAVIS-2016 val.",
            self.steps, self.seed
        );
        text
    }

    /// The rows of the CSV file, header first.
    fn rows(&self) -> Vec<[String; 6]> {
        let mut rows = vec![["loss", "steps", "seed", "J", "F", "J&F"].map(str::to_owned)];
        for Row { name, scores, .. } in &self.rows {
            let [region, contour, both] = scores.map(|score| format!("{score:.5}"));
            let (steps, seed) = (self.steps.to_string(), self.seed.to_string());
            rows.push([(*name).to_owned(), steps, seed, region, contour, both]);
        }
        rows
    }

    /// Draws J&F over the steps, and the table.
    fn draw(&self) -> Result<RgbImage> {
        let series = self.rows.iter().map(|row| (row.name.to_owned(), row.curve.clone())).collect();
        let chart = Chart { group: "J&F, per cent".into(), series };
        paint(SIZE.0, SIZE.1, |area| {
            let (left, right) = area.split_horizontally(640);
            draw_chart(&left, &chart)?;
            for (line, cells) in self.cells().iter().enumerate() {
                for (column, cell) in cells.iter().enumerate() {
                    let at = (COLUMNS[column], 60 + 30 * line as i32);
                    right.draw(&Text::new(cell.clone(), at, (FONT, 18).into_font().color(&INK)))?;
                }
            }
            Ok(())
        })
    }
}

/// Reads the scores of step `end`, and J&F by step, from the curve of a run.
fn row(name: &'static str, path: &Path, end: u64) -> Result<Row> {
    let curve = Curve::open(path, u64::MAX)?;
    let at_end = |name: &str| curve.values(name).find(|(step, _)| *step == end).map(|(_, score)| score);
    let [Some(region), Some(contour), Some(both)] = ["score/J", "score/F", "score/J&F"].map(at_end) else {
        let reason = format!("the finished run has no scores at step {end}");
        return Err(Error::Curve(path.to_owned(), reason));
    };
    let percent = |(step, score): (u64, f64)| (step as f64, 100.0 * score);
    Ok(Row { name, scores: [region, contour, both], curve: curve.values("score/J&F").map(percent).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_last_step_of_the_ablation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CURVE);
        std::fs::write(&path, "step,score/J,score/F,score/J&F\n2,0.2,0.4,0.3\n4,0.6,0.8,0.7\n").unwrap();
        assert_eq!(row("CE", &path, 2).unwrap().scores, [0.2, 0.4, 0.3]);
        let error = row("CE", &path, 3).unwrap_err().to_string();
        assert!(error.contains("curve.csv") && error.contains("no scores at step 3"), "{error}");
    }
}
