//! Runs a method over a data set, keeps its masks, and scores them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use indicatif::ProgressBar;

use crate::confidence::ConfidenceRow;
use crate::dataset::{Dataset, Frame, Sequence};
use crate::method::Propagator;
use crate::report::{ContactSheet, Speed, Tile};
use crate::score::{Flicker, FrameScore, Scores, SequenceScore, objects_of, score_frame, scored_range};
use crate::{Error, LabelMap, Result, indexed_png};

/// In the place of frames that are not shown.
const DARK: Rgb<u8> = Rgb([40, 40, 40]);

/// What evaluation keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvalOptions {
    /// The folder for `masks/<sequence>/<frame>.png` and `sheets/<sequence>.png`; `None` writes
    /// nothing, as for validation while training.
    pub out: Option<PathBuf>,
    /// Frames on a sequence's contact sheet, evenly spaced from first to last; 0 draws none.
    pub sheet_frames: usize,
    /// Sheets show masks without the frames that they are of.
    pub bare_sheets: bool,
    /// Plays each sequence forwards and backwards until so many frames are tracked, for long videos. 0 = once forwards.
    pub loop_frames: usize,
}

/// What evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The measures of every sequence.
    pub scores: Scores,
    /// Frames a second through [`Propagator::step`] alone, without reading and writing files.
    pub speed: Speed,
    /// Mean over the sequences of how much alpha flickers, of 255; nothing for methods without alpha.
    pub flicker: Option<f64>,
    /// Confidence beside truth in every scored frame, for methods that have a confidence.
    pub confidence: Vec<ConfidenceRow>,
}

/// Runs `propagator` over every sequence of `dataset` from its first annotated frame on, and scores
/// what it makes of the others against the annotations. `progress` counts frames.
///
/// The masks have the size of the sequence's first annotation. The mask of the first frame is that
/// annotation, so that the folder is a whole submission to the benchmark.
///
/// # Errors
///
/// When a picture or annotation is missing or broken, a sequence cannot be scored (known before the
/// first one runs), the method fails, or a file cannot be written. The message names the file, or the
/// sequence and frame.
pub fn evaluate(
    propagator: &mut dyn Propagator,
    dataset: &Dataset,
    options: &EvalOptions,
    progress: &ProgressBar,
) -> Result<Evaluation> {
    let mut frames = 0;
    for sequence in dataset.sequences() {
        frames += check(sequence, options)?;
    }
    progress.set_length(frames as u64);

    let mut scores = Scores::default();
    let mut speed = Speed::default();
    let (mut stepped, mut busy) = (0, Duration::ZERO);
    let (mut flickers, mut confidence) = (Vec::new(), Vec::new());
    for sequence in dataset.sequences() {
        progress.set_message(sequence.name().to_string());
        let run = Run::of(propagator, sequence, options, progress)?;
        let fps = per_second(run.stepped, run.busy);
        speed.sequences.extend(fps.map(|fps| (sequence.name().to_string(), fps)));
        stepped += run.stepped;
        busy += run.busy;
        flickers.extend(run.flicker);
        confidence.extend(run.confidence);
        scores.sequences.push(run.score);
    }
    speed.total = per_second(stepped, busy);
    let flicker = (!flickers.is_empty()).then(|| flickers.iter().sum::<f64>() / flickers.len() as f64);
    Ok(Evaluation { scores, speed, flicker, confidence })
}

/// Number of frames to run over; an error when the sequence could not be scored after an hour's run.
fn check(sequence: &Sequence, options: &EvalOptions) -> Result<usize> {
    scored_range(sequence.name(), sequence.annotated().count())?;
    let frames = sequence.tracked()?;
    read_first(sequence)?;
    Ok(frames.len().max(options.loop_frames))
}

/// Index of the frame of a sequence of `count` frames that is played at `step`, forwards and backwards in turn.
fn looped(step: usize, count: usize) -> usize {
    let tour = (2 * count).saturating_sub(2).max(1);
    (step % tour).min(tour - step % tour)
}

/// The first annotation, with its number of objects.
pub(crate) fn read_first(sequence: &Sequence) -> Result<(LabelMap, u8)> {
    let (_, path) = sequence.annotated().next().ok_or_else(|| {
        Error::score(sequence.name(), "it has no annotation to begin with; put its first mask there")
    })?;
    let first = indexed_png::read(path)?;
    let objects = objects_of(&path.display().to_string(), &first)?;
    Ok((first, objects))
}

fn per_second(frames: usize, time: Duration) -> Option<f64> {
    (frames > 0 && !time.is_zero()).then(|| frames as f64 / time.as_secs_f64())
}

/// One sequence's outcome.
struct Run {
    score: SequenceScore,
    stepped: usize,
    busy: Duration,
    flicker: Option<f64>,
    confidence: Vec<ConfidenceRow>,
}

