//! Interruptions of the picture: black or damaged frames, flashes, cuts to another scene and back.
//!
//! A cut is a frame that does not look like the frame before it. The tracker's state from before a cut is kept. After
//! every later cut, and when the scene of before is back, the tracker tries the kept states beside a search of the
//! whole frame.

use std::collections::VecDeque;

use super::TrackerState;
use super::thumbnail::Thumbnail;

/// Frames less similar than this are of different scenes. Neighbouring frames of 30 videos with fast motion are .66 at
/// least, every other frame .42; of pairs of unrelated frames 92 % are below.
const CUT: f64 = 0.5;
/// A frame at least this similar to one from before an interruption shows the same scene.
const SAME: f64 = 0.7;
/// A frame less similar than this to all frames from before interruptions is of an unrelated scene.
const RELATED: f64 = 0.5;
/// Frames after a cut in which kept states are tried.
const TRIES: u32 = 3;
/// States that are kept.
const KEPT: usize = 3;
/// Kept states that are tried in one frame.
const TRIED: usize = 2;

/// What a frame is to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// It goes on.
    Same,
    /// It shows something else.
    Cut,
    /// It shows nothing: one colour.
    Blank,
}

/// A state of the tracker and the frame that it belongs to.
struct Kept {
    state: TrackerState,
    thumbnail: Thumbnail,
}

/// Finds interruptions and keeps the states from before them.
#[derive(Default)]
pub struct Interruptions {
    last: Option<Thumbnail>,
    kept: VecDeque<Kept>,
    /// Frames in which kept states are still to be tried.
    tries: u32,
    /// The last frame showed the scene of a kept state.
    same: bool,
    /// Since the last cut the scene is unrelated to those of all kept states.
    unrelated: bool,
}

impl Interruptions {
    /// Takes note of the next frame. `state` is the tracker's state from before it, if that is worth keeping. It is
    /// taken at an interruption.
    pub fn update(&mut self, thumbnail: &Thumbnail, state: &mut Option<TrackerState>) -> Continuity {
        let continuity = match &self.last {
            _ if thumbnail.is_blank() => Continuity::Blank,
            Some(last) if last.similarity(thumbnail) < CUT => Continuity::Cut,
            _ => Continuity::Same,
        };
        let last = self.last.replace(thumbnail.clone());
        if continuity != Continuity::Same
            && let (Some(state), Some(last)) = (state.take(), last)
        {
            self.keep(state, last);
        }
        let similarity = self.kept.iter().map(|kept| kept.thumbnail.similarity(thumbnail)).reduce(f64::max);
        let same = similarity.is_some_and(|similarity| similarity >= SAME);
        match continuity {
            Continuity::Cut => self.unrelated = similarity.is_some_and(|similarity| similarity < RELATED),
            _ if same => self.unrelated = false,
            _ => (),
        }
        match continuity {
            Continuity::Blank => self.tries = 0,
            Continuity::Cut => self.tries = TRIES,
            Continuity::Same if same && !self.same => self.tries = TRIES,
            Continuity::Same => self.tries = self.tries.saturating_sub(1),
        }
        self.same = same;
        continuity
    }

    /// Keeps a state although the scene is the same: the objects have vanished from one frame to the next.
    pub fn vanished(&mut self, state: TrackerState) {
        if let Some(last) = self.last.clone() {
            self.keep(state, last);
            self.tries = TRIES + 1;
        }
    }

    fn keep(&mut self, state: TrackerState, thumbnail: Thumbnail) {
        // One state a scene.
        self.kept.retain(|kept| kept.thumbnail.similarity(&thumbnail) < SAME);
        self.kept.push_front(Kept { state, thumbnail });
        self.kept.truncate(KEPT);
    }

    /// The kept states to be tried in the present frame, the most similar scene first.
    pub fn candidates(&self) -> Vec<&TrackerState> {
        let Some(now) = self.last.as_ref().filter(|_| self.tries > 0) else { return Vec::new() };
        let mut kept: Vec<(f64, &Kept)> =
            self.kept.iter().map(|kept| (kept.thumbnail.similarity(now), kept)).collect();
        kept.sort_by(|a, b| b.0.total_cmp(&a.0));
        kept.into_iter().take(TRIED).map(|(_, kept)| &kept.state).collect()
    }

    /// Whether the scene is unrelated to those in which the objects were found.
    pub fn is_unrelated(&self) -> bool {
        self.unrelated
    }

    /// The objects are found: nothing needs to be tried until the next interruption.
    pub fn settle(&mut self) {
        self.tries = 0;
    }
}
