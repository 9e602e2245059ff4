// SPDX-License-Identifier: MPL-2.0

//! The tracker with frame threading, as in the element.

use gstfastganseg::tracker::{ObjectStats, Prefetched, Tracker};
use image::RgbImage;

use super::{Propagator, as_picture, labels_of};
use crate::{LabelMap, Result};

/// Encodes each frame with the crop window that was planned a frame earlier.
#[derive(Debug)]
pub struct Threaded {
    tracker: Tracker,
    /// Prefetched encoding of the next frame.
    now: Option<Prefetched>,
    /// Prefetched encoding of the frame after it.
    next: Option<Prefetched>,
}

impl Threaded {
    /// `tracker` should support prefetching; otherwise the result equals that of the tracker alone.
    pub fn new(tracker: Tracker) -> Self {
        Self { tracker, now: None, next: None }
    }
}

impl Propagator for Threaded {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        (self.now, self.next) = (None, None);
        self.tracker.start(picture, labels)
    }

    fn prefetch(&mut self, picture: &RgbImage) -> Result<()> {
        self.next = self.tracker.prefetch(&mut as_picture(picture))?;
        Ok(())
    }

    fn correct(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        (self.now, self.next) = (None, None);
        self.tracker.correct(picture, labels)
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let matte = self.tracker.step_from(&mut as_picture(picture), self.now.take())?;
        self.now = self.next.take();
        labels_of(&matte, width, height)
    }

    fn object_stats(&self) -> Vec<(u8, ObjectStats)> {
        Propagator::object_stats(&self.tracker)
    }
}
