// SPDX-License-Identifier: MPL-2.0

//! The learning rate schedule.

/// Linear warm-up, a constant rate, then polynomial decay to zero at the end of the run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Share of the run before the decay begins, 0 to below 1.
    pub hold: f64,
    /// Power of the decay.
    pub decay_power: f64,
}

impl Schedule {
    /// The learning rate of the step after `done` steps, relative to the maximum.
    pub fn at(&self, done: u64) -> f64 {
        let progress = done as f64 / self.steps as f64;
        let decayed = ((progress - self.hold) / (1.0 - self.hold)).clamp(0.0, 1.0);
        let warm = ((done + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        warm * (1.0 - decayed).powf(self.decay_power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_constant_until_the_decay_begins() {
        let schedule = Schedule { steps: 4000, warm_up: 0, hold: 0.25, decay_power: 0.9 };
        assert!([0, 500, 1000].iter().all(|&step| schedule.at(step) == 1.0));
        assert!((schedule.at(2500) - 0.5f64.powf(0.9)).abs() < 1e-12);
        assert_eq!(schedule.at(4000), 0.0);
    }

    #[test]
    fn without_hold_decay_begins_during_the_linear_warm_up() {
        let schedule = Schedule { steps: 100, warm_up: 10, hold: 0.0, decay_power: 1.0 };
        assert!((schedule.at(0) - 0.1).abs() < 1e-12);
        assert!((schedule.at(4) - 0.5 * 0.96).abs() < 1e-12);
        assert!((schedule.at(50) - 0.5).abs() < 1e-12);
    }
}
