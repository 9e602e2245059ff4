// SPDX-License-Identifier: MPL-2.0

//! Latency that the element reports to live pipelines.

use std::time::Duration;

use gstreamer as gst;

use super::statistics::Recent;

/// Number of frames over which times are measured, a few seconds.
const WINDOW: usize = 128;
/// Quantile of the measured times that is reported. With the maximum, a single slow frame would delay the whole
/// pipeline; sinks tolerate an occasional late frame.
const QUANTILE: f64 = 0.95;
/// Frames after which the measured times replace the time of the warm-up.
const MIN_FRAMES: u32 = 8;
/// Frame count at which the latency is checked again; the count then continues from [`MIN_FRAMES`]. Each change
/// makes the whole pipeline wait or skip.
const CHECK_FRAMES: u32 = 64;
const MILLISECOND: Duration = Duration::from_millis(1);

/// Measures the latency, and decides when a change is reported.
#[derive(Debug, Default)]
pub struct Latency {
    /// Processing times of the last frames.
    times: Recent<WINDOW>,
    /// Frame count, see [`CHECK_FRAMES`].
    frames: u32,
    /// Processing time in the warm-up.
    warm_up_time: Duration,
    /// Latency that was last reported to a live pipeline.
    reported: Option<Duration>,
    /// Time that each buffer waits for the next one, according to the negotiated frame rate.
    nominal_wait: Duration,
    /// Differences between the timestamps of consecutive buffers.
    gaps: Recent<WINDOW>,
}

impl Latency {
    /// `warm_up_time` is the processing time of a frame in the warm-up.
    pub fn new(warm_up_time: Duration) -> Self {
        Self { warm_up_time, ..Self::default() }
    }

    /// Sets the time that each buffer waits for the next one. Returns whether the reported latency changes.
    pub fn set_nominal_wait(&mut self, wait: Duration) -> bool {
        self.nominal_wait = wait;
        self.update_reported()
    }

    /// Records that a buffer has waited for the next one, whose timestamp is later by `gap`, because the frame
    /// rate may vary or differ from the negotiated one. Returns whether the reported latency changes; of the gaps,
    /// only the first changes it at once.
    pub fn record_gap(&mut self, gap: Duration) -> bool {
        self.gaps.add(gap);
        self.gaps.len() == 1 && self.update_reported()
    }

    /// Returns the latency for a query, in whole milliseconds: the one reported before. Others ask as well, so that only a
    /// message can announce another one.
    pub fn report(&mut self, live: bool) -> gst::ClockTime {
        let reported = self.reported.unwrap_or_else(|| self.estimate());
        if live {
            self.reported = Some(reported);
        }
        gst::ClockTime::try_from(reported).unwrap_or(gst::ClockTime::MAX)
    }

    /// Records the processing time of a frame on which the network ran. Returns whether the reported latency changes,
    /// which is checked at [`MIN_FRAMES`] and [`CHECK_FRAMES`].
    pub fn add(&mut self, time: Duration) -> bool {
        self.times.add(time);
        self.frames = self.frames.saturating_add(1);
        if self.frames != MIN_FRAMES && self.frames < CHECK_FRAMES {
            return false;
        }
        self.frames = MIN_FRAMES;
        self.update_reported()
    }

    /// Updates the reported latency. Returns whether it changes.
    fn update_reported(&mut self) -> bool {
        let estimate = self.estimate();
        let changed = self.reported.is_some_and(|reported| differs(reported, estimate));
        if changed {
            // A change is announced once, even if no query follows.
            self.reported = Some(estimate);
        }
        changed
    }

    fn estimate(&self) -> Duration {
        let measured = self.times.quantile(QUANTILE).unwrap_or_default();
        let time =
            if self.times.len() < MIN_FRAMES as usize { measured.max(self.warm_up_time) } else { measured };
        let wait = self.gaps.quantile(QUANTILE).unwrap_or_default().max(self.nominal_wait);
        let ms = (time + wait).as_nanos().div_ceil(MILLISECOND.as_nanos());
        MILLISECOND * u32::try_from(ms).unwrap_or(u32::MAX)
    }
}

/// Returns whether the difference matters: a higher latency makes frames late, and a much lower one delays them
/// unnecessarily.
fn differs(reported: Duration, estimate: Duration) -> bool {
    estimate > reported + (reported / 5).max(2 * MILLISECOND)
        || estimate < reported.mul_f64(0.6).saturating_sub(MILLISECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn reported(latency: &mut Latency) -> u64 {
        latency.report(true).mseconds()
    }

    #[test]
    fn the_first_latency_is_that_of_the_warm_up() {
        let mut latency = Latency::new(Duration::from_micros(20_100));
        assert_eq!(reported(&mut latency), 21, "rounded up");
        latency.add(ms(5));
        assert_eq!(reported(&mut latency), 21, "one frame is not enough");
        let changes: Vec<bool> = (0..20).map(|_| latency.add(ms(5))).collect();
        assert_eq!(changes.iter().filter(|changes| **changes).count(), 1);
        assert_eq!(reported(&mut latency), 5);
    }

    /// Then no message followed, and sinks kept the old latency.
    #[test]
    fn queries_of_others_do_not_take_the_place_of_a_message() {
        let mut latency = Latency::new(ms(20));
        let _ = latency.report(true);
        let changed = (0..200).any(|_| {
            let changed = latency.add(ms(60));
            let _ = (latency.report(true), latency.report(false));
            changed
        });
        assert!(changed);
        assert_eq!(reported(&mut latency), 60);
    }

    #[test]
    fn small_changes_are_not_reported() {
        let mut latency = Latency::new(ms(20));
        assert_eq!(reported(&mut latency), 20);
        for index in 0..1000 {
            assert!(!latency.add(ms(18 + index % 5)));
            assert_eq!(reported(&mut latency), 20);
        }
    }

    #[test]
    fn occasional_slow_frames_change_nothing() {
        let mut latency = Latency::new(ms(20));
        let _ = latency.report(true);
        assert!(!(0..1000).any(|index| latency.add(ms(if index % 50 == 9 { 500 } else { 20 }))));
    }

    #[test]
    fn a_higher_latency_is_reported_once() {
        let mut latency = Latency::new(ms(20));
        assert_eq!(reported(&mut latency), 20);
        let mut changes = 0;
        for index in 0..1000 {
            if latency.add(ms(if index < 200 { 20 } else { 60 })) {
                changes += 1;
                assert_eq!(reported(&mut latency), 60);
            }
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn the_wait_for_the_next_frame_counts() {
        let mut latency = Latency::new(ms(20));
        assert!(!latency.set_nominal_wait(ms(40)), "no query yet");
        assert_eq!(reported(&mut latency), 60);
        assert!(!latency.record_gap(ms(40)));
        // In the dark the camera delivers ten frames per second.
        let changes = (0..200).filter(|_| latency.record_gap(ms(100)) | latency.add(ms(20))).count();
        assert_eq!((changes, reported(&mut latency)), (1, 120));

        let mut latency = Latency::new(ms(20));
        assert_eq!(reported(&mut latency), 20, "the frame rate is unknown");
        assert!(latency.record_gap(ms(33)));
        assert_eq!(reported(&mut latency), 53);
    }

    #[test]
    fn non_live_pipelines_get_no_latency_changes() {
        let mut latency = Latency::new(ms(20));
        assert!(!(0..100).any(|_| latency.add(ms(90))), "no query yet");
        let _ = latency.report(false);
        assert!(!(0..200).any(|_| latency.add(ms(900))));
    }
}
