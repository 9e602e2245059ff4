// SPDX-License-Identifier: MPL-2.0

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rayon::prelude::*;

use super::{Scores, SequenceScore, first_annotation, score_frame, scored_range};
use crate::dataset::{Dataset, Sequence};
use crate::distributed::Ranks;
use crate::{Error, LabelMap, Result};

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
        return Err(missing_folder(masks, name));
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

fn missing_folder(masks: &Path, sequence: &str) -> Error {
    let inner: PathBuf = masks.join("masks");
    let remedy = if inner.join(sequence).is_dir() {
        format!("use {} as the folder of masks", inner.display())
    } else {
        format!("use the folder that holds {sequence}/<frame>.png, or a split without this sequence")
    };
    Error::score(masks.join(sequence).display().to_string(), format!("no such folder of masks; {remedy}"))
}
