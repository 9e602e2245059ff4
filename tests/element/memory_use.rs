// SPDX-License-Identifier: MPL-2.0

//! Resident memory of the process, and its growth.

/// Resident memory in KiB; `None` without /proc.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Growth in percent from the third quarter of the samples to the last. Compares medians, which threads that start or
/// end do not affect.
pub fn growth_percent(samples: &[u64]) -> f64 {
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2] as f64
    };
    let quarter = samples.len() / 4;
    let (before, after) = (median(&samples[2 * quarter..3 * quarter]), median(&samples[3 * quarter..]));
    100.0 * (after - before) / before
}

/// Asserts that memory has not grown by more than `percent` after warm-up.
#[track_caller]
pub fn flat(samples: &[u64], percent: f64) {
    if samples.len() < 8 {
        crate::util::skip("/proc/self/status is not available");
        return;
    }
    let growth = growth_percent(samples);
    println!(
        "{} samples, {} KiB at the end, {growth:+.3} % after warm-up",
        samples.len(),
        samples[samples.len() - 1]
    );
    assert!(growth <= percent, "memory grows: {samples:?}");
}

#[test]
fn growth_is_detected_and_spikes_are_ignored() {
    let mut samples = vec![1000; 40];
    samples[35] = 9000;
    assert_eq!(growth_percent(&samples), 0.0);
    let rising: Vec<u64> = (0..40).map(|i| 1000 + 10 * i).collect();
    assert!(growth_percent(&rising) > 5.0);
}
