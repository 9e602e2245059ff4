// SPDX-License-Identifier: MPL-2.0

//! Counts and times for the property `stats`.

use std::time::Duration;

use gstreamer as gst;

use super::reference::State;
use super::segmenter::ObjectStatus;

/// Number of frames over which times are measured.
const WINDOW: usize = 512;

/// The last `N` times, in a ring buffer.
#[derive(Debug, Default)]
pub struct Recent<const N: usize> {
    times: Vec<Duration>,
    next: usize,
}

impl<const N: usize> Recent<N> {
    pub fn add(&mut self, time: Duration) {
        match self.times.get_mut(self.next) {
            Some(oldest) => *oldest = time,
            None => self.times.push(time),
        }
        self.next = (self.next + 1) % N;
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Mean, zero without times.
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.times.len()).unwrap_or(u32::MAX).max(1);
        self.times.iter().sum::<Duration>() / count
    }

    /// Quantile `share` (0 to 1) by nearest rank, `None` without times.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).or(sorted.last()).copied()
    }
}

/// Counts and times since the start, and the status of the last frame.
#[derive(Debug, Default)]
pub struct Statistics {
    frames: u64,
    inferences: u64,
    held: u64,
    dropped: u64,
    inference: Recent<WINDOW>,
    total: Recent<WINDOW>,
    confidence: f64,
    objects: Vec<ObjectStatus>,
    threads: u32,
    /// Width and height in pixels.
    network_size: (usize, usize),
}

/// Origin of the mask of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The network, with its time.
    Network(Duration),
    /// An earlier frame.
    Held,
    /// No mask, because there is no reference.
    NoMask,
}

impl Statistics {
    /// Records an output buffer. `total` is the time that the element took for it.
    pub fn count_output(&mut self, origin: Origin, total: Duration) {
        self.frames += 1;
        self.total.add(total);
        match origin {
            Origin::Network(time) => {
                self.inferences += 1;
                self.inference.add(time);
            }
            Origin::Held => self.held += 1,
            Origin::NoMask => (),
        }
    }

    /// Sets the expected region similarity of the last mask, 0 to 1.
    pub fn set_confidence(&mut self, confidence: f64) {
        self.confidence = confidence;
    }

    /// Sets the number of threads of the network in the last frame; 0 = the application decides.
    pub fn set_threads(&mut self, threads: u32) {
        self.threads = threads;
    }

    /// Sets the input width and height of the network.
    pub fn set_network_size(&mut self, size: (usize, usize)) {
        self.network_size = size;
    }

    /// Updates the objects. Returns those that have left the picture or returned since the frame before. With `seeded`,
    /// the objects are new and count as present before.
    pub fn update_objects(&mut self, objects: Vec<ObjectStatus>, seeded: bool) -> Vec<ObjectStatus> {
        let was_present = |object: &ObjectStatus| {
            let before = self.objects.iter().find(|before| before.id == object.id && !seeded);
            before.is_none_or(|before| before.present)
        };
        let changes =
            objects.iter().filter(|&object| object.present != was_present(object)).copied().collect();
        self.objects = objects;
        changes
    }

    /// The objects of the last frame that the network processed.
    pub fn objects(&self) -> &[ObjectStatus] {
        &self.objects
    }

    /// Records a dropped buffer.
    pub fn count_drop(&mut self) {
        self.dropped += 1;
    }

    /// Numbers of output and of dropped buffers.
    pub fn counts(&self) -> (u64, u64) {
        (self.frames, self.dropped)
    }

    /// Whether the network has run.
    pub fn has_inferences(&self) -> bool {
        self.inferences > 0
    }

    /// Mean time of the network.
    pub fn inference_time(&self) -> Duration {
        self.inference.mean()
    }

