// SPDX-License-Identifier: MPL-2.0

//! QoS events from the sink, and QoS messages for the bus.

use std::time::Duration;

use gstreamer as gst;
use gstreamer_video as gst_video;

/// Maximum running time that is skipped after a late frame.
const MAX_SKIP: gst::ClockTime = gst::ClockTime::SECOND;
/// Maximum quality in a [`gst::message::Qos`].
const MAX_QUALITY: u32 = 1_000_000;

/// State of the last QoS event, evaluated as in `GstVideoDecoder`.
#[derive(Debug)]
pub struct Qos {
    /// Running time before which frames are late.
    earliest: Option<gst::ClockTime>,
    proportion: f64,
    /// Duration of a frame, zero if unknown.
    frame: gst::ClockTime,
}

impl Default for Qos {
    fn default() -> Self {
        Self { earliest: None, proportion: 1.0, frame: gst::ClockTime::ZERO }
    }
}

impl Qos {
    /// Sets the format of the next frames, of which the frame rate is used.
    pub fn set_format(&mut self, info: &gst_video::VideoInfo) {
        let fps = info.fps();
        let second = gst::ClockTime::SECOND.nseconds();
        let (count, seconds) = (u64::try_from(fps.numer()), u64::try_from(fps.denom()));
        self.frame = match (count, seconds) {
            (Ok(count @ 1..), Ok(seconds)) => gst::ClockTime::from_nseconds(second * seconds / count),
            _ => gst::ClockTime::ZERO,
        };
    }

    /// Duration of a frame, zero if the frame rate is variable.
    pub fn frame_duration(&self) -> Duration {
        self.frame.into()
    }

    /// Discards the last QoS event, which belongs to another position of the stream.
    pub fn reset(&mut self) {
        *self = Self { frame: self.frame, ..Self::default() };
    }

    /// Applies a QoS event: the frame with the running time `timestamp` arrived at the sink `diff` nanoseconds late, or
    /// early if negative.
    pub fn update(&mut self, proportion: f64, diff: i64, timestamp: Option<gst::ClockTime>) {
        let distance = gst::ClockTime::from_nseconds(diff.unsigned_abs());
        self.proportion = proportion;
        self.earliest = timestamp.map(|timestamp| match diff {
            // Twice the delay, because time passes until the next frame arrives at the sink.
            1.. => {
                timestamp.saturating_add(distance.saturating_mul(2).min(MAX_SKIP)).saturating_add(self.frame)
            }
            _ => timestamp.saturating_sub(distance),
        });
    }

    /// Returns by how much a frame with that running time is late, or `None` if it is in time.
    pub fn lateness(&self, running_time: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        let (earliest, time) = self.earliest.zip(running_time)?;
        (time < earliest).then(|| earliest - time)
    }

    pub fn proportion(&self) -> f64 {
        self.proportion
    }
}

/// Running time and stream time of a buffer.
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

/// Content of the QoS message about a late buffer.
#[derive(Clone, Copy, Debug)]
pub struct LateFrame {
    pub jitter: gst::ClockTime,
    pub proportion: f64,
    /// Consecutive frames, including this one, that reuse an earlier mask; `None` if the buffer is dropped.
    pub held: Option<u32>,
    /// Numbers of output and of dropped buffers.
    pub counts: (u64, u64),
}

impl LateFrame {
    /// Returns the QoS message. Its quality is the share of frames with a mask of their own.
    pub fn message(
        &self,
        source: &impl glib::object::IsA<gst::Object>,
        buffer: &gst::BufferRef,
        times: Times,
    ) -> gst::Message {
        let jitter = i64::try_from(self.jitter.nseconds()).unwrap_or(i64::MAX);
        let quality = MAX_QUALITY / self.held.unwrap_or(0).saturating_add(1);
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
    fn frames_are_late_until_the_delay_is_made_up() {
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
    fn at_most_a_second_is_skipped() {
        let mut qos = qos();
        qos.update(9.0, i64::MAX, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(1000))), Some(ms(1040)));
        qos.update(9.0, i64::MIN, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(0))), None);
        qos.update(9.0, 1, None);
        assert_eq!(qos.lateness(Some(ms(0))), None);
    }

    #[test]
    fn a_reset_discards_the_lateness_but_not_the_frame_rate() {
        let mut qos = qos();
        qos.update(2.0, 30_000_000, Some(ms(1000)));
        qos.reset();
        assert_eq!((qos.lateness(Some(ms(0))), qos.proportion()), (None, 1.0));
        qos.update(2.0, 1, Some(ms(1000)));
        assert_eq!(qos.lateness(Some(ms(1000))).map(|time| time.mseconds()), Some(40), "the rate is kept");
    }
}
