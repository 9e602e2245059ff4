// SPDX-License-Identifier: MPL-2.0

//! Runs the tracker on video frames.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video::VideoInfo;

use super::exit;
use super::process_error::ProcessError;
use super::reference::Change;
use super::thread_tuner::ThreadTuner;
use crate::element::frame::{Frame, Shrinker, View};
use crate::image::{FrameSource, OwnedPicture, Region};
use crate::mask::{ObjectMask, ReferenceMask};
use crate::matte::Matte;
use crate::tracker::{Options, Prefetched, Presence, ReferenceUse, Tracker};
use crate::{Error, Result, threads};

/// The tracker, and its number of threads.
pub struct Segmenter {
    tracker: Tracker,
    shrinker: Option<Shrinker>,
    threads: Threads,
}

/// Number of libtorch threads.
enum Threads {
    /// A fixed number. 0 keeps the number of the application.
    Fixed(u32),
    /// The number that is currently fastest.
    Automatic(Box<ThreadTuner>),
}

impl Threads {
    fn count(&self) -> u32 {
        match self {
            Self::Fixed(count) => *count,
            Self::Automatic(tuner) => tuner.threads(),
        }
    }
}

/// Runs `f` on a temporary thread.
///
/// OpenMP creates one team of threads per calling thread. If both the loading and the streaming thread own a team,
/// there are more threads than cores, and OpenMP puts them to sleep between operations: with two threads on two
/// cores, a frame took nearly twice as long.
fn on_temporary_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Status of one object in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObjectStatus {
    /// Id in the mask.
    pub id: u8,
    pub present: bool,
    /// Expected region similarity of its mask, 0 to 1.
    pub confidence: f64,
    /// Bounding box in pixels of the frame.
    pub region: Option<Region>,
}

/// Result of one frame.
pub struct FrameResult {
    /// `None` without a reference.
    pub matte: Option<Matte>,
    /// Whether a mask became the reference with this frame.
    pub seeded: bool,
    /// Whether any object is present.
    pub presence: Presence,
    pub objects: Vec<ObjectStatus>,
    /// Expected region similarity of the masks, 0 to 1. 1 for the reference mask itself.
    pub confidence: f64,
    /// Time that the network took, if it ran.
    pub time: Option<Duration>,
}

impl Segmenter {
    /// Loads the model. `threads` = 0 selects the number of threads automatically.
    ///
    /// # Errors
    /// Those of [`Tracker::new`].
    pub fn new(options: &Options, threads: u32) -> Result<Self> {
        let (tracker, mut threads) = on_temporary_thread(|| {
            // A new thread inherits the number of the process: of physical cores, of `OMP_NUM_THREADS`, or of the
            // application.
            let max = threads::of_this_thread();
            // The prefetch thread has as many threads as the streaming thread.
            let max = if options.frame_threading { max.div_ceil(2) } else { max };
            let threads = match threads {
                0 => Threads::Automatic(Box::new(ThreadTuner::new(max))),
                count => Threads::Fixed(count),
            };
            threads::set_for_this_thread(threads.count());
            let ends = || Error::Config("the process ends".into());
            let _permission = exit::permission().ok_or_else(ends)?;
            exit::register_handler();
            let tracker = Tracker::new(options)?;
            exit::register_handler();
            Ok::<_, Error>((tracker, threads))
        })?;
        if tracker.active_device() != "cpu" && matches!(threads, Threads::Automatic(_)) {
            threads = Threads::Fixed(0);
        }
        Ok(Self { tracker, shrinker: None, threads })
    }

    /// Number of threads for the next frame. 0 = the application decides.
    pub fn threads(&self) -> u32 {
        self.threads.count()
    }

    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub fn tracker_mut(&mut self) -> &mut Tracker {
        &mut self.tracker
    }

    /// Prepares for frames in another format.
    pub fn forget_format(&mut self) {
        self.shrinker = None;
    }

    /// Starts to encode the frame after the next one on the prefetch thread.
    ///
    /// # Errors
    /// The frame cannot be converted.
    pub fn prefetch(&mut self, frame: &Frame, info: &VideoInfo) -> Result<Option<Prefetched>, ProcessError> {
        let _permission = exit::permission().ok_or(gst::FlowError::Flushing)?;
        let shrinker = self.shrinker.get_or_insert_with(|| Shrinker::new(info));
        Ok(self.tracker.prefetch(&mut View::new(frame, shrinker))?)
    }

