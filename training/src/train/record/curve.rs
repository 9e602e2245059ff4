//! The curve of a run in CSV: a column a scalar, a row every few steps.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result, files};

/// The first column.
const STEP: &str = "step";

/// One row; columns without a value there are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Steps done.
    pub step: u64,
    /// One a column.
    pub values: Vec<Option<f64>>,
}

/// The file, and all that is in it.
#[derive(Debug)]
pub struct Curve {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<Row>,
}

impl Curve {
    /// Opens the file if there is one, and drops what was written after `step`: an interrupted run had gone
    /// on past the checkpoint that is gone on from.
    ///
    /// # Errors
    /// A file that is no curve, or that cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let mut curve = Self { path: path.to_owned(), columns: Vec::new(), rows: Vec::new() };
        if !path.exists() {
            return Ok(curve);
        }
        let whole = curve.read()?;
        let rows = curve.rows.len();
        curve.rows.retain(|row| row.step <= step);
        if curve.rows.is_empty() {
            fs::remove_file(path).map_err(|source| Error::write(path, source))?;
            curve.columns.clear();
        } else if !whole || curve.rows.len() < rows {
            curve.rewrite()?;
        }
        Ok(curve)
    }

    /// Whether all of the file was understood; a last line cut short is what a killed process leaves.
    fn read(&mut self) -> Result<bool> {
        let refuse = |reason: String| Error::Curve { path: self.path.clone(), reason };
        let text = fs::read_to_string(&self.path).map_err(|source| Error::read(&self.path, source))?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
        let mut names = header.iter();
        if names.next() != Some(STEP) {
            return Err(refuse(format!("its first column is not {STEP:?}")));
        }
        let columns: Vec<String> = names.map(str::to_owned).collect();
        let mut rows = Vec::new();
        let mut broken = None;
        for record in reader.records() {
            if let Some(line) = broken {
                return Err(refuse(format!("line {line} is not of its columns")));
            }
            let record = record.map_err(|error| refuse(error.to_string()))?;
            match parse(&record, columns.len()) {
                Some(row) => rows.push(row),
                None => broken = Some(rows.len() + 2),
            }
        }
        // Digits of the last number may be missing though it is a number.
        if broken.is_none() && !text.ends_with('\n') && rows.pop().is_some() {
            broken = Some(rows.len() + 2);
        }
        (self.columns, self.rows) = (columns, rows);
        Ok(broken.is_none())
    }

    /// Names of the columns but the first.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All rows, by step.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The values of a column with their steps.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = (u64, f64)> {
        let column = self.columns.iter().position(|known| known == name);
        self.rows.iter().filter_map(move |row| Some((row.step, (*row.values.get(column?)?)?)))
    }

    /// The last value of a column.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.values(name).next_back().map(|(_, value)| value)
    }

    /// Writes values of `step`: a new row, or more columns of the last one. A name that is new becomes a
    /// column, empty in the rows before.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn put(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut whole = !self.path.exists();
        for (name, _) in values {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
                whole = true;
            }
        }
        if self.rows.last().is_some_and(|row| row.step == step) {
            whole = true;
        } else {
            self.rows.push(Row { step, values: Vec::new() });
        }
        let columns = &self.columns;
        for row in &mut self.rows {
            row.values.resize(columns.len(), None);
        }
        let Some(row) = self.rows.last_mut() else { return Ok(()) };
        for (name, value) in values {
            if let Some(column) = columns.iter().position(|known| known == name) {
                row.values[column] = Some(*value);
            }
        }
        if whole {
            return self.rewrite();
        }
        let failed = |source| Error::write(&self.path, source);
        let line = lines(std::slice::from_ref(row), None)?;
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        file.write_all(&line).map_err(failed)
    }

    fn rewrite(&self) -> Result<()> {
        let text = lines(&self.rows, Some(&self.columns))?;
        files::replace(&self.path, |path| fs::write(path, text).map_err(|source| Error::write(path, source)))
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

/// Six significant digits.
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
    fn a_row_after_the_other_under_one_header() {
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
    fn a_new_name_is_a_new_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        let mut curve = Curve::open(&path, 0).unwrap();
        put(&mut curve, 25, &[("loss", 2.0)]);
        put(&mut curve, 50, &[("loss", 1.0)]);
        put(&mut curve, 50, &[("score/J&F", 0.5)]);
        put(&mut curve, 75, &[("loss", 0.5)]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,loss,score/J&F\n25,2,\n50,1,0.5\n75,0.5,\n");
        let again = Curve::open(&path, 75).unwrap();
        assert_eq!(again.rows(), curve.rows());
        assert_eq!(again.last("score/J&F"), Some(0.5));
    }

    #[test]
    fn what_came_after_the_checkpoint_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        fs::write(&path, "step,loss\n25,1\n50,2\n75,3\n").unwrap();
        let mut curve = Curve::open(&path, 50).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss\n25,1\n50,2\n");
        put(&mut curve, 75, &[("loss", 4.0)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss\n25,1\n50,2\n75,4\n");
        Curve::open(&path, 0).unwrap();
        assert!(!path.exists(), "a run from the start has no curve yet");
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_nonsense_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.csv");
        for cut in ["50", "50,2", "50,2,0.1"] {
            fs::write(&path, format!("step,loss,rate\n25,1,0.5\n{cut}")).unwrap();
            assert_eq!(Curve::open(&path, 100).unwrap().rows().len(), 1, "{cut}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "step,loss,rate\n25,1,0.5\n");
        }
        for wrong in ["name,loss\na,1\n", "step,loss\n25\n50,1\n"] {
            fs::write(&path, wrong).unwrap();
            let error = Curve::open(&path, 100).unwrap_err().to_string();
            assert!(error.contains("curve.csv") && error.contains("move it away"), "{error}");
        }
    }
}
