//! How much memory the process holds, and whether it grows.

/// Resident memory in KiB, where the system tells.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What the third quarter of the samples held and what the last one did, as medians: neither a thread that
/// starts nor one that ends moves those.
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

/// Memory has not grown by more than so many percent since it was warm.
#[track_caller]
pub fn flat(samples: &[u64], percent: f64) {
    if samples.len() < 8 {
        crate::util::skip("this system does not tell its memory");
        return;
    }
    let growth = growth_percent(samples);
    println!(
        "{} samples, {} KiB at last, {growth:+.3} % since warm",
        samples.len(),
        samples[samples.len() - 1]
    );
    assert!(growth <= percent, "memory grows: {samples:?}");
}

#[test]
fn growth_is_seen_and_spikes_are_not() {
    let mut samples = vec![1000; 40];
    samples[35] = 9000;
    assert_eq!(growth_percent(&samples), 0.0);
    let rising: Vec<u64> = (0..40).map(|i| 1000 + 10 * i).collect();
    assert!(growth_percent(&rising) > 5.0);
}
