//! The reference on its way from files or samples to the network, and what becomes of it there.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer_video::VideoInfo;

use crate::image::OwnedPicture;
use crate::mask::{MaskWarning, ReferenceMask};
use crate::tracker::{MAX_OBJECTS, Presence};
use crate::{Error, Result};

/// A mask that was read and checked, with the picture that it was drawn on, or none for the next buffer.
#[derive(Debug)]
pub struct Reference {
    pub mask: Arc<ReferenceMask>,
    pub image: Option<OwnedPicture>,
    /// The shape of the mask was compared with that of a frame.
    compared: AtomicBool,
}

/// Streams whose own reference is kept. A stream that has not been on for longer than so many others is new again.
const MAX_STREAMS: usize = 8;

impl Reference {
    pub fn new(mask: ReferenceMask, image: Option<OwnedPicture>) -> Self {
        Self { mask: Arc::new(mask), image, compared: AtomicBool::new(false) }
    }

    /// # Errors
    /// Those of [`ReferenceMask::open`] and [`OwnedPicture::open`], and more objects than the tracker
    /// follows.
    pub fn open(mask: &Path, image: Option<&Path>) -> Result<Self> {
        let path = mask;
        let mask = ReferenceMask::open(path)?;
        check(&mask, path)?;
        let image = image.map(OwnedPicture::open).transpose()?;
        Ok(Self::new(mask, image))
    }

    /// What is probably wrong with the mask, as far as can be told without a frame.
    pub fn warnings(&self) -> Vec<MaskWarning> {
        let mut warnings = self.mask.warnings();
        if let Some(image) = &self.image {
            let picture = image.as_picture();
            let size = (picture.width, picture.height);
            warnings.extend(self.mask.aspect_warning(size, 1.0, true));
        }
        warnings
    }

    /// What is probably wrong with the mask if it is for a frame of this format; only once for each mask.
    pub fn frame_warning(&self, frame: &VideoInfo) -> Option<MaskWarning> {
        if self.image.is_some() || self.compared.swap(true, Ordering::Relaxed) {
            return None;
        }
        let size = (frame.width() as usize, frame.height() as usize);
        let aspect = f64::from(frame.par().numer()) / f64::from(frame.par().denom());
        self.mask.aspect_warning(size, aspect, false)
    }
}

/// # Errors
/// More objects than the tracker follows, of a mask from `path`.
pub fn check(mask: &ReferenceMask, path: &Path) -> Result<()> {
    let count = mask.objects().len();
    if count <= MAX_OBJECTS {
        return Ok(());
    }
    Err(Error::Mask {
        path: path.to_owned(),
        reason: format!(
            "it has {count} objects, and at most {MAX_OBJECTS} can be followed: remove some. If its values \
             are no object ids, save it as greyscale"
        ),
    })
}

/// What has become of the reference, as it was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is none.
    #[default]
    None,
    /// It waits for the next buffer.
    Armed,
    /// Its objects are tracked.
    Seeded,
    /// Its objects are not in the picture.
    Lost,
    /// They are again.
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

/// What has to happen to the network's reference before the next buffer.
#[derive(Debug)]
pub enum Change {
    Arm(Arc<Reference>),
    /// The reference has a picture, from which the objects may have moved anywhere since.
    Resume(Arc<Reference>),
    Clear,
}

/// Where loading threads and the streaming thread meet.
#[derive(Debug, Default)]
pub struct ReferenceSlot {
    running: bool,
    loads: u64,
    /// The load that is in force.
    done: u64,
    /// Given before the start.
    early: Option<Reference>,
    /// The reference that was set last, for streams without one of their own.
    reference: Option<Arc<Reference>>,
    /// The current stream's id.
    stream: Option<String>,
    /// The stream ids with a reference of their own, the most recent stream last.
    streams: VecDeque<(String, Arc<Reference>)>,
    change: Option<Change>,
    /// Changes that were taken and have not happened yet.
    travelling: u32,
    state: State,
}

/// Tells one load from later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadId(u64);

impl ReferenceSlot {
    /// Begins with what was loaded, or with what was [given](Self::give) in place of it. Tells whether that
    /// is something.
    pub fn start(&mut self, loaded: Option<Reference>) -> bool {
        let reference = self.early.take().or(loaded);
        self.running = true;
        self.loads += 1;
        self.done = self.loads;
        self.set(reference);
        self.reference.is_some()
    }

    /// Whether nothing need be loaded for the start.
    pub fn has_early(&self) -> bool {
        self.early.is_some()
    }

