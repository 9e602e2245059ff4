// SPDX-License-Identifier: MPL-2.0

//! References from files and samples, their hand-over to the streaming thread, and their state.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer_video::VideoInfo;

use crate::image::OwnedPicture;
use crate::mask::{MaskWarning, ReferenceMask};
use crate::tracker::{EncodedReference, MAX_ADDED_REFERENCES, MAX_OBJECTS, Presence};
use crate::{Error, Result};

/// A checked mask, and the image that it belongs to; without an image, it belongs to the next buffer.
#[derive(Debug)]
pub struct Reference {
    pub mask: Arc<ReferenceMask>,
    pub image: Option<OwnedPicture>,
    /// It was found in a frame of its stream, and other streams must not use it.
    bound_to_stream: bool,
    /// The aspect ratio of the mask was compared with that of a frame.
    compared: AtomicBool,
    /// The image and the mask, encoded ahead of their first use.
    encoded: Mutex<Option<EncodedReference>>,
}

/// Maximum number of streams whose own reference is kept. The least recent one is dropped.
const MAX_STREAMS: usize = 8;

impl Reference {
    pub fn new(mask: ReferenceMask, image: Option<OwnedPicture>) -> Self {
        Self::shared(Arc::new(mask), image)
    }

    fn shared(mask: Arc<ReferenceMask>, image: Option<OwnedPicture>) -> Self {
        let (compared, encoded) = (AtomicBool::default(), Mutex::default());
        Self { mask, image, bound_to_stream: false, compared, encoded }
    }

    /// Binds it to its stream: other streams do not use it.
    pub fn bound_to_stream(self) -> Self {
        Self { bound_to_stream: true, ..self }
    }

    /// Adds the result of encoding it.
    pub fn with_encoded(self, encoded: Option<EncodedReference>) -> Self {
        Self { encoded: Mutex::new(encoded), ..self }
    }

    /// Returns the result of encoding it, the first time.
    pub fn take_encoded(&self) -> Option<EncodedReference> {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads a mask and its image.
    ///
    /// # Errors
    /// Those of [`ReferenceMask::open`], [`OwnedPicture::open`] and [`check`].
    pub fn open(mask: &Path, image: Option<&Path>) -> Result<Self> {
        let path = mask;
        let mask = ReferenceMask::open(path)?;
        check(&mask, path)?;
        let image = image.map(OwnedPicture::open).transpose()?;
        Ok(Self::new(mask, image))
    }

    /// Returns warnings about the mask that do not depend on a frame.
    pub fn warnings(&self) -> Vec<MaskWarning> {
        let mut warnings = self.mask.warnings();
        if let Some(image) = &self.image {
            let picture = image.as_picture();
            let size = (picture.width, picture.height);
            warnings.extend(self.mask.aspect_warning(size, 1.0, true));
        }
        warnings
    }

    /// Returns a warning if the mask does not match a frame of this format, at most once per mask.
    pub fn frame_warning(&self, frame: &VideoInfo) -> Option<MaskWarning> {
        if self.image.is_some() || self.compared.swap(true, Ordering::Relaxed) {
            return None;
        }
        let size = (frame.width() as usize, frame.height() as usize);
        let aspect = f64::from(frame.par().numer()) / f64::from(frame.par().denom());
        self.mask.aspect_warning(size, aspect, false)
    }
}

/// Checks a mask that was read from `path`.
///
/// # Errors
/// The mask has more than [`MAX_OBJECTS`] objects.
pub fn check(mask: &ReferenceMask, path: &Path) -> Result<()> {
    let count = mask.objects().len();
    if count <= MAX_OBJECTS {
        return Ok(());
    }
    Err(Error::Mask {
        path: path.to_owned(),
        reason: format!(
            "it has {count} objects, but at most {MAX_OBJECTS} can be tracked: remove some. If its values \
             are not object ids, save it as greyscale"
        ),
    })
}

/// State of the reference, as last posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No reference.
    #[default]
    None,
    /// The reference is for the next buffer.
    Armed,
    /// Its objects are tracked.
    Seeded,
    /// Its objects are out of the picture.
    Lost,
    /// Its objects are tracked again after they were lost.
    Recovered,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Armed => "armed",
            Self::Seeded => "seeded",
            Self::Lost => "lost",
            Self::Recovered => "recovered",
        }
    }
}

