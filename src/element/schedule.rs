// SPDX-License-Identifier: MPL-2.0

//! Decides on which frames the network runs.

use std::time::Duration;

use gstreamer as gst;

/// Maximum number of consecutive late frames without the network: a third of a second at 30 frames per second. After a
/// longer time, objects may have moved too far from the last mask.
const MAX_CONSECUTIVE_SKIPS: u32 = 10;

/// Decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The network runs.
    Run,
    /// The interval skips the frame; it gets the last mask.
    Hold,
    /// The frame is late and gets the last mask. Holds the number of such frames since the network ran.
    HoldLate(u32),
    /// The frame is late and is dropped.
    Drop,
}

/// Input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct FrameContext {
    /// There is no last mask, or it is out of date.
    pub must_run: bool,
    /// The network runs on every `interval`-th frame.
    pub interval: u32,
    pub late: bool,
    /// Late frames are dropped instead of held.
    pub drops: bool,
    pub running_time: Option<gst::ClockTime>,
    /// Mean time of the network per frame.
    pub cost: Duration,
}

#[derive(Debug, Default)]
pub struct Schedule {
    /// Frames since the network ran.
    since: u32,
    /// Late frames among them.
    skipped: u32,
    /// Running time of the frame on which the network ran.
    ran_at: Option<gst::ClockTime>,
}

impl Schedule {
    /// Decides about the next frame.
    pub fn decide(&mut self, frame: &FrameContext) -> Decision {
        self.since = self.since.saturating_add(1);
        let due = self.since >= frame.interval;
        let skippable = frame.late && !self.starves(frame);
        let decision = match () {
            () if frame.must_run => Decision::Run,
            () if skippable && frame.drops => Decision::Drop,
            () if !due => Decision::Hold,
            () if skippable => Decision::HoldLate(self.skipped + 1),
            () => Decision::Run,
        };
        match decision {
            Decision::Run => *self = Self { ran_at: frame.running_time, ..Self::default() },
            Decision::Hold => (),
            Decision::HoldLate(_) | Decision::Drop => self.skipped += 1,
        }
        decision
    }

    /// Returns whether the network will run on the frame after the next `before` frames, by `interval` alone.
    pub fn due_after(&self, before: u32, interval: u32) -> bool {
        let mut since = self.since.saturating_add(1);
        for _ in 0..before {
            since = if since >= interval { 1 } else { since.saturating_add(1) };
        }
        since >= interval
    }

    /// Returns whether the last mask is too old, so that the network runs even on a late frame. A network that is
    /// slower than real time gets half of the time, so that the pipeline can catch up in the other half.
    fn starves(&self, frame: &FrameContext) -> bool {
        let cost = u64::try_from(frame.cost.as_nanos()).unwrap_or(u64::MAX);
        let min_interval = gst::ClockTime::from_nseconds(cost.saturating_mul(2).min(i64::MAX as u64));
        let passed = self.ran_at.zip(frame.running_time).and_then(|(then, now)| now.checked_sub(then));
        self.skipped >= MAX_CONSECUTIVE_SKIPS && passed.is_none_or(|passed| passed >= min_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONTIME: FrameContext = FrameContext {
        must_run: false,
        interval: 1,
        late: false,
        drops: false,
        running_time: None,
        cost: Duration::ZERO,
    };
    const LATE: FrameContext = FrameContext { late: true, ..ONTIME };

    #[test]
    fn the_network_runs_on_every_nth_frame() {
        let mut schedule = Schedule::default();
        let decisions = |schedule: &mut Schedule, interval: u32, count: usize| -> String {
            let mut frame = FrameContext { interval, ..ONTIME };
            (0..count)
                .map(|index| {
                    frame.must_run = index == 0;
                    if schedule.decide(&frame) == Decision::Run { 'x' } else { '.' }
                })
                .collect()
        };
        assert_eq!(decisions(&mut schedule, 1, 4), "xxxx");
        assert_eq!(decisions(&mut schedule, 3, 8), "x..x..x.");
        assert_eq!(decisions(&mut schedule, 2, 5), "x.x.x", "a frame that must run restarts the interval");
        assert_eq!(schedule.decide(&FrameContext { interval: u32::MAX, ..ONTIME }), Decision::Hold);
        assert_eq!(schedule.decide(&ONTIME), Decision::Run, "a new interval applies at once");
    }

    #[test]
    fn decisions_are_predicted_a_frame_earlier() {
        for interval in 1..5 {
            let mut schedule = Schedule::default();
            let mut expected = None;
            for index in 0..20 {
                let (now, soon) = (schedule.due_after(0, interval), schedule.due_after(1, interval));
                let decision = schedule.decide(&FrameContext { must_run: index == 0, interval, ..ONTIME });
                // The first frame runs regardless of the interval.
                if index > 1 {
                    assert_eq!(expected, Some(decision == Decision::Run), "frame {index}, every {interval}");
                    assert_eq!(now, decision == Decision::Run, "frame {index}, every {interval}");
                }
                expected = Some(soon);
            }
        }
    }

    #[test]
    fn late_frames_are_held_or_dropped() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.decide(&FrameContext { must_run: true, drops: true, ..LATE }), Decision::Run);
        assert_eq!(schedule.decide(&LATE), Decision::HoldLate(1));
        assert_eq!(schedule.decide(&LATE), Decision::HoldLate(2));
        assert_eq!(schedule.decide(&FrameContext { drops: true, ..LATE }), Decision::Drop);
        assert_eq!(schedule.decide(&ONTIME), Decision::Run);
        assert_eq!(
            schedule.decide(&FrameContext { interval: 2, ..LATE }),
            Decision::Hold,
            "the interval skips it"
        );
        assert_eq!(schedule.decide(&FrameContext { interval: 2, ..LATE }), Decision::HoldLate(1));
    }

    #[test]
    fn the_network_runs_on_some_late_frames() {
        for drops in [false, true] {
            let mut schedule = Schedule::default();
            let runs = (0..44).filter(|_| schedule.decide(&FrameContext { drops, ..LATE }) == Decision::Run);
            assert_eq!(runs.count(), 4);
        }
    }

    #[test]
    fn a_slow_network_gets_half_of_the_time() {
        let mut schedule = Schedule::default();
        let mut runs = Vec::new();
        for index in 0..200 {
            let time = gst::ClockTime::from_mseconds(40 * index);
            let cost = Duration::from_secs(1);
            let frame = FrameContext { must_run: index == 0, running_time: Some(time), cost, ..LATE };
            if schedule.decide(&frame) == Decision::Run {
                runs.push(time.mseconds());
            }
        }
        assert_eq!(runs, [0, 2000, 4000, 6000]);
    }
}
