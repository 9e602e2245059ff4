//! The tracker, fed with video frames.

use gstreamer_video::VideoInfo;

use super::fault::Fault;
use super::reference::Change;
use crate::Result;
use crate::frame::{Frame, Shrinker, View};
use crate::tracker::{Matte, Options, Tracker};

pub struct Engine {
    tracker: Tracker,
    shrinker: Option<Shrinker>,
}

/// What came of one frame.
pub struct Followed {
    /// Nothing without a reference.
    pub matte: Option<Matte>,
    /// A mask has become the reference with this frame.
    pub seeded: bool,
}

impl Engine {
    /// # Errors
    /// Those of [`Tracker::new`].
    pub fn new(options: &Options) -> Result<Self> {
        Ok(Self { tracker: Tracker::new(options)?, shrinker: None })
    }

    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Frames to come are of another format.
    pub fn forget_format(&mut self) {
        self.shrinker = None;
    }

    /// The matte of the next frame, `info` being its format. With `restart`, nothing of the frames before
    /// is used, only the reference.
    ///
    /// # Errors
    /// A frame that cannot be converted, or an error of libtorch.
    pub fn follow(
        &mut self,
        frame: &Frame,
        info: &VideoInfo,
        change: Option<Change>,
        restart: bool,
    ) -> Result<Followed, Fault> {
        let Self { tracker, shrinker } = self;
        let mut seeded = false;
        if let Some(Change::Clear) = change {
            tracker.clear();
        }
        let arm = match change {
            Some(Change::Arm(reference)) => Some(reference),
            _ => None,
        };
        if arm.is_none() && !tracker.has_reference() {
            return Ok(Followed { matte: None, seeded });
        }

        let shrinker = match shrinker {
            Some(shrinker) => shrinker,
            None => shrinker.insert(Shrinker::new(info, tracker.network_size())?),
        };
        let mut view = View { frame, shrinker };
        if let Some(reference) = arm {
            seeded = true;
            match &reference.image {
                Some(image) => tracker.set_reference(&mut image.as_picture(), &reference.mask)?,
                None => {
                    tracker.set_reference(&mut view, &reference.mask)?;
                    return Ok(Followed { matte: Some(Matte::from_mask(&reference.mask)?), seeded });
                }
            }
        } else if restart {
            tracker.restart()?;
        }
        let mut matte = tracker.step(&mut view)?;
        if seeded || restart {
            matte.set_starts_over();
        }
        Ok(Followed { matte: Some(matte), seeded })
    }
}
