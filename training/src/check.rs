//! Checks of a configuration's values.

/// The outcome of checking values; the message begins with the key at fault.
pub(crate) type Checked = Result<(), String>;

pub(crate) fn must(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

pub(crate) fn share(key: &str, value: f64) -> Checked {
    must((0.0..=1.0).contains(&value), &format!("{key} is a share or chance, 0 to 1"))
}

pub(crate) fn at_least_one(key: &str, value: u64) -> Checked {
    must(value > 0, &format!("{key}: at least 1"))
}

/// A number above 0, not infinite.
pub(crate) fn positive(key: &str, value: f64) -> Checked {
    must(value > 0.0 && value.is_finite(), &format!("{key}: a number above 0"))
}

/// A number from 0, not infinite.
pub(crate) fn not_negative(key: &str, value: f64) -> Checked {
    must(value >= 0.0 && value.is_finite(), &format!("{key}: a number, 0 or more"))
}

/// `value` lies in `range`, ends included.
pub(crate) fn within(key: &str, value: f64, range: [f64; 2]) -> Checked {
    let [low, high] = range;
    must((low..=high).contains(&value), &format!("{key}: {low} to {high}"))
}

/// `interval` is ordered and lies in `range`, ends included.
pub(crate) fn interval(key: &str, interval: [f64; 2], range: [f64; 2]) -> Checked {
    let [low, high] = range;
    let [from, to] = interval;
    let holds = from <= to && low <= from && to <= high;
    must(holds, &format!("{key}: the lower and the upper end, within {low} to {high}"))
}
