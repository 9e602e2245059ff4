// SPDX-License-Identifier: MPL-2.0

//! Requests to select an object, between the threads that make them and the streaming thread.

use super::reference::State;
use super::shared::Shared;
use crate::model::prompt::{Point, Prompt, Rect};

/// What to select in the next buffer.
#[derive(Debug)]
pub struct SelectionRequest {
    pub prompt: Prompt,
    pub kind: RequestKind,
    /// [Epoch](super::reference::ReferenceSlot::epoch) of the reference that the user saw.
    pub epoch: u64,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// From `ref-box` and `ref-points`: in `ref-image`, if it is set.
    Property,
    /// A selection in the frame.
    New,
    /// A correction of the mask of the frame.
    Correction,
}

impl Shared {
    /// Requests a selection in place of an earlier request.
    pub fn request(&mut self, prompt: Prompt, kind: RequestKind) {
        self.request = Some(SelectionRequest { prompt, kind, epoch: self.slot.epoch() });
    }

    /// Requests a selection. A box or point is added to what was requested for the same buffer.
    pub fn request_more(&mut self, rect: Option<Rect>, point: Option<Point>) {
        if !self.request.as_ref().is_some_and(|request| request.kind == RequestKind::New) {
            self.request(Prompt::default(), RequestKind::New);
        }
        if let Some(SelectionRequest { prompt, .. }) = &mut self.request {
            prompt.rect = rect.or(prompt.rect);
            prompt.points.extend(point);
        }
    }

    /// Requests what a click means: a correction if there is an object, or if one is being selected.
    pub fn click(&mut self, point: Point) {
        let epoch = self.slot.epoch();
        let waiting = self.request.as_mut();
        if let Some(request) =
            waiting.filter(|request| request.kind != RequestKind::Property && request.epoch == epoch)
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
        let mut request = self.request.take()?;
        if request.epoch != self.slot.epoch() {
            return None;
        }
        if request.kind != RequestKind::Correction {
            return Some(request);
        }
        match self.slot.state() {
            State::Seeded | State::Recovered if self.selecting.is_empty() => (),
            State::None | State::Lost if self.selecting.is_empty() => {
                // There is nothing to correct.
                request.prompt.points.retain(|point| point.positive);
                request.kind = RequestKind::New;
                if request.prompt.points.is_empty() {
                    return None;
                }
            }
            _ => {
                self.request = Some(request);
                return None;
            }
        }
        Some(request)
    }
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
    }
}
