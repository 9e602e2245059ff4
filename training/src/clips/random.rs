// SPDX-License-Identifier: MPL-2.0

//! Random numbers and choices for clips, seeded by run and clip.

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

/// Items with their ratios, for a weighted choice.
#[derive(Debug)]
pub struct Weighted<T>(Vec<(f64, T)>);

impl<T> Default for Weighted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Weighted<T> {
    pub fn push(&mut self, ratio: f64, item: T) {
        self.0.push((ratio, item));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the items with a ratio above 0.
    pub fn drawn(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter(|(ratio, _)| *ratio > 0.0).map(|(_, item)| item)
    }

    pub fn total(&self) -> f64 {
        self.0.iter().map(|(ratio, _)| ratio).sum()
    }

    /// Draws an item by the ratios, or uniformly if all of them are 0; `None` if there are no items.
    pub fn pick(&self, random: &mut Random) -> Option<&T> {
        let total = self.total();
        let mut left = random.uniform(0.0, 1.0) * if total > 0.0 { total } else { self.0.len() as f64 };
        for (ratio, item) in &self.0 {
            left -= if total > 0.0 { *ratio } else { 1.0 };
            if left < 0.0 {
                return Some(item);
            }
        }
        // Rounding may leave a small remainder.
        self.0.iter().rev().find(|(ratio, _)| *ratio > 0.0 || total <= 0.0).map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ratios: [f64; 3]) -> [usize; 3] {
        let mut weighted = Weighted::default();
        (0..3).for_each(|item| weighted.push(ratios[item], item));
        let mut random = Random::new(1, 2);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            counts[*weighted.pick(&mut random).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn items_are_drawn_by_their_ratios() {
        let [a, b, c] = counts([3.0, 0.0, 1.0]);
        assert!(b == 0 && a + c == 3000 && (2130..2370).contains(&a), "{a} {b} {c}");
        assert!(counts([0.0; 3]).iter().all(|n| (880..1120).contains(n)), "uniform");
        assert!(Weighted::<u8>::default().pick(&mut Random::new(1, 2)).is_none());
    }
}