    /// How many loads have begun; it tells whether one has since.
    pub fn loads(&self) -> u64 {
        self.loads
    }

    /// Forgets everything; loads that are under way come to nothing.
    pub fn stop(&mut self) {
        let loads = self.loads + 1;
        *self = Self { loads, done: loads, ..Self::default() };
    }

    /// For a load that begins now, if anyone waits for it. Once it has finished, earlier ones are out of
    /// date; until then they are not, for it may fail.
    pub fn begin_load(&mut self) -> Option<LoadId> {
        self.loads += 1;
        self.early = None;
        self.running.then_some(LoadId(self.loads))
    }

    /// Arms what needs no loading, in place of all that came before; before the start it is kept until
    /// then. Tells whether it is armed.
    pub fn give(&mut self, reference: Reference) -> bool {
        if self.running {
            self.loads += 1;
            self.done = self.loads;
            self.set(Some(reference));
        } else {
            self.early = Some(reference);
        }
        self.running
    }

    /// Whether no other load has begun since.
    pub fn is_current(&self, load: LoadId) -> bool {
        self.running && load == LoadId(self.loads)
    }

    /// Arms what was loaded, or takes the reference away; false if that is out of date.
    pub fn finish_load(&mut self, load: LoadId, reference: Option<Reference>) -> bool {
        let current = self.running && load.0 > self.done;
        if current {
            self.done = load.0;
            self.set(reference);
        }
        current
    }

    /// Takes note of the stream that follows. If it is not the one before, its own reference arms again, or the
    /// one that was set last if it has none. Tells whether a reference is armed.
    pub fn stream(&mut self, id: &str) -> bool {
        if self.stream.as_deref() == Some(id) {
            return false;
        }
        let first = self.stream.is_none();
        self.stream = Some(id.to_owned());
        let own = self.streams.iter().position(|(known, _)| known == id);
        let own = own.and_then(|index| self.streams.remove(index)).map(|(_, reference)| reference);
        let resumes = own.as_ref().is_some_and(|own| own.image.is_some());
        let reference = own.or_else(|| self.reference.clone());
        self.keep(reference.clone());
        // The first stream gets what was armed by the start.
        if !first {
            let arm = if resumes { Change::Resume } else { Change::Arm };
            self.change(reference.map_or(Change::Clear, arm));
        }
        !first && self.state == State::Armed
    }

    /// Whether [`seeded`](Self::seeded) needs the picture on which `reference` was laid: it has none, and the
    /// current stream may take it up again later.
    pub fn needs_picture(&self, reference: &Arc<Reference>) -> bool {
        reference.image.is_none() && self.own().is_some_and(|own| Arc::ptr_eq(own, reference))
    }

    /// The mask of `reference` was laid on `image` in the current stream, which takes both up again when it
    /// comes back. Out of date if another reference was set meanwhile.
    pub fn seeded(&mut self, reference: &Arc<Reference>, image: OwnedPicture) {
        if self.needs_picture(reference) {
            let mask = Arc::clone(&reference.mask);
            self.keep(Some(Arc::new(Reference {
                mask,
                image: Some(image),
                compared: AtomicBool::new(true),
            })));
        }
    }

    /// Forgets the references of all streams but the current one.
    pub fn forget_other_streams(&mut self) {
        let Self { stream, streams, .. } = self;
        streams.retain(|(id, _)| Some(id) == stream.as_ref());
    }

    /// The current stream's reference.
    fn own(&self) -> Option<&Arc<Reference>> {
        let (id, reference) = self.streams.back()?;
        (Some(id) == self.stream.as_ref()).then_some(reference)
    }

    /// Makes `reference` the current stream's own.
    fn keep(&mut self, reference: Option<Arc<Reference>>) {
        let Some(stream) = &self.stream else { return };
        self.streams.retain(|(id, _)| id != stream);
        if let Some(reference) = reference {
            self.streams.push_back((stream.clone(), reference));
        }
        if self.streams.len() > MAX_STREAMS {
            self.streams.pop_front();
        }
    }

    /// What has to happen before the next buffer; it happens once, when [`arrive`](Self::arrive) is called.
    pub fn take_change(&mut self) -> Option<Change> {
        let change = self.change.take();
        self.travelling += u32::from(change.is_some());
        change
    }

    /// A change that was taken happens now.
    pub fn arrive(&mut self) {
        self.travelling = self.travelling.saturating_sub(1);
    }

    /// A change that was taken cannot happen where it should: it is for the next buffer, unless another is.
    pub fn give_back(&mut self, change: Change) {
        self.arrive();
        self.change.get_or_insert(change);
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
        if self.change.is_none() && self.travelling == 0 {
            self.state = after;
        }
        states.into_iter().flatten()
    }