/// References of the same objects: the first, and those that were added to it. Empty without a reference.
type References = Vec<Arc<Reference>>;

/// Adds references. The first and the newest [`MAX_ADDED_REFERENCES`] others are kept.
fn extend(references: &mut References, added: impl IntoIterator<Item = Arc<Reference>>) {
    references.extend(added);
    let surplus = references.len().saturating_sub(1 + MAX_ADDED_REFERENCES);
    references.drain(1..1 + surplus);
}

/// Change of the tracker's references before the next buffer.
#[derive(Clone, Debug)]
pub enum Change {
    /// Set new references.
    Arm(References),
    /// Set the references of an earlier stream again. They have images; the objects may have moved anywhere since.
    Resume(References),
    /// Add references to the present ones.
    Add(References),
    /// Remove all references.
    Clear,
}

impl Change {
    /// Returns the change that has the effect of this one and then of `next`.
    fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::Arm(mut references), Self::Add(added)) => {
                extend(&mut references, added);
                Self::Arm(references)
            }
            (Self::Resume(mut references), Self::Add(added)) => {
                extend(&mut references, added);
                Self::Resume(references)
            }
            (Self::Add(mut references), Self::Add(added)) => {
                references.extend(added);
                let surplus = references.len().saturating_sub(MAX_ADDED_REFERENCES);
                references.drain(..surplus);
                Self::Add(references)
            }
            (_, next) => next,
        }
    }
}

/// Passes references from loading threads and the application to the streaming thread.
#[derive(Clone, Debug, Default)]
pub struct ReferenceSlot {
    running: bool,
    /// What was asked for last.
    asked: Ask,
    /// The last load.
    load: Ask,
    /// What is in use. Whatever was asked for before it is out of date.
    done: Ask,
    /// Reference that was given before the start.
    early: Option<Arc<Reference>>,
    /// References that were set last, used by streams without their own.
    references: References,
    /// Id of the current stream.
    stream: Option<String>,
    /// Number of the current stream.
    stream_number: u64,
    /// Ids and references of the streams that have their own, the most recent stream last.
    streams: VecDeque<(String, References)>,
    change: Option<Change>,
    /// References that the current stream had before masks of the application that no buffer has taken yet.
    replaced: Option<References>,
    /// Number of changes that the streaming thread has taken and not applied yet.
    taken_changes: u32,
    state: State,
}

/// Number of something that the application asked for: a file, a selection, a mask from memory, or no reference. What was
/// asked for last applies, whichever is ready first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask(u64);

impl ReferenceSlot {
    /// Starts with the reference that was [set](Self::set_from_application) before, otherwise with `loaded`. Returns whether there is
    /// a reference.
    pub fn start(&mut self, loaded: Option<Reference>) -> bool {
        let reference = self.early.take().or(loaded.map(Arc::new));
        self.running = true;
        self.done = self.ask();
        self.set(reference);
        !self.references.is_empty()
    }

    /// Whether a reference was given before the start, so that none has to be loaded.
    pub fn has_early(&self) -> bool {
        self.early.is_some()
    }

    /// Drops a reference that was given before the start.
    pub fn drop_early(&mut self) {
        self.early = None;
    }

    /// The load that began last.
    pub fn last_load(&self) -> Ask {
        self.load
    }

    /// What is in use.
    pub fn in_use(&self) -> Ask {
        self.done
    }

    /// Number of the current stream.
    pub fn stream_number(&self) -> u64 {
        self.stream_number
    }

    /// Clears the slot. Results of what was asked for before are ignored.
    pub fn stop(&mut self) {
        let asked = self.ask();
        *self = Self { asked, done: asked, ..Self::default() };
    }

    /// Numbers what the application asks for. What it asked for before is out of date only once this has
    /// [succeeded](Self::finish), because it may fail.
    pub fn ask(&mut self) -> Ask {
        self.asked.0 += 1;
        self.asked
    }

    /// Begins a load. Returns `None` while stopped.
    pub fn begin_load(&mut self) -> Option<Ask> {
        self.load = self.ask();
        self.early = None;
        if !self.running {
            self.done = self.load;
        }
        self.running.then_some(self.load)
    }

