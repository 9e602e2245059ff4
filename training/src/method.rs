// SPDX-License-Identifier: MPL-2.0

//! Methods to evaluate: each propagates the mask of the first frame through a video.

use gstfastganseg::image::{Picture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::{Guide, Matte, MatteSettings, PostProcessor};
use gstfastganseg::tracker::{ObjectStats, Prefetched, Tracker};
use image::RgbImage;

use crate::{LabelMap, Result};

/// Propagates the object ids of one frame to the next frames, one at a time.
pub trait Propagator {
    /// Starts a video and discards the state of the previous one. `labels` are the ids of `picture`, its first
    /// frame; void is unknown.
    ///
    /// # Errors
    /// The method cannot track these objects.
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()>;

    /// Prefetches the frame after the next one. The result of the next frame must not depend on it.
    ///
    /// # Errors
    /// The network fails.
    fn prefetch(&mut self, _picture: &RgbImage) -> Result<()> {
        Ok(())
    }

    /// Returns the ids of the next frame as a map of `width` x `height`.
    ///
    /// # Errors
    /// [`start`](Self::start) was not called, or the network fails.
    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap>;

    /// Adds a reference, a picture with the ids of the same objects, in the next frame. The objects may have moved since.
    ///
    /// # Errors
    /// The method takes no further references, or the network fails.
    fn correct(&mut self, _picture: &RgbImage, _labels: &LabelMap) -> Result<()> {
        Err(gstfastganseg::Error::Config("this method takes no corrections".into()).into())
    }

    /// Soft alpha of all objects in the last frame, 0 to 255; `None` for methods without alpha.
    fn alpha(&self) -> Option<&[u8]> {
        None
    }

    /// Id and statistics of each object in the last frame, for methods that have them.
    fn object_stats(&self) -> Vec<(u8, ObjectStats)> {
        Vec::new()
    }
}

impl Propagator for Tracker {
    fn start(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        let mask = ReferenceMask::from_labels(labels.width(), labels.height(), labels.ids())?;
        Ok(self.set_reference(&mut as_picture(picture), &mask)?)
    }

    fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let matte = Tracker::step(self, &mut as_picture(picture))?;
        labels_of(&matte, width, height)
    }

    fn correct(&mut self, picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        let mask = ReferenceMask::from_labels(labels.width(), labels.height(), labels.ids())?;
        self.add_reference(&mut as_picture(picture), &mask)?;
        self.search_whole_frame((picture.width() as usize, picture.height() as usize));
        Ok(())
    }

    fn object_stats(&self) -> Vec<(u8, ObjectStats)> {
        self.object_ids().iter().copied().zip(Tracker::object_stats(self).iter().copied()).collect()
    }
}

fn labels_of(matte: &Matte, width: usize, height: usize) -> Result<LabelMap> {
    let mut labels = LabelMap::background(width, height);
    let plane = &mut PlaneMut { data: labels.ids_mut(), width, height, stride: width };
    matte.write_labels(plane)?;
    Ok(labels)
}

pub(crate) fn as_picture(picture: &RgbImage) -> Picture<'_> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Picture { data: picture.as_raw(), width, height, stride: 3 * width }
}

/// The tracker with the post-processing of the element. Takes ids from the objects' post-processed alpha planes: the
/// largest alpha wins, and below one half is background.
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

/// The tracker with frame threading, as in the element. Encodes each frame with the crop window that was planned a
/// frame earlier.
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

/// Repeats the first mask. It is a lower bound, and a measure of the motion in a video.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    first: Option<LabelMap>,
}

impl Propagator for Frozen {
    fn start(&mut self, _picture: &RgbImage, labels: &LabelMap) -> Result<()> {
        self.first = Some(labels.without_void());
        Ok(())
    }

    fn step(&mut self, _picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
        let first = self.first.as_ref().ok_or(gstfastganseg::Error::NoReference)?;
        Ok(first.resized(width, height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_repeats_the_first_mask_at_any_size() {
        let picture = RgbImage::new(2, 1);
        let mut frozen = Frozen::default();
        assert!(frozen.step(&picture, 2, 1).unwrap_err().to_string().contains("no reference"));
        frozen.start(&picture, &LabelMap::new(2, 1, vec![255, 2]).unwrap()).unwrap();
        assert_eq!(frozen.step(&picture, 2, 1).unwrap().ids(), [0, 2]);
        assert_eq!(frozen.step(&picture, 4, 1).unwrap().ids(), [0, 0, 2, 2]);
    }
}