    /// What was last told.
    pub fn state(&self) -> State {
        self.state
    }

    /// The reference from now on, for the current stream and for those without one of their own.
    fn set(&mut self, reference: Option<Reference>) {
        self.reference = reference.map(Arc::new);
        self.keep(self.reference.clone());
        self.change(self.reference.clone().map_or(Change::Clear, Change::Arm));
    }

    fn change(&mut self, change: Change) {
        self.state = if matches!(change, Change::Clear) { State::None } else { State::Armed };
        self.change = Some(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Option<Reference> {
        wide(1)
    }

    #[test]
    fn the_latest_load_wins() {
        let mut slot = ReferenceSlot::default();
        assert!(slot.begin_load().is_none(), "nothing is loaded before the start");
        slot.start(None);
        let _ = slot.take_change();
        let first = slot.begin_load().unwrap();
        let second = slot.begin_load().unwrap();
        assert!(slot.finish_load(second, reference()));
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
        assert!(!slot.finish_load(first, reference()));
        assert!(slot.take_change().is_none());
    }

    #[test]
    fn a_load_that_fails_does_not_undo_the_one_before() {
        let mut slot = ReferenceSlot::default();
        slot.start(None);
        let _ = slot.take_change();
        let good = slot.begin_load().unwrap();
        let _bad = slot.begin_load().unwrap();
        assert!(slot.finish_load(good, reference()), "nothing later has come of anything");
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
    }

    #[test]
    fn loads_do_not_outlive_a_stop() {
        let mut slot = ReferenceSlot::default();
        slot.start(None);
        let load = slot.begin_load().unwrap();
        slot.stop();
        slot.start(None);
        assert!(!slot.finish_load(load, reference()));
    }

    #[test]
    fn another_stream_arms_again() {
        let mut slot = ReferenceSlot::default();
        slot.start(reference());
        assert!(!slot.stream("a"));
        let _ = slot.take_change();
        assert!(!slot.stream("a"));
        assert!(slot.take_change().is_none());
        assert!(slot.stream("b"));
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
    }

    fn picture() -> OwnedPicture {
        OwnedPicture::from_rgb(1, 1, vec![9; 3]).unwrap()
    }

    /// What the next buffer of stream `id` is to arm: the mask's width, and whether tracking resumes from its picture.
    fn armed_on(slot: &mut ReferenceSlot, id: &str) -> Option<(usize, bool)> {
        slot.stream(id);
        let change = slot.take_change()?;
        slot.arrive();
        match change {
            Change::Arm(reference) => {
                if slot.needs_picture(&reference) {
                    slot.seeded(&reference, picture());
                }
                Some((reference.mask.width(), false))
            }
            Change::Resume(reference) => Some((reference.mask.width(), reference.image.is_some())),
            Change::Clear => Some((0, false)),
        }
    }

    #[test]
    fn a_stream_that_comes_back_has_its_mask_and_the_picture_below_it() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), None, "the same stream again");
        assert_eq!(armed_on(&mut slot, "b"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        assert_eq!(armed_on(&mut slot, "b"), Some((1, true)));
    }

    #[test]
    fn a_stream_that_was_left_before_its_first_buffer_is_still_to_be_seeded() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        slot.stream("a");
        assert_eq!(armed_on(&mut slot, "b"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "a"), Some((1, false)));
    }