    /// Sets a reference that needs no loading and replaces all earlier ones. Before the start, it is kept for the
    /// start. Returns whether it is armed.
    pub fn set_from_application(&mut self, reference: Reference) -> bool {
        if self.running {
            let ask = self.ask();
            self.finish(ask, Some(reference));
        } else {
            self.done = self.ask();
            self.early = Some(Arc::new(reference));
        }
        self.running
    }

    /// Sets a mask that was selected in an earlier picture and is still [wanted](Self::wants). It replaces all that came before;
    /// if it `refines` the first mask of the same selection, only that. Tracking searches the whole next frame.
    pub fn set_selected(&mut self, ask: Ask, reference: Reference, refines: bool) {
        self.done = ask;
        let added = match refines {
            true => self.own().unwrap_or(&self.references).iter().skip(1).cloned().collect(),
            false => References::new(),
        };
        self.references = [Arc::new(reference)].into_iter().chain(added).collect();
        self.keep(self.references.clone());
        self.change(Change::Resume(self.references.clone()));
    }

    /// Adds a reference to those of the current stream. Without any, it becomes the reference.
    ///
    /// # Errors
    /// The element is not started, or the mask has an object that the first reference does not have.
    pub fn add(&mut self, reference: Reference) -> Result<()> {
        if !self.running {
            let reason = "a reference can be added once the element is started: use set-reference before";
            return Err(Error::Config(reason.into()));
        }
        let own = self.own().unwrap_or(&self.references);
        let Some(first) = own.first() else {
            self.set_from_application(reference);
            return Ok(());
        };
        let ids: Vec<u8> = first.mask.objects().iter().map(|object| object.id).collect();
        reference.mask.check_ids(&ids)?;
        let added = Arc::new(reference);
        let mut references = own.clone();
        extend(&mut references, [added.clone()]);
        self.references = references.clone();
        self.keep(references);
        self.change(Change::Add(vec![added]));
        Ok(())
    }

    /// Removes the reference. Whatever was asked for before is out of date.
    pub fn clear(&mut self) {
        let ask = self.ask();
        self.finish(ask, None);
    }

    /// Whether the element is started.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Whether the element is started, and nothing that was asked for later is in use.
    pub fn wants(&self, ask: Ask) -> bool {
        self.running && self.is_current(ask)
    }

    /// Whether nothing that was asked for later is in use, or is kept for the start.
    pub fn is_current(&self, ask: Ask) -> bool {
        ask >= self.done
    }

    /// Sets a reference that was asked for; `None` removes the reference. Returns false if it is not [wanted](Self::wants).
    pub fn finish(&mut self, ask: Ask, reference: Option<Reference>) -> bool {
        let wanted = self.wants(ask);
        if wanted {
            self.done = ask;
            self.set(reference.map(Arc::new));
        }
        wanted
    }

    /// Handles the start of stream `id`. If it differs from the current one, its own reference is armed, or the
    /// last one that was set if it has none. A mask that was set for the next buffer is that of the stream. Returns whether
    /// this arms a reference.
    pub fn start_stream(&mut self, id: &str) -> bool {
        if self.stream.as_deref() == Some(id) {
            return false;
        }
        let first = self.stream.is_none();
        let replaced = self.replaced.take().filter(|_| !first && matches!(self.change, Some(Change::Arm(_))));
        let is_for_next = replaced.is_some();
        if let Some(replaced) = replaced {
            self.keep(replaced);
        }
        self.stream = Some(id.to_owned());
        self.stream_number += 1;
        let own = self.streams.iter().position(|(known, _)| known == id);
        let own = own.and_then(|index| self.streams.remove(index)).map(|(_, references)| references);
        let own = own.filter(|_| !is_for_next);
        let resumes = own.as_ref().is_some_and(|own| own.iter().all(|reference| reference.image.is_some()));
        if !first && self.references.iter().any(|reference| reference.bound_to_stream) {
            self.references.clear();
        }
        let references = own.unwrap_or_else(|| self.references.clone());
        self.keep(references.clone());
        // The start has armed the reference of the first stream.
        if !first {
            self.change(match references.is_empty() {
                true => Change::Clear,
                false if resumes => Change::Resume(references),
                false => Change::Arm(references),
            });
        }
        !first && self.state == State::Armed
    }

