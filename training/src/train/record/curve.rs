// SPDX-License-Identifier: MPL-2.0

//! The curve of a run in CSV: one column per scalar, one row every few steps.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result, files};

/// Name of the first column.
const STEP: &str = "step";

/// One row of the curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub step: u64,
    /// One value per column, `None` if empty.
    pub values: Vec<Option<f64>>,
}

#[derive(Debug)]
pub struct Curve {
    path: PathBuf,
    /// Names of the columns after the first.
    pub columns: Vec<String>,
    /// In the order of steps.
    pub rows: Vec<Row>,
}

impl Curve {
    /// Opens the file if it exists and drops the rows after `step`, which an interrupted run wrote after its last
    /// checkpoint.
    ///
    /// # Errors
    /// [`Error::Curve`] if the file is not a curve; an error if it cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let mut curve = Self { path: path.to_owned(), columns: Vec::new(), rows: Vec::new() };
        if !path.exists() {
            return Ok(curve);
        }
        let complete = curve.read()?;
        let rows = curve.rows.len();
        curve.rows.retain(|row| row.step <= step);
        if curve.rows.is_empty() {
            fs::remove_file(path).map_err(|source| Error::write(path, source))?;
            curve.columns.clear();
        } else if !complete || curve.rows.len() < rows {
            curve.rewrite()?;
        }
        Ok(curve)
    }

    /// Reads the file. Returns false if the last line was incomplete and dropped, as a killed process leaves it.
    fn read(&mut self) -> Result<bool> {
        let refuse = |reason: String| Error::Curve(self.path.clone(), reason);
        let text = fs::read_to_string(&self.path).map_err(|source| Error::read(&self.path, source))?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
        let mut names = header.iter();
        if names.next() != Some(STEP) {
            return Err(refuse(format!("the first column is not {STEP:?}")));
        }
        let columns: Vec<String> = names.map(str::to_owned).collect();
        let mut rows = Vec::new();
        let mut broken = None;
        for record in reader.records() {
            if let Some(line) = broken {
                return Err(refuse(format!("line {line} does not match the header")));
            }
            let record = record.map_err(|error| refuse(error.to_string()))?;
            match parse(&record, columns.len()) {
                Some(row) => rows.push(row),
                None => broken = Some(rows.len() + 2),
            }
        }
        // Without a line break, digits of the last number may be missing.
        if broken.is_none() && !text.ends_with('\n') && rows.pop().is_some() {
            broken = Some(rows.len() + 2);
        }
        (self.columns, self.rows) = (columns, rows);
        Ok(broken.is_none())
    }

    /// The steps and values of a column.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = (u64, f64)> {
        let column = self.columns.iter().position(|column| column == name);
        self.rows.iter().filter_map(move |row| Some((row.step, (*row.values.get(column?)?)?)))
    }

    pub fn last(&self, name: &str) -> Option<f64> {
        self.values(name).next_back().map(|(_, value)| value)
    }

    /// Writes the values of `step` to a new row, or to the last row if it has the same step. A new name becomes a
    /// new column, empty in earlier rows.
    pub fn put(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut rewrite = !self.path.exists();
        for (name, _) in values {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
                rewrite = true;
            }
        }
        if self.rows.last().is_some_and(|row| row.step == step) {
            rewrite = true;
        } else {
            self.rows.push(Row { step, values: Vec::new() });
        }
        let columns = &self.columns;
        for row in &mut self.rows {
            row.values.resize(columns.len(), None);
        }
        let Some(row) = self.rows.last_mut() else { return Ok(()) };
        for (name, value) in values {
            if let Some(column) = columns.iter().position(|column| column == name) {
                row.values[column] = Some(*value);
            }
        }
        if rewrite {
            return self.rewrite();
        }
        let failed = |source| Error::write(&self.path, source);
        let line = lines(std::slice::from_ref(row), None)?;
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        file.write_all(&line).map_err(failed)
    }

    fn rewrite(&self) -> Result<()> {
        files::replace_text(&self.path, &lines(&self.rows, Some(&self.columns))?)
    }
}

