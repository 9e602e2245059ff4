//! How a tracker takes it when everything is covered for a while: does it see that the object is gone, does
//! it leave the cover alone, and does it find the object again?

use image::{Rgb, RgbImage, imageops};
use indicatif::ProgressBar;

use gstfastganseg::tracker::{Evidence, Presence, Tracker};

use crate::dataset::{Dataset, Frame, Sequence};
use crate::method::Propagator;
use crate::{Error, LabelMap, Result};

/// Frames over which region similarity before the cover is averaged.
const BEFORE: usize = 5;
/// Frames in which the object is to be found again.
pub const WITHIN: usize = 10;
/// How much worse it may then be than before.
pub const TOLERANCE: f64 = 0.1;
/// Share of the picture from which on a mask counts as one.
const SOMETHING: f64 = 0.001;

/// What covers the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// The whole picture is grey.
    Grey,
    /// Another sequence is shown.
    OtherScene,
    /// The picture is blurred beyond recognition, but for its colours.
    Blur,
}

impl Cover {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Grey, Self::OtherScene, Self::Blur];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::OtherScene => "other scene",
            Self::Blur => "blur",
        }
    }
}

/// One sequence with one cover.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The sequence.
    pub sequence: String,
    /// What covered it.
    pub cover: Cover,
    /// Region similarity in the frames before.
    pub before: f64,
    /// Covered frames until it was known that the object is gone; none if it never was.
    pub lost_after: Option<usize>,
    /// Share of the covered frames that got a mask all the same.
    pub hallucinated: f64,
    /// The best region similarity in the [`WITHIN`] frames after.
    pub after: f64,
    /// Frames after the cover until region similarity was within [`TOLERANCE`] of that before.
    pub recovered_after: Option<usize>,
}

/// What the tracker found in one frame, beside the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The sequence.
    pub sequence: String,
    /// What covers it at times.
    pub cover: Cover,
    /// Whether it does here.
    pub covered: bool,
    /// Of the first object.
    pub evidence: Evidence,
    /// Region similarity; 1 for no mask on a covered frame.
    pub similarity: f64,
}

/// Covers `length` frames in the midst of every sequence. Time goes on under the cover as far as the
/// sequence is long enough to leave frames for after it.
///
/// # Errors
/// A sequence too short or without masks, a broken file, a network that fails.
pub fn measure(
    tracker: &mut Tracker,
    dataset: &Dataset,
    length: usize,
    bar: &ProgressBar,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Case>> {
    let sequences = dataset.sequences();
    bar.set_length((sequences.len() * Cover::ALL.len()) as u64);
    let mut cases = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let other = &sequences[(index + 1) % sequences.len()];
        for cover in Cover::ALL {
            bar.set_message(sequence.name().to_string());
            cases.push(case(tracker, sequence, other, cover, length, findings)?);
            bar.inc(1);
        }
    }
    Ok(cases)
}

fn case(
    tracker: &mut Tracker,
    sequence: &Sequence,
    other: &Sequence,
    cover: Cover,
    length: usize,
    findings: &mut Vec<Finding>,
) -> Result<Case> {
    let mut found = |tracker: &Tracker, covered: bool, similarity: f64| {
        let sequence = sequence.name().to_string();
        let evidence = tracker.evidence().first().copied();
        findings.extend(evidence.map(|evidence| Finding { sequence, cover, covered, evidence, similarity }));
    };
    let frames = sequence.tracked()?;
    let least = BEFORE + WITHIN + 2;
    if frames.len() < least {
        let reason = format!("it has {} frames, and {least} are needed", frames.len());
        return Err(Error::score(sequence.name(), reason));
    }
    let covered_from = (frames.len() / 3).clamp(BEFORE + 1, frames.len() - WITHIN);
    let shown_from = (covered_from + length).min(frames.len() - WITHIN);
    let first = frames[0].read_annotation()?.unwrap_or_else(|| LabelMap::background(1, 1)).without_void();
    tracker.start(&frames[0].read_picture()?, &first)?;

    let mut similarities = Vec::new();
    for frame in &frames[1..covered_from] {
        let labels = follow(tracker, &frame.read_picture()?)?;
        similarities.push(similarity(&labels, frame)?);
        found(tracker, false, similarities[similarities.len() - 1]);
    }
    let recent = &similarities[similarities.len().saturating_sub(BEFORE)..];
    let before = recent.iter().sum::<f64>() / recent.len() as f64;

    let (mut lost_after, mut masks) = (None, 0);
    for step in 0..length {
        let under = frames[(covered_from + step).min(shown_from)].read_picture()?;
        let picture = match cover {
            Cover::Grey => RgbImage::from_pixel(under.width(), under.height(), Rgb([128; 3])),
            Cover::Blur => {
                let tiny = imageops::thumbnail(&under, 8, 5);
                imageops::resize(&tiny, under.width(), under.height(), imageops::FilterType::Triangle)
            }
            Cover::OtherScene => {
                let shown = other.tracked()?;
                let picture = shown[step % shown.len()].read_picture()?;
                imageops::resize(&picture, under.width(), under.height(), imageops::FilterType::Triangle)
            }
        };
        let labels = follow(tracker, &picture)?;
        let object = labels.ids().iter().filter(|&&id| id != 0).count();
        let something = object as f64 > SOMETHING * labels.ids().len() as f64;
        masks += usize::from(something);
        found(tracker, true, f64::from(!something));
        if lost_after.is_none() && tracker.presence() == Presence::Lost {
            lost_after = Some(step + 1);
        }
    }

    let (mut after, mut recovered_after) = (0.0f64, None);
    for (step, frame) in frames[shown_from..].iter().take(WITHIN).enumerate() {
        let labels = follow(tracker, &frame.read_picture()?)?;
        let similarity = similarity(&labels, frame)?;
        found(tracker, false, similarity);
        after = after.max(similarity);
        if recovered_after.is_none() && similarity >= before - TOLERANCE {
            recovered_after = Some(step + 1);
        }
    }
    Ok(Case {
        sequence: sequence.name().to_string(),
        cover,
        before,
        lost_after,
        hallucinated: masks as f64 / length.max(1) as f64,
        after,
        recovered_after,
    })
}

fn follow(tracker: &mut Tracker, picture: &RgbImage) -> Result<LabelMap> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Propagator::step(tracker, picture, width, height)
}

/// Intersection over union of everything that is object.
fn similarity(labels: &LabelMap, frame: &Frame) -> Result<f64> {
    let Some(truth) = frame.read_annotation()? else {
        return Err(Error::score(frame.name(), "it has no annotation"));
    };
    let truth = truth.without_void().resized(labels.width(), labels.height());
    let (mut both, mut either) = (0usize, 0usize);
    for (a, b) in labels.ids().iter().zip(truth.ids()) {
        both += usize::from(*a != 0 && *b != 0);
        either += usize::from(*a != 0 || *b != 0);
    }
    Ok(if either == 0 { 1.0 } else { both as f64 / either as f64 })
}
