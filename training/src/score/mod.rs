// SPDX-License-Identifier: MPL-2.0

//! Errors of mattes ([`MatteScorer`]), and measures of the DAVIS-2017 benchmark, equal to those of the official tool: region similarity J, contour
//! accuracy F, their mean, recall and decay (Perazzi et al. 2016 §5, Pont-Tuset et al. 2017).
//!
//! The first and the last annotated frame of a sequence are not scored. The objects are those of the first
//! annotation, numbered 1 to its largest id. Void pixels count as background. Results over several objects are
//! unweighted means, independent of the lengths of their sequences.

mod alpha;
mod bitmap;
mod flicker;
mod folder;
mod measures;
mod statistics;

pub use alpha::{AlphaErrors, AlphaPlane, MatteScore, MatteScorer};
pub use bitmap::Bitmap;
pub use flicker::Flicker;
pub use folder::score_folder;
pub use measures::{FrameScore, contour_accuracy, contour_tolerance, region_similarity};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
pub use statistics::Statistics;

use crate::{Error, LabelMap, Result};

/// Measures of one object over the scored frames of a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectScore {
    /// Id of the object, from 1.
    pub id: u8,
    /// One entry per scored frame.
    pub frames: Vec<FrameScore>,
}

impl ObjectScore {
    /// Returns the statistics of J and F over the frames.
    pub fn summary(&self) -> Summary {
        let of = |measure: fn(&FrameScore) -> f64| {
            Statistics::of_frames(&self.frames.iter().map(measure).collect::<Vec<_>>())
        };
        Summary { region: of(|frame| frame.region), contour: of(|frame| frame.contour) }
    }
}

/// Measures of a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceScore {
    /// Name of the sequence.
    pub name: String,
    /// Names of the scored frames, in order: all annotated frames except the first and the last.
    pub frames: Vec<String>,
    /// The objects, by id.
    pub objects: Vec<ObjectScore>,
}

impl SequenceScore {
    /// Returns the unweighted mean over the sequence's objects.
    pub fn summary(&self) -> Summary {
        Summary::mean(self.objects.iter().map(ObjectScore::summary))
    }

    /// Returns the mean over the objects in the scored frame `index`.
    pub fn frame(&self, index: usize) -> Option<FrameScore> {
        let frames: Option<Vec<_>> = self.objects.iter().map(|o| o.frames.get(index)).collect();
        let frames = frames.filter(|frames| !frames.is_empty())?;
        let count = frames.len() as f64;
        Some(FrameScore {
            region: frames.iter().map(|frame| frame.region).sum::<f64>() / count,
            contour: frames.iter().map(|frame| frame.contour).sum::<f64>() / count,
        })
    }

    /// Assembles the score from `frames`, the name of each scored frame with the measures of objects 1, 2, …
    pub(crate) fn gather(
        name: &str,
        objects: u8,
        frames: impl IntoIterator<Item = (String, Vec<FrameScore>)>,
    ) -> Self {
        let (names, scores): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
        let objects = (1..=objects)
            .map(|id| ObjectScore { id, frames: scores.iter().map(|s| s[usize::from(id) - 1]).collect() });
        Self { name: name.to_string(), objects: objects.collect(), frames: names }
    }
}

/// Measures of several sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The sequences, in the order of the data set.
    pub sequences: Vec<SequenceScore>,
}

impl Scores {
    /// Returns the unweighted mean over all objects of all sequences, the benchmark's main result.
    pub fn summary(&self) -> Summary {
        let objects = self.sequences.iter().flat_map(|sequence| &sequence.objects);
        Summary::mean(objects.map(ObjectScore::summary))
    }

    /// Returns the number of objects in all sequences.
    pub fn objects(&self) -> usize {
        self.sequences.iter().map(|s| s.objects.len()).sum()
    }
}

/// Statistics of both measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Region similarity J.
    pub region: Statistics,
    /// Contour accuracy F.
    pub contour: Statistics,
}

impl Summary {
    /// Returns J&F, the mean of both means.
    pub fn region_and_contour(&self) -> f64 {
        (self.region.mean + self.contour.mean) / 2.0
    }

    /// Returns the unweighted mean over `objects`; NaN if there are none.
    pub fn mean(objects: impl Iterator<Item = Self>) -> Self {
        let (region, contour): (Vec<_>, Vec<_>) = objects.map(|s| (s.region, s.contour)).unzip();
        Self { region: Statistics::mean(region.into_iter()), contour: Statistics::mean(contour.into_iter()) }
    }
}

/// Compares one frame with the ground truth and returns one entry for each of the objects 1..=`objects`.
///
/// # Errors
/// If the sizes differ, or if the prediction has an id above `objects`, which the benchmark refuses. `what` names
/// the prediction in the message.
pub fn score_frame(
    what: &str,
    prediction: &LabelMap,
    truth: &LabelMap,
    objects: u8,
) -> Result<Vec<FrameScore>> {
    let size = |map: &LabelMap| (map.width(), map.height());
    if size(prediction) != size(truth) {
        return Err(Error::score(
            what,
            format!(
                "it has {}x{} pixels, the ground truth {}x{}; write the mask at the size of the \
                 annotation",
                prediction.width(),
                prediction.height(),
                truth.width(),
                truth.height()
            ),
        ));
    }
    let largest = prediction.largest();
    if largest > objects {
        return Err(Error::score(
            what,
            format!(
                "it has object id {largest}, but the sequence's first annotation ends at {objects}; \
                 use the ids of that annotation, and 0 for background"
            ),
        ));
    }
    let bitmaps = |id| (Bitmap::of_object(prediction, id), Bitmap::of_object(truth, id));
    Ok((1..=objects)
        .map(|id| {
            let (prediction, truth) = bitmaps(id);
            FrameScore::of(&prediction, &truth)
        })
        .collect())
}

