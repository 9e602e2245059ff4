// SPDX-License-Identifier: MPL-2.0

/// Mean, recall and decay of a measure over the frames of one object (Perazzi et al., *A Benchmark
/// Dataset and Evaluation Methodology for Video Object Segmentation*, §5), or their unweighted means over
/// objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Mean over the frames.
    pub mean: f64,
    /// Share of the frames with a value above one half.
    pub recall: f64,
    /// Mean of the first quarter minus mean of the last: the loss over time.
    pub decay: f64,
}

impl Statistics {
    /// Returns the statistics of one object's `values`, in frame order; NaN if there are none.
    pub fn of_frames(values: &[f64]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        if values.is_empty() {
            return Self::mean([].into_iter());
        }
        let edges = quarters(values.len());
        Self {
            mean: mean(values),
            recall: values.iter().filter(|&&value| value > 0.5).count() as f64 / values.len() as f64,
            decay: mean(&values[edges[0]..=edges[1]]) - mean(&values[edges[3]..=edges[4]]),
        }
    }

    /// Returns the unweighted mean over `objects`; NaN if there are none.
    pub fn mean(objects: impl Iterator<Item = Self>) -> Self {
        let mut sum = Self { mean: 0.0, recall: 0.0, decay: 0.0 };
        let mut count = 0.0;
        for object in objects {
            sum.mean += object.mean;
            sum.recall += object.recall;
            sum.decay += object.decay;
            count += 1.0;
        }
        Self { mean: sum.mean / count, recall: sum.recall / count, decay: sum.decay / count }
    }
}

/// Returns the official tool's edges of four bins over `frames` ≥ 1 values: rint(linspace(1, n, 5) + 1e-10) − 1.
/// Bin i holds the frames from edge i to edge i + 1, inclusive.
fn quarters(frames: usize) -> [usize; 5] {
    let step = (frames - 1) as f64 / 4.0;
    std::array::from_fn(|i| {
        let position = i as f64 * step + 1.0;
        (position + 1e-10).round_ties_even() as usize - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_round_as_the_official_tool_does() {
        assert_eq!(quarters(1), [0, 0, 0, 0, 0]);
        assert_eq!(quarters(2), [0, 0, 1, 1, 1]);
        // linspace 1, 1.5, 2, 2.5, 3: a half is rounded up.
        assert_eq!(quarters(3), [0, 1, 1, 2, 2]);
        assert_eq!(quarters(5), [0, 1, 2, 3, 4]);
        assert_eq!(quarters(10), [0, 2, 5, 7, 9]);
        // Beyond 256 frames, where the official tool's indices overflow.
        assert_eq!(quarters(298), [0, 74, 149, 223, 297]);
    }

    #[test]
    fn decay_compares_the_first_and_last_quarter() {
        let values = [1.0, 0.9, 0.8, 0.6, 0.5];
        let statistics = Statistics::of_frames(&values);
        assert!((statistics.mean - 0.76).abs() < 1e-15);
        assert_eq!(statistics.recall, 0.8, "one half is not more than one half");
        assert!((statistics.decay - (0.95 - 0.55)).abs() < 1e-15);
    }

    #[test]
    fn objects_have_equal_weights() {
        let long = Statistics::of_frames(&[1.0; 10]);
        let short = Statistics::of_frames(&[0.0; 2]);
        let mean = Statistics::mean([long, short].into_iter());
        assert_eq!((mean.mean, mean.recall, mean.decay), (0.5, 0.5, 0.0));
    }

    #[test]
    fn statistics_without_frames_are_nan() {
        assert!(Statistics::of_frames(&[]).mean.is_nan());
    }
}
