//! How far a tracker knows how good its masks are: its own confidence beside the true region similarity, frame
//! by frame.

use gstfastganseg::tracker::Tracker;
use indicatif::ProgressBar;

use crate::Result;
use crate::dataset::{Dataset, Sequence};
use crate::eval::read_first;
use crate::method::Propagator;
use crate::score::{Bitmap, region_similarity, scored_range};

/// One object in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The sequence.
    pub sequence: String,
    /// The frame.
    pub frame: String,
    /// The object's id.
    pub object: u8,
    /// The region similarity that the tracker expects, 0 to 1. 0 where the mask is nowhere above one half, as of one of
    /// several objects that is the likeliest somewhere without being likely.
    pub confidence: f64,
    /// How much the mask's place looks like the reference's object.
    pub likeness: f64,
    /// Share of the region looked at that is object.
    pub area: f64,
    /// Whether there is a mask at all; without one nothing can be said of it.
    pub has_mask: bool,
    /// Whether the object truly is there.
    pub is_there: bool,
    /// Region similarity J of mask and truth.
    pub similarity: f64,
}

/// Follows every sequence and judges every annotated frame but the first and the last, as in scoring.
///
/// # Errors
/// A sequence that cannot be scored, a broken file, a network that fails.
pub fn judge(tracker: &mut Tracker, dataset: &Dataset, progress: &ProgressBar) -> Result<Vec<Judgement>> {
    let mut frames = 0;
    for sequence in dataset.sequences() {
        frames += sequence.tracked()?.len();
        read_first(sequence)?;
    }
    progress.set_length(frames as u64);
    let mut judgements = Vec::new();
    for sequence in dataset.sequences() {
        progress.set_message(sequence.name().to_string());
        one(tracker, sequence, progress, &mut judgements)?;
    }
    Ok(judgements)
}

fn one(
    tracker: &mut Tracker,
    sequence: &Sequence,
    progress: &ProgressBar,
    judgements: &mut Vec<Judgement>,
) -> Result<()> {
    let name = sequence.name();
    let frames = sequence.tracked()?;
    let annotated: Vec<_> = sequence.annotated().map(|(frame, _)| frame).collect();
    let scored = &annotated[scored_range(name, annotated.len())?];
    let (first, _) = read_first(sequence)?;
    tracker.start(&frames[0].read_picture()?, &first)?;
    progress.inc(1);
    for frame in &frames[1..] {
        let place = || format!("{name}, frame {}", frame.name());
        let labels = Propagator::step(tracker, &frame.read_picture()?, first.width(), first.height())
            .map_err(|error| error.at(place()))?;
        progress.inc(1);
        if !scored.contains(&frame.name()) {
            continue;
        }
        let Some(truth) = frame.read_annotation()? else { continue };
        let truth = truth.resized(first.width(), first.height());
        for (&object, evidence) in tracker.object_ids().iter().zip(tracker.object_stats()) {
            let (mask, truth) = (Bitmap::of_object(&labels, object), Bitmap::of_object(&truth, object));
            judgements.push(Judgement {
                sequence: name.to_string(),
                frame: frame.name().to_string(),
                object,
                confidence: evidence.confidence,
                likeness: evidence.likeness,
                area: evidence.area,
                has_mask: mask.count() > 0,
                is_there: truth.count() > 0,
                similarity: region_similarity(&mask, &truth),
            });
        }
    }
    Ok(())
}

/// Judgements of about the same confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// From this confidence on, up to the next bin's.
    pub from: f64,
    /// How many.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// Their mean region similarity.
    pub similarity: f64,
}

/// What confidence is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// The bins that hold something.
    pub bins: Vec<Bin>,
    /// Width of a bin.
    pub width: f64,
    /// Masks that were judged.
    pub masks: usize,
    /// Expected calibration error: mean distance of confidence and region similarity over the bins, each
    /// weighted with what it holds (Guo et al., *On Calibration of Modern Neural Networks*, 2017, equation 3).
    pub error: f64,
    /// Spearman's rank correlation of region similarity with confidence, and with likeness: 1 if it puts the
    /// masks in the right order, 0 if it says nothing. None where either is the same for all.
    pub rank_correlation: [Option<f64>; 2],
    /// Frames without a mask where the object was there, and where it was not.
    pub silent: [usize; 2],
}

