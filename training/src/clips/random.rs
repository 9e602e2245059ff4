// SPDX-License-Identifier: MPL-2.0

//! Random numbers for clips, seeded by run and clip.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// Generator of one clip, so that clips do not depend on the order in which threads work.
#[derive(Debug)]
pub struct Random(StdRng);

impl Random {
    /// Creates the generator of the clip or picture with this number.
    pub fn new(seed: u64, clip: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&clip.to_le_bytes());
        Self(StdRng::from_seed(bytes))
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    pub fn normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }

    pub fn seed(&mut self) -> i64 {
        self.0.random()
    }

    /// Returns an integer in 0..`n`; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    /// Returns one of `items`, of which there must be some.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