/// Scores a sequence in memory, with one prediction for each ground-truth frame, from the first frame (the
/// reference) to the last. As in the benchmark, the first and the last frame are not scored.
///
/// # Errors
/// If the numbers of frames differ, if there are fewer than three, if the first ground truth has no object, or if
/// a frame cannot be compared (see [`score_frame`]).
pub fn score_sequence(name: &str, predictions: &[LabelMap], truth: &[LabelMap]) -> Result<SequenceScore> {
    if predictions.len() != truth.len() {
        return Err(Error::score(
            name,
            format!("it has {} predictions for {} frames of ground truth", predictions.len(), truth.len()),
        ));
    }
    let scored = scored_range(name, truth.len())?;
    let objects = objects_of(name, &truth[0])?;
    let frames = scored.into_par_iter().map(|i| {
        let what = format!("frame {i} of {name}");
        let scores = score_frame(&what, &predictions[i], &truth[i], objects)?;
        Ok((i.to_string(), scores))
    });
    let frames: Vec<_> = frames.collect::<Result<_>>()?;
    Ok(SequenceScore::gather(name, objects, frames))
}

/// Returns the range of the scored frames among `frames` annotated frames.
pub(crate) fn scored_range(what: &str, frames: usize) -> Result<std::ops::Range<usize>> {
    if frames < 3 {
        return Err(Error::score(
            what,
            format!(
                "it has {frames} annotated frame(s); the first and the last are not scored, so at \
                 least 3 are needed"
            ),
        ));
    }
    Ok(1..frames - 1)
}

/// Returns the number of objects of a sequence whose first ground truth is `first`.
pub(crate) fn objects_of(what: &str, first: &LabelMap) -> Result<u8> {
    match first.largest() {
        0 => Err(Error::score(
            what,
            "its first annotation has no object; leave the sequence out of the split, or begin at \
             a frame that shows the object",
        )),
        objects => Ok(objects),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ids: [u8; 12]) -> LabelMap {
        LabelMap::new(4, 3, ids.to_vec()).unwrap()
    }

    const LEFT: [u8; 12] = [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0];
    const BOTH: [u8; 12] = [1, 1, 0, 2, 1, 1, 0, 2, 1, 1, 0, 2];

    #[test]
    fn the_first_and_last_frame_are_not_scored() {
        let truth = [map(LEFT), map(LEFT), map(LEFT), map(LEFT)];
        let background = LabelMap::background(4, 3);
        let predictions = [background.clone(), map(LEFT), background.clone(), background];
        let score = score_sequence("s", &predictions, &truth).unwrap();
        assert_eq!(score.frames, ["1", "2"]);
        assert_eq!(score.objects.len(), 1);
        let summary = score.summary();
        assert_eq!((summary.region.mean, summary.contour.mean), (0.5, 0.5));
        assert_eq!(summary.region_and_contour(), 0.5);
        assert_eq!(score.frame(0).unwrap().region, 1.0);
        assert_eq!(score.frame(2), None);
    }

    #[test]
    fn an_object_without_predictions_scores_zero() {
        let truth = [map(BOTH), map(BOTH), map(BOTH)];
        let predictions = [map(LEFT), map(LEFT), map(LEFT)];
        let score = score_sequence("s", &predictions, &truth).unwrap();
        let means: Vec<_> = score.objects.iter().map(|o| o.summary().region.mean).collect();
        assert_eq!(means, [1.0, 0.0]);
    }

    #[test]
    fn objects_are_those_of_the_first_frame_and_void_is_background() {
        let mut first = BOTH;
        first[2] = 255;
        let mut later = BOTH;
        later[3] = 7;
        later[2] = 255;
        let truth = [map(first), map(later), map(BOTH)];
        let score = score_sequence("s", &[map(BOTH), map(BOTH), map(BOTH)], &truth).unwrap();
        assert_eq!(score.objects.len(), 2);
        assert_eq!(score.objects[1].frames[0].region, 2.0 / 3.0);
    }

    #[test]
    fn the_global_mean_weights_objects_equally() {
        let perfect = [map(LEFT), map(LEFT), map(LEFT)];
        let half = [map(BOTH), map(BOTH), map(BOTH)];
        let one = score_sequence("one", &perfect, &perfect).unwrap();
        let two = score_sequence("two", &perfect, &half).unwrap();
        let scores = Scores { sequences: vec![one, two] };
        assert_eq!(scores.objects(), 3);
        assert_eq!(scores.summary().region.mean, 2.0 / 3.0);
    }

    #[test]
    fn refuses_what_the_benchmark_refuses() {
        let three = [map(LEFT), map(LEFT), map(LEFT)];
        let message = |predictions: &[LabelMap], truth: &[LabelMap]| {
            score_sequence("bear", predictions, truth).unwrap_err().to_string()
        };
        let error = message(&three[..2], &three);
        assert!(error.contains("2 predictions for 3"), "{error}");
        let error = message(&three[..2], &three[..2]);
        assert!(error.contains("at least 3"), "{error}");
        let small = LabelMap::background(4, 2);
        let error = message(&[map(LEFT), small.clone(), map(LEFT)], &three);
        assert!(error.contains("frame 1 of bear") && error.contains("4x2"), "{error}");
        let error = message(&[map(LEFT), map(BOTH), map(LEFT)], &three);
        assert!(error.contains("id 2") && error.contains("ends at 1"), "{error}");
        let empty = LabelMap::background(4, 3);
        let error = message(&three, &[empty, map(LEFT), map(LEFT)]);
        assert!(error.contains("no object"), "{error}");
    }
}
