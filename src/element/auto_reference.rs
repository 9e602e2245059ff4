// SPDX-License-Identifier: MPL-2.0

//! References without a selection: the person in front of a camera.

use std::time::{Duration, Instant};

use super::in_progress::{InProgress, Ticket};
use super::reference::State;
use crate::Error;
use crate::image::Region;
use crate::model::prompt::Rect;

/// Minimum time between frames in which a person is searched.
const INTERVAL: Duration = Duration::from_millis(200);
/// Number of consecutive searches of a live stream that must find a person in the same place, so that neither somebody
/// who walks past nor a mistake of one frame is taken.
const CONFIRMATIONS: u32 = 3;
/// Minimum intersection over union of the bounds of the same person in consecutive searches.
const SAME_PLACE: f64 = 0.6;

/// Decides when a person is searched, and whether the one that was found becomes the reference.
#[derive(Debug, Default)]
pub struct AutoReference {
    /// The search that is not finished.
    searching: InProgress,
    /// Running time of the last search.
    last: Option<Duration>,
    /// Running time since which all objects have been lost.
    lost: Option<Duration>,
    /// Time of the first search in a stream without timestamps.
    begun: Option<Instant>,
    /// Bounds of the person that was found last, and the number of consecutive searches that have found them.
    found: Option<(Region, u32)>,
    /// Text of the last error.
    error: String,
}

impl AutoReference {
    /// Begins a search in the frame at this running time if there is no reference, or if it has been lost for the
    /// `timeout`. Without timestamps, every frame is searched, and real time counts for the timeout.
    pub fn begin_search(
        &mut self,
        running_time: Option<Duration>,
        state: State,
        timeout: Duration,
    ) -> Option<Ticket> {
        let real_time = || self.begun.get_or_insert_with(Instant::now).elapsed();
        let now = running_time.unwrap_or_else(real_time);
        // Running time restarts with a flush.
        self.lost = (state == State::Lost).then(|| self.lost.filter(|&lost| lost <= now).unwrap_or(now));
        let is_wanted = match state {
            State::None => true,
            State::Lost => self.lost.is_some_and(|lost| now.saturating_sub(lost) >= timeout),
            State::Armed | State::Seeded | State::Recovered => false,
        };
        if !is_wanted {
            self.found = None;
        }
        let is_due =
            running_time.is_none() || self.last.is_none_or(|last| now < last || now - last >= INTERVAL);
        if !is_wanted || !is_due || !self.searching.is_empty() {
            return None;
        }
        self.last = Some(now);
        Some(self.searching.begin())
    }

    /// Returns whether the error of a search differs from that of the search before. Searches go on after errors.
    pub fn is_new_error(&mut self, error: &Error) -> bool {
        let text = error.to_string();
        let is_new = text != self.error;
        self.error = text;
        is_new
    }

    /// Forgets the last error, after a search without one.
    pub fn clear_error(&mut self) {
        self.error.clear();
    }

    /// Forgets a search that has ended early. The next frame is searched.
    pub fn forget_search(&mut self) {
        self.last = None;
    }

    /// Takes the result of a search, the bounds of a person. Returns whether the person becomes the reference.
    pub fn finish_search(&mut self, region: Option<Region>, live: bool) -> bool {
        self.found = region.map(|region| match self.found {
            Some((before, count)) if Rect::from(before).iou(&region.into()) >= SAME_PLACE => {
                (region, count + 1)
            }
            _ => (region, 1),
        });
        self.found.is_some_and(|(_, count)| !live || count >= CONFIRMATIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There were five warnings a second.
    #[test]
    fn the_same_error_is_reported_once() {
        let mut auto = AutoReference::default();
        let mut is_new = |text: &str| auto.is_new_error(&Error::Config(text.into()));
        assert_eq!(["a", "a", "b", "a"].map(&mut is_new), [true, false, true, true]);
        auto.clear_error();
        assert!(auto.is_new_error(&Error::Config("a".into())));
    }

    const PERSON: Region = Region { x: 40, y: 20, width: 60, height: 100 };
    const TIMEOUT: Duration = Duration::from_secs(5);

    fn at(milliseconds: u64) -> Option<Duration> {
        Some(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_live_person_is_confirmed_in_the_same_place() {
        let mut auto = AutoReference::default();
        let elsewhere = Region { x: 140, ..PERSON };
        for (time, region, becomes) in [
            (0, Some(PERSON), false),
            (200, Some(elsewhere), false),
            (400, Some(PERSON), false),
            (600, Some(PERSON), false),
            (800, None, false),
            (1000, Some(PERSON), false),
            (1200, Some(PERSON), false),
            (1400, Some(Region { x: 44, ..PERSON }), true),
        ] {
            let search = auto.begin_search(at(time), State::None, TIMEOUT);
            assert!(search.is_some());
            assert!(auto.begin_search(at(time + 300), State::None, TIMEOUT).is_none(), "it is searching");
            drop(search);
            assert_eq!(auto.finish_search(region, true), becomes, "{time}");
            assert!(auto.begin_search(at(time + 100), State::None, TIMEOUT).is_none(), "too soon");
        }
        assert!(auto.begin_search(at(0), State::None, TIMEOUT).is_some(), "after a seek");
        assert!(auto.begin_search(at(0), State::None, TIMEOUT).is_none(), "too soon");
        auto.forget_search();
        assert!(auto.begin_search(at(0), State::None, TIMEOUT).is_some(), "a flush has ended the search");
        assert!(AutoReference::default().finish_search(Some(PERSON), false), "offline, frames wait");
    }

    #[test]
    fn every_frame_without_a_timestamp_is_searched() {
        let mut auto = AutoReference::default();
        let mut begins = |state| auto.begin_search(None, state, Duration::ZERO).is_some();
        assert!(begins(State::None) && begins(State::None) && begins(State::Lost));
        assert!(!begins(State::Seeded));
        assert!(auto.begin_search(None, State::Lost, TIMEOUT).is_none(), "lost just now");
    }

    #[test]
    fn another_person_is_searched_when_the_first_one_has_been_lost_for_the_timeout() {
        let mut auto = AutoReference::default();
        let mut searches = |time: u64, state: State| {
            let searches = auto.begin_search(at(time), state, TIMEOUT).is_some();
            if searches {
                auto.finish_search(None, true);
            }
            searches
        };
        for state in [State::Armed, State::Seeded, State::Recovered] {
            assert!(!searches(1000, state));
        }
        assert!(!searches(2000, State::Lost) && !searches(6900, State::Lost));
        assert!(!searches(6950, State::Recovered), "back in time");
        assert!(!searches(7000, State::Lost) && !searches(11_900, State::Lost));
        assert!(searches(12_000, State::Lost) && !searches(12_100, State::Lost));
        assert!(searches(12_200, State::Lost));
        // After a flush to the beginning.
        assert!(!searches(0, State::Lost) && !searches(4900, State::Lost) && searches(5000, State::Lost));
    }
}
