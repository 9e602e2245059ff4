//! Long videos of which the truth is known: a sequence played forwards and backwards again and again. At every
//! return to its first frame the mask is that of the reference, so that what is left of it tells how a method
//! drifts.

use indicatif::ProgressBar;

use crate::dataset::{Dataset, Sequence};
use crate::eval::read_first;
use crate::method::Propagator;
use crate::score::{Bitmap, region_similarity};
use crate::{Error, Result};

/// Region similarity below which a mask is no longer one of its object.
pub const COLLAPSED: f64 = 0.5;

/// One return to the first frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Return {
    /// Frames after the first one by then.
    pub frame: usize,
    /// Region similarity J, the mean over the objects.
    pub region: f64,
}

/// One sequence's outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// The sequence.
    pub sequence: String,
    /// Its frames.
    pub frames: usize,
    /// The returns, in their order; the last at or before the number of frames that were asked for.
    pub returns: Vec<Return>,
}

impl Loop {
    /// The frame from whose return on J was below [`COLLAPSED`] to the end.
    pub fn collapsed(&self) -> Option<usize> {
        let alive = self.returns.iter().rposition(|back| back.region >= COLLAPSED);
        self.returns.get(alive.map_or(0, |alive| alive + 1)).map(|back| back.frame)
    }

    /// Mean J of all returns.
    pub fn mean(&self) -> f64 {
        self.returns.iter().map(|back| back.region).sum::<f64>() / self.returns.len() as f64
    }
}

/// Plays each sequence up to its last return within `length` frames. `progress` counts frames.
///
/// # Errors
/// A sequence of one frame, or one that does not return within `length` frames; a broken file; a method that
/// fails.
pub fn play(
    propagator: &mut dyn Propagator,
    dataset: &Dataset,
    length: usize,
    progress: &ProgressBar,
) -> Result<Vec<Loop>> {
    let mut frames = 0;
    for sequence in dataset.sequences() {
        frames += frames_to_play(sequence, length)?;
    }
    progress.set_length(frames as u64);
    dataset.sequences().iter().map(|sequence| one(propagator, sequence, length, progress)).collect()
}

/// Frames after the first, of whole tours alone.
fn frames_to_play(sequence: &Sequence, length: usize) -> Result<usize> {
    let frames = sequence.tracked()?.len();
    let tour = 2 * frames.saturating_sub(1);
    if tour == 0 || tour > length {
        let reason = format!(
            "its {frames} frames forwards and backwards are {tour}; it needs at least two frames, and \
             a length of at least so many"
        );
        return Err(Error::score(sequence.name(), reason));
    }
    Ok(length / tour * tour)
}

fn one(
    propagator: &mut dyn Propagator,
    sequence: &Sequence,
    length: usize,
    progress: &ProgressBar,
) -> Result<Loop> {
    let name = sequence.name();
    progress.set_message(name.to_string());
    let frames = sequence.tracked()?;
    let (first, objects) = read_first(sequence)?;
    let truth = first.without_void();
    let tour = 2 * (frames.len() - 1);
    let mut returns = Vec::new();
    propagator.start(&frames[0].read_picture()?, &first)?;
    for step in 1..=frames_to_play(sequence, length)? {
        let phase = step % tour;
        let frame = &frames[phase.min(tour - phase)];
        let place = || format!("{name}, frame {} at step {step}", frame.name());
        let labels = propagator
            .step(&frame.read_picture()?, first.width(), first.height())
            .map_err(|error| error.at(place()))?;
        if phase == 0 {
            let of = |id| region_similarity(&Bitmap::of_object(&labels, id), &Bitmap::of_object(&truth, id));
            let region = (1..=objects).map(of).sum::<f64>() / f64::from(objects);
            returns.push(Return { frame: step, region });
        }
        progress.inc(1);
    }
    Ok(Loop { sequence: name.to_string(), frames: frames.len(), returns })
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use tempfile::TempDir;

    use super::*;
    use crate::dataset::Selection;
    use crate::method::Frozen;
    use crate::{LabelMap, indexed_png};

    /// A column of the object's colour that moves one pixel a frame.
    fn data(frames: usize) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let folders = ["JPEGImages/s", "Annotations/s"].map(|folder| root.path().join(folder));
        folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        for frame in 0..frames {
            let ids = (0..20 * 10).map(|i| u8::from(i % 20 == frame)).collect();
            let map = LabelMap::new(20, 10, ids).unwrap();
            indexed_png::write(&folders[1].join(format!("{frame}.png")), &map).unwrap();
            let picture = RgbImage::from_pixel(20, 10, Rgb([frame as u8 * 20; 3]));
            picture.save(folders[0].join(format!("{frame}.png"))).unwrap();
        }
        root
    }

    fn open(root: &TempDir) -> Dataset {
        Dataset::open(root.path(), &Selection::default()).unwrap()
    }

    /// Reads the frame's number from its colour, draws the object there until `good` steps, and elsewhere then.
    #[derive(Default)]
    struct Reader {
        steps: usize,
        good: usize,
        seen: Vec<usize>,
    }

    impl Propagator for Reader {
        fn start(&mut self, _: &RgbImage, _: &LabelMap) -> Result<()> {
            Ok(())
        }

        fn step(&mut self, picture: &RgbImage, width: usize, height: usize) -> Result<LabelMap> {
            let frame = usize::from(picture.get_pixel(0, 0).0[0]) / 20;
            self.seen.push(frame);
            self.steps += 1;
            let at = if self.steps <= self.good { frame } else { 19 };
            let ids = (0..width * height).map(|i| u8::from(i % width == at)).collect();
            LabelMap::new(width, height, ids)
        }
    }

    #[test]
    fn forwards_and_backwards_again_and_again() {
        let root = data(4);
        let mut reader = Reader { good: usize::MAX, ..Reader::default() };
        let loops = play(&mut reader, &open(&root), 14, &ProgressBar::hidden()).unwrap();
        assert_eq!(reader.seen, [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0], "whole tours alone");
        let found: Vec<_> = loops[0].returns.iter().map(|back| (back.frame, back.region)).collect();
        assert_eq!(found, [(6, 1.0), (12, 1.0)]);
        assert_eq!((loops[0].collapsed(), loops[0].mean()), (None, 1.0));
    }

    #[test]
    fn a_collapse_is_told_with_its_frame() {
        let root = data(3);
        let mut reader = Reader { good: 9, ..Reader::default() };
        let loops = play(&mut reader, &open(&root), 20, &ProgressBar::hidden()).unwrap();
        assert_eq!(loops[0].collapsed(), Some(12));
        assert_eq!(loops[0].mean(), 2.0 / 5.0);
        let recovered = [0.9, 0.1, 0.8].map(|region| Return { frame: 4, region });
        let back = Loop { sequence: "s".into(), frames: 3, returns: recovered.to_vec() };
        assert_eq!(back.collapsed(), None);
    }

    #[test]
    fn the_frozen_mask_is_right_at_every_return() {
        let root = data(5);
        let loops = play(&mut Frozen::default(), &open(&root), 100, &ProgressBar::hidden()).unwrap();
        assert_eq!(loops[0].returns.len(), 12);
        assert_eq!(loops[0].mean(), 1.0);
    }

    #[test]
    fn sequences_too_long_or_too_short_are_named() {
        for (frames, length) in [(1, 100), (5, 7)] {
            let root = data(frames);
            let error = play(&mut Frozen::default(), &open(&root), length, &ProgressBar::hidden());
            let message = error.unwrap_err().to_string();
            assert!(message.contains(" s:") && message.contains("at least"), "{message}");
        }
    }
}
