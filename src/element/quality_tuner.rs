// SPDX-License-Identifier: MPL-2.0

//! Selects the input size of the network in live pipelines: the largest up to `fine` that keeps up with the frame rate.
//! `finest` takes eight times the time of the model's own size.
//!
//! The size is reduced as soon as frames come late. It is raised when the times at the present size predict that the
//! next one keeps up too. After each reduction the next attempt waits twice as long.

use std::time::Duration;

use super::statistics::Recent;
use crate::tracker::Quality;

/// Sizes that are selected, the fastest first.
const SIZES: [Quality; 3] = [Quality::Fast, Quality::Balanced, Quality::Fine];
/// Number of frames over which times are measured.
const WINDOW: usize = 100;
/// Minimum number of times before the size is raised.
const MIN_SAMPLES: usize = 30;
/// The size is reduced when [`MAX_SLOW`] of the last [`SLOW_WINDOW`] frames take longer than a frame lasts. Single
/// slow frames occur on every machine.
const SLOW_WINDOW: u32 = 5;
const MAX_SLOW: u32 = 3;
/// Maximum share of the duration of a frame that the predicted 99th percentile may take.
const MAX_SHARE: f64 = 0.85;
/// The time of a frame grows faster than the number of pixels, because matching compares pairs of positions.
const GROWTH: f64 = 1.5;
/// Time at a size before it is raised: the first value, and the maximum after repeated reductions.
const MIN_WAIT: Duration = Duration::from_secs(3);
const MAX_WAIT: Duration = Duration::from_secs(300);
/// First frames at a size are not measured, because kernels are built for it.
const WARM_UP_FRAMES: u32 = 3;

/// Selects the input size by measuring.
#[derive(Debug)]
pub struct QualityTuner {
    quality: Quality,
    times: Recent<WINDOW>,
    /// The last frames, one bit each; set for slow frames.
    slow: u32,
    frames: u32,
    /// Stream time at the present size.
    elapsed: Duration,
    wait: Duration,
}

impl Default for QualityTuner {
    fn default() -> Self {
        Self {
            quality: Quality::Balanced,
            times: Recent::default(),
            slow: 0,
            frames: 0,
            elapsed: Duration::ZERO,
            wait: MIN_WAIT,
        }
    }
}

impl QualityTuner {
    /// Records a frame: its processing time if the network ran on it, the time until the next inference, and whether it
    /// was late at the sink. Returns the size for the next frames if it changes.
    pub fn record(&mut self, time: Option<Duration>, duration: Duration, late: bool) -> Option<Quality> {
        self.frames = self.frames.saturating_add(1);
        self.elapsed += duration;
        if self.frames <= WARM_UP_FRAMES || duration.is_zero() {
            return None;
        }
        if let Some(time) = time {
            self.times.add(time);
        }
        let slow = u32::from(late || time.is_some_and(|time| time > duration));
        self.slow = ((self.slow << 1) | slow) & ((1 << SLOW_WINDOW) - 1);
        if self.slow.count_ones() >= MAX_SLOW {
            let smaller = SIZES.into_iter().rev().find(|&quality| quality < self.quality)?;
            self.wait = (2 * self.wait).min(MAX_WAIT);
            return Some(self.change(smaller));
        }
        if self.elapsed < self.wait || self.times.len() < MIN_SAMPLES {
            return None;
        }
        let larger = SIZES.into_iter().find(|&quality| quality > self.quality)?;
        let growth = (larger.area() / self.quality.area()).powf(GROWTH);
        let predicted = self.times.quantile(0.99)?.mul_f64(growth);
        (predicted < duration.mul_f64(MAX_SHARE)).then(|| self.change(larger))
    }

    fn change(&mut self, quality: Quality) -> Quality {
        *self = Self { quality, wait: self.wait, ..Self::default() };
        quality
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

    /// Runs frames for a number of seconds. `cost` is the time of a frame at the model's own size in milliseconds.
    fn run(tuner: &mut QualityTuner, seconds: u32, cost: f64) -> Vec<Quality> {
        let mut changes = Vec::new();
        for frame in 0..30 * seconds {
            // Every twentieth frame takes longer, as on a shared machine.
            let disturbance = if frame % 20 == 9 { 1.3 } else { 1.0 };
            let time = Duration::from_secs_f64(cost * disturbance * tuner.quality.area().powf(1.5) / 1000.0);
            changes.extend(tuner.record(Some(time), FRAME, false));
        }
        changes
    }

    #[test]
    fn the_largest_size_that_keeps_up_is_found() {
        for (cost, quality) in
            [(4.0, Quality::Fine), (9.0, Quality::Fine), (20.0, Quality::Balanced), (36.0, Quality::Fast)]
        {
            let mut tuner = QualityTuner::default();
            let changes = run(&mut tuner, 60, cost);
            assert_eq!(tuner.quality, quality, "{cost} ms: {changes:?}");
            assert!(changes.len() <= 2, "{cost} ms: {changes:?}");
        }
    }

    #[test]
    fn a_busy_machine_reduces_the_size_at_once_and_raises_it_slowly() {
        let mut tuner = QualityTuner::default();
        run(&mut tuner, 30, 4.0);
        assert_eq!(run(&mut tuner, 1, 40.0), [Quality::Balanced, Quality::Fast]);
        assert_eq!(run(&mut tuner, 5, 4.0), [], "three seconds have doubled twice");
        assert_eq!(run(&mut tuner, 60, 4.0), [Quality::Balanced, Quality::Fine]);
    }

    #[test]
    fn late_frames_reduce_the_size() {
        let mut tuner = QualityTuner::default();
        let changes: Vec<_> = (0..10).filter_map(|_| tuner.record(None, FRAME, true)).collect();
        assert_eq!(changes, [Quality::Fast]);
        assert!((0..90).all(|_| tuner.record(None, FRAME, true).is_none()));
    }

    #[test]
    fn single_slow_frames_and_an_unknown_duration_change_nothing() {
        let mut tuner = QualityTuner::default();
        for frame in 0..300 {
            let time = Duration::from_millis(if frame % 5 == 0 { 50 } else { 20 });
            assert_eq!(tuner.record(Some(time), FRAME, false), None);
            assert_eq!(tuner.record(Some(time), Duration::ZERO, true), None);
        }
    }
}
