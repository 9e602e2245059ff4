// SPDX-License-Identifier: MPL-2.0

//! Loads references from files, samples and selections, and backgrounds.

use std::time::Instant;

use glib::subclass::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_base::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use super::correction::Correction;
use super::exit;
use super::frame::Frame;
use super::imp::FastGanSeg;
use super::in_progress::{InProgress, Ticket};
use super::marks::Marks;
use super::navigation::Gesture;
use super::reference::{Ask, Reference, ReferenceSlot, State};
use super::request::{RequestKind, SelectionRequest, Source};
use super::sample;
use super::selector::{Networks, Task};
use super::settings::Settings;
use super::signals::ReferenceSignal;
use super::stream::Host;
use super::{CAT, background};
use crate::Error;
use crate::image::OwnedPicture;
use crate::mask::{Interpretation, ReferenceMask};
use crate::matte::Matte;
use crate::model::person::Person;
use crate::model::prompt::Prompt;
use crate::tracker::{ReferenceEncoder, ReferenceUse};

/// Warns that a selection or the search for a person has ended if its thread panics.
struct PanicWarning {
    element: glib::WeakRef<super::FastGanSeg>,
    is_search: bool,
}

impl Drop for PanicWarning {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(obj) = self.element.upgrade()
        {
            let error = Error::Config("it has failed: please report it".into());
            match self.is_search {
                true => obj.imp().warn_search(&error),
                false => obj.imp().warn_selection(&error),
            }
        }
    }
}

impl FastGanSeg {
    /// Reads the reference that is set by properties, if any.
    pub(super) fn load(&self, settings: &Settings) -> crate::Result<Option<Reference>> {
        let Some(mask) = &settings.ref_mask else { return Ok(None) };
        let reference = Reference::open(mask, settings.ref_image.as_deref())?;
        self.log_reading(&reference.mask);
        Ok(Some(reference))
    }

    /// Reads the reference on another thread, with the current settings. Settings read later would be wrong: a bad file
    /// set right after a good one would be loaded twice, and the good one never. Without a mask, `ref-box` and `ref-points`
    /// apply.
    pub(super) fn load_later(&self, load: Ask) {
        let settings = self.settings().clone();
        let has_mask = settings.ref_mask.is_some();
        self.obj().call_async(move |obj| obj.imp().load_while_running(load, &settings));
        if !has_mask {
            self.arm_prompt();
        }
    }

