// SPDX-License-Identifier: MPL-2.0

//! Runs a method on a data set, writes its masks, and scores them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::confidence::ConfidenceRow;
use crate::dataset::{Dataset, Frame, Sequence};
use crate::distributed::Ranks;
use crate::files::create_folder;
use crate::method::Propagator;
use crate::report::{ContactSheet, Speed};
use crate::score::{Flicker, FrameScore, Scores, SequenceScore, first_annotation, score_frame, scored_range};
use crate::simulated_user::{FirstMask, SimulatedUser};
use crate::{Error, LabelMap, Result};

/// Background of sheets without frames.
const SHEET_BACKGROUND: Rgb<u8> = Rgb([40, 40, 40]);

/// Options of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvalOptions {
    /// Folder for `masks/<sequence>/<frame>.png` and `sheets/<sequence>.png`. `None` writes nothing, for
    /// validation during training.
    pub out: Option<PathBuf>,
    /// Frames on the contact sheet of a sequence, evenly spaced from first to last. 0 = no sheets.
    pub sheet_frames: usize,
    /// Sheets show masks without frames.
    pub bare_sheets: bool,
    /// Plays each sequence forwards and backwards until this number of frames is reached. 0 = once forwards.
    pub loop_frames: usize,
    /// What the user gives in the first frame of each sequence.
    pub first: FirstMask,
    /// Number of corrections of each sequence, at even intervals: the user clicks on the largest error of the worst frame
    /// so far, and the corrected mask becomes another reference for the frames that follow.
    pub corrections: usize,
    /// Weights of the prompt network; `None` = the built-in ones.
    pub prompt_weights: Option<PathBuf>,
}

/// Result of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Scores of every sequence.
    pub scores: Scores,
    /// Frames per second of [`Propagator::step`], without reading and writing files.
    pub speed: Speed,
    /// Flicker of alpha, mean over the sequences, 0 to 255. `None` for methods without alpha.
    pub flicker: Option<f64>,
    /// Confidence and region similarity of every object in every scored frame, for methods with a confidence.
    pub confidence: Vec<ConfidenceRow>,
    /// Mean intersection over union of the first masks with the annotations.
    pub first_mask: f64,
}

/// Runs `propagator` on every sequence of `dataset` from its first annotated frame on, and scores the results
/// against the annotations. The ranks share the sequences; each writes the masks of its own and returns the results of
/// all. `progress` counts the frames of this rank.
///
/// The masks have the size of the sequence's first annotation. The mask of the first frame is that annotation, unless
/// [`EvalOptions::first`] says otherwise, so the folder is a complete submission to the benchmark.
///
/// # Errors
/// An image or annotation is missing or broken, a sequence cannot be scored (checked before the first one runs), the
/// method fails, a file cannot be written, or another rank has ended. The message names the file, or the sequence and
/// frame.
pub fn evaluate(
    propagator: &mut dyn Propagator,
    dataset: &Dataset,
    options: &EvalOptions,
    progress: &ProgressBar,
    ranks: &Ranks,
) -> Result<Evaluation> {
    let sequences = dataset.sequences();
    let frames: Vec<usize> =
        sequences.iter().map(|sequence| check(sequence, options)).collect::<Result<_>>()?;
    let share = ranks.share(&frames);
    progress.set_length(share.iter().map(|&index| frames[index] as u64).sum());
    let has_user = options.first != FirstMask::Mask || options.corrections > 0;
    let user = has_user.then(|| SimulatedUser::new(options.prompt_weights.as_deref())).transpose()?;
    let mut own = Vec::with_capacity(share.len());
    for index in share {
        progress.set_message(sequences[index].name().to_string());
        own.push((index, Run::of(propagator, &sequences[index], (options, user.as_ref()), progress)?));
    }

    let mut scores = Scores::default();
    let mut speed = Speed::default();
    let (mut steps, mut step_time) = (0, Duration::ZERO);
    let (mut flickers, mut confidence) = (Vec::new(), Vec::new());
    let mut first_masks = Vec::new();
    for run in ranks.gather_shares(own)? {
        let fps = per_second(run.steps, run.step_time);
        speed.sequences.extend(fps.map(|fps| (run.score.name.clone(), fps)));
        steps += run.steps;
        step_time += run.step_time;
        flickers.extend(run.flicker);
        confidence.extend(run.confidence);
        first_masks.push(run.first_mask);
        scores.sequences.push(run.score);
    }
    speed.total = per_second(steps, step_time);
    let flicker = (!flickers.is_empty()).then(|| flickers.iter().sum::<f64>() / flickers.len() as f64);
    let first_mask = first_masks.iter().sum::<f64>() / first_masks.len().max(1) as f64;
    Ok(Evaluation { scores, speed, flicker, confidence, first_mask })
}

/// Checks that the sequence can be scored. Returns its number of frames.
///
/// # Errors
/// It has too few annotated frames, or its first annotation cannot be read.
pub(crate) fn check(sequence: &Sequence, options: &EvalOptions) -> Result<usize> {
    scored_range(sequence.name(), sequence.annotated().count())?;
    let frames = sequence.tracked()?;
    first_annotation(sequence)?;
    Ok(frames.len().max(options.loop_frames))
}

