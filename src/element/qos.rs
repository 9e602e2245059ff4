//! What the sink says of frames that came too late, and what is told about it on the bus.

use std::time::Duration;

use gstreamer as gst;
use gstreamer_video as gst_video;

/// After a late frame, this much at the most is given up to catch up.
const MOST: gst::ClockTime = gst::ClockTime::SECOND;
/// What [`gst::message::Qos`] calls the best quality.
const BEST: u32 = 1_000_000;

/// What the last QoS event asks for, by the rule of GStreamer's video decoders.
#[derive(Debug)]
pub struct Qos {
    earliest: Option<gst::ClockTime>,
    proportion: f64,
    /// How long a frame lasts; zero if unknown.
    frame: gst::ClockTime,
}

impl Default for Qos {
    fn default() -> Self {
        Self { earliest: None, proportion: 1.0, frame: gst::ClockTime::ZERO }
    }
}

impl Qos {
    /// Frames to come are of this format, of which the rate matters.
    pub fn set_format(&mut self, info: &gst_video::VideoInfo) {
        let fps = info.fps();
        let second = gst::ClockTime::SECOND.nseconds();
        let (count, seconds) = (u64::try_from(fps.numer()), u64::try_from(fps.denom()));
        self.frame = match (count, seconds) {
            (Ok(count @ 1..), Ok(seconds)) => gst::ClockTime::from_nseconds(second * seconds / count),
            _ => gst::ClockTime::ZERO,
        };
    }

    /// How long a frame is shown; nothing where the rate varies.
    pub fn frame(&self) -> Duration {
        self.frame.into()
    }

    /// What was said so far is of another place of the stream.
    pub fn reset(&mut self) {
        *self = Self { frame: self.frame, ..Self::default() };
    }

    /// A frame of the running time `timestamp` came to the sink by `diff` nanoseconds too late, or, being
    /// negative, too early.
    pub fn update(&mut self, proportion: f64, diff: i64, timestamp: Option<gst::ClockTime>) {
        let distance = gst::ClockTime::from_nseconds(diff.unsigned_abs());
        self.proportion = proportion;
        self.earliest = timestamp.map(|timestamp| match diff {
            // Twice as far ahead, for the time it takes until that frame gets there.
            1.. => timestamp.saturating_add(distance.saturating_mul(2).min(MOST)).saturating_add(self.frame),
            _ => timestamp.saturating_sub(distance),
        });
    }

    /// By how much a frame of that running time will be too late, if it will.
    pub fn lateness(&self, running_time: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        let (earliest, time) = self.earliest.zip(running_time)?;
        (time < earliest).then(|| earliest - time)
    }

    pub fn proportion(&self) -> f64 {
        self.proportion
    }
}

/// When a buffer is due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    pub running: Option<gst::ClockTime>,
    pub stream: Option<gst::ClockTime>,
}

impl Times {
    pub fn of(buffer: &gst::BufferRef, segment: &gst::Segment) -> Self {
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let Some((segment, pts)) = segment.zip(buffer.pts()) else { return Self::default() };
        Self { running: segment.to_running_time(pts), stream: segment.to_stream_time(pts) }
    }
}

/// What is told of one late buffer.
#[derive(Clone, Copy, Debug)]
pub struct Late {
    pub jitter: gst::ClockTime,
    pub proportion: f64,
    /// Frames in a row, this one included, that carry the mask of an earlier one; none if it is dropped.
    pub held: Option<u32>,
    /// Buffers put out and dropped so far.
    pub counts: (u64, u64),
}

impl Late {
    /// The quality told is the share of frames that have a mask of their own.
    pub fn message(
        &self,
        source: &impl glib::object::IsA<gst::Object>,
        buffer: &gst::BufferRef,
        times: Times,
    ) -> gst::Message {
        let jitter = i64::try_from(self.jitter.nseconds()).unwrap_or(i64::MAX);
        let quality = BEST / self.held.unwrap_or(0).saturating_add(1);
        let count = |count: u64| gst::format::Buffers::try_from(count).unwrap_or(gst::format::Buffers::MAX);
        gst::message::Qos::builder(false)
            .src(source)
            .running_time(times.running)
            .stream_time(times.stream)
            .timestamp(buffer.pts())
            .duration(buffer.duration())
            .values(jitter, self.proportion, i32::try_from(quality).unwrap_or(i32::MAX))
            .stats(count(self.counts.0), count(self.counts.1))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(value)
    }

    fn qos() -> Qos {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 8, 8)
            .fps(gst::Fraction::new(25, 1))
            .build()
            .unwrap();
        let mut qos = Qos::default();
        qos.set_format(&info);
        qos
    }

    #[test]
    fn late_until_the_sink_is_caught_up_with() {
        let mut qos = qos();
        assert_eq!(qos.lateness(Some(ms(0))), None);
        qos.update(1.5, 30_000_000, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(1000))), Some(ms(100)), "twice the delay, and a frame");
        assert_eq!(qos.lateness(Some(ms(1100))), None);
        assert_eq!(qos.lateness(None), None);
        assert_eq!(qos.proportion(), 1.5);

        qos.update(0.5, -30_000_000, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(969))), Some(ms(1)));
        assert_eq!(qos.lateness(Some(ms(970))), None);
    }

    #[test]
    fn no_more_than_a_second_is_given_up() {
        let mut qos = qos();
        qos.update(9.0, i64::MAX, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(1000))), Some(ms(1040)));
        qos.update(9.0, i64::MIN, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(0))), None);
        qos.update(9.0, 1, None);
        assert_eq!(qos.lateness(Some(ms(0))), None);
    }

    #[test]
    fn elsewhere_nothing_is_late() {
        let mut qos = qos();
        qos.update(2.0, 30_000_000, Some(ms(1000)));
        qos.reset();
        assert_eq!((qos.lateness(Some(ms(0))), qos.proportion()), (None, 1.0));
        qos.update(2.0, 1, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(1000))).map(|time| time.mseconds()), Some(40), "the rate is kept");
    }
}