    fn load_while_running(&self, load: Ask, settings: &Settings) {
        match self.load(settings) {
            Ok(reference) => {
                let armed = reference.is_some();
                let (origin, warnings) = reference
                    .as_ref()
                    .map(|reference| (reference.mask.origin().to_owned(), reference.warnings()))
                    .unwrap_or_default();
                let current = self.shared().slot.finish(load, reference);
                if current && armed {
                    self.post_mask_warnings(&origin, warnings);
                    self.post_reference(State::Armed, None, None);
                }
            }
            Err(error) => {
                // A stopped element has none.
                let is_last = self.shared().slot.last_load() == load;
                if is_last {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Read,
                        ("{error}. The previous reference, if any, stays in use")
                    );
                }
            }
        }
    }

    /// Handles the signals `set-reference` and `add-reference`. Returns whether the mask is accepted.
    pub(super) fn give_reference(
        &self,
        signal: ReferenceSignal,
        mask: Option<gst::Sample>,
        image: Option<gst::Sample>,
    ) -> bool {
        let accepted = match &mask {
            Some(mask) => self.try_give_reference(signal, mask, image.as_deref()),
            None => Err(Error::Config("it was called without a mask: pass a sample of raw video".into())),
        };
        if let Err(error) = &accepted {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("{}: {error}. The previous reference, if any, stays in use", signal.name())
            );
        }
        accepted.is_ok()
    }

    fn try_give_reference(
        &self,
        signal: ReferenceSignal,
        mask: &gst::SampleRef,
        image: Option<&gst::SampleRef>,
    ) -> crate::Result<()> {
        let reference = Reference::from_samples(mask, image)?;
        self.log_reading(&reference.mask);
        let (origin, warnings) = (reference.mask.origin().to_owned(), reference.warnings());
        let armed = {
            let mut shared = self.shared();
            match signal {
                ReferenceSignal::Set => shared.slot.set_from_application(reference),
                ReferenceSignal::Add => {
                    shared.slot.add(reference)?;
                    true
                }
            }
        };
        self.post_mask_warnings(&origin, warnings);
        if armed {
            self.post_reference(State::Armed, None, None);
        }
        Ok(())
    }

    /// Selects the object of `ref-box` and `ref-points` in the next buffer.
    pub(super) fn arm_prompt(&self) {
        let (prompt, has_mask) = {
            let settings = self.settings();
            (settings.prompt(), settings.ref_mask.is_some())
        };
        match prompt {
            Ok(None) => {
                self.shared().request.take_if(|request| request.kind == RequestKind::Property);
            }
            Ok(Some(_)) if has_mask => self.warn_prompt_unused(),
            Ok(Some(prompt)) => self.shared().request(prompt, RequestKind::Property),
            // The start reports it.
            Err(_) if !self.shared().slot.is_running() => (),
            Err(error) => self.warn_selection(&error),
        }
    }

    /// Makes a reference of what a request selects in `frame` or in `ref-image`. `corrected` is the matte that a correction
    /// changes, and the number of its mask.
    ///
    /// # Errors
    /// A prompt outside of the picture, a picture that cannot be read, and errors of libtorch.
    pub(super) fn try_select(
        &self,
        request: SelectionRequest,
        frame: &Frame,
        corrected: Option<(&Matte, Ask)>,
        encoder: Option<ReferenceEncoder>,
    ) -> crate::Result<()> {
        let again = request.repeated();
        let SelectionRequest { prompt, kind, ask } = request;
        let device = self.shared().device;
        let (ref_image, interactive, object) = {
            let settings = self.settings();
            let ref_image = settings.ref_image.clone().filter(|_| kind == RequestKind::Property);
            let object = settings.matte().object;
            (ref_image, settings.interactive, object)
        };
        let has_image = ref_image.is_some();
        let (ticket, stream) = {
            let mut shared = self.shared();
            shared.marks = ref_image.is_none().then(|| Marks::new(&prompt));
            (shared.selecting.begin(), ref_image.is_none().then(|| shared.slot.stream_number()))
        };
        let (source, prompt) = match ref_image {
            Some(path) => (Source::File(path), prompt),
            None => {
                let size = (frame.width() as usize, frame.height() as usize);
                let prompt = if kind == RequestKind::Property { prompt } else { prompt.clipped(size) };
                if corrected.is_none() {
                    prompt.check(size)?;
                }
                let picture = reference_picture(frame)?;
                let view = picture.as_picture();
                let scale = (view.width as f64 / size.0 as f64, view.height as f64 / size.1 as f64);
                let size = (view.width, view.height);
                (Source::Frame(picture), prompt.scaled(scale, size))
            }
        };
        let (task, correction) = match (corrected, &source) {
            (Some((matte, _)), Source::Frame(picture)) => {
                let size = (picture.as_picture().width, picture.as_picture().height);
                let ends = || Error::Config("the process ends".into());
                let permission = exit::permission().ok_or_else(ends)?;
                let correction = Correction::new(matte, &prompt.points, object, size)?;
                drop(permission);
                let alpha = correction.alpha().to_vec();
                (Task::Correct { alpha, points: prompt.points }, Some(correction))
            }
            _ => (Task::Select(prompt), None),
        };
        let waits = match kind {
            RequestKind::Property => true,
            RequestKind::New => !interactive,
            RequestKind::Correction => false,
        };
        if waits && !self.upstream_is_live() {
            let select = move |networks: &mut Networks| {
                let picture = source.open(task.prompt())?;
                let mask = networks.run(&task, &picture, |_| ())?;
                Ok((mask, picture))
            };
            let Some((mask, picture)) = self.selector.run(select, device, || self.is_flushing())? else {
                // For the first buffer after the flush.
                self.shared().request.get_or_insert(again);
                return Ok(());
            };
            let image = has_image.then_some(picture);
            self.shared().marks = None;
            self.arm_selected(ask, Reference::new(mask, image));
            return Ok(());
        }
        let replaced = corrected.map_or(ask, |(_, mask)| mask);
        let weak = self.obj().downgrade();
        let select = move |networks: &mut Networks| {
            let _ticket = ticket;
            let _warning = PanicWarning { element: weak.clone(), is_search: false };
            let picture = match (source.open(task.prompt()), weak.upgrade()) {
                (Ok(picture), _) => picture,
                (Err(error), Some(obj)) => return obj.imp().warn_selection(&error),
                (Err(_), None) => return,
            };
            // Whether the preliminary mask is set, which the last one replaces.
            let mut refines = false;
            let mut set = |mask: crate::Result<ReferenceMask>, is_last: bool| {
                let Some(obj) = weak.upgrade() else { return };
                let element = obj.imp();
                let encoder = encoder.as_ref();
                let target =
                    Target { picture: &picture, encoder, ask: replaced, stream, refines, yields: false };
                let set = mask.and_then(|mask| element.set_selected(mask, &target, correction.as_ref()));
                match set {
                    Ok(true) => refines = true,
                    // Nothing that was asked for later has taken its place.
                    Ok(false) if is_last && element.shared().slot.wants(ask) => {
                        element.warn_ended();
                    }
                    Ok(false) => (),
                    // It has stopped.
                    Err(_) if !element.shared().slot.is_running() => (),
                    Err(error) if is_last && refines => element.warn_not_refined(&error),
                    Err(error) if is_last => element.warn_selection(&error),
                    Err(_) => (),
                }
            };
            let mask = networks.run(&task, &picture, |mask| set(mask, false));
            set(mask, true);
        };
        self.selector.queue(Box::new(select), device)
    }

    /// Arms a mask that was selected in the next buffer, or in the reference's own image.
    fn arm_selected(&self, ask: Ask, reference: Reference) {
        let armed = self.shared().slot.finish(ask, Some(reference));
        if armed {
            self.post_reference(State::Armed, None, None);
        }
    }

    /// Searches for a person in `frame`, the next buffer, to become the reference. In live pipelines that happens later.
    ///
    /// # Errors
    /// The frame cannot be converted, and errors of libtorch.
    pub(super) fn try_find_person(
        &self,
        frame: &Frame,
        encoder: Option<ReferenceEncoder>,
        search: Ticket,
    ) -> crate::Result<()> {
        let device = self.shared().device;
        let picture = reference_picture(frame)?;
        // Nobody asks for a person, so that whatever the application asks for meanwhile replaces it.
        let (ask, stream) = {
            let shared = self.shared();
            (shared.slot.in_use(), Some(shared.slot.stream_number()))
        };
        if !self.upstream_is_live() {
            let find = move |networks: &mut Networks| {
                let person = networks.find_person(&picture)?;
                person.map(|person| networks.refine_person(&picture, &person)).transpose()
            };
            let Some(mask) = self.selector.run(find, device, || self.is_flushing())? else {
                self.shared().auto.forget_search();
                return Ok(());
            };
            self.shared().auto.finish_search(None, false);
            if let Some(mask) = mask {
                self.arm_selected(ask, Reference::new(mask, None).bound_to_stream());
            }
            return Ok(());
        }
        let weak = self.obj().downgrade();
        let find = move |networks: &mut Networks| {
            let _search = search;
            let _warning = PanicWarning { element: weak.clone(), is_search: true };
            let found = networks.find_person(&picture);
            let Some(obj) = weak.upgrade() else { return };
            let element = obj.imp();
            let region = found.as_ref().ok().and_then(|found| found.as_ref()).map(|person| person.region);
            let confirmed = element.shared().auto.finish_search(region, true);
            let set = match found {
                Ok(Some(person)) if confirmed => {
                    let encoder = encoder.as_ref();
                    let (picture, refines, yields) = (&picture, false, true);
                    let target = Target { picture, encoder, ask, stream, refines, yields };
                    element.set_person(networks, &person, target)
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match set {
                Ok(()) => element.shared().auto.clear_error(),
                Err(_) if !element.shared().slot.is_running() => (),
                Err(error) => element.warn_search(&error),
            }
        };
        self.selector.queue(Box::new(find), device)
    }

    /// Makes a person the reference: at once, and then with better edges. A reference that was set meanwhile stays.
    fn set_person(&self, networks: &mut Networks, person: &Person, mut target: Target) -> crate::Result<()> {
        let (width, height) = (target.picture.as_picture().width, target.picture.as_picture().height);
        let mask = ReferenceMask::from_soft(width, height, person.alpha.clone())?;
        target.refines = self.set_selected(mask, &target, None)?;
        if !target.refines {
            return Ok(());
        }
        let refined = networks.refine_person(target.picture, person)?;
        self.set_selected(refined, &target, None)?;
        Ok(())
    }

    /// Sets a selected mask, or adds a corrected one. Returns false if it is not wanted any more.
    fn set_selected(
        &self,
        mask: ReferenceMask,
        target: &Target,
        correction: Option<&Correction>,
    ) -> crate::Result<bool> {
        let (mask, purpose) = match correction {
            Some(correction) => (correction.apply(&mask)?, ReferenceUse::Add),
            None => (mask, ReferenceUse::Set),
        };
        if !target.is_wanted(&self.shared().slot) {
            return Ok(false);
        }
        let encode = |encoder: &ReferenceEncoder| {
            let encoded = encoder.encode(&mut target.picture.as_picture(), &mask, purpose);
            // The streaming thread tries again, and reports the error.
            encoded.inspect_err(|error| gst::debug!(CAT, imp = self, "not encoded: {error}")).ok()
        };
        let encoded = target.encoder.and_then(encode);
        let mut reference = Reference::new(mask, Some(target.picture.clone())).with_encoded(encoded);
        if target.yields {
            reference = reference.bound_to_stream();
        }
        {
            let mut shared = self.shared();
            let slot = &mut shared.slot;
            // It may have changed during the encoding.
            if !target.is_wanted(slot) {
                return Ok(false);
            }
            match correction {
                Some(_) => slot.add(reference)?,
                None => slot.set_selected(target.ask, reference, target.refines),
            }
        }
        self.post_reference(State::Armed, None, None);
        Ok(true)
    }

    /// Turns mouse and key events into selections. Returns whether the event is handled and must not be passed on.
    pub(super) fn handle_navigation(&self, event: &gst::EventRef) -> bool {
        let Ok(event) = gst_video::NavigationEvent::parse(event) else { return false };
        let saves = self.settings().mask_location.is_some()
            && matches!(&event, gst_video::NavigationEvent::KeyPress { key, .. } if key == "s");
        let mut shared = self.shared();
        shared.save_mask |= saves;
        if saves {
            return true;
        }
        let size = (f64::from(shared.frame_size.0), f64::from(shared.frame_size.1));
        let Some(gesture) = shared.gestures.update(&event, size, Instant::now()) else { return false };
        match gesture {
            None => (),
            Some(Gesture::Clear) => {
                shared.clear_requests();
                // Their masks are out of date.
                shared.selecting = InProgress::default();
                shared.slot.clear();
            }
            Some(Gesture::Box(rect)) => {
                shared.request(Prompt { rect: Some(rect), ..Prompt::default() }, RequestKind::New);
            }
            Some(Gesture::New(point)) => {
                shared.request(Prompt { points: vec![point], ..Prompt::default() }, RequestKind::New);
            }
            Some(Gesture::Point(point)) => shared.click(point),
        }
        true
    }

    /// Whether upstream is live. Then frames must not wait.
    pub(super) fn upstream_is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        self.obj().sink_pad().peer_query(&mut query) && query.result().0
    }

    pub(super) fn warn_selection(&self, error: &Error) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("Nothing is selected: {error}. The earlier reference, if any, stays in use")
        );
    }

    /// Warns of an error of the search for a person, unless the search before had the same.
    fn warn_search(&self, error: &Error) {
        let is_new = self.shared().auto.is_new_error(error);
        if is_new {
            self.warn_selection(error);
        }
    }

    /// The mask of a close-up cannot take the place of the first mask of a selection.
    fn warn_not_refined(&self, error: &Error) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("The first mask of the selection stays in use, because it cannot be refined: {error}")
        );
    }

    /// A selection or correction cannot be used any more, although nothing was asked for after it.
    pub(super) fn warn_ended(&self) {
        let reason = "another stream began, or another mask was set, before it was ready: repeat it";
        self.warn_selection(&Error::Config(reason.into()));
    }

    pub(super) fn warn_prompt_unused(&self) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("ref-mask is set, so ref-box and ref-points are not used: unset ref-mask to select with them")
        );
    }

    /// Reads the background at the start of the element.
    ///
    /// # Errors
    /// Those of [`background::load`].
    pub(super) fn start_background(&self) -> crate::Result<()> {
        // A value that is set meanwhile is read in the next round.
        loop {
            let changes = self.shared().background.changes;
            let text = self.settings().background.clone();
            let background = text.as_deref().map(background::load).transpose()?;
            let mut shared = self.shared();
            if shared.background.changes == changes {
                shared.background.start(background);
                return Ok(());
            }
        }
    }

    /// Uses the value that was set, a picture as soon as another thread has read it.
    pub(super) fn change_background(&self) {
        let text = self.settings().background.clone();
        let Some(id) = self.shared().background.begin() else { return };
        let is_file =
            text.as_deref().is_some_and(|text| matches!(text.parse(), Ok(background::Value::File(_))));
        if is_file {
            self.obj().call_async(move |obj| obj.imp().finish_background(id, text.as_deref()));
        } else {
            self.finish_background(id, text.as_deref());
        }
    }

    fn finish_background(&self, id: u64, text: Option<&str>) {
        match text.map(background::load).transpose() {
            Ok(background) => {
                let is_new = self.shared().background.finish(id, background);
                if is_new {
                    self.renegotiate();
                }
            }
            Err(error) => {
                let is_last = self.shared().background.is_last(id);
                let kept = "The previous background, if any, stays in use";
                match error {
                    _ if !is_last => (),
                    Error::Config(_) => {
                        gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{error}. {kept}"))
                    }
                    _ => gst::element_imp_warning!(self, gst::ResourceError::Read, ("{error}. {kept}")),
                }
            }
        }
    }

    fn log_reading(&self, mask: &ReferenceMask) {
        if mask.interpretation() == Interpretation::GreyIds {
            gst::info!(
                CAT,
                imp = self,
                "{}: no value except 255 is above 16, so the values are read as object ids, and 255 as void",
                mask.origin().display()
            );
        }
    }
}

