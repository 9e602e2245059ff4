// SPDX-License-Identifier: MPL-2.0

//! Errors of mattes ([`MatteScore`]), and measures of the DAVIS-2017 benchmark, equal to those of the official tool:
//! region similarity J, contour accuracy F, their mean, recall and decay (Perazzi et al. 2016 §5, Pont-Tuset et al.
//! 2017).
//!
//! The first and the last annotated frame of a sequence are not scored. The objects are those of the first
//! annotation, numbered 1 to its largest id. Void pixels count as background. Results over several objects are
//! unweighted means, independent of the lengths of their sequences.

mod alpha;
mod bitmap;
mod flicker;
mod measures;

pub use alpha::{AlphaErrors, MatteScore};
pub(crate) use alpha::{AlphaPlane, MatteScorer};
pub(crate) use bitmap::Bitmap;
pub(crate) use flicker::Flicker;
pub(crate) use measures::region_similarity;
pub use measures::{FrameScore, Statistics};

use std::path::Path;

use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Sequence};
use crate::distributed::Ranks;
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
pub(crate) fn score_frame(
    what: &str,
    prediction: &LabelMap,
    truth: &LabelMap,
    objects: u8,
) -> Result<Vec<FrameScore>> {
    let ((width, height), (true_width, true_height)) = (prediction.size(), truth.size());
    if prediction.size() != truth.size() {
        return Err(Error::score(
            what,
            format!(
                "it has {width}x{height} pixels, the ground truth {true_width}x{true_height}; write the mask at the \
                 size of the annotation"
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
    let score = |id| FrameScore::of(&Bitmap::of_object(prediction, id), &Bitmap::of_object(truth, id));
    Ok((1..=objects).map(score).collect())
}

/// Scores the masks `masks/<sequence>/<frame>.png` against the annotations of `dataset`, on all
/// threads of the current rayon pool. The ranks share the sequences; each returns the scores of all. `progress` counts
/// the scored frames of this rank.
///
/// # Errors
/// If a mask of a scored frame is missing, is not a valid mask PNG, differs in size from its annotation, or has an
/// id above those of the first annotation; if a sequence has fewer than three annotations, or no object in the
/// first; if another rank has ended. The message names the file or sequence.
pub fn score_folder(
    dataset: &Dataset,
    masks: &Path,
    progress: &ProgressBar,
    ranks: &Ranks,
) -> Result<Scores> {
    let sequences = dataset.sequences();
    let frames: Vec<usize> =
        sequences.iter().map(|sequence| sequence.annotated().count().saturating_sub(2)).collect();
    let share = ranks.share(&frames);
    progress.set_length(share.iter().map(|&index| frames[index] as u64).sum());
    let own =
        share.into_par_iter().map(|index| Ok((index, score_sequence(&sequences[index], masks, progress)?)));
    Ok(Scores { sequences: ranks.gather_shares(own.collect::<Result<_>>()?)? })
}

fn score_sequence(sequence: &Sequence, masks: &Path, progress: &ProgressBar) -> Result<SequenceScore> {
    let name = sequence.name();
    let annotated: Vec<_> = sequence.annotated().collect();
    let scored = scored_range(name, annotated.len())?;
    let (_, objects) = first_annotation(sequence)?;
    let folder = masks.join(name);
    if !folder.is_dir() {
        let inner = masks.join("masks");
        let remedy = match inner.join(name).is_dir() {
            true => format!("use {} as the folder of masks", inner.display()),
            false => {
                format!("use the folder that holds {name}/<frame>.png, or a split without this sequence")
            }
        };
        let reason = format!("no such folder of masks; {remedy}");
        return Err(Error::score(folder.display().to_string(), reason));
    }
    let frames = annotated[scored].par_iter().map(|&(frame, annotation)| {
        let path = folder.join(format!("{frame}.png"));
        if !path.is_file() {
            return Err(Error::score(
                path.display().to_string(),
                "this mask is missing; every annotated frame but the first and the last needs one",
            ));
        }
        let prediction = LabelMap::open(&path)?;
        let truth = LabelMap::open(annotation)?;
        let what = path.display().to_string();
        let scores = score_frame(&what, &prediction, &truth, objects)?;
        progress.inc(1);
        Ok((frame.to_string(), scores))
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
                 least 3 are needed (in training, of those that validation.frame_step leaves)"
            ),
        ));
    }
    Ok(1..frames - 1)
}

/// Reads the first annotation of a sequence. Returns it with its number of objects.
pub(crate) fn first_annotation(sequence: &Sequence) -> Result<(LabelMap, u8)> {
    let (_, path) = sequence.annotated().next().ok_or_else(|| {
        Error::score(sequence.name(), "it has no annotation: add the mask of its first frame")
    })?;
    let first = LabelMap::open(path)?;
    match first.largest() {
        0 => Err(Error::score(
            path.display().to_string(),
            "its first annotation has no object; leave the sequence out of the split, or begin at \
             a frame that shows the object",
        )),
        objects => Ok((first, objects)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ids: [u8; 12]) -> LabelMap {
        LabelMap::new(4, 3, ids.to_vec()).unwrap()
    }

    /// Scores one frame for each ground truth.
    fn score(predictions: &[LabelMap], truth: &[LabelMap]) -> SequenceScore {
        let objects = truth[0].largest();
        let frames = predictions.iter().zip(truth).map(|(prediction, truth)| {
            ("frame".to_owned(), score_frame("frame", prediction, truth, objects).unwrap())
        });
        SequenceScore::gather("s", objects, frames)
    }

    const LEFT: [u8; 12] = [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0];
    const BOTH: [u8; 12] = [1, 1, 0, 2, 1, 1, 0, 2, 1, 1, 0, 2];

    #[test]
    fn an_object_without_predictions_scores_zero() {
        let score = score(&[map(LEFT), map(LEFT)], &[map(BOTH), map(BOTH)]);
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
        let score = score(&[map(BOTH), map(BOTH)], &[map(first), map(later)]);
        assert_eq!(score.objects.len(), 2);
        assert_eq!(score.objects[1].frames[1].region, 2.0 / 3.0);
    }

    #[test]
    fn the_global_mean_weights_objects_equally() {
        let (left, both) = ([map(LEFT)], [map(BOTH)]);
        let scores = Scores { sequences: vec![score(&left, &left), score(&left, &both)] };
        assert_eq!(scores.objects(), 3);
        assert_eq!(scores.summary().region.mean, 2.0 / 3.0);
    }
}
