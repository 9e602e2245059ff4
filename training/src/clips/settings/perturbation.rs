// SPDX-License-Identifier: MPL-2.0

use serde::{Deserialize, Serialize};

use crate::check::{Checked, must, share, within};

/// Perturbation of the mask of the previous frame, so that it resembles a prediction: it is displaced, dilated or
/// eroded, and blurred, and sometimes has holes or false blobs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Perturbation {
    /// 1 = similar to the masks of a half-trained network; 0 = off, the true mask.
    pub strength: f64,
    /// Share of masks that stay exact.
    pub exact: f64,
    /// Share of masks that are empty.
    pub empty: f64,
}

impl Default for Perturbation {
    fn default() -> Self {
        Self { strength: 1.0, exact: 0.15, empty: 0.08 }
    }
}

impl Perturbation {
    pub(super) fn check(&self, key: &str) -> Checked {
        within(&format!("{key}.strength"), self.strength, [0.0, 3.0])?;
        share(&format!("{key}.exact"), self.exact)?;
        share(&format!("{key}.empty"), self.empty)?;
        must(self.exact + self.empty <= 1.0, &format!("{key}: the sum of exact and empty must be at most 1"))
    }
}