    #[test]
    fn a_reference_is_set_for_the_current_stream_and_for_new_ones() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        armed_on(&mut slot, "a");
        armed_on(&mut slot, "b");
        slot.give(wide(2).unwrap());
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)), "its own");
        assert_eq!(armed_on(&mut slot, "b"), Some((2, false)), "set, and not seeded yet");
        assert_eq!(armed_on(&mut slot, "c"), Some((2, false)));
        let load = slot.begin_load().unwrap();
        slot.finish_load(load, None);
        assert_eq!(armed_on(&mut slot, "d"), Some((0, false)), "taken away");
        assert_eq!(armed_on(&mut slot, "c"), Some((0, false)), "taken away while it was on");
        assert_eq!(armed_on(&mut slot, "a"), Some((1, true)));
        slot.give(wide(3).unwrap());
        assert_eq!(armed_on(&mut slot, "d"), Some((3, false)), "it never had one");
    }

    #[test]
    fn a_reference_set_while_another_one_is_seeded_stays() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        slot.stream("a");
        let Some(Change::Arm(first)) = slot.take_change() else { panic!("a reference") };
        slot.arrive();
        slot.give(wide(2).unwrap());
        assert!(!slot.needs_picture(&first));
        slot.seeded(&first, picture());
        armed_on(&mut slot, "b");
        assert_eq!(armed_on(&mut slot, "a"), Some((2, false)));
    }

    #[test]
    fn only_so_many_streams_are_kept_and_the_latest_of_them() {
        let mut slot = ReferenceSlot::default();
        slot.start(wide(1));
        for stream in 0..20 {
            assert_eq!(armed_on(&mut slot, &stream.to_string()), Some((1, false)));
            assert_eq!(armed_on(&mut slot, "main"), Some((1, stream > 0)), "used all the time");
            assert!(slot.streams.len() <= MAX_STREAMS);
        }
        assert_eq!(armed_on(&mut slot, "19"), Some((1, true)));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, false)), "forgotten");

        slot.forget_other_streams();
        assert_eq!(armed_on(&mut slot, "19"), Some((1, false)));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, true)), "it was on");
        slot.stop();
        slot.start(wide(1));
        assert_eq!(armed_on(&mut slot, "12"), Some((1, false)));
    }

    /// The element's locks as one thread after the other takes them: settings and slot are never held
    /// together, so all that can happen is some order of the steps between.
    #[derive(Clone, Default)]
    struct World {
        setting: Option<u32>,
        slot: Ledger,
        /// What each thread has in hand.
        loads: [Option<LoadId>; 3],
        loading: [Option<u32>; 3],
        armed: Vec<u32>,
    }

    /// [`ReferenceSlot`], which cannot be cloned for its references are files'; told apart by their width.
    #[derive(Clone, Default)]
    struct Ledger(Vec<Step>);

    #[derive(Clone, Copy)]
    enum Step {
        Start,
        Begin,
        Finish(LoadId, u32),
        Stop,
    }

    impl Ledger {
        fn replay(&self) -> ReferenceSlot {
            let mut slot = ReferenceSlot::default();
            for step in &self.0 {
                match *step {
                    Step::Start => drop(slot.start(None)),
                    Step::Begin => drop(slot.begin_load()),
                    Step::Finish(load, mask) => drop(slot.finish_load(load, wide(mask))),
                    Step::Stop => slot.stop(),
                }
            }
            slot
        }
    }

    fn wide(width: u32) -> Option<Reference> {
        let width = width as usize;
        Some(Reference::new(ReferenceMask::from_soft(width, 1, vec![255; width]).unwrap(), None))
    }

    /// Thread `thread` sets mask `thread + 1`, which is bad if it is in `bad`: set, load, read, finish.
    fn step(world: &mut World, thread: usize, step: usize, bad: &[u32]) {
        match step {
            0 => world.setting = Some(thread as u32 + 1),
            1 => {
                world.loads[thread] = world.slot.replay().begin_load();
                world.slot.0.push(Step::Begin);
            }
            2 => world.loading[thread] = world.setting,
            _ => {
                let (Some(load), Some(mask)) = (world.loads[thread], world.loading[thread]) else {
                    return;
                };
                if !bad.contains(&mask) {
                    if world.slot.replay().finish_load(load, wide(mask)) {
                        world.armed.push(mask);
                    }
                    world.slot.0.push(Step::Finish(load, mask));
                }
            }
        }
    }

    /// Every order in which the threads can take their steps; the number of orders.
    fn all_orders(world: &World, next: [usize; 3], bad: &[u32], check: &dyn Fn(&World)) -> usize {
        let mut orders = 0;
        for thread in 0..3 {
            if next[thread] < 4 {
                let (mut world, mut next) = (world.clone(), next);
                step(&mut world, thread, next[thread], bad);
                next[thread] += 1;
                orders += all_orders(&world, next, bad, check);
            }
        }
        if orders == 0 {
            check(world);
            return 1;
        }
        orders
    }

    #[test]
    fn in_every_order_the_mask_that_was_set_last_is_in_force() {
        let mut world = World::default();
        world.slot.0.push(Step::Start);
        let orders = all_orders(&world, [0; 3], &[], &|world| {
            let slot = world.slot.replay();
            let found = slot.reference.as_ref().map(|reference| reference.mask.width() as u32);
            assert_eq!(found, world.setting);
        });
        assert_eq!(orders, 34_650, "12! / 4!³");
    }

    #[test]
    fn in_every_order_a_bad_mask_leaves_a_good_one() {
        let mut world = World::default();
        world.slot.0.push(Step::Start);
        all_orders(&world, [0; 3], &[2], &|world| {
            let slot = world.slot.replay();
            let found = slot.reference.as_ref().map(|reference| reference.mask.width() as u32);
            if world.setting != Some(2) {
                assert_eq!(found, world.setting);
            }
            assert_eq!(found, world.armed.last().copied());
            assert_ne!(found, Some(2));
        });
    }

    #[test]
    fn in_every_order_nothing_is_loaded_into_a_stopped_element() {
        let mut world = World::default();
        world.slot.0.push(Step::Start);
        for cut in 0..4 {
            let mut world = world.clone();
            for index in 0..cut {
                step(&mut world, 0, index, &[]);
            }
            world.slot.0.extend([Step::Stop, Step::Start]);
            let stale = world.loads[0];
            for index in cut..4 {
                step(&mut world, 0, index, &[]);
            }
            assert!(stale.is_none() || world.slot.replay().reference.is_none());
        }
        world.slot.0.push(Step::Stop);
        all_orders(&world, [0; 3], &[], &|world| assert!(world.armed.is_empty()));
    }

    #[test]
    fn the_last_one_given_or_loaded_wins() {
        let mut slot = ReferenceSlot::default();
        assert!(!slot.give(reference().unwrap()), "not before the start");
        assert!(slot.has_early());
        assert!(slot.begin_load().is_none());
        assert!(!slot.has_early(), "a file was set later");
        slot.give(reference().unwrap());
        assert!(slot.start(None) && !slot.has_early());

        let load = slot.begin_load().unwrap();
        assert!(slot.give(reference().unwrap()));
        assert!(!slot.finish_load(load, None), "given while the file was read");
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))));
        slot.stop();
        assert!(!slot.start(None), "it outlived a stop");
    }

    #[test]
    fn told_on_changes_only() {
        let follow = |slot: &mut ReferenceSlot, seeded: bool, presence: Presence| -> Vec<State> {
            slot.update(seeded, presence).collect()
        };
        let mut slot = ReferenceSlot::default();
        assert_eq!(slot.state(), State::None);
        slot.start(reference());
        assert_eq!(slot.state(), State::Armed);
        let _ = slot.take_change();
        slot.arrive();
        assert_eq!(follow(&mut slot, true, Presence::Seen), [State::Seeded]);
        assert_eq!(follow(&mut slot, false, Presence::Seen), []);
        for _ in 0..2 {
            assert_eq!(follow(&mut slot, false, Presence::Lost), [State::Lost]);
            assert_eq!(follow(&mut slot, false, Presence::Lost), []);
            assert_eq!(follow(&mut slot, false, Presence::Seen), [State::Recovered]);
            assert_eq!(follow(&mut slot, false, Presence::Seen), []);
        }
        assert_eq!(slot.state(), State::Recovered);
        assert_eq!(follow(&mut slot, true, Presence::Lost), [State::Seeded, State::Lost]);

        slot.give(reference().unwrap());
        assert_eq!(follow(&mut slot, false, Presence::Seen), [], "of the old reference");
        assert_eq!(slot.state(), State::Armed);
        let _ = slot.take_change();
        slot.arrive();
        assert_eq!(follow(&mut slot, true, Presence::Seen), [State::Seeded]);
        slot.give(reference().unwrap());
        let _ = slot.take_change();
        slot.arrive();
        slot.give(reference().unwrap());
        assert_eq!(follow(&mut slot, true, Presence::Seen), [State::Seeded], "armed again meanwhile");
        assert_eq!(slot.state(), State::Armed);
    }

    #[test]
    fn what_is_on_its_way_is_still_to_come() {
        let follow = |slot: &mut ReferenceSlot, seeded: bool| {
            drop(slot.update(seeded, Presence::Seen));
        };
        let mut slot = ReferenceSlot::default();
        slot.start(reference());
        let change = slot.take_change().unwrap();
        follow(&mut slot, false);
        assert_eq!(slot.state(), State::Armed, "a frame that came before it");
        slot.give_back(change);
        assert!(matches!(slot.take_change(), Some(Change::Arm(_))), "it comes with the next frame");
        slot.arrive();
        follow(&mut slot, true);
        assert_eq!(slot.state(), State::Seeded);

        slot.give(reference().unwrap());
        let older = slot.take_change().unwrap();
        slot.give(reference().unwrap());
        let newest = slot.reference.clone().unwrap();
        slot.give_back(older);
        let Some(Change::Arm(next)) = slot.take_change() else { panic!("a reference") };
        assert!(Arc::ptr_eq(&next, &newest));
    }
}