    /// Returns the value of the property `stats`.
    pub fn structure(&self, device: Option<&str>, state: State) -> gst::Structure {
        let objects = self.objects.iter().map(|object| {
            gst::Structure::builder("object")
                .field("id", u32::from(object.id))
                .field("present", object.present)
                .field("confidence", object.confidence)
                .build()
        });
        let ms = |time: Duration| 1000.0 * time.as_secs_f64();
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        gst::Structure::builder("fastganseg-stats")
            .field("frames", self.frames)
            .field("inferences", self.inferences)
            .field("held", self.held)
            .field("dropped", self.dropped)
            .field("mean-inference-ms", ms(self.inference.mean()))
            .field("p99-inference-ms", ms(self.inference.quantile(0.99).unwrap_or_default()))
            .field("mean-total-ms", ms(self.total.mean()))
            .field("confidence", self.confidence)
            .field("objects", gst::Array::new(objects))
            .field("threads", self.threads)
            .field("network-width", side(self.network_size.0))
            .field("network-height", side(self.network_size.1))
            .field("device", device)
            .field("reference-state", state.name())
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn means_and_quantiles_of_the_last_times() {
        let mut recent = Recent::<100>::default();
        assert_eq!((recent.mean(), recent.quantile(0.99)), (Duration::ZERO, None));
        recent.add(ms(7));
        assert_eq!(
            (recent.mean(), recent.quantile(0.0), recent.quantile(1.0)),
            (ms(7), Some(ms(7)), Some(ms(7)))
        );
        for time in (1..=1000).rev() {
            recent.add(ms(time));
        }
        assert_eq!(recent.times.len(), 100, "memory is bounded");
        assert_eq!(recent.mean(), Duration::from_micros(50_500));
        assert_eq!((recent.quantile(0.5), recent.quantile(0.99)), (Some(ms(50)), Some(ms(99))));
    }

    #[test]
    fn changes_of_each_object_are_returned_once() {
        let status = |id, present| ObjectStatus { id, present, confidence: 0.5, region: None };
        gst::init().unwrap();
        let mut statistics = Statistics::default();
        let seeded = vec![status(1, true), status(4, true)];
        assert_eq!(statistics.update_objects(seeded.clone(), true), []);
        let hidden = vec![status(1, true), status(4, false)];
        assert_eq!(statistics.update_objects(hidden.clone(), false), [status(4, false)]);
        assert_eq!(statistics.update_objects(hidden.clone(), false), []);
        let structure = statistics.structure(None, State::Seeded);
        let objects = structure.get::<gst::Array>("objects").unwrap();
        let present: Vec<(u32, bool)> = objects
            .iter()
            .map(|object| object.get::<gst::Structure>().unwrap())
            .map(|object| (object.get("id").unwrap(), object.get("present").unwrap()))
            .collect();
        assert_eq!(present, [(1, true), (4, false)]);
        assert_eq!(statistics.update_objects(seeded.clone(), false), [status(4, true)]);
        statistics.update_objects(hidden, false);
        assert_eq!(statistics.update_objects(seeded, true), [], "a new reference");
    }

    #[test]
    fn buffers_are_counted_by_origin() {
        gst::init().unwrap();
        let mut statistics = Statistics::default();
        statistics.count_output(Origin::NoMask, ms(1));
        statistics.count_output(Origin::Network(ms(10)), ms(14));
        statistics.count_output(Origin::Held, ms(3));
        statistics.count_drop();
        let structure = statistics.structure(Some("cpu"), State::Armed);
        for (name, expected) in [("frames", 3), ("inferences", 1), ("held", 1), ("dropped", 1)] {
            assert_eq!(structure.get::<u64>(name).unwrap(), expected, "{name}");
        }
        for (name, expected) in
            [("mean-inference-ms", 10.0), ("p99-inference-ms", 10.0), ("mean-total-ms", 6.0)]
        {
            assert_eq!(structure.get::<f64>(name).unwrap(), expected, "{name}");
        }
        assert_eq!(structure.get::<&str>("device").unwrap(), "cpu");
        assert_eq!(structure.get::<&str>("reference-state").unwrap(), "armed");
    }
}