/// Returns the index of the frame at `step` if `count` frames are played forwards and backwards alternately.
fn looped(step: usize, count: usize) -> usize {
    let period = (2 * count).saturating_sub(2).max(1);
    (step % period).min(period - step % period)
}

fn per_second(frames: usize, time: Duration) -> Option<f64> {
    (frames > 0 && !time.is_zero()).then(|| frames as f64 / time.as_secs_f64())
}

/// Result of one sequence.
#[derive(Serialize, Deserialize)]
struct Run {
    score: SequenceScore,
    steps: usize,
    /// Total time of the steps.
    step_time: Duration,
    flicker: Option<f64>,
    confidence: Vec<ConfidenceRow>,
    /// Intersection over union of the first mask with the annotation.
    first_mask: f64,
}

impl Run {
    fn of(
        propagator: &mut dyn Propagator,
        sequence: &Sequence,
        (options, user): (&EvalOptions, Option<&SimulatedUser>),
        progress: &ProgressBar,
    ) -> Result<Self> {
        let name = sequence.name();
        let frames = sequence.tracked()?;
        let annotated: Vec<_> = sequence.annotated().map(|(frame, _)| frame).collect();
        let scored = &annotated[scored_range(name, annotated.len())?];
        let (first, objects) = first_annotation(sequence)?;
        let (width, height) = first.size();
        let loops = options.loop_frames > 0;
        let played: Vec<&Frame> = match loops {
            true => (0..options.loop_frames).map(|step| &frames[looped(step, frames.len())]).collect(),
            false => frames.iter().collect(),
        };
        let mut writer = SequenceWriter::new(options, name, played.len())?;
        let mut confidence = Vec::new();
        let mut scores = Vec::with_capacity(scored.len());
        let mut step_time = Duration::ZERO;
        let mut flicker = Flicker::default();

        let mut first_mask = 1.0;
        let mut correctable: Vec<Correctable> = Vec::new();
        let mut next = None;
        let mut size = None;
        for (i, frame) in played.iter().enumerate() {
            let frame_name = if loops { format!("{i:05}") } else { frame.name().to_string() };
            let picture = next.take().map_or_else(|| frame.read_picture(), Ok)?;
            next = played.get(i + 1).map(|frame| frame.read_picture()).transpose()?;
            let place = || format!("{name}, frame {}", frame.name());
            let found = picture.dimensions();
            let expected = *size.get_or_insert(found);
            if found != expected {
                return Err(Error::score(place(), other_size(found, expected)));
            }
            let labels = if i == 0 {
                let mut start = first.clone();
                if let Some(user) = user {
                    (start, first_mask) =
                        user.select(&picture, &first, options.first).map_err(|error| error.at(place()))?;
                }
                propagator.start(&picture, &start).map_err(|error| error.at(place()))?;
                start.without_void()
            } else {
                let begin = Instant::now();
                if let Some(next) = &next {
                    propagator.prefetch(next).map_err(|error| error.at(place()))?;
                }
                let labels = propagator.step(&picture, width, height);
                step_time += begin.elapsed();
                labels.map_err(|error| error.at(place()))?
            };
            let mut score = None;
            // As in a single pass, the first and the last frame are not scored.
            let is_scored =
                if loops { i > 0 && i + 1 < played.len() } else { scored.contains(&frame.name()) };
            if is_scored && let Some(truth) = frame.read_annotation()? {
                let objects = score_frame(&place(), &labels, &truth, objects)?;
                score = mean(&objects);
                for (id, stats) in propagator.object_stats() {
                    let Some(score) = objects.get(usize::from(id).wrapping_sub(1)) else { continue };
                    confidence.push(ConfidenceRow {
                        sequence: name.to_string(),
                        frame: frame_name.clone(),
                        object: id,
                        confidence: stats.confidence,
                        likeness: stats.likeness,
                        area: stats.area,
                        region: score.region,
                    });
                }
                scores.push((frame_name.clone(), objects));
                flicker.add(&picture, &truth, propagator.alpha().unwrap_or_default());
            }
            writer.frame(i, &frame_name, &picture, &labels, score)?;
            progress.inc(1);
            let Some(user) = user.filter(|_| options.corrections > 0) else { continue };
            if let Some(score) = score {
                correctable.push(Correctable { frame, labels, region: score.region });
            }
            if corrects_after(i, played.len(), options.corrections) {
                correct(propagator, user, &mut correctable).map_err(|error| error.at(place()))?;
            }
        }
        let score = SequenceScore::gather(name, objects, scores);
        writer.finish(&score)?;
        Ok(Self {
            score,
            steps: played.len() - 1,
            step_time,
            flicker: flicker.mean(),
            confidence,
            first_mask,
        })
    }
}

/// A frame that the user may correct.
struct Correctable<'a> {
    frame: &'a Frame,
    labels: LabelMap,
    /// Region similarity.
    region: f64,
}

