//! How a tracker takes it when everything is covered for a while: does it see that the object is gone, does
//! it leave the cover alone, and does it find the object again?

use image::{Rgb, RgbImage, imageops};
use indicatif::ProgressBar;

use gstfastganseg::tracker::{Presence, Tracker, TrackerState};

use crate::dataset::{Dataset, Frame, Sequence};
use crate::method::Propagator;
use crate::{Error, LabelMap, Result};

/// Frames after the cover that are compared.
pub const AFTER: usize = 10;
/// Frames of the true picture in which the object is to be found again.
pub const WITHIN: usize = 2;
/// How much worse region similarity may be than without the cover for the object to count as found.
pub const FOUND: f64 = 0.1;
/// Share of the picture from which on a mask counts as one.
const SOMETHING: f64 = 0.001;

/// What covers the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cover {
    /// The whole picture is black.
    Black,
    /// The whole picture is grey.
    Grey,
    /// The whole picture is green, as a decoder shows a frame that it has no data for.
    Green,
    /// The picture is overexposed by a flash.
    Flash,
    /// The last picture stays.
    Frozen,
    /// Most macroblocks show what is elsewhere, or grey: as after lost packets.
    Damaged,
    /// Another sequence is shown.
    OtherScene,
    /// The picture is blurred beyond recognition, but for its colours.
    Blur,
}

impl Cover {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Black,
        Self::Grey,
        Self::Green,
        Self::Flash,
        Self::Frozen,
        Self::Damaged,
        Self::OtherScene,
        Self::Blur,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Grey => "grey",
            Self::Green => "green",
            Self::Flash => "flash",
            Self::Frozen => "frozen",
            Self::Damaged => "damaged",
            Self::OtherScene => "other scene",
            Self::Blur => "blur",
        }
    }

    /// Whether there is nothing of the object to be seen.
    fn hides(self) -> bool {
        !matches!(self, Self::Frozen | Self::Flash | Self::Damaged)
    }

    /// The frame with the cover. `under` is the frame itself, `last` the last one before the cover, `other` one of
    /// another sequence, and `step` counts covered frames.
    fn over(self, under: &RgbImage, last: &RgbImage, other: &RgbImage, step: usize) -> RgbImage {
        let (width, height) = (under.width(), under.height());
        let plain = |value| RgbImage::from_pixel(width, height, Rgb(value));
        let scaled =
            |picture: &RgbImage| imageops::resize(picture, width, height, imageops::FilterType::Triangle);
        match self {
            Self::Black => plain([0; 3]),
            Self::Grey => plain([128; 3]),
            Self::Green => plain([0, 135, 0]),
            Self::Flash => {
                let mut picture = under.clone();
                picture.iter_mut().for_each(|value| *value = value.saturating_mul(2).saturating_add(110));
                picture
            }
            Self::Frozen => last.clone(),
            Self::Damaged => damaged(under, step),
            Self::OtherScene => scaled(other),
            Self::Blur => scaled(&imageops::thumbnail(under, 8, 5)),
        }
    }
}

/// A picture whose macroblocks are moved or grey, three of four, with a fixed pattern for each step.
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

/// One sequence with one cover.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The sequence.
    pub sequence: String,
    /// What covered it.
    pub cover: Cover,
    /// Covered frames.
    pub length: usize,
    /// Covered frames until it was known that the object is gone; none if it never was.
    pub lost_after: Option<usize>,
    /// Share of the covered frames that got a mask although nothing of the object was to be seen.
    pub hallucinated: f64,
    /// Region similarity in each of the [`AFTER`] frames after the cover, and without it in the same frames.
    pub after: Vec<(f64, f64)>,
}

impl Case {
    /// Frames of the true picture until region similarity was within [`FOUND`] of that without the cover.
    pub fn found_after(&self) -> Option<usize> {
        self.after.iter().position(|(with, without)| with >= &(without - FOUND)).map(|index| index + 1)
    }

    /// How much less region similarity is than without the cover, from frame [`WITHIN`] on; negative if it is more.
    pub fn deficit(&self) -> f64 {
        let rest = self.after.get(WITHIN - 1..).unwrap_or_default();
        rest.iter().map(|(with, without)| without - with).sum::<f64>() / rest.len().max(1) as f64
    }
}

