//! The reference on its way from files or samples to the network, and what becomes of it there.

use std::path::Path;
use std::sync::Arc;

use super::engine::Followed;
use crate::mask::ReferenceMask;
use crate::picture::OwnedPicture;
use crate::tracker::{MAX_OBJECTS, Presence};
use crate::{Error, Result};

/// A mask that was read and checked, with the picture that it was drawn on, or none for the next buffer.
#[derive(Debug)]
pub struct Reference {
    pub mask: ReferenceMask,
    pub image: Option<OwnedPicture>,
}

impl Reference {
    /// # Errors
    /// Those of [`ReferenceMask::open`] and [`OwnedPicture::open`], and more objects than the tracker
    /// follows.
    pub fn open(mask: &Path, image: Option<&Path>) -> Result<Self> {
        let path = mask;
        let mask = ReferenceMask::open(path)?;
        check(&mask, path)?;
        let image = image.map(OwnedPicture::open).transpose()?;
        Ok(Self { mask, image })
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
    /// Its objects are followed.
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
    Clear,
}

/// Where loading threads and the streaming thread meet.
#[derive(Debug, Default)]
pub struct Arming {
    running: bool,
    loads: u64,
    /// Given before the start.
    early: Option<Reference>,
    reference: Option<Arc<Reference>>,
    change: Option<Change>,
    stream: Option<String>,
    state: State,
}

/// Tells one load from later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Arming {
    /// Begins with what was loaded, or with what was [given](Self::give) in place of it. Tells whether that
    /// is something.
    pub fn start(&mut self, loaded: Option<Reference>) -> bool {
        let reference = self.early.take().or(loaded);
        self.running = true;
        self.loads += 1;
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
        *self = Self { loads: self.loads + 1, ..Self::default() };
    }

    /// For a load that begins now, if anyone waits for it. Earlier ones are out of date from here on.
    pub fn begin_load(&mut self) -> Option<Ticket> {
        self.loads += 1;
        self.early = None;
        self.running.then_some(Ticket(self.loads))
    }

    /// Arms what needs no loading, in place of all that came before; before the start it is kept until
    /// then. Tells whether it is armed.
    pub fn give(&mut self, reference: Reference) -> bool {
        if self.running {
            self.loads += 1;
            self.set(Some(reference));
        } else {
            self.early = Some(reference);
        }
        self.running
    }

    pub fn is_current(&self, ticket: Ticket) -> bool {
        self.running && ticket == Ticket(self.loads)
    }

    /// Arms what was loaded, or takes the reference away; false if that is out of date.
    pub fn finish_load(&mut self, ticket: Ticket, reference: Option<Reference>) -> bool {
        let current = self.is_current(ticket);
        if current {
            self.set(reference);
        }
        current
    }

    /// Takes note of a stream; if it is not the one before, the reference arms again. Tells whether.
    pub fn stream(&mut self, id: &str) -> bool {
        let before = self.stream.replace(id.to_owned());
        let another = before.is_some_and(|before| before != id);
        match &self.reference {
            Some(reference) if another => {
                self.change = Some(Change::Arm(Arc::clone(reference)));
                self.state = State::Armed;
                true
            }
            _ => false,
        }
    }

    /// What has to happen before the next buffer; it happens once.
    pub fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Takes note of what came of a frame; what is to be told of it, in this order.
    pub fn followed(&mut self, followed: &Followed) -> impl Iterator<Item = State> + use<> {
        let before = match self.state {
            _ if followed.seeded => State::Seeded,
            state => state,
        };
        let after = match (before, followed.presence) {
            (State::Seeded | State::Recovered, Presence::Lost) => State::Lost,
            (State::Lost, Presence::Seen) => State::Recovered,
            (state, _) => state,
        };
        let news = [followed.seeded.then_some(before), (after != before).then_some(after)];
        // What was armed meanwhile is what counts.
        if self.change.is_none() {
            self.state = after;
        }
        news.into_iter().flatten()
    }

    /// What was last told.
    pub fn state(&self) -> State {
        self.state
    }