/// What a selected mask is set for.
struct Target<'a> {
    picture: &'a OwnedPicture,
    encoder: Option<&'a ReferenceEncoder>,
    /// What was asked for. Of a correction and of a person: what was in use.
    ask: Ask,
    /// Number of the stream that the picture is from.
    stream: Option<u64>,
    /// Whether the preliminary mask of the same selection is set.
    refines: bool,
    /// Whether the first mask is for an object that nothing tracks.
    yields: bool,
}

impl Target<'_> {
    /// Whether the mask is still wanted: nothing else is in use, and the stream is the same.
    fn is_wanted(&self, slot: &ReferenceSlot) -> bool {
        slot.wants(self.ask)
            && self.stream.is_none_or(|stream| stream == slot.stream_number())
            && (self.refines || !self.yields || matches!(slot.state(), State::None | State::Lost))
    }
}

/// Returns a copy of a frame to select in.
///
/// # Errors
/// The format cannot be converted.
fn reference_picture(frame: &Frame) -> crate::Result<OwnedPicture> {
    let bad = |error: glib::BoolError| Error::Config(format!("the frame cannot be converted: {error}"));
    sample::reference_picture(frame).map_err(bad)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was silent.
    #[test]
    fn a_selection_that_panics_posts_a_warning() {
        gst::init().unwrap();
        let element: super::super::FastGanSeg = glib::Object::new();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let weak = element.downgrade();
        let warning = PanicWarning { element: weak.clone(), is_search: false };
        let panicked = std::thread::spawn(move || {
            let _warning = warning;
            panic!("of the test")
        });
        assert!(panicked.join().is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Warning]).expect("a warning");
        let gst::MessageView::Warning(warning) = message.view() else { unreachable!() };
        let text = warning.error().to_string();
        assert!(text.contains("it has failed: please report it"), "{text}");
        drop(PanicWarning { element: weak, is_search: false });
        assert!(bus.pop_filtered(&[gst::MessageType::Warning]).is_none());
    }
}