impl Calibration {
    /// In bins of `width`, of the judgements with a mask.
    pub fn of(judgements: &[Judgement], width: f64) -> Self {
        let masks: Vec<&Judgement> = judgements.iter().filter(|judgement| judgement.has_mask).collect();
        let mut bins = std::collections::BTreeMap::<i64, Vec<&Judgement>>::new();
        let last = (1.0 / width).ceil() as i64 - 1;
        for judgement in &masks {
            // A little more than nothing, for 0.9 / 0.1 is less than 9.
            let bin = (judgement.confidence / width + 1e-9).floor() as i64;
            bins.entry(bin.min(last)).or_default().push(judgement);
        }
        let bins: Vec<Bin> = bins
            .into_iter()
            .map(|(bin, held)| Bin {
                from: bin as f64 * width,
                count: held.len(),
                confidence: mean(held.iter().map(|judgement| judgement.confidence)),
                similarity: mean(held.iter().map(|judgement| judgement.similarity)),
            })
            .collect();
        let distance = |bin: &Bin| bin.count as f64 * (bin.confidence - bin.similarity).abs();
        let similarities: Vec<f64> = masks.iter().map(|judgement| judgement.similarity).collect();
        let rank = |of: fn(&Judgement) -> f64| {
            rank_correlation(&masks.iter().map(|judgement| of(judgement)).collect::<Vec<_>>(), &similarities)
        };
        let silent = |there: bool| {
            judgements.iter().filter(|judgement| !judgement.has_mask && judgement.is_there == there).count()
        };
        Self {
            error: bins.iter().map(distance).sum::<f64>() / masks.len().max(1) as f64,
            bins,
            width,
            masks: masks.len(),
            rank_correlation: [rank(|judgement| judgement.confidence), rank(|judgement| judgement.likeness)],
            silent: [silent(true), silent(false)],
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}

/// Spearman's: the correlation of ranks, equal values sharing the mean of theirs.
fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let (mean_a, mean_b) = (mean(a.iter().copied()), mean(b.iter().copied()));
    let product = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    let spread = product(&a, mean_a, &a, mean_a) * product(&b, mean_b, &b, mean_b);
    (spread > 0.0).then(|| product(&a, mean_a, &b, mean_b) / spread.sqrt())
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        for &i in &order[start..start + same] {
            ranks[i] = start as f64 + (same - 1) as f64 / 2.0;
        }
        start += same;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(confidence: f64, similarity: f64) -> Judgement {
        Judgement {
            sequence: "s".into(),
            frame: "00001".into(),
            object: 1,
            confidence,
            likeness: -confidence,
            area: 0.1,
            has_mask: true,
            is_there: true,
            similarity,
        }
    }

    #[test]
    fn confidence_that_is_right_has_no_error() {
        let judgements = [0.55, 0.72, 0.9, 1.0].map(|value| judgement(value, value));
        let calibration = Calibration::of(&judgements, 0.1);
        assert!(calibration.error < 1e-12);
        assert_eq!(calibration.rank_correlation, [Some(1.0), Some(-1.0)]);
        let bins: Vec<_> =
            calibration.bins.iter().map(|bin| ((bin.from * 10.0).round(), bin.count)).collect();
        assert_eq!(bins, [(5.0, 1), (7.0, 1), (9.0, 2)], "one is in the last bin");
    }

    #[test]
    fn the_error_is_weighted_by_what_bins_hold() {
        let judgements = [(0.95, 0.75), (0.95, 0.85), (0.95, 0.8), (0.55, 0.15)];
        let judgements = judgements.map(|(confidence, similarity)| judgement(confidence, similarity));
        let calibration = Calibration::of(&judgements, 0.1);
        assert!((calibration.error - (3.0 * 0.15 + 0.4) / 4.0).abs() < 1e-12, "{calibration:?}");
    }

    #[test]
    fn frames_without_a_mask_are_counted_apart() {
        let silent = |is_there| Judgement { has_mask: false, is_there, ..judgement(0.0, 0.0) };
        let calibration =
            Calibration::of(&[judgement(0.9, 0.9), silent(true), silent(false), silent(false)], 0.05);
        assert_eq!((calibration.masks, calibration.silent), (1, [1, 2]));
        assert_eq!(calibration.rank_correlation, [None, None]);
        let nothing = Calibration::of(&[], 0.05);
        assert_eq!((nothing.error, nothing.bins.len()), (0.0, 0));
    }

    #[test]
    fn ranks_of_equal_values_are_shared() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        let found = rank_correlation(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]).unwrap();
        assert!((found - 0.820_782_681_668_123_3).abs() < 1e-12, "{found}");
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), None);
    }
}
