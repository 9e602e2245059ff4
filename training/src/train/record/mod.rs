// SPDX-License-Identifier: MPL-2.0

//! Record of a run: scalars in `curve.csv`, `curve.png` and TensorBoard's event files, and images of predicted
//! masks.

pub(super) mod curve;
mod events;
pub(super) mod plot;

use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, RgbImage};
use tch::Tensor;

use crate::files::create_folder;
use crate::report::{ContactSheet, bytes, labels, picture, save_png};
use crate::{LabelMap, Result};
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
        create_folder(out)?;
        let curve = Curve::open(&out.join(CURVE), step)?;
        let events = Events::create(out, step)?;
        Ok(Self { out: out.to_owned(), every: every.max(1), curve, events, pending: Vec::new() })
    }

    /// Adds a scalar of this step. A row contains the mean over its steps. Scalars of one name are either added or set.
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
        save_png(picture, &path)
    }

    /// Draws the curve to `curve.png`.
    pub fn draw(&self) -> Result<()> {
        match plot::draw(&self.curve.columns, &self.curve.rows)? {
            Some(picture) => save_png(&picture, &self.out.join(PLOT)),
            None => Ok(()),
        }
    }
}

/// Draws the predicted frames of one clip, one row per frame: the frame, the true mask over it, the predicted mask
/// (above one half) over it, and the predicted soft mask.
///
/// `images` (K, 3, H, W) is RGB in [0, 1]; `truth` and `prediction` (K, 1, H, W) are in [0, 1]. The tensors may
/// have any kind and device.
pub fn window_panel(title: &str, images: &Tensor, truth: &Tensor, prediction: &Tensor) -> Result<RgbImage> {
    let _no_grad = tch::no_grad_guard();
    let mut sheet = ContactSheet::new(title);
    let (frames, _, height, width) = images.size4()?;
    let (height, width) = (height as usize, width as usize);
    let background = LabelMap::background(width, height);
    for frame in 0..frames {
        let picture = picture(&images.f_get(frame)?)?;
        let soft = bytes(&prediction.f_get(frame)?)?;
        let predicted = labels(&soft, width, height)?;
        let true_labels = labels(&bytes(&truth.f_get(frame)?)?, width, height)?;
        let grey = GrayImage::from_raw(width as u32, height as u32, soft).unwrap_or_default();
        let grey = DynamicImage::ImageLuma8(grey).into_rgb8();
        let mut push = |picture: &RgbImage, labels: &LabelMap, name: &str| {
            sheet.push(picture, labels, &format!("{name} {}", frame + 1));
        };
        push(&picture, &background, "frame");
        push(&picture, &true_labels, "truth");
        push(&picture, &predicted, "prediction");
        push(&grey, &background, "soft mask");
    }
    sheet.draw()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

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

    #[test]
    fn a_row_has_frame_truth_prediction_and_soft_mask() {
        let images = Tensor::full([2, 3, 32, 64], 0.8, (Kind::Float, Device::Cpu));
        let truth = Tensor::zeros([2, 1, 32, 64], (Kind::Float, Device::Cpu));
        let _ = truth.narrow(3, 0, 32).fill_(1.0);
        let prediction = truth.flip([3]).to_kind(Kind::BFloat16).set_requires_grad(true);
        let panel = window_panel("step 3", &images, &truth, &prediction).unwrap();
        let tile = ContactSheet::TILE_WIDTH;
        let height = tile / 2;
        // Colour in the middle row of a tile, at the fraction `x` of its width.
        let at = |column: u32, row: u32, x: f32| {
            let (gap, caption) = (4, 18);
            let left = gap + column * (tile + gap);
            let top = 2 * caption + gap + row * (caption + height + gap);
            panel.get_pixel(left + (x * tile as f32) as u32, top + height / 2).0
        };
        for row in 0..2 {
            let grey = [204, 204, 204];
            assert_eq!((at(0, row, 0.25), at(0, row, 0.75)), (grey, grey));
            assert!(at(1, row, 0.25) != grey && at(1, row, 0.75) == grey, "the true object is on the left");
            assert!(
                at(2, row, 0.25) == grey && at(2, row, 0.75) != grey,
                "the predicted one is on the right"
            );
            assert_eq!((at(3, row, 0.25), at(3, row, 0.75)), ([0; 3], [255; 3]));
        }
    }
}
