// SPDX-License-Identifier: MPL-2.0

//! Evaluation with covered frames: whether the tracker detects that the object is gone, outputs no mask on the
//! cover, and finds the object again.

use clap::ValueEnum;
use image::{Rgb, RgbImage, imageops};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use gstfastganseg::tracker::{Presence, Tracker, TrackerState};

use crate::dataset::{Dataset, Frame, Sequence};
use crate::distributed::Ranks;
use crate::method::Propagator;
use crate::score::{Bitmap, first_annotation, region_similarity};
use crate::{Error, LabelMap, Result};

/// Number of frames after the cover that are scored.
pub const SCORED_FRAMES: usize = 10;
/// Number of frames after the cover within which the object should be found again.
pub const MAX_FRAMES_TO_FIND: usize = 2;
/// Maximum loss of region similarity, compared with the run without a cover, at which the object counts as found.
pub const MAX_LOSS: f64 = 0.1;
/// Minimum share of the frame that a mask must cover to count.
const MIN_MASK_SHARE: f64 = 0.001;

/// Replacement of covered frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Cover {
    /// Black
    Black,
    /// Grey
    Grey,
    /// Green, like a decoded frame without data
    Green,
    /// Overexposed by a flash
    Flash,
    /// The last frame before the cover, repeated
    Frozen,
    /// Most macroblocks displaced or grey, as after lost packets
    Damaged,
    /// Frames of another sequence
    OtherScene,
    /// Strongly blurred
    Blur,
}

impl Cover {
    /// Name in reports.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().replace('-', " ")).unwrap_or_default()
    }

    /// Whether the object is invisible.
    fn hides(self) -> bool {
        !matches!(self, Self::Frozen | Self::Flash | Self::Damaged)
    }

    /// Applies the cover to `frame`. `last` is the last frame before the cover, `other` a frame of another
    /// sequence, and `step` the index of the covered frame.
    fn apply(self, frame: &RgbImage, last: &RgbImage, other: &RgbImage, step: usize) -> RgbImage {
        let (width, height) = (frame.width(), frame.height());
        let plain = |value| RgbImage::from_pixel(width, height, Rgb(value));
        let scaled =
            |picture: &RgbImage| imageops::resize(picture, width, height, imageops::FilterType::Triangle);
        match self {
            Self::Black => plain([0; 3]),
            Self::Grey => plain([128; 3]),
            Self::Green => plain([0, 135, 0]),
            Self::Flash => {
                let mut picture = frame.clone();
                picture.iter_mut().for_each(|value| *value = value.saturating_mul(2).saturating_add(110));
                picture
            }
            Self::Frozen => last.clone(),
            Self::Damaged => damaged(frame, step),
            Self::OtherScene => scaled(other),
            Self::Blur => scaled(&imageops::thumbnail(frame, 8, 5)),
        }
    }
}

/// Returns the picture with three of four macroblocks displaced or grey, in a fixed pattern for each step.
fn damaged(picture: &RgbImage, step: usize) -> RgbImage {
    const BLOCK: u32 = 16;
    let (width, height) = picture.dimensions();
    let mut result = picture.clone();
    let mut state = 0x9e37_79b9_u32.wrapping_mul(step as u32 + 1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    for y in (0..height).step_by(BLOCK as usize) {
        for x in (0..width).step_by(BLOCK as usize) {
            let (kind, dx, dy) = (next() % 4, next() % width, next() % height);
            let block = (BLOCK.min(width - x), BLOCK.min(height - y));
            for (row, column) in (0..block.1).flat_map(|row| (0..block.0).map(move |column| (row, column))) {
                let pixel = match kind {
                    0 => continue,
                    1 => Rgb([128; 3]),
                    _ => *picture.get_pixel((dx + column) % width, (dy + row) % height),
                };
                result.put_pixel(x + column, y + row, pixel);
            }
        }
    }
    result
}

/// Result of one sequence with one cover.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Name of the sequence.
    pub sequence: String,
    /// The cover.
    pub cover: Cover,
    /// Number of covered frames.
    pub length: usize,
    /// Number of covered frames until the tracker reported the object as lost; `None` if it did not.
    pub lost_after: Option<usize>,
    /// Share of the covered frames with a mask although the object was invisible.
    pub hallucinated: f64,
    /// Region similarity in each of the [`SCORED_FRAMES`] frames after the cover, and in the same frames without a cover.
    pub after: Vec<(f64, f64)>,
}

impl Case {
    /// Number of frames after the cover until the region similarity was within [`MAX_LOSS`] of that without a cover.
    pub fn found_after(&self) -> Option<usize> {
        self.after.iter().position(|(with, without)| with >= &(without - MAX_LOSS)).map(|index| index + 1)
    }

    /// Mean loss of region similarity compared with no cover, from frame [`MAX_FRAMES_TO_FIND`] on. Negative for a gain.
    pub fn deficit(&self) -> f64 {
        let rest = self.after.get(MAX_FRAMES_TO_FIND - 1..).unwrap_or_default();
        rest.iter().map(|(with, without)| without - with).sum::<f64>() / rest.len().max(1) as f64
    }
}

