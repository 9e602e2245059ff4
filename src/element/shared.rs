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
use super::reference::{Ask, ReferenceSlot, State};
use super::request::{RequestKind, SelectionRequest};
use super::statistics::Statistics;
use crate::device::DeviceChoice;
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
    /// Device of the networks since the start. The property may have changed.
    pub device: DeviceChoice,
    /// The application has requested a restart of tracking from the reference.
    pub reset: bool,
    /// A segment began after the last buffer.
    pub new_segment: bool,
    /// The stream was flushed while a buffer was processed, by a handler of a message.
    pub flushed: bool,
    /// What to select in the next buffer.
    pub request: Option<SelectionRequest>,
    /// A correction, which waits until a mask is in use and nothing else is being selected.
    pub correction: Option<SelectionRequest>,
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
    /// Requests a selection in place of an earlier request and of corrections of the mask before it, or a correction.
    pub fn request(&mut self, prompt: Prompt, kind: RequestKind) {
        let request = Some(SelectionRequest { prompt, kind, ask: self.slot.ask() });
        match kind {
            RequestKind::Correction => self.correction = request,
            RequestKind::Property | RequestKind::New => (self.request, self.correction) = (request, None),
        }
    }

    /// Whether something is to be selected or corrected.
    pub fn has_request(&self) -> bool {
        self.request.is_some() || self.correction.is_some()
    }

    /// Drops what is to be selected or corrected.
    pub fn clear_requests(&mut self) {
        (self.request, self.correction) = (None, None);
    }

    /// Kind of the request for the next buffer, unless something that was asked for later is in use.
    fn current_kind(&self) -> Option<RequestKind> {
        self.request.as_ref().filter(|request| self.slot.is_current(request.ask)).map(|request| request.kind)
    }

    /// Whether `ref-box` and `ref-points` were set after any other reference.
    pub fn selects_with_properties(&self) -> bool {
        self.current_kind() == Some(RequestKind::Property)
    }

    /// Adds to the correction, if there is one, or to the request for the next buffer.
    fn extend_request(&mut self, rect: Option<Rect>, point: Option<Point>) {
        let request = self.correction.as_mut().or(self.request.as_mut());
        if let Some(SelectionRequest { prompt, ask, .. }) = request {
            prompt.rect = rect.or(prompt.rect);
            prompt.points.extend(point);
            *ask = self.slot.ask();
        }
    }

    /// Requests a selection. A box or point is added to what was requested for the same buffer.
    pub fn request_more(&mut self, rect: Option<Rect>, point: Option<Point>) {
        if self.current_kind() != Some(RequestKind::New) {
            self.request(Prompt::default(), RequestKind::New);
        }
        self.extend_request(rect, point);
    }

    /// Requests what a click means: a correction if there is an object, or if one is being selected.
    pub fn click(&mut self, point: Point) {
        self.correction.take_if(|correction| !self.slot.is_current(correction.ask));
        let kind = self.current_kind();
        if self.correction.is_some() || kind == Some(RequestKind::New) {
            return self.extend_request(None, Some(point));
        }
        let prompt = Prompt { points: vec![point], ..Prompt::default() };
        let has_object = matches!(self.slot.state(), State::Armed | State::Seeded | State::Recovered);
        if has_object || !self.selecting.is_empty() || kind == Some(RequestKind::Property) {
            self.request(prompt, RequestKind::Correction);
        } else if point.positive {
            self.request(prompt, RequestKind::New);
        }
    }

    /// Takes the request for the next buffer. It is dropped if something that was asked for later is in use.
    pub fn take_request(&mut self) -> Option<SelectionRequest> {
        for request in [&mut self.request, &mut self.correction] {
            request.take_if(|request| !self.slot.wants(request.ask));
        }
        if self.request.is_some() {
            return self.request.take();
        }
        let has_none = matches!(self.slot.state(), State::None | State::Lost);
        // There is nothing to correct.
        let mut request = self.correction.take_if(|_| has_none && self.selecting.is_empty())?;
        request.prompt.points.retain(|point| point.positive);
        request.kind = RequestKind::New;
        (!request.prompt.points.is_empty()).then_some(request)
    }

    /// Takes a correction of the mask of the frame that was processed last, and the number of that mask. It waits until the
    /// masks before it are in use.
    pub fn take_correction(&mut self) -> Option<(SelectionRequest, Ask)> {
        let is_tracked = matches!(self.slot.state(), State::Seeded | State::Recovered);
        let takes = |correction: &mut SelectionRequest| {
            is_tracked
                && self.request.is_none()
                && self.selecting.is_empty()
                && self.slot.wants(correction.ask)
        };
        Some((self.correction.take_if(takes)?, self.slot.in_use()))
    }

    /// Handles the start of stream `id`. Returns whether this arms a reference, and whether it ends a correction of a mask of
    /// the stream before. Selections are made in the next buffer, whatever its stream.
    pub fn start_stream(&mut self, id: &str) -> (bool, bool) {
        let before = self.slot.stream_number();
        let armed = self.slot.start_stream(id);
        let is_new = self.slot.stream_number() != before;
        (armed, self.correction.take_if(|_| is_new).is_some())
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
        let taken = shared.take_request().or_else(|| Some(shared.take_correction()?.0));
        taken.map(|request| (request.kind, request.prompt.points.len()))
    }

    #[test]
    fn a_correction_waits_for_the_selection_before_it() {
        let mut shared = tracked();
        let (ask, ticket) = (shared.slot.ask(), shared.selecting.begin());
        shared.click(point(0.0, true));
        shared.click(point(1.0, false));
        assert_eq!(taken(&mut shared), None);
        shared.slot.set_selected(ask, reference(), false);
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
    fn a_request_outlives_a_mask_that_was_asked_for_before_it() {
        for removes in [false, true] {
            let mut shared = tracked();
            let load = shared.slot.begin_load().unwrap();
            shared.request_more(None, Some(point(0.0, true)));
            assert!(shared.slot.finish(load, (!removes).then(reference)));
            let request = shared.take_request().unwrap();
            assert!(shared.slot.wants(request.ask));
            let later = shared.slot.begin_load().unwrap();
            assert!(shared.slot.wants(request.ask), "a file that is not read yet may be bad");
            assert!(shared.slot.finish(request.ask, Some(reference())));
            assert!(shared.slot.finish(later, Some(reference())));
            assert!(!shared.slot.wants(request.ask));
        }
    }

    #[test]
    fn a_correction_ends_with_its_stream_and_a_selection_does_not() {
        let mut shared = tracked();
        shared.start_stream("a");
        for click in [false, true] {
            seed(&mut shared);
            match click {
                true => shared.click(point(0.0, true)),
                false => shared.request_more(None, Some(point(0.0, true))),
            }
            assert_eq!(shared.start_stream("b"), (true, click));
            assert_eq!(taken(&mut shared).is_some(), !click);
            shared.start_stream("a");
        }
    }

    /// Only the last of them was selected.
    #[test]
    fn points_before_the_start_count_together() {
        let mut shared = Shared::default();
        shared.request_more(None, Some(point(0.0, true)));
        shared.request_more(None, Some(point(1.0, false)));
        assert_eq!(shared.request.as_ref().unwrap().prompt.points.len(), 2);
        let ask = shared.request.as_ref().unwrap().ask;
        assert!(shared.slot.is_current(ask));
        shared.slot.set_from_application(reference());
        assert!(!shared.slot.is_current(ask), "a mask that is set later replaces it");
        shared.request_more(None, Some(point(1.0, true)));
        assert_eq!(shared.request.as_ref().unwrap().prompt.points.len(), 1);
        let ask = shared.request.as_ref().unwrap().ask;
        assert!(shared.slot.begin_load().is_none() && !shared.slot.is_current(ask));
    }

    /// A click dropped the box.
    #[test]
    fn a_click_corrects_what_a_property_selects() {
        let mut shared = tracked();
        shared.request(Prompt { points: vec![point(0.0, true)], ..Prompt::default() }, RequestKind::Property);
        shared.click(point(1.0, false));
        shared.click(point(2.0, true));
        assert!(shared.take_correction().is_none());
        let request = shared.take_request().unwrap();
        assert_eq!((request.kind, request.prompt.points.len()), (RequestKind::Property, 1));
        assert!(shared.slot.finish(request.ask, Some(reference())));
        assert!(shared.take_request().is_none() && shared.take_correction().is_none(), "armed");
        seed(&mut shared);
        assert_eq!(taken(&mut shared), Some((RequestKind::Correction, 2)));
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
        assert!(!shared.has_request(), "a search for a person waits for requests");
        shared.request_more(None, Some(point(1.0, true)));
        assert_eq!(taken(&mut shared), Some((RequestKind::New, 1)), "not one more point of the old request");
    }
}