    fn set(&mut self, reference: Option<Reference>) {
        self.reference = reference.map(Arc::new);
        self.change = Some(self.reference.clone().map_or(Change::Clear, Change::Arm));
        self.state = if self.reference.is_some() { State::Armed } else { State::None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Option<Reference> {
        Some(Reference { mask: ReferenceMask::from_soft(1, 1, vec![255]).unwrap(), image: None })
    }

    #[test]
    fn the_latest_load_wins() {
        let mut arming = Arming::default();
        assert!(arming.begin_load().is_none(), "nothing is loaded before the start");
        arming.start(None);
        let _ = arming.take_change();
        let first = arming.begin_load().unwrap();
        let second = arming.begin_load().unwrap();
        assert!(!arming.finish_load(first, reference()));
        assert!(arming.take_change().is_none());
        assert!(arming.finish_load(second, reference()));
        assert!(matches!(arming.take_change(), Some(Change::Arm(_))));
        assert!(arming.take_change().is_none());
    }

    #[test]
    fn loads_do_not_outlive_a_stop() {
        let mut arming = Arming::default();
        arming.start(None);
        let ticket = arming.begin_load().unwrap();
        arming.stop();
        arming.start(None);
        assert!(!arming.finish_load(ticket, reference()));
    }

    #[test]
    fn another_stream_arms_again() {
        let mut arming = Arming::default();
        arming.start(reference());
        assert!(!arming.stream("a"));
        let _ = arming.take_change();
        assert!(!arming.stream("a"));
        assert!(arming.take_change().is_none());
        assert!(arming.stream("b"));
        assert!(matches!(arming.take_change(), Some(Change::Arm(_))));
    }

    #[test]
    fn the_last_one_given_or_loaded_wins() {
        let mut arming = Arming::default();
        assert!(!arming.give(reference().unwrap()), "not before the start");
        assert!(arming.has_early());
        assert!(arming.begin_load().is_none());
        assert!(!arming.has_early(), "a file was set later");
        arming.give(reference().unwrap());
        assert!(arming.start(None) && !arming.has_early());

        let ticket = arming.begin_load().unwrap();
        assert!(arming.give(reference().unwrap()));
        assert!(!arming.finish_load(ticket, None), "given while the file was read");
        assert!(matches!(arming.take_change(), Some(Change::Arm(_))));
        arming.stop();
        assert!(!arming.start(None), "it outlived a stop");
    }

    #[test]
    fn told_on_changes_only() {
        let follow = |arming: &mut Arming, seeded: bool, presence: Presence| -> Vec<State> {
            let followed = Followed { matte: None, seeded, presence, time: None };
            arming.followed(&followed).collect()
        };
        let mut arming = Arming::default();
        assert_eq!(arming.state(), State::None);
        arming.start(reference());
        assert_eq!(arming.state(), State::Armed);
        let _ = arming.take_change();
        assert_eq!(follow(&mut arming, true, Presence::Seen), [State::Seeded]);
        assert_eq!(follow(&mut arming, false, Presence::Seen), []);
        for _ in 0..2 {
            assert_eq!(follow(&mut arming, false, Presence::Lost), [State::Lost]);
            assert_eq!(follow(&mut arming, false, Presence::Lost), []);
            assert_eq!(follow(&mut arming, false, Presence::Seen), [State::Recovered]);
            assert_eq!(follow(&mut arming, false, Presence::Seen), []);
        }
        assert_eq!(arming.state(), State::Recovered);
        assert_eq!(follow(&mut arming, true, Presence::Lost), [State::Seeded, State::Lost]);

        arming.give(reference().unwrap());
        assert_eq!(follow(&mut arming, false, Presence::Seen), [], "of the old reference");
        assert_eq!(arming.state(), State::Armed);
        let _ = arming.take_change();
        assert_eq!(follow(&mut arming, true, Presence::Seen), [State::Seeded]);
        arming.give(reference().unwrap());
        let _ = arming.take_change();
        arming.give(reference().unwrap());
        assert_eq!(follow(&mut arming, true, Presence::Seen), [State::Seeded], "armed again meanwhile");
        assert_eq!(arming.state(), State::Armed);
    }
}
