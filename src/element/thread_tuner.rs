//! Chooses the number of CPU threads while frames are processed.
//!
//! Two threads are faster than one on an idle machine, and several times slower beside a busy process, because OpenMP
//! spins at every barrier for a thread that does not run. No property of the machine tells in advance which is the
//! case, so the tuner measures: it tries a neighbouring number for a few frames now and then and keeps the faster one.

use std::collections::VecDeque;
use std::time::Duration;

/// More threads than this gain nothing at the network's size.
const MAX_THREADS: u32 = 8;
/// Times kept of the present number of threads.
const WINDOW: usize = 9;
/// Times of the present number of threads that a comparison needs.
const MIN_SAMPLES: usize = 5;
/// Frames of a trial that count. The first frame after a change is not one of them: kernels are built and threads
/// start in it.
const TRIAL_SAMPLES: usize = 3;
/// A trial ends at its first frame that takes this many times the present time.
const HOPELESS: f64 = 1.5;
/// More threads must shorten a frame to this share of its time, because they take processor time from others.
const GAIN_OF_MORE: f64 = 0.92;
/// Fewer threads may take this many times as long.
const LOSS_OF_FEWER: f64 = 1.02;
/// The machine is no longer as it was at the last comparison if a frame takes this many times as long or as short.
const CHANGED: f64 = 1.25;
/// Time between trials at first and at the most; it doubles with each trial that changes nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(8);
/// Share of all time that may be lost to trials.
const BUDGET: f64 = 0.03;

#[derive(Debug)]
pub struct ThreadTuner {
    /// Numbers of threads to choose from, ascending.
    candidates: Vec<u32>,
    current: usize,
    recent: VecDeque<Duration>,
    /// Frames that do not count because the number of threads has just changed.
    skip: usize,
    trial: Option<Trial>,
    /// Whether the next trial is of more threads, where there are both.
    upward: bool,
    /// Time a frame took at the last comparison.
    compared: Option<Duration>,
    /// Time that frames have taken in all.
    now: Duration,
    next_trial: Duration,
    interval: Duration,
    /// What trials cost beyond what the same frames would have cost, less what the budget has paid for.
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
    /// For at most `most` threads.
    pub fn new(most: u32) -> Self {
        let most = most.clamp(1, MAX_THREADS);
        let mut candidates: Vec<u32> = (0..).map(|n| 1 << n).take_while(|&count| count < most).collect();
        candidates.push(most);
        Self {
            candidates,
            current: 0,
            recent: VecDeque::with_capacity(WINDOW),
            skip: 1,
            trial: None,
            upward: true,
            compared: None,
            now: Duration::ZERO,
            next_trial: Duration::ZERO,
            interval: MIN_INTERVAL,
            debt: Duration::ZERO,
        }
    }

    /// Threads for the next frame.
    pub fn threads(&self) -> u32 {
        self.candidates[self.trial.as_ref().map_or(self.current, |trial| trial.candidate)]
    }

    /// Takes note of how long the network took for a frame with [`threads`](Self::threads).
    pub fn record(&mut self, elapsed: Duration) {
        self.now += elapsed;
        self.debt = self.debt.saturating_sub(elapsed.mul_f64(BUDGET));
        if self.candidates.len() == 1 {
            return;
        }
        if let Some(mut trial) = self.trial.take() {
            trial.frames += 1;
            trial.spent += elapsed;
            if trial.frames > 1 {
                trial.samples.push(elapsed);
            }
            match self.verdict(&trial) {
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
            !(1.0 / CHANGED..CHANGED).contains(&ratio)
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

    /// Whether the candidate is better, once that is known.
    fn verdict(&self, trial: &Trial) -> Option<bool> {
        let present = self.present().as_secs_f64();
        if trial.samples.iter().any(|sample| sample.as_secs_f64() > HOPELESS * present) {
            return Some(false);
        }
        if trial.samples.len() < TRIAL_SAMPLES {
            return None;
        }
        let limit = if trial.candidate > self.current { GAIN_OF_MORE } else { LOSS_OF_FEWER };
        Some(median(trial.samples.iter().copied()).as_secs_f64() < limit * present)
    }

    fn conclude(&mut self, trial: Trial, better: bool) {
        self.debt += trial.spent.saturating_sub(self.present() * trial.frames);
        if better {
            self.upward = trial.candidate > self.current;
            self.current = trial.candidate;
            self.recent = trial.samples.into();
            self.interval = MIN_INTERVAL;
        } else {
            self.interval = (2 * self.interval).min(MAX_INTERVAL);
            self.skip = 1;
        }
        self.compared = Some(self.present());
        self.next_trial = self.now + self.interval;
    }

    fn present(&self) -> Duration {
        median(self.recent.iter().copied())
    }
}

/// The middle one of the times, the larger of two.
fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs frames until the given time; the share of it spent with each number of threads, and the time a frame.
    fn run(tuner: &mut ThreadTuner, seconds: f64, cost: impl Fn(u32) -> f64) -> (Vec<(u32, f64)>, f64) {
        let (mut spent, mut frames) = (0.0, 0);
        let mut shares: Vec<(u32, f64)> = tuner.candidates.iter().map(|&count| (count, 0.0)).collect();
        while spent < seconds {
            let threads = tuner.threads();
            // Noise of a shared machine: every seventh frame takes longer.
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
    fn the_faster_number_is_found_and_kept() {
        let mut tuner = ThreadTuner::new(2);
        let (shares, _) = run(&mut tuner, 10.0, IDLE);
        assert!(share(&shares, 2) > 0.95, "{shares:?}");
        let mut tuner = ThreadTuner::new(2);
        let (_, frame) = run(&mut tuner, 10.0, BUSY);
        assert!(frame < 1.1 * 0.030 * (1.0 + 0.4 / 7.0), "{frame}");
    }

    #[test]
    fn a_machine_that_gets_busy_costs_a_few_frames() {
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
    fn equal_numbers_take_the_fewer_threads() {
        let mut tuner = ThreadTuner::new(2);
        let (shares, _) = run(&mut tuner, 20.0, |_| 0.02);
        assert!(share(&shares, 1) > 0.9, "{shares:?}");
    }

    #[test]
    fn the_best_of_many_numbers_is_found() {
        let mut tuner = ThreadTuner::new(6);
        assert_eq!(tuner.candidates, [1, 2, 4, 6]);
        let cost = |threads: u32| 0.02 / f64::from(threads.min(4)) + 0.002 * f64::from(threads.max(4) - 4);
        let (shares, _) = run(&mut tuner, 20.0, cost);
        assert!(share(&shares, 4) > 0.85, "{shares:?}");
        assert_eq!(ThreadTuner::new(64).candidates, [1, 2, 4, 8]);
    }

    #[test]
    fn a_single_core_has_no_choice() {
        let mut tuner = ThreadTuner::new(1);
        let (shares, _) = run(&mut tuner, 5.0, |_| 0.03);
        assert_eq!(shares.len(), 1);
        assert!((shares[0].1 - 1.0).abs() < 0.01);
        assert_eq!(ThreadTuner::new(0).threads(), 1);
    }
}
