//! How much later than they came in buffers leave, as live pipelines are told.

use std::time::Duration;

use gstreamer as gst;

use super::statistics::Recent;

/// So many of the last frames are looked at, some seconds of them.
const WINDOW: usize = 128;
/// The share of frames that take no longer than what is told. Sinks bear with a late frame now and then;
/// by the worst of all, one hiccup would delay everything.
const SHARE: f64 = 0.95;
/// Frames after which there is more to go by than what the warm-up took.
const ENOUGH: u32 = 8;
/// Up to this frame nothing changes again: each change makes the whole pipeline wait or skip.
const REST: u32 = 64;
const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Latency {
    recent: Recent,
    /// Frames so far, beginning again at [`ENOUGH`].
    frames: u32,
    /// Of the warm-up, until there is more.
    expected: Duration,
    /// What live pipelines reckon with.
    told: Option<Duration>,
    /// How long each buffer waits for the next, by the rate that was agreed on.
    wait: Duration,
    /// From one buffer to the next, as they come.
    gaps: Recent,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new(Duration::ZERO)
    }
}

impl Latency {
    /// `expected` is how long a frame probably takes.
    pub fn new(expected: Duration) -> Self {
        let (recent, gaps) = (Recent::new(WINDOW), Recent::new(WINDOW));
        Self { recent, frames: 0, expected, told: None, wait: Duration::ZERO, gaps }
    }

    /// From now on each buffer waits for the next, so long. True if what was told is no longer so.
    pub fn wait(&mut self, wait: Duration) -> bool {
        self.wait = wait;
        self.retell()
    }

    /// A buffer has waited for the next, whose time is later by `gap`: rates vary, or are not what was agreed on. True
    /// if what was told is no longer so, which the first gap alone tells at once.
    pub fn waited(&mut self, gap: Duration) -> bool {
        self.gaps.add(gap);
        self.gaps.len() == 1 && self.retell()
    }

    /// For an answer to a query, in whole milliseconds. It stays the same until [`add`](Self::add) says
    /// that it has changed.
    pub fn tell(&mut self, live: bool) -> gst::ClockTime {
        let estimate = self.estimate();
        let told = match self.told {
            Some(told) if !differs(told, estimate) => told,
            _ => estimate,
        };
        self.told = live.then_some(told);
        gst::ClockTime::try_from(told).unwrap_or(gst::ClockTime::MAX)
    }

    /// A frame on which the network ran took `time`. True if what was told is no longer so, which is looked
    /// at now and then.
    pub fn add(&mut self, time: Duration) -> bool {
        self.recent.add(time);
        self.frames = self.frames.saturating_add(1);
        if self.frames != ENOUGH && self.frames < REST {
            return false;
        }
        self.frames = ENOUGH;
        self.retell()
    }

    /// Whether what was told is no longer so.
    fn retell(&mut self) -> bool {
        let estimate = self.estimate();
        let changed = self.told.is_some_and(|told| differs(told, estimate));
        if changed {
            // It is said once, whether anybody asks again or not.
            self.told = Some(estimate);
        }
        changed
    }

    fn estimate(&self) -> Duration {
        let measured = self.recent.quantile(SHARE).unwrap_or_default();
        let time = if self.recent.len() < ENOUGH as usize { measured.max(self.expected) } else { measured };
        let wait = self.gaps.quantile(SHARE).unwrap_or_default().max(self.wait);
        let ms = (time + wait).as_nanos().div_ceil(MILLISECOND.as_nanos());
        MILLISECOND * u32::try_from(ms).unwrap_or(u32::MAX)
    }
}

/// Whether it matters: more than was told makes frames late, much less delays them for nothing.
fn differs(told: Duration, now: Duration) -> bool {
    now > told + (told / 5).max(2 * MILLISECOND) || now < told.mul_f64(0.6).saturating_sub(MILLISECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn told(latency: &mut Latency) -> u64 {
        latency.tell(true).mseconds()
    }

    #[test]
    fn the_warm_up_tells_first() {
        let mut latency = Latency::new(Duration::from_micros(20_100));
        assert_eq!(told(&mut latency), 21, "rounded up");
        latency.add(ms(5));
        assert_eq!(told(&mut latency), 21, "one frame tells little");
        let news: Vec<bool> = (0..20).map(|_| latency.add(ms(5))).collect();
        assert_eq!(news.iter().filter(|news| **news).count(), 1);
        assert_eq!(told(&mut latency), 5);
    }

    #[test]
    fn small_changes_are_not_told() {
        let mut latency = Latency::new(ms(20));
        assert_eq!(told(&mut latency), 20);
        for index in 0..1000 {
            assert!(!latency.add(ms(18 + index % 5)));
            assert_eq!(told(&mut latency), 20);
        }
    }

    #[test]
    fn one_hiccup_in_a_while_changes_nothing() {
        let mut latency = Latency::new(ms(20));
        let _ = latency.tell(true);
        assert!(!(0..1000).any(|index| latency.add(ms(if index % 50 == 9 { 500 } else { 20 }))));
    }

    #[test]
    fn what_gets_slower_is_told_once() {
        let mut latency = Latency::new(ms(20));
        assert_eq!(told(&mut latency), 20);
        let mut news = 0;
        for index in 0..1000 {
            if latency.add(ms(if index < 200 { 20 } else { 60 })) {
                news += 1;
                assert_eq!(told(&mut latency), 60);
            }
        }
        assert_eq!(news, 1);
    }

    #[test]
    fn frames_wait_as_long_as_they_are_apart() {
        let mut latency = Latency::new(ms(20));
        assert!(!latency.wait(ms(40)), "nobody has asked");
        assert_eq!(told(&mut latency), 60);
        assert!(!latency.waited(ms(40)));
        // The camera gives ten frames a second in the dark.
        let news = (0..200).filter(|_| latency.waited(ms(100)) | latency.add(ms(20))).count();
        assert_eq!((news, told(&mut latency)), (1, 120));

        let mut latency = Latency::new(ms(20));
        assert_eq!(told(&mut latency), 20, "the rate is not known");
        assert!(latency.waited(ms(33)));
        assert_eq!(told(&mut latency), 53);
    }

    #[test]
    fn nobody_is_told_who_does_not_play_live() {
        let mut latency = Latency::new(ms(20));
        assert!(!(0..100).any(|_| latency.add(ms(90))), "nobody has asked");
        let _ = latency.tell(false);
        assert!(!(0..200).any(|_| latency.add(ms(900))));
    }
}
