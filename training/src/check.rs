// SPDX-License-Identifier: MPL-2.0

//! Checks of configuration values.

use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of threads.
pub(crate) const MAX_THREADS: u64 = 1024;

/// Result of a check; the message begins with the invalid key.
pub(crate) type Checked = Result<(), String>;

/// Returns `what` as the error unless `holds`.
pub(crate) fn must(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Checks a share or probability.
pub(crate) fn share(key: &str, value: f64) -> Checked {
    must((0.0..=1.0).contains(&value), &format!("{key}: must be from 0 to 1"))
}

/// Checks shares or probabilities in a section of the configuration.
pub(crate) fn shares(section: &str, values: &[(&str, f64)]) -> Checked {
    values.iter().try_for_each(|(name, value)| share(&format!("{section}.{name}"), *value))
}

pub(crate) fn at_least_one(key: &str, value: u64) -> Checked {
    must(value > 0, &format!("{key}: must be at least 1"))
}

/// Checks a number of things that take memory or processors each.
pub(crate) fn count(key: &str, value: u64, max: u64) -> Checked {
    must((1..=max).contains(&value), &format!("{key}: must be from 1 to {max}"))
}

/// Checks that `value` is finite and above 0.
pub(crate) fn positive(key: &str, value: f64) -> Checked {
    must(value > 0.0 && value.is_finite(), &format!("{key}: must be a finite number above 0"))
}

/// Checks that `value` is finite and at least 0.
pub(crate) fn not_negative(key: &str, value: f64) -> Checked {
    must(value >= 0.0 && value.is_finite(), &format!("{key}: must be a finite number of at least 0"))
}

/// Checks that `value` lies in `range`, ends included.
pub(crate) fn within(key: &str, value: f64, range: [f64; 2]) -> Checked {
    let [low, high] = range;
    must((low..=high).contains(&value), &format!("{key}: must be from {low} to {high}"))
}

/// Checks that `interval` is ordered and lies in `range`, ends included.
pub(crate) fn interval(key: &str, interval: [f64; 2], range: [f64; 2]) -> Checked {
    let [low, high] = range;
    let [from, to] = interval;
    let holds = from <= to && low <= from && to <= high;
    must(holds, &format!("{key}: must be a lower and an upper bound, from {low} to {high}"))
}

/// Returns the keys whose values differ, with both values as text.
pub(crate) fn differing_keys<'a, Value: PartialEq + ToString>(
    old: &'a BTreeMap<String, Value>,
    new: &'a BTreeMap<String, Value>,
) -> impl Iterator<Item = (&'a String, [String; 2])> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let values = |key: &String| [old.get(key), new.get(key)];
    keys.into_iter()
        .map(move |key| (key, values(key)))
        .filter(|(_, [old, new])| old != new)
        .map(|(key, values)| (key, values.map(|value| value.map_or("not set".to_owned(), Value::to_string))))
}
