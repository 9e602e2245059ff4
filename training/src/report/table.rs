// SPDX-License-Identifier: MPL-2.0

use std::fmt::Write;

use super::{MEASURES, Speed};
use crate::score::{Scores, Summary};

/// Formats the scores in percent as a table: a row per sequence (mean over its objects) and the global row (mean
/// over all objects), with frames per second if known.
pub fn table(scores: &Scores, speed: &Speed) -> String {
    let names = ["sequence", "objects", "frames"].into_iter().chain(MEASURES.map(|(name, _)| name));
    let mut rows = vec![names.chain(speed.total.map(|_| "fps")).map(str::to_string).collect()];
    let mut row = |name: &str, objects: usize, frames: usize, summary: &Summary, fps: Option<f64>| {
        let mut cells = vec![name.to_string(), objects.to_string(), frames.to_string()];
        // Adding zero turns a −0 into 0.
        let percent = |value: f64| format!("{:.1}", (1000.0 * value).round() / 10.0 + 0.0);
        cells.extend(MEASURES.map(|(_, measure)| percent(measure(summary))));
        if speed.total.is_some() {
            cells.push(fps.map_or_else(String::new, |fps| format!("{fps:.1}")));
        }
        rows.push(cells);
    };
    for sequence in &scores.sequences {
        let (objects, frames) = (sequence.objects.len(), sequence.frames.len());
        let fps = speed.sequences.get(&sequence.name).copied();
        row(&sequence.name, objects, frames, &sequence.summary(), fps);
    }
    let frames = scores.sequences.iter().map(|sequence| sequence.frames.len()).sum();
    row("global", scores.objects(), frames, &scores.summary(), speed.total);
    lay_out(&rows)
}

/// Aligns names left and numbers right, with a rule below the header and above the last row.
fn lay_out(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        if i == 1 || i + 1 == rows.len() {
            text += &rule;
            text.push('\n');
        }
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            // Writing to a string cannot fail.
            let _ = write!(line, "  {cell:>width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests_support::two_sequences;

    #[test]
    fn columns_are_aligned() {
        let text = table(&two_sequences(), &Speed::default());
        let expected = "\
sequence     objects  frames  J&F-Mean  J-Mean  J-Recall  J-Decay  F-Mean  F-Recall  F-Decay
--------------------------------------------------------------------------------------------
bear               1       2      87.5   100.0     100.0      0.0    75.0      50.0     50.0
dog-agility        2       1      37.5    50.0      50.0      0.0    25.0       0.0      0.0
--------------------------------------------------------------------------------------------
global             3       3      54.2    66.7      66.7      0.0    41.7      16.7     16.7
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn speed_is_shown_if_known() {
        let sequences = [("bear".to_string(), 31.25)].into();
        let text = table(&two_sequences(), &Speed { sequences, total: Some(30.0) });
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with(" fps"));
        assert!(lines[2].ends_with(" 31.2"), "{text}");
        assert!(lines[5].ends_with(" 30.0"), "{text}");
    }
}