impl Run {
    fn of(
        propagator: &mut dyn Propagator,
        sequence: &Sequence,
        options: &EvalOptions,
        progress: &ProgressBar,
    ) -> Result<Self> {
        let name = sequence.name();
        let frames = sequence.tracked()?;
        let annotated: Vec<_> = sequence.annotated().map(|(frame, _)| frame).collect();
        let scored = &annotated[scored_range(name, annotated.len())?];
        let (first, objects) = read_first(sequence)?;
        let (width, height) = (first.width(), first.height());
        let loops = options.loop_frames > 0;
        let played: Vec<&Frame> = match loops {
            true => (0..options.loop_frames).map(|step| &frames[looped(step, frames.len())]).collect(),
            false => frames.iter().collect(),
        };
        let mut keep = Keep::new(options, name, played.len())?;
        let mut confidence = Vec::new();
        let mut scores = Vec::with_capacity(scored.len());
        let mut busy = Duration::ZERO;
        let mut flicker = Flicker::default();

        let mut next = None;
        for (i, frame) in played.iter().enumerate() {
            let frame_name = if loops { format!("{i:05}") } else { frame.name().to_string() };
            let picture = next.take().map_or_else(|| frame.read_picture(), Ok)?;
            next = played.get(i + 1).map(|frame| frame.read_picture()).transpose()?;
            let place = || format!("{name}, frame {}", frame.name());
            let labels = if i == 0 {
                propagator.start(&picture, &first).map_err(|error| error.at(place()))?;
                first.without_void()
            } else {
                let begin = Instant::now();
                if let Some(next) = &next {
                    propagator.expect(next).map_err(|error| error.at(place()))?;
                }
                let labels = propagator.step(&picture, width, height);
                busy += begin.elapsed();
                labels.map_err(|error| error.at(place()))?
            };
            let mut score = None;
            // The first and the last frame of a loop are not scored, as in a single pass.
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
            keep.frame(i, &frame_name, &picture, &labels, score)?;
            progress.inc(1);
        }
        let score = SequenceScore::gather(name, objects, scores);
        keep.finish(&score)?;
        Ok(Self { score, stepped: played.len() - 1, busy, flicker: flicker.mean(), confidence })
    }
}

fn mean(objects: &[FrameScore]) -> Option<FrameScore> {
    let count = objects.len() as f64;
    (!objects.is_empty()).then(|| FrameScore {
        region: objects.iter().map(|score| score.region).sum::<f64>() / count,
        contour: objects.iter().map(|score| score.contour).sum::<f64>() / count,
    })
}

/// Where one sequence's masks and contact sheet go.
#[derive(Default)]
struct Keep {
    name: String,
    masks: Option<PathBuf>,
    sheet: Option<PathBuf>,
    /// It shows masks without frames.
    bare: bool,
    /// The frames that go onto the sheet.
    chosen: Vec<usize>,
    tiles: Vec<Tile>,
}

impl Keep {
    fn new(options: &EvalOptions, name: &str, frames: usize) -> Result<Self> {
        let mut keep = Self { name: name.to_string(), bare: options.bare_sheets, ..Self::default() };
        let Some(out) = &options.out else {
            return Ok(keep);
        };
        let masks = out.join("masks").join(name);
        create_folder(&masks)?;
        keep.masks = Some(masks);
        if options.sheet_frames > 0 {
            let sheets = out.join("sheets");
            create_folder(&sheets)?;
            keep.sheet = Some(sheets.join(format!("{name}.png")));
            keep.chosen = evenly(frames, options.sheet_frames);
        }
        Ok(keep)
    }

    fn frame(
        &mut self,
        index: usize,
        frame: &str,
        picture: &RgbImage,
        labels: &LabelMap,
        score: Option<FrameScore>,
    ) -> Result<()> {
        if let Some(masks) = &self.masks {
            indexed_png::write(&masks.join(format!("{frame}.png")), labels)?;
        }
        if self.chosen.contains(&index) {
            let caption = match score {
                Some(score) => {
                    format!("{frame}  J {:.1}  F {:.1}", 100.0 * score.region, 100.0 * score.contour)
                }
                None => frame.to_string(),
            };
            let dark = self.bare.then(|| RgbImage::from_pixel(picture.width(), picture.height(), DARK));
            let picture = dark.as_ref().unwrap_or(picture);
            self.tiles.push(Tile::new(picture, labels, ContactSheet::TILE_WIDTH, caption));
        }
        Ok(())
    }

    fn finish(self, score: &SequenceScore) -> Result<()> {
        let Some(path) = self.sheet else {
            return Ok(());
        };
        let summary = score.summary();
        let mut sheet = ContactSheet::new(format!(
            "{}  J&F {:.1}  J {:.1}  F {:.1}",
            self.name,
            100.0 * summary.region_and_contour(),
            100.0 * summary.region.mean,
            100.0 * summary.contour.mean
        ));
        self.tiles.into_iter().for_each(|tile| sheet.push(tile));
        sheet.save(&path)
    }
}

fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::write(path, source))
}

/// At most `wanted` of the indices 0..`count`, the first and the last among them.
fn evenly(count: usize, wanted: usize) -> Vec<usize> {
    if wanted >= count {
        return (0..count).collect();
    }
    (0..wanted).map(|i| i * (count - 1) / (wanted - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_turn_at_the_first_and_the_last_frame() {
        assert_eq!((0..9).map(|step| looped(step, 4)).collect::<Vec<_>>(), [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!((0..3).map(|step| looped(step, 1)).collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn sheets_span_the_sequence() {
        assert_eq!(evenly(100, 4), [0, 33, 66, 99]);
        assert_eq!(evenly(3, 12), [0, 1, 2]);
        assert_eq!(evenly(10, 1), [0]);
        assert_eq!(evenly(0, 3), [0; 0]);
    }
}
