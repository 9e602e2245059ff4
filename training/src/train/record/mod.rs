// SPDX-License-Identifier: MPL-2.0

//! Record of a run: scalars in `curve.csv`, `curve.png` and TensorBoard's event files, and images of predicted
//! masks.

pub(super) mod curve;
mod events;
mod panel;
pub(super) mod plot;

use std::path::{Path, PathBuf};

use image::RgbImage;

pub use panel::window_panel;

use crate::{Error, Result};
use curve::Curve;
use events::Events;

/// File name of the scalars.
pub const CURVE: &str = "curve.csv";
/// File name of the plot of the scalars.
pub const PLOT: &str = "curve.png";

/// Writes the scalars and images of a run.
///
/// Names are arbitrary, and new names may be used at any step. The part before a `/` names a group, which has one
/// chart in the plot and one section in TensorBoard: `loss/cross_entropy`, `loss/regressor`;
/// `wasserstein/spatial`; `score/J`, `score/F`, `score/J&F`.
#[derive(Debug)]
pub struct Recorder {
    out: PathBuf,
    every: u64,
    curve: Curve,
    events: Events,
    /// Scalars of the next row, in the order of first use, with their sums and numbers of values.
    pending: Vec<(String, f64, u64)>,
}

impl Recorder {
    /// Opens the record in the folder `out` after `step` steps, 0 for a new run, and drops later rows. A row is
    /// written every `every` steps.
    pub fn open(out: &Path, every: u64, step: u64) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|source| Error::write(out, source))?;
        let curve = Curve::open(&out.join(CURVE), step)?;
        let events = Events::create(out, step)?;
        Ok(Self { out: out.to_owned(), every: every.max(1), curve, events, pending: Vec::new() })
    }

    /// Adds a scalar of this step. A row contains the mean over its steps.
    pub fn add(&mut self, name: &str, value: f64) {
        match self.slot(name) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
            None => self.pending.push((name.to_owned(), value, 1)),
        }
    }

    /// Sets a scalar, such as a learning rate. A row contains the last value.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.slot(name) {
            Some((_, sum, count)) => (*sum, *count) = (value, 1),
            None => self.pending.push((name.to_owned(), value, 1)),
        }
    }

    fn slot(&mut self, name: &str) -> Option<&mut (String, f64, u64)> {
        self.pending.iter_mut().find(|(pending, ..)| pending == name)
    }

    /// Ends a step, after which `done` steps are complete. Returns whether a row was due and written.
    pub fn end_step(&mut self, done: u64) -> Result<bool> {
        if !done.is_multiple_of(self.every) || self.pending.is_empty() {
            return Ok(false);
        }
        let values: Vec<_> =
            self.pending.drain(..).map(|(name, sum, count)| (name, sum / count as f64)).collect();
        self.write(done, &values)?;
        Ok(true)
    }

    /// Writes occasional scalars, such as validation scores, to the row of step `done` at once. Call it in the
    /// order of steps, after [`end_step`](Self::end_step).
    pub fn put(&mut self, done: u64, values: &[(&str, f64)]) -> Result<()> {
        let values: Vec<_> = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        self.write(done, &values)
    }

    fn write(&mut self, done: u64, values: &[(String, f64)]) -> Result<()> {
        self.curve.put(done, values)?;
        self.events.scalars(done, values)
    }

    /// The last value of a scalar, including those of the run before it was resumed.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.curve.last(name)
    }

    /// Writes an image, such as that of [`window_panel`], for TensorBoard and as `NAME.png` in the run's folder,
    /// where it replaces the previous one.
    pub fn picture(&mut self, done: u64, name: &str, picture: &RgbImage) -> Result<()> {
        self.events.picture(done, name, picture)?;
        let path = self.out.join(format!("{}.png", name.replace(['/', '\\'], "-")));
        crate::report::save_png(picture, &path)
    }

    /// Draws the curve to `curve.png`.
    pub fn draw(&self) -> Result<()> {
        match plot::draw(self.curve.columns(), self.curve.rows())? {
            Some(picture) => crate::report::save_png(&picture, &self.out.join(PLOT)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(CURVE)).unwrap()
    }

    #[test]
    fn rows_have_means_and_last_values() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(folder.path(), 2, 0).unwrap();
        for step in 0..5 {
            recorder.add("loss/total", step as f64);
            recorder.set("schedule", 1.0 - step as f64 / 10.0);
            assert_eq!(recorder.end_step(step + 1).unwrap(), step % 2 == 1);
        }
        assert_eq!(rows(folder.path()), "step,loss/total,schedule\n2,0.5,0.9\n4,2.5,0.7\n");
        assert_eq!(recorder.last("loss/total"), Some(2.5));
    }

    #[test]
    fn validation_scores_join_the_row_of_their_step_or_add_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(folder.path(), 2, 0).unwrap();
        for step in 1..=4 {
            recorder.add("loss", 1.0);
            recorder.end_step(step).unwrap();
            if step >= 2 {
                recorder.put(step, &[("score/J&F", step as f64 / 10.0)]).unwrap();
            }
        }
        assert_eq!(rows(folder.path()), "step,loss,score/J&F\n2,1,0.2\n3,,0.3\n4,1,0.4\n");
    }

    #[test]
    fn images_are_saved_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(folder.path(), 1, 0).unwrap();
        recorder.picture(3, "clips/window", &RgbImage::new(4, 2)).unwrap();
        assert_eq!(image::open(folder.path().join("clips-window.png")).unwrap().width(), 4);
    }
}
