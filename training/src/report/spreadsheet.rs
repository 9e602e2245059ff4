// SPDX-License-Identifier: MPL-2.0

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::{MEASURES, Speed};
use crate::score::{Scores, Summary};
use crate::{Error, Result};

/// Creates the folder of the output file `path`, and checks that the file can be written, so that long work does not fail
/// at its end. Existing contents stay.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn check_output(path: &Path) -> Result<()> {
    let failed = |source| Error::write(path, source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests_support::two_sequences;

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
        assert!(write_rows(Path::new("/nowhere/rows.csv"), [row("a")]).is_err());
    }

    #[test]
    fn errors_name_the_file() {
        let path = Path::new("/nonexistent-folder/scores.csv");
        let error = write_csv(path, &two_sequences(), &Speed::default()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/scores.csv"));
    }
}
