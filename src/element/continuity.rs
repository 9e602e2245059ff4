// SPDX-License-Identifier: MPL-2.0

//! Detects discontinuities after which tracking restarts.

use gstreamer as gst;

/// Maximum gap across which tracking continues. Live pipelines often drop frames and flag the next one as
/// discontinuous. A restart at each of them would leave only the reference in memory.
const MAX_GAP: gst::ClockTime = gst::ClockTime::from_seconds(1);

#[derive(Debug, Default)]
pub struct Continuity {
    last: Option<gst::ClockTime>,
    flushed: bool,
}

/// Returns the time from one frame to the next, or `None` if it is negative or longer than [`MAX_GAP`].
pub fn gap(last: gst::ClockTime, next: gst::ClockTime) -> Option<gst::ClockTime> {
    next.checked_sub(last).filter(|gap| *gap <= MAX_GAP)
}

impl Continuity {
    /// Marks the next frame as one from another position of the stream.
    pub fn flush(&mut self) {
        self.flushed = true;
    }

    /// Records a frame. Returns true if it does not follow the frame before: after a flush, or if it has the
    /// DISCONT flag and its timestamp is earlier, more than [`MAX_GAP`] later, or unknown. With `reverse` playback,
    /// timestamps fall, and decoders flag many frames.
    pub fn is_break(&mut self, discont: bool, pts: Option<gst::ClockTime>, reverse: bool) -> bool {
        let follows = self.last.zip(pts).is_some_and(|(last, pts)| {
            let (first, second) = if reverse { (pts, last) } else { (last, pts) };
            gap(first, second).is_some()
        });
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
        assert!(continuity.is_break(true, ms(0), false), "first frame");
        assert!(!continuity.is_break(false, ms(33), false));
        assert!(!continuity.is_break(true, ms(133), false), "frames were dropped");
        assert!(continuity.is_break(true, ms(100), false), "earlier");
        assert!(continuity.is_break(true, ms(5000), false), "much later");
        assert!(!continuity.is_break(false, ms(9000), false), "a slow stream");
        continuity.flush();
        assert!(continuity.is_break(false, ms(9033), false));
        assert!(!continuity.is_break(false, ms(9066), false));
        assert!(continuity.is_break(true, None, false));
    }

    #[test]
    fn reverse_playback_does_not_break_tracking() {
        let ms = |value| Some(gst::ClockTime::from_mseconds(value));
        let mut continuity = Continuity::default();
        assert!(continuity.is_break(true, ms(900), true), "first frame");
        assert!(!continuity.is_break(true, ms(867), true));
        assert!(continuity.is_break(true, ms(900), true), "later");
        assert!(!continuity.is_break(true, ms(100), true), "frames were dropped");
    }
}
