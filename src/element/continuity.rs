//! Whether a frame follows the one before closely enough for tracking to go on.

use gstreamer as gst;

/// The longest gap across which tracking goes on. Live pipelines drop frames and mark the next one as
/// discontinuous at every turn; to begin anew each time would be to match with the reference alone.
const LONGEST_GAP: gst::ClockTime = gst::ClockTime::from_seconds(1);

#[derive(Debug, Default)]
pub struct Continuity {
    last: Option<gst::ClockTime>,
    flushed: bool,
}

/// From one frame to the next, unless it is before it or too far ahead.
pub fn gap(last: gst::ClockTime, next: gst::ClockTime) -> Option<gst::ClockTime> {
    next.checked_sub(last).filter(|gap| *gap <= LONGEST_GAP)
}

impl Continuity {
    /// What comes next is from another place.
    pub fn flush(&mut self) {
        self.flushed = true;
    }

    /// Takes note of a frame; true if it does not follow the one before: after a flush, or if it is
    /// marked as discontinuous and its time is earlier, much later or unknown.
    pub fn breaks_at(&mut self, discont: bool, pts: Option<gst::ClockTime>) -> bool {
        let follows = self.last.zip(pts).is_some_and(|(last, pts)| gap(last, pts).is_some());
        self.last = pts;
        std::mem::take(&mut self.flushed) || (discont && !follows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_do_not_break_tracking() {
        let ms = |value| Some(gst::ClockTime::from_mseconds(value));
        let mut continuity = Continuity::default();
        assert!(continuity.breaks_at(true, ms(0)), "the first");
        assert!(!continuity.breaks_at(false, ms(33)));
        assert!(!continuity.breaks_at(true, ms(133)), "frames were dropped");
        assert!(continuity.breaks_at(true, ms(100)), "back");
        assert!(continuity.breaks_at(true, ms(5000)), "far ahead");
        assert!(!continuity.breaks_at(false, ms(9000)), "a slow stream");
        continuity.flush();
        assert!(continuity.breaks_at(false, ms(9033)));
        assert!(!continuity.breaks_at(false, ms(9066)));
        assert!(continuity.breaks_at(true, None));
    }
}