    /// Segments the next frame, which has the format `info`. `restart` restarts tracking from the reference.
    ///
    /// # Errors
    /// The frame cannot be converted, or libtorch fails.
    pub fn process_frame(
        &mut self,
        (frame, prefetched): (&Frame, Option<Prefetched>),
        info: &VideoInfo,
        change: Option<Change>,
        restart: bool,
    ) -> Result<FrameResult, ProcessError> {
        let _permission = exit::permission().ok_or(gst::FlowError::Flushing)?;
        let Self { tracker, shrinker, threads } = self;
        // The streaming thread may change with each start of a stream.
        tracker.set_threads(threads.count());
        if let Some(Change::Clear) = change {
            tracker.clear();
        }
        let (adds, resumes) =
            (matches!(change, Some(Change::Add(_))), matches!(change, Some(Change::Resume(_))));
        let references = match change {
            Some(Change::Arm(references) | Change::Resume(references) | Change::Add(references)) => {
                references
            }
            _ => Vec::new(),
        };
        let seeded = !references.is_empty();
        if !seeded && !tracker.has_reference() {
            return Ok(FrameResult {
                matte: None,
                seeded,
                presence: Presence::Seen,
                objects: Vec::new(),
                confidence: 0.0,
                time: None,
            });
        }

        let shrinker = shrinker.get_or_insert_with(|| Shrinker::new(info));
        let mut view = View::new(frame, shrinker);
        let begun = Instant::now();
        // Mask of a reference that belongs to this frame, for which the network does not run.
        let mut reference_mask = None;
        let mut added_from_picture = false;
        for (index, reference) in references.iter().enumerate() {
            let added = index > 0 || (adds && tracker.has_reference());
            let purpose = if added { ReferenceUse::Add } else { ReferenceUse::Set };
            let mut image = reference.image.as_ref().map(OwnedPicture::as_picture);
            let source: &mut dyn FrameSource = match &mut image {
                Some(image) => image,
                None => &mut view,
            };
            let encoded = reference.take_encoded();
            match (
                encoded.filter(|encoded| encoded.purpose() == purpose && tracker.accepts(encoded)),
                purpose,
            ) {
                (Some(encoded), _) => tracker.use_encoded(encoded)?,
                (None, ReferenceUse::Set) => tracker.set_reference(source, &reference.mask)?,
                (None, ReferenceUse::Add) => tracker.add_reference(source, &reference.mask)?,
            }
            added_from_picture = added && reference.image.is_some();
            // An added mask may lack objects that are tracked.
            reference_mask = (reference.image.is_none() && !added).then_some(&reference.mask);
        }
        // The objects may have moved since the picture of the reference.
        if resumes {
            tracker.relocate(&mut view)?;
        } else if added_from_picture {
            tracker.relocate_added(&mut view)?;
        }
        if !seeded && restart {
            tracker.restart()?;
        }
        let (matte, presence, confidence) = match reference_mask {
            Some(mask) => (Matte::from_mask(mask)?, Presence::Seen, 1.0),
            None => {
                let matte = tracker.step_from(&mut view, prefetched)?;
                if let Threads::Automatic(tuner) = threads
                    && !seeded
                {
                    tuner.record(begun.elapsed());
                }
                (matte, tracker.presence(), tracker.confidence())
            }
        };
        let time = Some(begun.elapsed());
        let objects = objects(tracker, reference_mask.map(|mask| (&**mask, view.size())));
        Ok(FrameResult { matte: Some(matte), seeded, presence, objects, confidence, time })
    }
}

/// Returns the status of each object after the last frame. `reference_mask` is the mask and the size of a reference
/// frame, which the network has not processed.
fn objects(tracker: &Tracker, reference_mask: Option<(&ReferenceMask, (usize, usize))>) -> Vec<ObjectStatus> {
    let (confidences, regions): (Vec<f64>, Vec<Option<Region>>) = match reference_mask {
        Some((mask, frame)) => {
            let size = (mask.width(), mask.height());
            let region = |object: &ObjectMask| object.bounds(size.0).map(|region| region.scaled(size, frame));
            mask.objects().iter().map(|object| (1.0, region(object))).unzip()
        }
        None => {
            let confidences = tracker.object_stats().iter().map(|object| object.confidence);
            (confidences.collect(), tracker.object_regions())
        }
    };
    let ids = tracker.object_ids().iter().zip(tracker.present());
    ids.zip(confidences.into_iter().zip(regions))
        .map(|((&id, present), (confidence, region))| ObjectStatus { id, present, confidence, region })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gstreamer as gst;
    use gstreamer_video::VideoFormat;

    use super::*;
    use crate::device::DeviceChoice;
    use crate::element::reference::Reference;
    use crate::tracker::Quality;

    /// The ids of the tracked objects tell which of two masks was used.
    #[test]
    fn a_reference_encoded_ahead_is_used_unless_the_input_size_has_changed() {
        gst::init().unwrap();
        let (width, height) = (96, 64);
        let info = VideoInfo::builder(VideoFormat::Rgb, width as u32, height as u32).build().unwrap();
        let data: Vec<u8> = (0..3 * width * height).map(|index| (index % 251) as u8).collect();
        let buffer = gst::Buffer::from_slice(data.clone());
        let frame = Frame::from_buffer_ref_readable(&buffer, &info).unwrap();
        let picture = OwnedPicture::from_rgb(width, height, data).unwrap();
        let mask = |objects: usize| {
            let ids: Vec<u8> =
                (0..width * height).map(|at| (at % width * (objects + 1) / width) as u8).collect();
            ReferenceMask::from_labels(width, height, &ids).unwrap()
        };
        let options = Options { device: DeviceChoice::Cpu, network_size: (96, 64), ..Options::default() };
        let mut segmenter = Segmenter::new(&options, 1).unwrap();
        let mut use_reference = |quality: Option<Quality>, encode: bool| {
            let encoder = segmenter.tracker().reference_encoder().unwrap();
            if let Some(quality) = quality {
                segmenter.tracker_mut().set_quality(quality).unwrap();
            }
            let encoded = encode
                .then(|| encoder.encode(&mut picture.as_picture(), &mask(2), ReferenceUse::Set).unwrap());
            let reference = Reference::new(mask(1), Some(picture.clone())).with_encoded(encoded);
            let change = Some(Change::Resume(vec![Arc::new(reference)]));
            assert!(segmenter.process_frame((&frame, None), &info, change, false).is_ok());
            segmenter.tracker().object_ids().to_vec()
        };
        assert_eq!(use_reference(None, true), [1, 2]);
        assert_eq!(use_reference(None, false), [1]);
        assert_eq!(use_reference(Some(Quality::Fine), true), [1]);
    }
}