/// Covers some frames in the midst of every sequence, each of `lengths` with each of `covers`. Time goes on under the
/// cover as far as the sequence is long enough to leave frames for after it. Where frames have no annotation, what
/// the tracker finds without a cover takes its place.
///
/// # Errors
/// A sequence too short or without a first mask, a broken file, a network that fails.
pub fn measure(
    tracker: &mut Tracker,
    dataset: &Dataset,
    covers: &[Cover],
    lengths: &[usize],
    bar: &ProgressBar,
) -> Result<Vec<Case>> {
    let sequences = dataset.sequences();
    bar.set_length((sequences.len() * covers.len() * lengths.len()) as u64);
    let mut cases = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        bar.set_message(sequence.name().to_string());
        let other = &sequences[(index + 1) % sequences.len()];
        let run = Run::new(tracker, sequence, other)?;
        for &cover in covers {
            for &length in lengths {
                cases.push(run.case(tracker, cover, length)?);
                bar.inc(1);
            }
        }
    }
    Ok(cases)
}

/// A sequence without a cover, and the tracker's state where covers begin.
struct Run<'a> {
    sequence: &'a Sequence,
    frames: &'a [Frame],
    other: &'a [Frame],
    covered_from: usize,
    state: TrackerState,
    /// What is object in each frame, and how similar the tracker's mask is to it.
    truth: Vec<LabelMap>,
    similarity: Vec<f64>,
}

impl<'a> Run<'a> {
    fn new(tracker: &mut Tracker, sequence: &'a Sequence, other: &'a Sequence) -> Result<Self> {
        let frames = sequence.tracked()?;
        let least = AFTER + WITHIN + 2;
        if frames.len() < least {
            let reason = format!("it has {} frames, and {least} are needed", frames.len());
            return Err(Error::score(sequence.name(), reason));
        }
        let covered_from = (frames.len() / 3).clamp(2, frames.len() - AFTER);
        let first = frames[0].read_annotation()?.unwrap_or_else(|| LabelMap::background(1, 1)).without_void();
        tracker.start(&frames[0].read_picture()?, &first)?;
        let mut state = None;
        let (mut truth, mut similarities) = (vec![first], vec![1.0]);
        for (index, frame) in frames.iter().enumerate().skip(1) {
            if index == covered_from {
                state = tracker.save_state()?;
            }
            let labels = follow(tracker, &frame.read_picture()?)?;
            let annotation = frame
                .read_annotation()?
                .map(|truth| truth.without_void().resized(labels.width(), labels.height()));
            let annotation = annotation.unwrap_or_else(|| labels.clone());
            similarities.push(similarity(&labels, &annotation));
            truth.push(annotation);
        }
        let state = state.ok_or(gstfastganseg::Error::NoReference)?;
        let other = other.tracked()?;
        Ok(Self { sequence, frames, other, covered_from, state, truth, similarity: similarities })
    }

    fn case(&self, tracker: &mut Tracker, cover: Cover, length: usize) -> Result<Case> {
        let Self { sequence, frames, other, covered_from, .. } = *self;
        let shown_from = (covered_from + length).min(frames.len() - AFTER);
        let last = frames[covered_from - 1].read_picture()?;
        tracker.restore_state(&self.state)?;
        let (mut lost_after, mut masks) = (None, 0);
        for step in 0..length {
            let under = frames[(covered_from + step).min(shown_from)].read_picture()?;
            let scene = other[step % other.len()].read_picture()?;
            let labels = follow(tracker, &cover.over(&under, &last, &scene, step))?;
            let object = labels.ids().iter().filter(|&&id| id != 0).count();
            let something = object as f64 > SOMETHING * labels.ids().len() as f64;
            masks += usize::from(something && cover.hides());
            if lost_after.is_none() && tracker.presence() == Presence::Lost {
                lost_after = Some(step + 1);
            }
        }
        let mut after = Vec::with_capacity(AFTER);
        for (index, frame) in frames.iter().enumerate().skip(shown_from).take(AFTER) {
            let labels = follow(tracker, &frame.read_picture()?)?;
            let similarity = similarity(&labels, &self.truth[index]);
            after.push((similarity, self.similarity[index]));
        }
        let hallucinated = masks as f64 / length.max(1) as f64;
        Ok(Case { sequence: sequence.name().to_string(), cover, length, lost_after, hallucinated, after })
    }
}

fn follow(tracker: &mut Tracker, picture: &RgbImage) -> Result<LabelMap> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Propagator::step(tracker, picture, width, height)
}

/// Intersection over union of everything that is object.
fn similarity(labels: &LabelMap, truth: &LabelMap) -> f64 {
    let (mut both, mut either) = (0usize, 0usize);
    for (a, b) in labels.ids().iter().zip(truth.ids()) {
        both += usize::from(*a != 0 && *b != 0);
        either += usize::from(*a != 0 || *b != 0);
    }
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}
