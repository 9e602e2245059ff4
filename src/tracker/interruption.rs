// SPDX-License-Identifier: MPL-2.0

//! Interruptions of the picture: black or damaged frames, flashes, cuts to another scene and back.
//!
//! A cut is a frame that differs from the frame before it. The tracker's state from before a cut is saved. After
//! every later cut, and when an earlier scene returns, the tracker tries the saved states, each as it was and with
//! a search of the whole frame.

use std::collections::VecDeque;

use super::TrackerState;
use super::thumbnail::Thumbnail;

/// Consecutive frames less similar than this belong to different scenes. In 30 videos with fast motion, the
/// minimum is .66 between neighbouring frames and .42 between every other frame; 92 % of pairs of unrelated frames
/// are below the threshold.
const MAX_CUT_SIMILARITY: f64 = 0.5;
/// A frame at least this similar to a saved scene shows the same scene.
const MIN_SAME_SIMILARITY: f64 = 0.7;
/// A frame less similar than this to all saved scenes shows an unrelated scene.
const MIN_RELATED_SIMILARITY: f64 = 0.5;
/// Number of frames after a cut in which saved states are tried.
const RETRY_FRAMES: u32 = 3;
/// Maximum number of saved states.
const MAX_SAVED: usize = 3;
/// Maximum number of saved states that are tried in one frame.
const MAX_CANDIDATES: usize = 2;

/// Relation of a frame to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    Same,
    Cut,
    /// The frame has a single colour.
    Blank,
}

/// State of the tracker and thumbnail of the frame that it belongs to.
struct SavedScene {
    state: TrackerState,
    thumbnail: Thumbnail,
}

/// Detects interruptions and saves the states from before them.
#[derive(Default)]
pub struct Interruptions {
    last: Option<Thumbnail>,
    saved: VecDeque<SavedScene>,
    /// Remaining frames in which saved states are tried.
    retries: u32,
    /// The last frame showed the scene of a saved state.
    same: bool,
    /// The current scene is unrelated to those of all saved states.
    unrelated: bool,
}

impl Interruptions {
    /// Compares the next frame with the one before it. `state` is the tracker's state from before the frame if it
    /// is worth saving, because all objects were found; an interruption takes it.
    pub fn update(&mut self, thumbnail: &Thumbnail, state: &mut Option<TrackerState>) -> Continuity {
        let continuity = match &self.last {
            _ if thumbnail.is_blank() => Continuity::Blank,
            Some(last) if last.similarity(thumbnail) < MAX_CUT_SIMILARITY => Continuity::Cut,
            _ => Continuity::Same,
        };
        let last = self.last.replace(thumbnail.clone());
        if continuity != Continuity::Same
            && let (Some(state), Some(last)) = (state.take(), last)
        {
            self.keep(state, last);
        }
        let similarity =
            self.saved.iter().map(|scene| scene.thumbnail.similarity(thumbnail)).reduce(f64::max);
        let same = similarity.is_some_and(|similarity| similarity >= MIN_SAME_SIMILARITY);
        match continuity {
            Continuity::Cut => {
                self.unrelated = similarity.is_some_and(|similarity| similarity < MIN_RELATED_SIMILARITY);
            }
            _ if same => self.unrelated = false,
            _ => (),
        }
        match continuity {
            Continuity::Blank => self.retries = 0,
            Continuity::Cut => self.retries = RETRY_FRAMES,
            // The scene of a saved state has come back. Its objects may be others than those found now.
            Continuity::Same if same && !self.same && state.is_none() => self.retries = RETRY_FRAMES,
            Continuity::Same => self.retries = self.retries.saturating_sub(1),
        }
        self.same = same;
        continuity
    }

    /// Saves `state` although the scene continues, because the objects have vanished from one frame to the next.
    pub fn save_vanished(&mut self, state: TrackerState) {
        if let Some(last) = self.last.clone() {
            self.keep(state, last);
            self.retries = RETRY_FRAMES + 1;
        }
    }

    fn keep(&mut self, state: TrackerState, thumbnail: Thumbnail) {
        // One state per scene.
        self.saved.retain(|scene| scene.thumbnail.similarity(&thumbnail) < MIN_SAME_SIMILARITY);
        self.saved.push_front(SavedScene { state, thumbnail });
        self.saved.truncate(MAX_SAVED);
    }

    /// Returns the saved states to try in the present frame, the most similar scene first, and whether it is their scene.
    pub fn candidates(&self) -> Vec<(&TrackerState, bool)> {
        let Some(now) = self.last.as_ref().filter(|_| self.retries > 0) else { return Vec::new() };
        let mut saved: Vec<(f64, &SavedScene)> =
            self.saved.iter().map(|scene| (scene.thumbnail.similarity(now), scene)).collect();
        saved.sort_by(|a, b| b.0.total_cmp(&a.0));
        let candidates = saved.into_iter().take(MAX_CANDIDATES);
        candidates.map(|(similarity, scene)| (&scene.state, similarity >= MIN_SAME_SIMILARITY)).collect()
    }

    /// Returns whether the scene is unrelated to those in which the objects were found.
    pub fn is_unrelated(&self) -> bool {
        self.unrelated
    }

    /// Stops trying saved states until the next interruption, because the objects are found.
    pub fn settle(&mut self) {
        self.retries = 0;
    }
}
