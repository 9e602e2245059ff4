//! The tracker, fed with video frames.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use gstreamer_video::VideoInfo;

use super::fault::Fault;
use super::reference::Change;
use crate::Result;
use crate::frame::{Frame, Shrinker, View};
use crate::tracker::{Ahead, Matte, Options, Presence, Scene, Tracker};

pub struct Engine {
    tracker: Tracker,
    shrinker: Option<Shrinker>,
    /// For libtorch; 0 leaves it as it is.
    threads: i32,
}

/// Sets libtorch's number of threads, of which OpenMP keeps one for each thread that calls it.
fn take_threads(threads: i32) {
    if threads > 0 {
        tch::set_num_threads(threads);
    }
}

/// OpenMP keeps a team of threads for each thread that ever wanted one. If that which loads the network and lives on
/// had one beside that which streams, there would be more of them than cores, and then OpenMP has them sleep between
/// any two steps of the network: with two threads on two cores a frame took nearly twice as long.
fn on_a_thread_of_its_own<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// What came of one frame.
pub struct Followed {
    /// Nothing without a reference.
    pub matte: Option<Matte>,
    /// A mask has become the reference with this frame.
    pub seeded: bool,
    /// Whether its objects are in the picture.
    pub presence: Presence,
    /// The region similarity to be expected of the mask, 0 to 1; 1 of one that was drawn.
    pub confidence: f64,
    /// What the network took, if it ran.
    pub time: Option<Duration>,
}

impl Engine {
    /// # Errors
    /// Those of [`Tracker::new`].
    pub fn new(options: &Options, threads: u32) -> Result<Self> {
        let threads = i32::try_from(threads).unwrap_or_default();
        let tracker = on_a_thread_of_its_own(|| {
            take_threads(threads);
            Tracker::new(options)
        })?;
        Ok(Self { tracker, shrinker: None, threads })
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
    pub fn looks_ahead(&self) -> bool {
        self.tracker.looks_ahead()
    }

    /// Begins with the frame after the next, of the same format, on another thread.
    ///
    /// # Errors
    /// A frame that cannot be converted.
    pub fn look_ahead(&mut self, frame: &Frame, info: &VideoInfo) -> Result<Option<Ahead>, Fault> {
        let shrinker = self.shrinker.get_or_insert_with(|| Shrinker::new(info));
        Ok(self.tracker.look_ahead(&mut View { frame, shrinker })?)
    }

    /// The matte of the next frame, `info` being its format; `ahead` is what is known of it. With `restart`, nothing
    /// of the frames before is used, only the reference.
    ///
    /// # Errors
    /// A frame that cannot be converted, or an error of libtorch.
    pub fn follow(
        &mut self,
        (frame, ahead): (&Frame, Option<Ahead>),
        info: &VideoInfo,
        change: Option<Change>,
        restart: bool,
    ) -> Result<Followed, Fault> {
        let Self { tracker, shrinker, threads } = self;
        // Frames may come on another thread from one start of the stream to the next.
        take_threads(*threads);
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
            return Ok(Followed {
                matte: None,
                seeded,
                presence: Presence::Seen,
                confidence: 0.0,
                time: None,
            });
        }

        let shrinker = shrinker.get_or_insert_with(|| Shrinker::new(info));
        let mut view = View { frame, shrinker };
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
                let matte = tracker.step_from(&mut view, ahead)?;
                (matte, tracker.presence(), tracker.confidence())
            }
        };
        if seeded || restart {
            matte.set_starts_over();
        }
        Ok(Followed { matte: Some(matte), seeded, presence, confidence, time: Some(begun.elapsed()) })
    }
}
