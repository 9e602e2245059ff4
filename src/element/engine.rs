//! The tracker, fed with video frames.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use gstreamer_video::VideoInfo;

use super::process_error::ProcessError;
use super::reference::Change;
use super::thread_tuner::ThreadTuner;
use crate::element::frame::{Frame, Shrinker, View};
use crate::image::Scene;
use crate::matte::Matte;
use crate::tracker::{Options, Prefetched, Presence, Tracker};
use crate::{Result, threads};

pub struct Engine {
    tracker: Tracker,
    shrinker: Option<Shrinker>,
    threads: Threads,
}

/// How many threads libtorch uses.
enum Threads {
    /// Always that many; 0 leaves the number of the application as it is.
    Fixed(u32),
    /// As many as are fastest at present.
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

/// OpenMP keeps a team of threads for each thread that ever wanted one. If that which loads the network and lives on
/// had one beside that which streams, there would be more of them than cores, and then OpenMP has them sleep between
/// any two steps of the network: with two threads on two cores a frame took nearly twice as long.
fn on_a_thread_of_its_own<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// What is known of one object in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObjectStatus {
    /// Its id in the mask.
    pub id: u8,
    pub present: bool,
    /// The region similarity to be expected of its mask, 0 to 1.
    pub confidence: f64,
}

/// What came of one frame.
pub struct FrameResult {
    /// Nothing without a reference.
    pub matte: Option<Matte>,
    /// A mask has become the reference with this frame.
    pub seeded: bool,
    /// Whether its objects are in the picture.
    pub presence: Presence,
    /// The same for each of them.
    pub objects: Vec<ObjectStatus>,
    /// The region similarity to be expected of the mask, 0 to 1; 1 of one that was drawn.
    pub confidence: f64,
    /// What the network took, if it ran.
    pub time: Option<Duration>,
}

impl Engine {
    /// # Errors
    /// Those of [`Tracker::new`].
    pub fn new(options: &Options, threads: u32) -> Result<Self> {
        let (tracker, mut threads) = on_a_thread_of_its_own(|| {
            // A new thread has the number of the process: of its physical cores, of `OMP_NUM_THREADS`, or of the
            // application.
            let most = threads::of_this_thread();
            // The prefetch thread has as many threads as the streaming thread.
            let most = if options.frame_threading { most.div_ceil(2) } else { most };
            let threads = match threads {
                0 => Threads::Automatic(Box::new(ThreadTuner::new(most))),
                count => Threads::Fixed(count),
            };
            threads::set_for_this_thread(threads.count());
            Ok::<_, crate::Error>((Tracker::new(options)?, threads))
        })?;
        if tracker.active_device() != "cpu" && matches!(threads, Threads::Automatic(_)) {
            threads = Threads::Fixed(0);
        }
        Ok(Self { tracker, shrinker: None, threads })
    }

    /// Threads that the network uses for the next frame; 0 if the application decides.
    pub fn threads(&self) -> u32 {
        self.threads.count()
    }

    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Why work is handed to the GPU bit by bit; said once.
    pub fn take_launch_warning(&mut self) -> Option<String> {
        self.tracker.take_launch_warning()
    }

    /// Frames to come are of another format.
    pub fn forget_format(&mut self) {
        self.shrinker = None;
    }

    /// Whether frames can be looked at before their turn.
    pub fn can_prefetch(&self) -> bool {
        self.tracker.can_prefetch()
    }

    /// Begins with the frame after the next, of the same format, on another thread.
    ///
    /// # Errors
    /// A frame that cannot be converted.
    pub fn prefetch(&mut self, frame: &Frame, info: &VideoInfo) -> Result<Option<Prefetched>, ProcessError> {
        let shrinker = self.shrinker.get_or_insert_with(|| Shrinker::new(info));
        Ok(self.tracker.prefetch(&mut View::new(frame, shrinker))?)
    }

    /// The matte of the next frame, `info` being its format; `prefetched` is what is known of it. With `restart`, nothing
    /// of the frames before is used, only the reference.
    ///
    /// # Errors
    /// A frame that cannot be converted, or an error of libtorch.
    pub fn process_frame(
        &mut self,
        (frame, prefetched): (&Frame, Option<Prefetched>),
        info: &VideoInfo,
        change: Option<Change>,
        restart: bool,
    ) -> Result<FrameResult, ProcessError> {
        let Self { tracker, shrinker, threads } = self;
        // Frames may come on another thread from one start of the stream to the next.
        tracker.set_threads(threads.count());
        if let Some(Change::Clear) = change {
            tracker.clear();
        }
        let resumes = matches!(change, Some(Change::Resume(_)));
        let arm = match change {
            Some(Change::Arm(reference) | Change::Resume(reference)) => Some(reference),
            _ => None,
        };
        let seeded = arm.is_some();
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
        // The mask that was drawn on this very frame; the network need not look for it.
        let mut drawn = None;
        if let Some(reference) = arm {
            match &reference.image {
                Some(image) => {
                    tracker.set_reference(&mut image.as_picture(), &reference.mask)?;
                    if resumes {
                        tracker.look_everywhere(view.size());
                    }
                }
                None => {
                    tracker.set_reference(&mut view, &reference.mask)?;
                    drawn = Some(Matte::from_mask(&reference.mask)?);
                }
            }
        } else if restart {
            tracker.restart()?;
        }
        let (mut matte, presence, confidence) = match drawn {
            Some(matte) => (matte, Presence::Seen, 1.0),
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
        if seeded || restart {
            matte.set_starts_over();
        }
        let time = Some(begun.elapsed());
        Ok(FrameResult { matte: Some(matte), seeded, presence, objects: objects(tracker), confidence, time })
    }
}

/// What the last frame told of each object; nothing was looked for yet in the frame of the reference itself.
fn objects(tracker: &Tracker) -> Vec<ObjectStatus> {
    let confidences =
        tracker.object_stats().iter().map(|evidence| evidence.confidence).chain(std::iter::repeat(1.0));
    tracker
        .object_ids()
        .iter()
        .zip(tracker.present())
        .zip(confidences)
        .map(|((&id, present), confidence)| ObjectStatus { id, present, confidence })
        .collect()
}
