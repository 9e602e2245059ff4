// SPDX-License-Identifier: MPL-2.0

use super::Bitmap;

/// Maximum distance of matching boundaries, as a share of the frame's diagonal.
const TOLERANCE: f64 = 0.008;

/// Scores of one object's mask in one frame.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FrameScore {
    /// Region similarity J, 0..=1.
    pub region: f64,
    /// Contour accuracy F, 0..=1.
    pub contour: f64,
}

impl FrameScore {
    /// Compares two masks of the same size.
    pub(crate) fn of(prediction: &Bitmap, truth: &Bitmap) -> Self {
        Self { region: region_similarity(prediction, truth), contour: contour_accuracy(prediction, truth) }
    }
}

/// Region similarity J = |A∩B| / |A∪B|, 1 when both masks are empty.
pub fn region_similarity(prediction: &Bitmap, truth: &Bitmap) -> f64 {
    match prediction.union(truth) {
        0 => 1.0,
        union => prediction.intersection(truth) as f64 / union as f64,
    }
}

/// Contour accuracy F = 2PR / (P+R): precision P is the share of the prediction's boundary that lies within the
/// [tolerance](contour_tolerance) of the true one, recall R the reverse. Two masks without a boundary score 1; if
/// only one of them has a boundary, the score is 0.
pub fn contour_accuracy(prediction: &Bitmap, truth: &Bitmap) -> f64 {
    let (ours, theirs) = (prediction.boundary(), truth.boundary());
    match (ours.count(), theirs.count()) {
        (0, 0) => 1.0,
        (0, _) | (_, 0) => 0.0,
        (length, true_length) => {
            let radius = contour_tolerance(truth.width, truth.height);
            let precision = ours.intersection(&theirs.dilated(radius)) as f64 / length as f64;
            let recall = theirs.intersection(&ours.dilated(radius)) as f64 / true_length as f64;
            if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
        }
    }
}

/// Returns the radius in pixels within which two boundaries match, ⌈.008·√(H²+W²)⌉.
pub fn contour_tolerance(width: usize, height: usize) -> usize {
    let (width, height) = (width as f64, height as f64);
    (TOLERANCE * (width * width + height * height).sqrt()).ceil() as usize
}

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
    use crate::LabelMap;

    fn square(width: usize, height: usize, x: usize, y: usize, side: usize) -> Bitmap {
        let mut map = LabelMap::background(width, height);
        for row in y..y + side {
            map.ids_mut()[row * width + x..row * width + x + side].fill(1);
        }
        Bitmap::of_object(&map, 1)
    }

    #[test]
    fn empty_masks_and_masks_of_the_whole_frame() {
        let (empty, some, whole) = (Bitmap::new(10, 10), square(10, 10, 3, 3, 4), square(10, 10, 0, 0, 10));
        for (a, b, expected) in [
            (&empty, &empty, (1.0, 1.0)),
            (&empty, &some, (0.0, 0.0)),
            (&some, &empty, (0.0, 0.0)),
            // A mask over the whole frame has no boundary.
            (&whole, &empty, (0.0, 1.0)),
        ] {
            let score = FrameScore::of(a, b);
            assert_eq!((score.region, score.contour), expected);
        }
    }

    #[test]
    fn shifted_squares() {
        // 10x10 squares one column apart in 60x80: union 110, intersection 90. The tolerance is one pixel, so all
        // boundary pixels match.
        let (a, b) = (square(80, 60, 20, 20, 10), square(80, 60, 21, 20, 10));
        let score = FrameScore::of(&a, &b);
        assert_eq!(score.region, 90.0 / 110.0);
        assert_eq!(score.contour, 1.0);
        // Three columns apart: a boundary is the ring of an 11x11 square, 40 pixels. On each horizontal side, 8
        // pixels are common and a ninth is adjacent to the other's end. Of the vertical side inside the other
        // square, only the two end pixels match.
        let c = square(80, 60, 23, 20, 10);
        let score = FrameScore::of(&a, &c);
        assert_eq!(score.region, 70.0 / 130.0);
        assert!((score.contour - 20.0 / 40.0).abs() < 1e-12, "{}", score.contour);
    }

    #[test]
    fn distant_contours_score_zero() {
        let (a, b) = (square(80, 60, 2, 2, 5), square(80, 60, 50, 40, 5));
        assert_eq!(FrameScore::of(&a, &b).contour, 0.0);
    }

    #[test]
    fn tolerance_of_known_sizes() {
        assert_eq!(contour_tolerance(854, 480), 8);
        assert_eq!(contour_tolerance(1920, 1080), 18);
        assert_eq!(contour_tolerance(131, 97), 2);
        assert_eq!(contour_tolerance(1, 1), 1);
    }

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