    /// Whether [`keep_seed_frame`](Self::keep_seed_frame) needs the frame that `reference` was applied to: the reference has no image and
    /// belongs to the current stream, which may resume it later.
    pub fn needs_picture(&self, reference: &Arc<Reference>) -> bool {
        let mut of_stream = self.own().into_iter().chain(&self.replaced).flatten();
        reference.image.is_none() && of_stream.any(|other| Arc::ptr_eq(other, reference))
    }

    /// Keeps the mask of `reference` with `image`, the frame that it was applied to, for the case that the current
    /// stream returns after another one. Has no effect if another reference was set meanwhile.
    pub fn keep_seed_frame(&mut self, reference: &Arc<Reference>, image: OwnedPicture) {
        if !self.needs_picture(reference) {
            return;
        }
        let mask = Arc::clone(&reference.mask);
        let seeded =
            Reference { bound_to_stream: reference.bound_to_stream, ..Reference::shared(mask, Some(image)) };
        let seeded = Arc::new(seeded);
        let own = self.streams.back_mut().map(|(_, references)| references);
        let own = own.into_iter().chain(&mut self.replaced).flatten();
        for other in own.filter(|other| Arc::ptr_eq(other, reference)) {
            *other = seeded.clone();
        }
    }

    /// Removes the references of all streams except the current one.
    pub fn forget_other_streams(&mut self) {
        let Self { stream, streams, .. } = self;
        streams.retain(|(id, _)| Some(id) == stream.as_ref());
    }

    /// References of the current stream.
    fn own(&self) -> Option<&References> {
        let (id, references) = self.streams.back()?;
        (Some(id) == self.stream.as_ref()).then_some(references)
    }

    /// Sets the references of the current stream.
    fn keep(&mut self, references: References) {
        let Some(stream) = &self.stream else { return };
        self.streams.retain(|(id, _)| id != stream);
        if !references.is_empty() {
            self.streams.push_back((stream.clone(), references));
        }
        if self.streams.len() > MAX_STREAMS {
            self.streams.pop_front();
        }
    }

    /// Takes the change for the next buffer. [`change_applied`](Self::change_applied) must be called when it is applied.
    pub fn take_change(&mut self) -> Option<Change> {
        let change = self.change.take();
        self.replaced = None;
        self.taken_changes += u32::from(change.is_some());
        change
    }

    /// Records that a taken change is applied.
    pub fn change_applied(&mut self) {
        self.taken_changes = self.taken_changes.saturating_sub(1);
    }

    /// Returns a taken change whose buffer was discarded. It applies to the next buffer, unless there is a newer
    /// change.
    pub fn return_change(&mut self, change: Change) {
        self.change_applied();
        self.retry(change);
    }

    /// Applies a change whose buffer failed to the next buffer, unless there is a newer change.
    pub fn retry(&mut self, change: Change) {
        self.change = Some(match self.change.take() {
            Some(next) => change.then(next),
            None => change,
        });
    }

    /// Updates the state after a frame. `seeded` = a mask became the reference with it. Returns the states to post, in
    /// this order.
    pub fn update(&mut self, seeded: bool, presence: Presence) -> impl Iterator<Item = State> + use<> {
        let before = if seeded { State::Seeded } else { self.state };
        let after = match (before, presence) {
            (State::Seeded | State::Recovered, Presence::Lost) => State::Lost,
            (State::Lost, Presence::Seen) => State::Recovered,
            (state, _) => state,
        };
        let states = [seeded.then_some(before), (after != before).then_some(after)];
        // A reference that was armed meanwhile takes precedence.
        if self.change.is_none() && self.taken_changes == 0 {
            self.state = after;
        }
        states.into_iter().flatten()
    }

    /// State that was last posted.
    pub fn state(&self) -> State {
        self.state
    }

    /// Sets the reference of the current stream and of those without one of their own.
    fn set(&mut self, reference: Option<Arc<Reference>>) {
        if self.replaced.is_none() {
            self.replaced = Some(self.own().cloned().unwrap_or_default());
        }
        self.references = reference.into_iter().collect();
        self.keep(self.references.clone());
        self.change(match self.references.is_empty() {
            true => Change::Clear,
            false => Change::Arm(self.references.clone()),
        });
    }

