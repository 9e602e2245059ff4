// SPDX-License-Identifier: MPL-2.0

//! What every rank tells of itself at the start, and whether it fits rank 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::shim::LIBTORCH;
use crate::check::differing;

/// What must be equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    ranks: usize,
    /// Version and checksum of the program.
    build: String,
    libtorch: String,
    settings: BTreeMap<String, String>,
}

impl Hello {
    /// `settings` must be equal on all ranks.
    pub fn new(ranks: usize, settings: BTreeMap<String, String>) -> Self {
        let program = std::env::current_exe().and_then(std::fs::read);
        let checksum =
            program.map_or("unreadable".to_owned(), |bytes| format!("{:08x}", crc32c::crc32c(&bytes)));
        let build = format!("{} (checksum {checksum})", env!("CARGO_PKG_VERSION"));
        Self { ranks, build, libtorch: LIBTORCH.into(), settings }
    }

    /// Checks whether this rank fits `first`, that of rank 0. The error says what differs.
    pub fn check(&self, first: &Self) -> Result<(), String> {
        if self.ranks != first.ranks {
            return Err(format!(
                "expects {} ranks, rank 0 {}: set the same WORLD_SIZE",
                self.ranks, first.ranks
            ));
        }
        if (&self.build, &self.libtorch) != (&first.build, &first.libtorch) {
            return Err(format!(
                "runs another build of the program: {} with libtorch {}, rank 0 {} with libtorch {}; install the same \
                 file on every machine",
                self.build, self.libtorch, first.build, first.libtorch
            ));
        }
        let differing: Vec<String> = differing(&self.settings, &first.settings)
            .map(|(key, [here, there])| format!("{key} ({here}, rank 0 {there})"))
            .collect();
        match differing.is_empty() {
            true => Ok(()),
            false => Err(format!("has another configuration than rank 0: {}", differing.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_from_rank_0_are_named() {
        let settings = |seed: &str| BTreeMap::from([("seed".to_owned(), seed.to_owned())]);
        let first = Hello::new(2, settings("1"));
        assert_eq!(Hello::new(2, settings("1")).check(&first), Ok(()));
        let error = Hello::new(2, settings("2")).check(&first).unwrap_err();
        assert!(error.contains("seed (2, rank 0 1)"), "{error}");
        let error = Hello::new(2, BTreeMap::new()).check(&first).unwrap_err();
        assert!(error.contains("seed (not set, rank 0 1)"), "{error}");
        assert!(Hello::new(3, settings("1")).check(&first).unwrap_err().contains("WORLD_SIZE"));
        let other = Hello { build: "0.0.9 (checksum 0)".into(), ..first.clone() };
        assert!(other.check(&first).unwrap_err().contains("another build"));
    }
}