/// Covers frames in the middle of every sequence, for each combination of `covers` and `lengths`. The sequence
/// continues under the cover as long as enough frames remain after it. For frames without annotation, the mask of
/// the tracker without a cover is used as ground truth. The ranks share the sequences; each returns the results of all.
///
/// # Errors
/// A sequence is too short or has no first mask, a file is broken, the network fails, or another rank has ended.
pub fn measure(
    tracker: &mut Tracker,
    dataset: &Dataset,
    covers: &[Cover],
    lengths: &[usize],
    bar: &ProgressBar,
    ranks: &Ranks,
) -> Result<Vec<Case>> {
    let sequences = dataset.sequences();
    if covers.contains(&Cover::OtherScene) && sequences.len() < 2 {
        let reason = "the cover other-scene needs two sequences: add one, or remove the cover";
        return Err(Error::dataset(dataset.root(), reason));
    }
    let frames: Vec<usize> = sequences.iter().map(|sequence| sequence.frames().len()).collect();
    let share = ranks.share(&frames);
    bar.set_length((share.len() * covers.len() * lengths.len()) as u64);
    let mut own = Vec::with_capacity(share.len());
    for index in share {
        let (sequence, mut cases) = (&sequences[index], Vec::new());
        bar.set_message(sequence.name().to_string());
        let other = &sequences[(index + 1) % sequences.len()];
        let run = Run::new(tracker, sequence, other)?;
        for &cover in covers {
            for &length in lengths {
                cases.push(run.case(tracker, cover, length)?);
                bar.inc(1);
            }
        }
        own.push((index, cases));
    }
    Ok(ranks.gather_shares(own)?.concat())
}

/// Results of a sequence without a cover, and the tracker's state before the last frame in front of the cover.
struct Run<'a> {
    sequence: &'a Sequence,
    frames: &'a [Frame],
    other: &'a [Frame],
    covered_from: usize,
    state: TrackerState,
    /// Ground truth of each frame.
    truth: Vec<LabelMap>,
    /// Region similarity of the tracker's mask in each frame.
    similarity: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(tracker: &mut Tracker, sequence: &'a Sequence, other: &'a Sequence) -> Result<Self> {
        let frames = sequence.tracked()?;
        let min_frames = SCORED_FRAMES + MAX_FRAMES_TO_FIND + 2;
        if frames.len() < min_frames {
            let reason = format!("it has {} frames, but {min_frames} are needed", frames.len());
            return Err(Error::score(sequence.name(), reason));
        }
        let covered_from = (frames.len() / 3).clamp(2, frames.len() - SCORED_FRAMES);
        let first = first_annotation(sequence)?.0.without_void();
        tracker
            .start(&frames[0].read_picture()?, &first)
            .map_err(|error| error.at(place(sequence, &frames[0])))?;
        let mut state = None;
        let (mut truth, mut similarities) = (vec![first], vec![1.0]);
        for (index, frame) in frames.iter().enumerate().skip(1) {
            if index + 1 == covered_from {
                let saved = tracker.save_state();
                state = saved.map_err(|error| Error::from(error).at(place(sequence, frame)))?;
            }
            let labels = follow(tracker, &frame.read_picture()?, sequence, frame)?;
            let annotation = frame
                .read_annotation()?
                .map(|truth| truth.without_void().resized(labels.width(), labels.height()));
            let annotation = annotation.unwrap_or_else(|| labels.clone());
            similarities.push(similarity(&labels, &annotation));
            truth.push(annotation);
        }
        let no_state = || Error::from(gstfastganseg::Error::NoReference).at(sequence.name());
        let state = state.ok_or_else(no_state)?;
        let other = other.tracked()?;
        Ok(Self { sequence, frames, other, covered_from, state, truth, similarity: similarities })
    }

    fn case(&self, tracker: &mut Tracker, cover: Cover, length: usize) -> Result<Case> {
        let Self { sequence, frames, other, covered_from, .. } = *self;
        let shown_from = (covered_from + length).min(frames.len() - SCORED_FRAMES);
        let last = frames[covered_from - 1].read_picture()?;
        let before = &frames[covered_from - 1];
        tracker.restore_state(&self.state).map_err(|error| Error::from(error).at(place(sequence, before)))?;
        // The tracker compares the first covered frame with this one.
        follow(tracker, &last, sequence, before)?;
        let (mut lost_after, mut masks) = (None, 0);
        for step in 0..length {
            let frame = &frames[(covered_from + step).min(shown_from)];
            let scene = other[step % other.len()].read_picture()?;
            let picture = cover.apply(&frame.read_picture()?, &last, &scene, step);
            let labels = follow(tracker, &picture, sequence, frame)?;
            let object = labels.ids().iter().filter(|&&id| id != 0).count();
            let has_mask = object as f64 > MIN_MASK_SHARE * labels.ids().len() as f64;
            masks += usize::from(has_mask && cover.hides());
            if lost_after.is_none() && tracker.presence() == Presence::Lost {
                lost_after = Some(step + 1);
            }
        }
        let mut after = Vec::with_capacity(SCORED_FRAMES);
        for (index, frame) in frames.iter().enumerate().skip(shown_from).take(SCORED_FRAMES) {
            let labels = follow(tracker, &frame.read_picture()?, sequence, frame)?;
            let similarity = similarity(&labels, &self.truth[index]);
            after.push((similarity, self.similarity[index]));
        }
        let hallucinated = masks as f64 / length.max(1) as f64;
        Ok(Case { sequence: sequence.name().to_string(), cover, length, lost_after, hallucinated, after })
    }
}

/// Tracks `picture`, which is shown in the place of `frame`.
fn follow(tracker: &mut Tracker, picture: &RgbImage, sequence: &Sequence, frame: &Frame) -> Result<LabelMap> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Propagator::step(tracker, picture, width, height).map_err(|error| error.at(place(sequence, frame)))
}

fn place(sequence: &Sequence, frame: &Frame) -> String {
    format!("{}, frame {}", sequence.name(), frame.name())
}

/// Intersection over union of all objects together.
fn similarity(labels: &LabelMap, truth: &LabelMap) -> f64 {
    let objects = |map: &LabelMap| Bitmap::of(map, |id| id != 0);
    region_similarity(&objects(labels), &objects(truth))
}
