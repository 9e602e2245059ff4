//! The tracker as the element has it with frame threading.

use gstfastganseg::tracker::{Prefetched, Tracker};
use image::RgbImage;

use super::{Propagator, as_picture, labels_of};
use crate::{LabelMap, Result};

/// Looks at each frame where the objects were expected a frame earlier.
#[derive(Debug)]
pub struct Threaded {
    tracker: Tracker,
    /// Of the frame to be stepped next, and of the one after it.
    now: Option<Prefetched>,
    next: Option<Prefetched>,
}

impl Threaded {
    /// `tracker` is one that looks prefetched; with another this is no different from it.
    pub fn new(tracker: Tracker) -> Self {
        Self { tracker, now: None, next: None }
    }
}

impl Propagator for Threaded {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        (self.now, self.next) = (None, None);
        self.tracker.start(picture, labels)
    }

    fn expect(&mut self, picture: &RgbImage) -> Result<()> {
        self.next = self.tracker.prefetch(&mut as_picture(picture))?;
        Ok(())
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let matte = self.tracker.step_from(&mut as_picture(picture), self.now.take())?;
        self.now = self.next.take();
        labels_of(&matte, width, height)
    }
}
