// SPDX-License-Identifier: MPL-2.0

//! Selects the number of CPU threads while frames are processed.
//!
//! Two threads are faster than one on an idle machine, but several times slower beside a busy process, because OpenMP
//! spins at every barrier for a thread that does not run. Which case applies cannot be known in advance, so the tuner
//! measures: from time to time it tries the next higher or lower number for a few frames and keeps the faster one.

use std::collections::VecDeque;
use std::time::Duration;

/// Maximum number of threads. More bring no gain at the network's size.
const MAX_THREADS: u32 = 8;
/// Number of times kept for the current number of threads.
const WINDOW: usize = 9;
/// Minimum number of times of the current number of threads for a comparison.
const MIN_SAMPLES: usize = 5;
/// Measured frames of a trial. The first frame after a change is not measured, because it builds kernels and starts
/// threads.
const TRIAL_SAMPLES: usize = 3;
/// A trial fails at the first frame that takes this many times the current time.
const MAX_TRIAL_SLOWDOWN: f64 = 1.5;
/// Maximum time with more threads, relative to the current time. Below 1, because they take processor time from other
/// processes.
const MAX_RATIO_MORE: f64 = 0.92;
/// Maximum time with fewer threads, relative to the current time.
const MAX_RATIO_FEWER: f64 = 1.02;
/// The load of the machine has changed if frames take this many times as long, or as short, as at the last comparison.
const CHANGE_RATIO: f64 = 1.25;
/// Minimum and maximum time between trials. It doubles with each trial that fails.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(8);
/// Maximum share of the time that trials may cost.
const TRIAL_BUDGET: f64 = 0.03;

/// Selects the number of threads by measuring.
#[derive(Debug, Default)]
pub struct ThreadTuner {
    /// Selectable numbers of threads, ascending.
    candidates: Vec<u32>,
    /// Index of the current candidate.
    current: usize,
    recent: VecDeque<Duration>,
    /// Remaining frames that are not measured, because the number of threads has just changed.
    skip: usize,
    trial: Option<Trial>,
    /// Whether the next trial is of more threads, if both directions are possible.
    upward: bool,
    /// Time per frame at the last comparison.
    compared: Option<Duration>,
    /// Total time of all frames.
    now: Duration,
    next_trial: Duration,
    interval: Duration,
    /// Additional time that trials have cost, minus the budget since.
    debt: Duration,
}

#[derive(Debug)]
struct Trial {
    candidate: usize,
    samples: Vec<Duration>,
    spent: Duration,
    frames: u32,
}

impl ThreadTuner {
    /// Creates a tuner for at most `max` threads.
    pub fn new(max: u32) -> Self {
        let max = max.clamp(1, MAX_THREADS);
        let mut candidates: Vec<u32> = (0..).map(|n| 1 << n).take_while(|&count| count < max).collect();
        candidates.push(max);
        Self { candidates, skip: 1, upward: true, interval: MIN_INTERVAL, ..Self::default() }
    }

    /// Number of threads for the next frame.
    pub fn threads(&self) -> u32 {
        self.candidates[self.trial.as_ref().map_or(self.current, |trial| trial.candidate)]
    }

