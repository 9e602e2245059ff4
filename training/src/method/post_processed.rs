// SPDX-License-Identifier: MPL-2.0

//! The tracker with the post-processing of the element.

use gstfastganseg::image::PlaneMut;
use gstfastganseg::matte::{Guide, MatteSettings, PostProcessor};
use gstfastganseg::tracker::{ObjectStats, Tracker};
use image::RgbImage;

use super::{Propagator, as_picture};
use crate::{LabelMap, Result};

/// Takes ids from the objects' post-processed alpha planes: the largest alpha wins, and below one half is background.
#[derive(Debug)]
pub struct PostProcessed {
    tracker: Tracker,
    settings: MatteSettings,
    post_processor: PostProcessor,
    /// Maximum alpha over all objects in the last frame.
    alpha: Vec<u8>,
    plane: Vec<u8>,
}

impl PostProcessed {
    /// Uses all of `settings` except the selected object.
    pub fn new(tracker: Tracker, settings: MatteSettings) -> Self {
        let settings = MatteSettings { object: 0, ..settings };
        Self {
            tracker,
            settings,
            post_processor: PostProcessor::default(),
            alpha: Vec::new(),
            plane: Vec::new(),
        }
    }
}

impl Propagator for PostProcessed {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        self.tracker.start(picture, labels)
    }

    fn correct(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        self.tracker.correct(picture, labels)
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let mut picture = as_picture(picture);
        let matte = self.tracker.step(&mut picture)?;
        let guide = Guide::from_picture(&picture);
        let mut labels = LabelMap::background(width, height);
        let Self { settings, post_processor, alpha, plane, .. } = self;
        alpha.clear();
        alpha.resize(width * height, 0);
        plane.resize(width * height, 0);
        for &id in matte.object_ids() {
            let out = &mut PlaneMut { data: plane, width, height, stride: width };
            post_processor.write_object(settings, &matte, id, guide.as_ref(), out)?;
            for ((label, max), &value) in labels.ids_mut().iter_mut().zip(alpha.iter_mut()).zip(&*plane) {
                if value > *max {
                    *max = value;
                    *label = if value >= 128 { id } else { 0 };
                }
            }
        }
        Ok(labels)
    }

    fn alpha(&self) -> Option<&[u8]> {
        Some(&self.alpha)
    }

    fn object_stats(&self) -> Vec<(u8, ObjectStats)> {
        Propagator::object_stats(&self.tracker)
    }
}