    fn change(&mut self, change: Change) {
        self.state = if matches!(change, Change::Clear) { State::None } else { State::Armed };
        self.change = Some(match self.change.take() {
            Some(before) => before.then(change),
            None => change,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Option<Reference> {
        wide(1)
    }

    #[test]
    fn another_stream_arms_the_reference_again() {
        let mut slot = ReferenceSlot::default();
        slot.start(reference());
        assert!(!slot.start_stream("a"));
        let _ = slot.take_change();
        assert!(!slot.start_stream("a"));
        assert!(slot.take_change().is_none());
        assert!(slot.start_stream("b"));
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
    }

    fn picture() -> OwnedPicture {
        OwnedPicture::from_rgb(1, 1, vec![9; 3]).unwrap()
    }

    /// Returns what the next buffer of stream `id` arms: the width of the mask, and whether tracking resumes from
    /// its image.
    fn armed_on(slot: &mut ReferenceSlot, id: &str) -> Option<(usize, bool)> {
        slot.start_stream(id);
        let change = slot.take_change()?;
        slot.change_applied();
        match change {
            Change::Arm(references) => {
                for reference in &references {
                    slot.keep_seed_frame(reference, picture());
                }
                Some((references[0].mask.width(), false))
            }
            Change::Resume(references) => {
                let resumes = references.iter().all(|reference| reference.image.is_some());
                Some((references[0].mask.width(), resumes))
            }
            Change::Clear => Some((0, false)),
            Change::Add(_) => panic!("a stream arms all its references"),
        }
    }

    /// A slot whose mask of width 1 was seeded on stream `a`, and then on `b`, the current one.
    fn used_on_a_and_b() -> ReferenceSlot {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        armed_on(&mut slot, "a");
        armed_on(&mut slot, "b");
        slot
    }

    #[test]
    fn a_stream_that_returns_resumes_with_its_mask_and_frame() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), None, "the same stream again");
        assert_eq!(armed_on(&mut slot, "b"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        assert_eq!(armed_on(&mut slot, "b"), Some((1, true)));
    }

    #[test]
    fn a_stream_without_buffers_is_seeded_when_it_returns() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        slot.start_stream("a");
        assert_eq!(armed_on(&mut slot, "b"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, false)));
    }

    #[test]
    fn a_reference_is_set_for_the_current_stream_and_for_new_ones() {
        let mut slot = used_on_a_and_b();
        slot.set_from_application(wide(2).unwrap());
        assert_eq!(armed_on(&mut slot, "b"), Some((2, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)), "its own reference");
        assert_eq!(armed_on(&mut slot, "b"), Some((2, true)));
        assert_eq!(armed_on(&mut slot, "c"), Some((2, false)));
        let load = slot.begin_load().unwrap();
        slot.finish(load, None);
        assert_eq!(armed_on(&mut slot, "d"), Some((0, false)), "removed");
        assert_eq!(armed_on(&mut slot, "c"), Some((0, false)), "removed while it was current");
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        slot.set_from_application(wide(3).unwrap());
        assert_eq!(armed_on(&mut slot, "d"), Some((3, false)), "it had no reference");
    }