    /// Records the time of the network for a frame with [`threads`](Self::threads).
    pub fn record(&mut self, elapsed: Duration) {
        self.now += elapsed;
        self.debt = self.debt.saturating_sub(elapsed.mul_f64(TRIAL_BUDGET));
        if self.candidates.len() == 1 {
            return;
        }
        if let Some(mut trial) = self.trial.take() {
            trial.frames += 1;
            trial.spent += elapsed;
            if trial.frames > 1 {
                trial.samples.push(elapsed);
            }
            match self.is_better(&trial) {
                None => self.trial = Some(trial),
                Some(better) => self.conclude(trial, better),
            }
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(elapsed);
        if self.recent.len() < MIN_SAMPLES {
            return;
        }
        let latest: Vec<Duration> = self.recent.iter().rev().take(MIN_SAMPLES).copied().collect();
        let changed = self.compared.is_some_and(|compared| {
            let ratio = median(latest.iter().copied()).as_secs_f64() / compared.as_secs_f64().max(1e-9);
            !(1.0 / CHANGE_RATIO..CHANGE_RATIO).contains(&ratio)
        });
        if changed {
            self.interval = MIN_INTERVAL;
            self.compared = Some(median(latest.iter().copied()));
            self.next_trial = self.now;
            self.recent = latest.into_iter().rev().collect();
            self.upward = self.current == 0;
        }
        if self.now >= self.next_trial && (self.debt.is_zero() || self.next_candidate() < self.current) {
            self.begin_trial();
        }
    }

    fn next_candidate(&self) -> usize {
        let can_grow = self.current + 1 < self.candidates.len();
        if can_grow && (self.upward || self.current == 0) { self.current + 1 } else { self.current - 1 }
    }

    fn begin_trial(&mut self) {
        let candidate = self.next_candidate();
        self.upward = candidate < self.current;
        self.trial = Some(Trial { candidate, samples: Vec::new(), spent: Duration::ZERO, frames: 0 });
    }

    /// Returns whether the candidate is better, or `None` if that is not known yet.
    fn is_better(&self, trial: &Trial) -> Option<bool> {
        let current_time = self.current_time().as_secs_f64();
        if trial.samples.iter().any(|sample| sample.as_secs_f64() > MAX_TRIAL_SLOWDOWN * current_time) {
            return Some(false);
        }
        if trial.samples.len() < TRIAL_SAMPLES {
            return None;
        }
        let limit = if trial.candidate > self.current { MAX_RATIO_MORE } else { MAX_RATIO_FEWER };
        Some(median(trial.samples.iter().copied()).as_secs_f64() < limit * current_time)
    }

    fn conclude(&mut self, trial: Trial, better: bool) {
        self.debt += trial.spent.saturating_sub(self.current_time() * trial.frames);
        if better {
            self.upward = trial.candidate > self.current;
            self.current = trial.candidate;
            self.recent = trial.samples.into();
            self.interval = MIN_INTERVAL;
        } else {
            self.interval = (2 * self.interval).min(MAX_INTERVAL);
            self.skip = 1;
        }
        self.compared = Some(self.current_time());
        self.next_trial = self.now + self.interval;
    }

    fn current_time(&self) -> Duration {
        median(self.recent.iter().copied())
    }
}

/// Median; the upper one for an even number of times.
fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs frames for a time. Returns the share of the time with each number of threads, and the mean time per frame.
    fn run(tuner: &mut ThreadTuner, seconds: f64, cost: impl Fn(u32) -> f64) -> (Vec<(u32, f64)>, f64) {
        let (mut spent, mut frames) = (0.0, 0);
        let mut shares: Vec<(u32, f64)> = tuner.candidates.iter().map(|&count| (count, 0.0)).collect();
        while spent < seconds {
            let threads = tuner.threads();
            // Every seventh frame takes longer, as on a shared machine.
            let time = cost(threads) * if frames % 7 == 3 { 1.4 } else { 1.0 };
            tuner.record(Duration::from_secs_f64(time));
            shares.iter_mut().filter(|share| share.0 == threads).for_each(|share| share.1 += time / seconds);
            spent += time;
            frames += 1;
        }
        (shares, spent / f64::from(frames))
    }

    fn share(shares: &[(u32, f64)], threads: u32) -> f64 {
        shares.iter().find(|share| share.0 == threads).unwrap().1
    }

    const IDLE: fn(u32) -> f64 = |threads| [0.020, 0.014][threads as usize - 1];
    const BUSY: fn(u32) -> f64 = |threads| [0.030, 0.110][threads as usize - 1];

    #[test]
    fn the_faster_number_of_threads_is_kept() {
        let mut tuner = ThreadTuner::new(2);
        let (shares, _) = run(&mut tuner, 10.0, IDLE);
        assert!(share(&shares, 2) > 0.95, "{shares:?}");
        let mut tuner = ThreadTuner::new(2);
        let (_, frame) = run(&mut tuner, 10.0, BUSY);
        assert!(frame < 1.1 * 0.030 * (1.0 + 0.4 / 7.0), "{frame}");
    }

    #[test]
    fn threads_are_reduced_soon_on_a_busy_machine() {
        let mut tuner = ThreadTuner::new(2);
        run(&mut tuner, 20.0, IDLE);
        assert_eq!(tuner.threads(), 2);
        let (shares, _) = run(&mut tuner, 20.0, BUSY);
        assert!(share(&shares, 2) < 0.08, "{shares:?}");
        run(&mut tuner, 30.0, BUSY);
        run(&mut tuner, 8.0, IDLE);
        let (shares, _) = run(&mut tuner, 10.0, IDLE);
        assert!(share(&shares, 2) > 0.9, "back once the budget allows another trial: {shares:?}");
    }

    #[test]
    fn equal_times_select_fewer_threads() {
        let mut tuner = ThreadTuner::new(2);
        let (shares, _) = run(&mut tuner, 20.0, |_| 0.02);
        assert!(share(&shares, 1) > 0.9, "{shares:?}");
    }

    #[test]
    fn the_fastest_of_many_numbers_is_found() {
        let mut tuner = ThreadTuner::new(6);
        assert_eq!(tuner.candidates, [1, 2, 4, 6]);
        let cost = |threads: u32| 0.02 / f64::from(threads.min(4)) + 0.002 * f64::from(threads.max(4) - 4);
        let (shares, _) = run(&mut tuner, 20.0, cost);
        assert!(share(&shares, 4) > 0.85, "{shares:?}");
        assert_eq!(ThreadTuner::new(64).candidates, [1, 2, 4, 8]);
    }

    #[test]
    fn a_single_core_uses_one_thread() {
        let mut tuner = ThreadTuner::new(1);
        let (shares, _) = run(&mut tuner, 5.0, |_| 0.03);
        assert_eq!(shares.len(), 1);
        assert!((shares[0].1 - 1.0).abs() < 0.01);
        assert_eq!(ThreadTuner::new(0).threads(), 1);
    }
}
