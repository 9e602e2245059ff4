//! What a person sees of an evaluation: a table, a CSV file, and a contact sheet a sequence.

pub(crate) mod canvas;
pub(crate) mod pixels;
mod sheet;
mod spreadsheet;
mod table;

use std::collections::BTreeMap;

pub use canvas::save_png;
pub use sheet::{ContactSheet, Tile};
pub use spreadsheet::{write_csv, write_rows};
pub use table::table;

use crate::score::Summary;

/// Frames a second by sequence, and over all: empty where nothing was run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Speed {
    /// Frames a second of each sequence.
    pub sequences: BTreeMap<String, f64>,
    /// Frames of all sequences over the time of all.
    pub total: Option<f64>,
}

/// A column's name, and where its number comes from.
type Measure = (&'static str, fn(&Summary) -> f64);

/// The columns of numbers of table and CSV, in the benchmark's order.
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

    /// Two frames of one object, and one frame of two.
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
