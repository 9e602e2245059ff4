// SPDX-License-Identifier: MPL-2.0

//! Reports of an evaluation: a table, a CSV file, and a contact sheet per sequence. Also pictures from tensors.

pub(crate) mod canvas;
mod sheet;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::path::Path;

pub(crate) use canvas::save_png;
use image::RgbImage;
pub use sheet::ContactSheet;
use tch::{Device, Kind, Tensor};

use crate::files::create_folder;
use crate::score::{Scores, Summary};
use crate::{Error, LabelMap, Result};

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

/// Creates the folder of the output file `path`, and checks that the file can be written, so that long work does not fail
/// at its end. Existing contents stay.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn check_output(path: &Path) -> Result<()> {
    let failed = |source| Error::write(path, source);
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let is_new = !path.exists();
    OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
    if is_new { fs::remove_file(path).map_err(failed) } else { Ok(()) }
}

/// Writes the scores to `path` as CSV, unrounded, 0 to 1.
///
/// There is a row for every object, then for every sequence (mean over its objects), then the global row (mean over all
/// objects). The column `scope` distinguishes them. The column `fps` is empty if no method was run.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv(path: &Path, scores: &Scores, speed: &Speed) -> Result<()> {
    let names = ["scope", "sequence", "object", "frames"].into_iter();
    let names = names.chain(MEASURES.iter().map(|(name, _)| *name)).chain(["fps"]);
    let mut rows: Vec<Vec<String>> = vec![names.map(str::to_owned).collect()];
    let mut row = |head: [&str; 3], frames: usize, summary: &Summary, fps: Option<f64>| {
        let head = head.into_iter().map(str::to_string).chain([frames.to_string()]);
        let measures = MEASURES.iter().map(|(_, measure)| measure(summary).to_string());
        let fps = fps.map_or_else(String::new, |fps| format!("{fps:.2}"));
        rows.push(head.chain(measures).chain([fps]).collect());
    };
    for sequence in &scores.sequences {
        for object in &sequence.objects {
            let head = ["object", &sequence.name, &object.id.to_string()];
            row(head, object.frames.len(), &object.summary(), None);
        }
    }
    for sequence in &scores.sequences {
        let fps = speed.sequences.get(&sequence.name).copied();
        row(["sequence", &sequence.name, ""], sequence.frames.len(), &sequence.summary(), fps);
    }
    let frames = scores.sequences.iter().map(|sequence| sequence.frames.len()).sum();
    row(["global", "", ""], frames, &scores.summary(), speed.total);
    write_rows(path, rows)
}

/// Writes rows of fields to `path` as CSV.
///
/// # Errors
/// The file cannot be written.
pub fn write_rows<Row: AsRef<[String]>>(path: &Path, rows: impl IntoIterator<Item = Row>) -> Result<()> {
    let failed = |source: csv::Error| Error::write(path, std::io::Error::other(source));
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    for row in rows {
        writer.write_record(row.as_ref()).map_err(failed)?;
    }
    writer.flush().map_err(|source| Error::write(path, source))
}

/// Converts values in [0, 1] to bytes.
pub(crate) fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let x = x.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_mul_scalar(255.0)?;
    let x = x.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?;
    Ok(Vec::<u8>::try_from(&x.f_contiguous()?.f_reshape([-1])?)?)
}

/// Converts an image (3, H, W), RGB in [0, 1].
pub(crate) fn picture(image: &Tensor) -> Result<RgbImage> {
    let (_, height, width) = image.size3()?;
    let rgb = bytes(&image.f_permute([1, 2, 0])?)?;
    Ok(RgbImage::from_raw(width as u32, height as u32, rgb).unwrap_or_default())
}

/// Returns object 1 where the soft mask is above one half, 0 elsewhere.
pub(crate) fn labels(soft: &[u8], width: usize, height: usize) -> Result<LabelMap> {
    LabelMap::new(width, height, soft.iter().map(|&value| u8::from(value > 127)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{FrameScore, ObjectScore, SequenceScore};

    /// Returns a sequence with two frames of one object, and one with one frame of two objects.
    fn two_sequences() -> Scores {
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

    #[test]
    fn rows_are_objects_then_sequences_then_global() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        let sequences = [("bear".to_string(), 31.256)].into();
        write_csv(&path, &two_sequences(), &Speed { sequences, total: Some(30.0) }).unwrap();
        let expected = "\
scope,sequence,object,frames,J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay,fps
object,bear,1,2,0.875,1,1,0,0.75,0.5,0.5,
object,dog-agility,1,1,0.75,1,1,0,0.5,0,0,
object,dog-agility,2,1,0,0,0,0,0,0,0,
sequence,bear,,2,0.875,1,1,0,0.75,0.5,0.5,31.26
sequence,dog-agility,,1,0.375,0.5,0.5,0,0.25,0,0,
global,,,3,0.5416666666666666,0.6666666666666666,0.6666666666666666,0,0.4166666666666667,0.16666666666666666,0.16666666666666666,30.00
";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn outputs_are_checked_without_a_change() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/folder/rows.csv");
        check_output(&path).unwrap();
        assert!(path.parent().unwrap().is_dir() && !path.exists());
        fs::write(&path, "before").unwrap();
        check_output(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert!(check_output(root.path()).is_err(), "a folder");
        assert!(check_output(&path.join("rows.csv")).unwrap_err().to_string().contains("rows.csv"));
    }

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let row = |name: &str| [name.to_owned(), "1".to_owned()];
        write_rows(&path, [row("sequence"), row("a, b"), row("the \"best\"")]).unwrap();
        let names: Vec<String> = csv::Reader::from_path(&path)
            .unwrap()
            .records()
            .map(|record| record.unwrap()[0].to_owned())
            .collect();
        assert_eq!(names, ["a, b", "the \"best\""]);
        let error = write_rows(Path::new("/nowhere/rows.csv"), [row("a")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/rows.csv"), "{error}");
    }
}
