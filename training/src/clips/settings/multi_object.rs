// SPDX-License-Identifier: MPL-2.0

use serde::{Deserialize, Serialize};

use crate::check::{Checked, must, share};

/// Windows with several tracked objects. Their masks are normalised against each other, as at run time. Objects are
/// those of a video with several objects; objects cut out of stills, or copies of the first one, are added.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiObject {
    /// Probability that consecutive clips of a batch are the objects of one window; 0 = off.
    pub probability: f64,
    /// Objects of such a window.
    pub objects: usize,
    /// Probability that an added object is a copy of the first one.
    pub look_alike: f64,
}

impl Default for MultiObject {
    fn default() -> Self {
        Self { probability: 0.0, objects: 2, look_alike: 0.4 }
    }
}

impl MultiObject {
    /// Returns the number of clips of a batch that are drawn together.
    pub fn clips(&self) -> usize {
        if self.probability > 0.0 { self.objects } else { 1 }
    }

    pub(super) fn check(&self, key: &str) -> Checked {
        share(&format!("{key}.probability"), self.probability)?;
        share(&format!("{key}.look_alike"), self.look_alike)?;
        must((2..=16).contains(&self.objects), &format!("{key}.objects: must be 2 to 16"))
    }
}