/// Whether the user makes one of `count` corrections after step `i` of `steps`.
fn corrects_after(i: usize, steps: usize, count: usize) -> bool {
    let made = |step: usize| step * (count + 1) / steps;
    made(i + 1) > made(i) && i + 1 < steps
}

/// Lets the user correct the worst of the frames. It is not corrected again.
fn correct(
    propagator: &mut dyn Propagator,
    user: &SimulatedUser,
    frames: &mut Vec<Correctable>,
) -> Result<()> {
    let worst = (0..frames.len()).min_by(|&a, &b| frames[a].region.total_cmp(&frames[b].region));
    let Some(Correctable { frame, labels, .. }) = worst.map(|index| frames.swap_remove(index)) else {
        return Ok(());
    };
    let Some(truth) = frame.read_annotation()? else { return Ok(()) };
    let picture = frame.read_picture()?;
    match user.correct(&picture, &labels, &truth)? {
        Some(corrected) => propagator.correct(&picture, &corrected),
        None => Ok(()),
    }
}

/// Says what to do about a frame of another size than the first one.
fn other_size((width, height): (u32, u32), (first_width, first_height): (u32, u32)) -> String {
    format!(
        "the picture has {width}x{height} pixels, and that of the first frame {first_width}x{first_height}; all frames of a \
         sequence need the same size"
    )
}

fn mean(objects: &[FrameScore]) -> Option<FrameScore> {
    let count = objects.len() as f64;
    (!objects.is_empty()).then(|| FrameScore {
        region: objects.iter().map(|score| score.region).sum::<f64>() / count,
        contour: objects.iter().map(|score| score.contour).sum::<f64>() / count,
    })
}

/// Writes the masks and the contact sheet of a sequence.
struct SequenceWriter<'a> {
    options: &'a EvalOptions,
    name: &'a str,
    /// Indices of the frames on the sheet.
    chosen: Vec<usize>,
    sheet: ContactSheet,
}

impl<'a> SequenceWriter<'a> {
    fn new(options: &'a EvalOptions, name: &'a str, frames: usize) -> Result<Self> {
        let mut writer = Self { options, name, chosen: Vec::new(), sheet: ContactSheet::default() };
        let Some(out) = &options.out else { return Ok(writer) };
        create_folder(&out.join("masks").join(name))?;
        if options.sheet_frames > 0 {
            create_folder(&out.join("sheets"))?;
            writer.chosen = evenly_spaced(frames, options.sheet_frames);
        }
        Ok(writer)
    }

    fn frame(
        &mut self,
        index: usize,
        frame: &str,
        picture: &RgbImage,
        labels: &LabelMap,
        score: Option<FrameScore>,
    ) -> Result<()> {
        if let Some(out) = &self.options.out {
            labels.save(&out.join("masks").join(self.name).join(format!("{frame}.png")))?;
        }
        if self.chosen.contains(&index) {
            let scores = score.map_or_else(String::new, |score| {
                format!("  J {:.1}  F {:.1}", 100.0 * score.region, 100.0 * score.contour)
            });
            let (width, height) = picture.dimensions();
            let dark =
                self.options.bare_sheets.then(|| RgbImage::from_pixel(width, height, SHEET_BACKGROUND));
            self.sheet.push(dark.as_ref().unwrap_or(picture), labels, &format!("{frame}{scores}"));
        }
        Ok(())
    }

    fn finish(mut self, score: &SequenceScore) -> Result<()> {
        let Some(out) = self.options.out.as_ref().filter(|_| self.options.sheet_frames > 0) else {
            return Ok(());
        };
        let summary = score.summary();
        self.sheet.title = format!(
            "{}  J&F {:.1}  J {:.1}  F {:.1}",
            self.name,
            100.0 * summary.region_and_contour(),
            100.0 * summary.region.mean,
            100.0 * summary.contour.mean
        );
        self.sheet.save(&out.join("sheets").join(format!("{}.png", self.name)))
    }
}

/// Returns at most `wanted` of the indices 0..`count`, evenly spaced, including the first and the last.
fn evenly_spaced(count: usize, wanted: usize) -> Vec<usize> {
    if wanted >= count {
        return (0..count).collect();
    }
    (0..wanted).map(|i| i * (count - 1) / (wanted - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_reverse_at_the_first_and_the_last_frame() {
        assert_eq!((0..9).map(|step| looped(step, 4)).collect::<Vec<_>>(), [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!((0..3).map(|step| looped(step, 1)).collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn corrections_are_evenly_spaced() {
        let after = |count: usize| (0..12).filter(|&i| corrects_after(i, 12, count)).collect::<Vec<_>>();
        assert_eq!(after(0), [0; 0]);
        assert_eq!(after(1), [5]);
        assert_eq!(after(3), [2, 5, 8]);
    }

    #[test]
    fn sheet_frames_are_evenly_spaced() {
        assert_eq!(evenly_spaced(100, 4), [0, 33, 66, 99]);
        assert_eq!(evenly_spaced(3, 12), [0, 1, 2]);
        assert_eq!(evenly_spaced(10, 1), [0]);
        assert_eq!(evenly_spaced(0, 3), [0; 0]);
    }
}