fn parse(record: &csv::StringRecord, columns: usize) -> Option<Row> {
    let mut fields = record.iter();
    let step = fields.next()?.parse().ok()?;
    let values = fields
        .map(|field| match field {
            "" => Some(None),
            number => number.parse().ok().map(Some),
        })
        .collect::<Option<Vec<_>>>()?;
    (values.len() == columns).then_some(Row { step, values })
}

fn lines(rows: &[Row], header: Option<&[String]>) -> Result<Vec<u8>> {
    let failed = |error: csv::Error| Error::write(Path::new("curve"), std::io::Error::other(error));
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    if let Some(columns) = header {
        writer
            .write_record(std::iter::once(STEP).chain(columns.iter().map(String::as_str)))
            .map_err(failed)?;
    }
    for row in rows {
        let values = row.values.iter().map(|value| value.map_or_else(String::new, number));
        writer.write_record(std::iter::once(row.step.to_string()).chain(values)).map_err(failed)?;
    }
    writer.into_inner().map_err(|error| Error::write(Path::new("curve"), error.into_error()))
}

/// Formats a number with six significant digits.
fn number(value: f64) -> String {
    let rounded = format!("{value:.5e}").parse().unwrap_or(value);
    format!("{rounded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(curve: &mut Curve, step: u64, values: &[(&str, f64)]) {
        let values: Vec<_> = values.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        curve.put(step, &values).unwrap();
    }

    #[test]
    fn rows_are_appended_below_one_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        let mut curve = Curve::open(&path, 0).unwrap();
        put(&mut curve, 25, &[("loss", 0.1234567), ("schedule", 1e-7)]);
        put(&mut curve, 50, &[("loss", 1500.0), ("schedule", f64::NAN)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,loss,schedule\n25,0.123457,0.0000001\n50,1500,NaN\n");
        assert_eq!(curve.last("loss"), Some(1500.0));
        assert_eq!(curve.last("nothing"), None);
    }

    #[test]
    fn a_new_name_adds_a_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        let mut curve = Curve::open(&path, 0).unwrap();
        put(&mut curve, 25, &[("loss", 2.0)]);
        put(&mut curve, 50, &[("loss", 1.0)]);
        put(&mut curve, 50, &[("score/J&F", 0.5)]);
        put(&mut curve, 75, &[("loss", 0.5)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,loss,score/J&F\n25,2,\n50,1,0.5\n75,0.5,\n");
        let reopened = Curve::open(&path, 75).unwrap();
        assert_eq!(reopened.rows, curve.rows);
        assert_eq!(reopened.last("score/J&F"), Some(0.5));
    }

    #[test]
    fn rows_after_the_checkpoint_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        fs::write(&path, "step,loss\n25,1\n50,2\n75,3\n").unwrap();
        let mut curve = Curve::open(&path, 50).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss\n25,1\n50,2\n");
        put(&mut curve, 75, &[("loss", 4.0)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss\n25,1\n50,2\n75,4\n");
        Curve::open(&path, 0).unwrap();
        assert!(!path.exists(), "a new run has no curve");
    }

    #[test]
    fn an_incomplete_last_line_is_dropped_and_other_errors_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        for cut in ["50", "50,2", "50,2,0.1"] {
            fs::write(&path, format!("step,loss,rate\n25,1,0.5\n{cut}")).unwrap();
            assert_eq!(Curve::open(&path, 100).unwrap().rows.len(), 1, "{cut}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss,rate\n25,1,0.5\n");
        }
        for wrong in ["name,loss\na,1\n", "step,loss\n25\n50,1\n"] {
            fs::write(&path, wrong).unwrap();
            let error = Curve::open(&path, 100).unwrap_err().to_string();
            assert!(error.contains("curve.csv") && error.contains("move it away"), "{error}");
        }
    }
}
