// SPDX-License-Identifier: MPL-2.0

//! State behind the lock `shared`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::auto_reference::AutoReference;
use super::background::BackgroundSlot;
use super::in_progress::InProgress;
use super::latency::Latency;
use super::marks::Marks;
use super::navigation::Gestures;
use super::qos::Qos;
use super::reference::{ReferenceSlot, State};
use super::request::{RequestKind, SelectionRequest};
use super::statistics::Statistics;
use crate::model::prompt::{Point, Prompt, Rect};

/// State that the streaming thread shares with other threads.
#[derive(Default)]
pub struct Shared {
    pub slot: ReferenceSlot,
    pub background: BackgroundSlot,
    pub statistics: Statistics,
    pub qos: Qos,
    pub latency: Latency,
    pub active_device: Option<String>,
    /// The application has requested a restart of tracking from the reference.
    pub reset: bool,
    /// A segment began after the last buffer.
    pub new_segment: bool,
    /// The stream was flushed while a buffer was processed, by a handler of a message.
    pub flushed: bool,
    /// What to select in the next buffer.
    pub request: Option<SelectionRequest>,
    pub gestures: Gestures,
    pub auto: AutoReference,
    /// The user wants the next frame and its mask to be saved.
    pub save_mask: bool,
    /// Marks of the last selection, for the overlay.
    pub marks: Option<Marks>,
    /// Width and height of the picture; zero until caps are set.
    pub frame_size: (u32, u32),
    /// Selections that are not finished.
    pub selecting: InProgress,
    /// Whether the output has the colours of the input. `transform_meta` reads it while `stream` is locked.
    pub keeps_colors: bool,
}

impl Shared {
    /// Requests a selection in place of an earlier request.
    pub fn request(&mut self, prompt: Prompt, kind: RequestKind) {
        self.request = Some(SelectionRequest { prompt, kind, epoch: self.slot.epoch() });
    }

    /// The request for the next buffer, unless the reference that the user saw was replaced.
    fn current_request(&mut self) -> Option<&mut SelectionRequest> {
        let epoch = self.slot.epoch();
        self.request.as_mut().filter(|request| request.epoch == epoch)
    }

    /// Requests a selection. A box or point is added to what was requested for the same buffer.
    pub fn request_more(&mut self, rect: Option<Rect>, point: Option<Point>) {
        if !self.current_request().is_some_and(|request| request.kind == RequestKind::New) {
            self.request(Prompt::default(), RequestKind::New);
        }
        if let Some(SelectionRequest { prompt, .. }) = &mut self.request {
            prompt.rect = rect.or(prompt.rect);
            prompt.points.extend(point);
        }
    }

    /// Requests what a click means: a correction if there is an object, or if one is being selected.
    pub fn click(&mut self, point: Point) {
        if let Some(request) = self.current_request().filter(|request| request.kind != RequestKind::Property)
        {
            request.prompt.points.push(point);
            return;
        }
        let prompt = Prompt { points: vec![point], ..Prompt::default() };
        let has_object = matches!(self.slot.state(), State::Armed | State::Seeded | State::Recovered);
        if has_object || !self.selecting.is_empty() {
            self.request(prompt, RequestKind::Correction);
        } else if point.positive {
            self.request(prompt, RequestKind::New);
        }
    }

    /// Takes the request for the next buffer. A correction waits until the masks before it are in use. A request is
    /// dropped if the reference that the user saw was replaced.
    pub fn take_request(&mut self) -> Option<SelectionRequest> {
        let (epoch, state, selecting) = (self.slot.epoch(), self.slot.state(), !self.selecting.is_empty());
        self.request.take_if(|request| request.epoch != epoch);
        let corrects = self.request.as_ref()?.kind == RequestKind::Correction;
        if corrects && (selecting || state == State::Armed) {
            return None;
        }
        let mut request = self.request.take()?;
        if corrects && matches!(state, State::None | State::Lost) {
            // There is nothing to correct.
            request.prompt.points.retain(|point| point.positive);
            request.kind = RequestKind::New;
        }
        (!corrects || !request.prompt.points.is_empty()).then_some(request)
    }
}

/// Locks a mutex. A panic of another thread does not matter: state is replaced as a whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::reference::Reference;
    use super::*;
    use crate::mask::ReferenceMask;
    use crate::tracker::Presence;

    fn point(x: f64, positive: bool) -> Point {
        Point { x, y: 1.0, positive }
    }

    fn reference() -> Reference {
        Reference::new(ReferenceMask::from_soft(2, 1, vec![0, 255]).unwrap(), None)
    }

    /// State while an object is tracked.
    fn tracked() -> Shared {
        let mut shared = Shared::default();
        shared.slot.start(Some(reference()));
        seed(&mut shared);
        shared
    }

    fn seed(shared: &mut Shared) {
        let _ = shared.slot.take_change();
        shared.slot.change_applied();
        let _ = shared.slot.update(true, Presence::Seen);
        assert_eq!(shared.slot.state(), State::Seeded);
    }

    fn taken(shared: &mut Shared) -> Option<(RequestKind, usize)> {
        shared.take_request().map(|request| (request.kind, request.prompt.points.len()))
    }

    #[test]
    fn a_correction_waits_for_the_selection_before_it() {
        let mut shared = tracked();
        let ticket = shared.selecting.begin();
        shared.click(point(0.0, true));
        shared.click(point(1.0, false));
        assert_eq!(taken(&mut shared), None);
        shared.slot.set_selected(reference());
        drop(ticket);
        assert_eq!(taken(&mut shared), None, "its mask is not in use");
        seed(&mut shared);
        assert_eq!(taken(&mut shared), Some((RequestKind::Correction, 2)));
    }

    #[test]
    fn a_click_during_a_selection_that_fails_selects() {
        let mut shared = Shared::default();
        shared.slot.start(None);
        let ticket = shared.selecting.begin();
        shared.click(point(0.0, true));
        shared.click(point(1.0, false));
        drop(ticket);
        assert_eq!(taken(&mut shared), Some((RequestKind::New, 1)));
        shared.click(point(1.0, false));
        assert_eq!(taken(&mut shared), None, "there is nothing to remove it from");
    }

    #[test]
    fn points_extend_the_selection_of_the_same_buffer() {
        let mut shared = tracked();
        shared.request_more(Some(Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }), None);
        shared.request_more(None, Some(point(0.0, true)));
        shared.click(point(1.0, false));
        let request = shared.take_request().unwrap();
        assert_eq!((request.kind, request.prompt.points.len()), (RequestKind::New, 2));
        assert!(request.prompt.rect.is_some());
    }

    #[test]
    fn a_request_ends_with_the_reference_that_the_user_saw() {
        let mut shared = tracked();
        shared.click(point(0.0, true));
        shared.slot.clear();
        shared.click(point(1.0, true));
        assert_eq!(taken(&mut shared), Some((RequestKind::New, 1)));
        shared.request_more(None, Some(point(0.0, true)));
        shared.slot.set_from_application(reference());
        assert_eq!(taken(&mut shared), None);
        assert!(shared.request.is_none(), "a search for a person waits for requests");
        shared.request_more(None, Some(point(1.0, true)));
        assert_eq!(taken(&mut shared), Some((RequestKind::New, 1)), "not one more point of the old request");
    }
}