    #[test]
    fn a_mask_set_together_with_a_switch_is_that_of_the_new_stream() {
        let mut slot = used_on_a_and_b();
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        for width in [2, 3] {
            slot.set_from_application(wide(width).unwrap());
        }
        assert_eq!(armed_on(&mut slot, "b"), Some((3, false)), "in place of its own reference");
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)), "its own reference");
        assert_eq!(armed_on(&mut slot, "b"), Some((3, true)));
    }

    #[test]
    fn a_stream_keeps_its_reference_if_the_one_before_it_had_no_buffer() {
        let mut slot = used_on_a_and_b();
        slot.set_from_application(wide(2).unwrap());
        assert_eq!(armed_on(&mut slot, "b"), Some((2, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        slot.start_stream("c");
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)), "no buffer");
        slot.start_stream("c");
        let change = slot.take_change().unwrap();
        slot.return_change(change);
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)), "its buffer was discarded");
    }

    /// Such a reference was used at the same place of another video.
    #[test]
    fn a_person_found_in_one_stream_is_not_the_reference_of_another_one() {
        let mut slot = ReferenceSlot::default();
        slot.start(None);
        slot.start_stream("a");
        slot.set_from_application(wide(1).unwrap().bound_to_stream());
        assert_eq!(slot.state(), State::Armed);
        assert!(slot.take_change().is_some());
        assert_eq!(armed_on(&mut slot, "b"), Some((0, false)));
        assert_eq!(slot.state(), State::None);
        assert_eq!(armed_on(&mut slot, "a"), Some((1, false)), "its own");

        slot.add(wide(1).unwrap()).unwrap();
        let _ = slot.take_change();
        slot.change_applied();
        assert_eq!(armed_on(&mut slot, "c"), Some((0, false)), "also with an added mask");
        slot.add(wide(2).unwrap()).unwrap();
        assert!(
            matches!(slot.take_change(), Some(Change::Arm(_))),
            "without a reference it becomes the reference"
        );
    }

    #[test]
    fn a_reference_set_while_another_one_is_seeded_stays() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        slot.start_stream("a");
        let Some(Change::Arm(first)) = slot.take_change() else { panic!("a reference") };
        slot.change_applied();
        slot.set_from_application(wide(2).unwrap());
        slot.keep_seed_frame(&first[0], picture());
        assert_eq!(armed_on(&mut slot, "a"), Some((2, false)));
        assert!(!slot.needs_picture(&first[0]));
        slot.set_from_application(wide(3).unwrap());
        assert_eq!(armed_on(&mut slot, "b"), Some((3, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((2, true)));
    }

    #[test]
    fn only_the_latest_streams_are_kept() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        for stream in 0..20 {
            assert_eq!(armed_on(&mut slot, &stream.to_string()), Some((1, false)));
            assert_eq!(armed_on(&mut slot, "main"), Some((1, stream > 0)), "used in between");
            assert!(slot.streams.len() <= MAX_STREAMS);
        }
        assert_eq!(armed_on(&mut slot, "19"), Some((1, true)));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, false)), "forgotten");

        slot.forget_other_streams();
        assert_eq!(armed_on(&mut slot, "19"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, true)), "it is the current stream");
        slot.stop();
        slot.start(wide(1));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, false)));
    }

    /// Simulation of three threads that set masks. The locks of settings and slot are never held together, so every
    /// outcome corresponds to an order of the steps in between.
    #[derive(Clone, Default)]
    struct Simulation {
        setting: Option<u32>,
        slot: ReferenceSlot,
        /// Load and mask of each thread.
        loads: [Option<Ask>; 3],
        loading: [Option<u32>; 3],
        armed: Vec<u32>,
    }

    impl Simulation {
        /// The mask in use, by its width.
        fn mask(&self) -> Option<u32> {
            self.slot.references.first().map(|reference| reference.mask.width() as u32)
        }
    }

    fn wide(width: u32) -> Option<Reference> {
        let width = width as usize;
        Some(Reference::new(ReferenceMask::from_soft(width, 1, vec![255; width]).unwrap(), None))
    }

    /// Runs a step (set, begin load, read, finish load) of a thread that sets mask `thread + 1`. Masks in `bad`
    /// fail to load.
    fn step(simulation: &mut Simulation, thread: usize, step: usize, bad: &[u32]) {
        match step {
            0 => simulation.setting = Some(thread as u32 + 1),
            1 => simulation.loads[thread] = simulation.slot.begin_load(),
            2 => simulation.loading[thread] = simulation.setting,
            _ => {
                let (Some(load), Some(mask)) = (simulation.loads[thread], simulation.loading[thread]) else {
                    return;
                };
                if !bad.contains(&mask) && simulation.slot.finish(load, wide(mask)) {
                    simulation.armed.push(mask);
                }
            }
        }
    }

    /// Runs `check` after every possible order of the threads' steps. Returns the number of orders.
    fn all_orders(
        simulation: &Simulation,
        next: [usize; 3],
        bad: &[u32],
        check: &dyn Fn(&Simulation),
    ) -> usize {
        let mut orders = 0;
        for thread in 0..3 {
            if next[thread] < 4 {
                let (mut simulation, mut next) = (simulation.clone(), next);
                step(&mut simulation, thread, next[thread], bad);
                next[thread] += 1;
                orders += all_orders(&simulation, next, bad, check);
            }
        }
        if orders == 0 {
            check(simulation);
            return 1;
        }
        orders
    }

    #[test]
    fn in_every_order_the_last_mask_set_is_used() {
        let mut simulation = Simulation::default();
        simulation.slot.start(None);
        let orders = all_orders(&simulation, [0; 3], &[], &|simulation| {
            let found = simulation.mask();
            assert_eq!(found, simulation.setting);
        });
        assert_eq!(orders, 34_650, "12! / 4!³");
    }

    #[test]
    fn in_every_order_a_bad_mask_does_not_replace_a_good_one() {
        let mut simulation = Simulation::default();
        simulation.slot.start(None);
        all_orders(&simulation, [0; 3], &[2], &|simulation| {
            let found = simulation.mask();
            if simulation.setting != Some(2) {
                assert_eq!(found, simulation.setting);
            }
            assert_eq!(found, simulation.armed.last().copied());
            assert_ne!(found, Some(2));
        });
    }

    #[test]
    fn in_every_order_a_stopped_element_loads_nothing() {
        let mut simulation = Simulation::default();
        simulation.slot.start(None);
        for cut in 0..4 {
            let mut simulation = simulation.clone();
            for index in 0..cut {
                step(&mut simulation, 0, index, &[]);
            }
            simulation.slot.stop();
            simulation.slot.start(None);
            let stale = simulation.loads[0];
            for index in cut..4 {
                step(&mut simulation, 0, index, &[]);
            }
            assert!(stale.is_none() || simulation.mask().is_none());
        }
        simulation.slot.stop();
        all_orders(&simulation, [0; 3], &[], &|simulation| assert!(simulation.armed.is_empty()));
    }

    #[test]
    fn the_last_reference_given_or_loaded_wins() {
        let mut slot = ReferenceSlot::default();
        assert!(!slot.set_from_application(reference().unwrap()), "not armed before the start");
        assert!(slot.has_early());
        assert!(slot.begin_load().is_none());
        assert!(!slot.has_early(), "a file was set later");
        slot.set_from_application(reference().unwrap());
        assert!(slot.start(None) && !slot.has_early());

        let load = slot.begin_load().unwrap();
        assert!(slot.set_from_application(reference().unwrap()));
        assert!(!slot.finish(load, None), "given while the file was read");
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
        slot.stop();
        assert!(!slot.start(None), "a stop removes it");
    }

    #[test]
    fn states_are_posted_on_changes_only() {
        let update = |slot: &mut ReferenceSlot, seeded: bool, presence: Presence| -> Vec<State> {
            slot.update(seeded, presence).collect()
        };
        let mut slot = ReferenceSlot::default();
        assert_eq!(slot.state(), State::None);
        slot.start(reference());
        assert_eq!(slot.state(), State::Armed);
        let _ = slot.take_change();
        slot.change_applied();
        assert_eq!(update(&mut slot, true, Presence::Seen), [State::Seeded]);
        assert_eq!(update(&mut slot, false, Presence::Seen), []);
        for _ in 0..2 {
            assert_eq!(update(&mut slot, false, Presence::Lost), [State::Lost]);
            assert_eq!(update(&mut slot, false, Presence::Lost), []);
            assert_eq!(update(&mut slot, false, Presence::Seen), [State::Recovered]);
            assert_eq!(update(&mut slot, false, Presence::Seen), []);
        }
        assert_eq!(slot.state(), State::Recovered);
        assert_eq!(update(&mut slot, true, Presence::Lost), [State::Seeded, State::Lost]);

        slot.set_from_application(reference().unwrap());
        assert_eq!(update(&mut slot, false, Presence::Seen), [], "of the old reference");
        assert_eq!(slot.state(), State::Armed);
        let _ = slot.take_change();
        slot.change_applied();
        assert_eq!(update(&mut slot, true, Presence::Seen), [State::Seeded]);
        slot.set_from_application(reference().unwrap());
        let _ = slot.take_change();
        slot.change_applied();
        slot.set_from_application(reference().unwrap());
        assert_eq!(update(&mut slot, true, Presence::Seen), [State::Seeded], "armed again meanwhile");
        assert_eq!(slot.state(), State::Armed);
    }

    #[test]
    fn a_taken_change_keeps_the_state_armed_until_it_is_applied() {
        let update = |slot: &mut ReferenceSlot, seeded: bool| {
            drop(slot.update(seeded, Presence::Seen));
        };
        let mut slot = ReferenceSlot::default();
        slot.start(reference());
        let change = slot.take_change().unwrap();
        update(&mut slot, false);
        assert_eq!(slot.state(), State::Armed, "a frame before the change");
        slot.return_change(change);
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))), "it applies to the next frame");
        slot.change_applied();
        update(&mut slot, true);
        assert_eq!(slot.state(), State::Seeded);

        slot.set_from_application(reference().unwrap());
        let older = slot.take_change().unwrap();
        slot.set_from_application(reference().unwrap());
        let newest = slot.references[0].clone();
        slot.return_change(older);
        let Some(Change::Arm(next)) = slot.take_change() else { panic!("a reference") };
        assert!(Arc::ptr_eq(&next[0], &newest));
    }

    fn widths(references: &[Arc<Reference>]) -> Vec<usize> {
        references.iter().map(|reference| reference.mask.width()).collect()
    }

    #[test]
    fn the_first_reference_and_the_newest_others_are_kept() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        slot.start_stream("a");
        for width in 2..9 {
            slot.add(wide(width).unwrap()).unwrap();
        }
        let Some(Change::Arm(armed)) = slot.take_change() else { panic!("the first is armed as well") };
        assert_eq!(widths(&armed), [1, 5, 6, 7, 8]);
        slot.change_applied();
        armed.iter().for_each(|reference| slot.keep_seed_frame(reference, picture()));
        for width in 9..14 {
            slot.add(wide(width).unwrap()).unwrap();
        }
        let Some(Change::Add(added)) = slot.take_change() else { panic!("the others are added") };
        assert_eq!(widths(&added), [10, 11, 12, 13]);
        slot.change_applied();
        slot.start_stream("b");
        slot.start_stream("a");
        let Some(Change::Arm(own)) = slot.take_change() else { panic!("the stream's own references") };
        assert_eq!(widths(&own), [1, 10, 11, 12, 13]);
        slot.set_from_application(wide(3).unwrap());
        let Some(Change::Arm(new)) = slot.take_change() else { panic!("a new start") };
        assert_eq!(widths(&new), [3]);
    }

    #[test]
    fn an_added_reference_outlives_the_final_mask_of_a_selection() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(9));
        slot.start_stream("a");
        let ask = slot.ask();
        slot.set_selected(ask, wide(1).unwrap(), false);
        slot.add(wide(2).unwrap()).unwrap();
        assert!(slot.wants(ask));
        slot.set_selected(ask, wide(3).unwrap(), true);
        let Some(Change::Resume(references)) = slot.take_change() else { panic!("selected in a picture") };
        assert_eq!(widths(&references), [3, 2]);
    }

    #[test]
    fn a_discarded_buffer_returns_references_in_their_order() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        let first = slot.take_change().unwrap();
        slot.add(wide(2).unwrap()).unwrap();
        slot.return_change(first);
        let Some(Change::Arm(references)) = slot.take_change() else { panic!("both") };
        assert_eq!(widths(&references), [1, 2]);
    }

    #[test]
    fn references_are_added_only_to_the_same_objects() {
        let mask = |labels: &[u8]| {
            Reference::new(ReferenceMask::from_labels(labels.len(), 1, labels).unwrap(), None)
        };
        let mut slot = ReferenceSlot::default();
        assert!(slot.add(mask(&[1])).is_err(), "before the start");
        slot.start(None);
        slot.add(mask(&[0, 1, 2])).unwrap();
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))), "the first one");
        slot.add(mask(&[2, 0, 0])).unwrap();
        let error = slot.add(mask(&[2, 3, 0])).unwrap_err().to_string();
        assert!(error.contains("object 3"), "{error}");
        slot.clear();
        slot.add(mask(&[3])).unwrap();
    }
}
