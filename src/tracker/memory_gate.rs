// SPDX-License-Identifier: MPL-2.0

//! Choice of the frames that are remembered: not those in which an object's mask is less certain than usual, as while
//! another object covers it.

use super::object_stats::ObjectStats;
use crate::model::Sight;

/// Minimum confidence of a remembered mask, relative to the object's usual one. 0.9 was chosen on clips of several objects with
/// the exponent 2.24 of confidence; this is the same limit with the present exponent.
const MIN_CONFIDENCE: f64 = 0.88;
/// Weight of a frame in the usual confidence.
const RATE: f64 = 0.1;

/// Usual confidence of each object.
#[derive(Clone, Debug, Default)]
pub struct MemoryGate {
    usual: Vec<Option<f64>>,
}

impl MemoryGate {
    pub fn new(objects: usize) -> Self {
        Self { usual: vec![None; objects] }
    }

    /// Returns how each object is seen. `seen` tells whether it has a mask.
    pub fn update(&mut self, objects: &[ObjectStats], seen: &[bool]) -> Vec<Sight> {
        let objects = objects.iter().zip(seen).zip(&mut self.usual);
        let sights = objects.map(|((object, &seen), usual)| {
            if !seen {
                return Sight::Absent;
            }
            let last = *usual.get_or_insert(object.confidence);
            *usual = Some(last + RATE * (object.confidence - last));
            if object.confidence < MIN_CONFIDENCE * last { Sight::Doubtful } else { Sight::Clear }
        });
        sights.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_that_are_less_certain_than_usual_are_doubtful() {
        let mut gate = MemoryGate::new(2);
        let mut sights = |confidence: f64, seen: bool| {
            let stats = |confidence| ObjectStats { confidence, ..ObjectStats::default() };
            gate.update(&[stats(confidence), stats(0.5)], &[seen, true])
        };
        assert_eq!(sights(0.8, true), [Sight::Clear; 2]);
        assert_eq!(sights(0.75, true), [Sight::Clear; 2]);
        assert_eq!(sights(0.6, true), [Sight::Doubtful, Sight::Clear]);
        assert_eq!(sights(0.0, false), [Sight::Absent, Sight::Clear]);
        assert_eq!(sights(0.8, true), [Sight::Clear; 2]);
        // A lasting change becomes usual.
        let last = (0..20).map(|_| sights(0.5, true)[0]).last();
        assert_eq!(last, Some(Sight::Clear));
    }
}
