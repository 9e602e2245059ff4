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
    pub fn of(prediction: &Bitmap, truth: &Bitmap) -> Self {
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
            let radius = contour_tolerance(truth.width(), truth.height());
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
}
