// SPDX-License-Identifier: MPL-2.0

//! Reports of an evaluation: a table, a CSV file, and a contact sheet per sequence.

pub(crate) mod canvas;
pub(crate) mod pixels;
mod sheet;
mod spreadsheet;
mod table;

use std::collections::BTreeMap;

pub(crate) use canvas::save_png;
pub use sheet::ContactSheet;
pub use spreadsheet::{check_output, write_csv, write_rows};
pub use table::table;

use crate::score::Summary;

/// Frames per second; empty if no method was run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Speed {
    /// Frames per second of each sequence.
    pub sequences: BTreeMap<String, f64>,
    /// Frames per second over all sequences.
    pub total: Option<f64>,
}

/// Name of a column, and the function that returns its value.
type Measure = (&'static str, fn(&Summary) -> f64);

/// Columns of scores in table and CSV, in the order of the benchmark.
const MEASURES: [Measure; 7] = [
    ("J&F-Mean", Summary::region_and_contour),
    ("J-Mean", |summary| summary.region.mean),
    ("J-Recall", |summary| summary.region.recall),
    ("J-Decay", |summary| summary.region.decay),
    ("F-Mean", |summary| summary.contour.mean),
    ("F-Recall", |summary| summary.contour.recall),
    ("F-Decay", |summary| summary.contour.decay),
];

#[cfg(test)]
mod tests_support {
    use crate::score::{FrameScore, ObjectScore, Scores, SequenceScore};

    /// Returns a sequence with two frames of one object, and one with one frame of two objects.
    pub fn two_sequences() -> Scores {
        let frame = |region, contour| FrameScore { region, contour };
        let sequence = |name: &str, objects: &[&[FrameScore]]| SequenceScore {
            name: name.into(),
            frames: (1..=objects[0].len()).map(|i| format!("{i:05}")).collect(),
            objects: (1..)
                .zip(objects)
                .map(|(id, frames)| ObjectScore { id, frames: frames.to_vec() })
                .collect(),
        };
        let bear = sequence("bear", &[&[frame(1.0, 1.0), frame(1.0, 0.5)]]);
        let dog = sequence("dog-agility", &[&[frame(1.0, 0.5)], &[frame(0.0, 0.0)]]);
        Scores { sequences: vec![bear, dog] }
    }
}
