// SPDX-License-Identifier: MPL-2.0

//! Mattes of videos whose alpha is known.
//!
//! ```text
//! ROOT/<sequence>/frame/<frame>.png or .jpg
//! ROOT/<sequence>/alpha/<frame>.png
//! ```
//!
//! The alpha of the first frame is the reference mask. That frame is not scored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gstfastganseg::image::{OwnedPicture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::{Guide, MatteSettings, PostProcessor};
use gstfastganseg::tracker::Tracker;
use image::ImageFormat;
use indicatif::ProgressBar;

use crate::dataset::{PICTURE_EXTENSIONS, by_number, files, folders};
use crate::score::{AlphaPlane, MatteScore, MatteScorer};
use crate::{Error, Result};

/// A video with its alpha.
#[derive(Clone, Debug)]
pub struct MatteSequence {
    name: String,
    folder: PathBuf,
    /// Names of the frames without extension, and their alpha, in order.
    frames: Vec<(String, PathBuf)>,
    /// Pictures by the names of the frames.
    pictures: BTreeMap<String, PathBuf>,
}

impl MatteSequence {
    /// Name of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    fn picture(&self, frame: &str) -> Result<OwnedPicture> {
        let Some(path) = self.pictures.get(frame) else {
            let path = self.folder.join("frame").join(format!("{frame}.png"));
            return Err(Error::dataset(
                &path,
                "no such file, but alpha has this frame: add it as PNG or JPEG",
            ));
        };
        Ok(OwnedPicture::open(path)?)
    }
}

/// Lists the sequences of `root` by name.
///
/// # Errors
/// There is no sequence, or one has fewer than three frames with alpha.
pub fn sequences(root: &Path) -> Result<Vec<MatteSequence>> {
    let mut found = Vec::new();
    for name in folders(root)? {
        let folder = root.join(&name);
        if !folder.join("alpha").is_dir() {
            continue;
        }
        let mut frames = files(&folder.join("alpha"), &["png"])?;
        frames.sort_by(|(a, _), (b, _)| by_number(a, b));
        if frames.len() < 3 {
            let reason = "it has fewer than 3 PNG: add the alpha of every frame; the first one is not scored";
            return Err(Error::dataset(&folder.join("alpha"), reason));
        }
        let pictures = files(&folder.join("frame"), &PICTURE_EXTENSIONS)?.into_iter().collect();
        found.push(MatteSequence { name, folder, frames, pictures });
    }
    if found.is_empty() {
        let reason = "it has no sequences: give a folder with SEQUENCE/frame/*.png and SEQUENCE/alpha/*.png";
        return Err(Error::dataset(root, reason));
    }
    Ok(found)
}

/// Reads a grey PNG.
fn read_alpha(path: &Path) -> Result<AlphaPlane> {
    let bad = |reason: String| Error::picture(path, reason);
    let bytes = fs::read(path).map_err(|error| {
        bad(format!(
            "it cannot be opened ({error}): each frame needs a readable PNG with the name of its alpha"
        ))
    })?;
    let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png)
        .map_err(|error| bad(format!("it cannot be decoded ({error}): write 8-bit grey PNG")))?
        .into_luma8();
    AlphaPlane::new(picture.width() as usize, picture.into_raw())
        .ok_or_else(|| bad("it has no pixels".into()))
}

/// Scores the mattes `mattes/<sequence>/<frame>.png`, which exist already.
///
/// # Errors
/// A file is missing, cannot be read or has another size than the alpha.
pub fn score_mattes(sequence: &MatteSequence, mattes: &Path, progress: &ProgressBar) -> Result<MatteScore> {
    let mut scorer = MatteScorer::default();
    for (frame, alpha) in &sequence.frames[1..] {
        let path = mattes.join(&sequence.name).join(format!("{frame}.png"));
        let truth = read_alpha(alpha)?;
        scorer.add(&path.display().to_string(), read_alpha(&path)?, truth)?;
        progress.inc(1);
    }
    finish(&scorer, sequence)
}

fn finish(scorer: &MatteScorer, sequence: &MatteSequence) -> Result<MatteScore> {
    scorer.finish().ok_or_else(|| Error::score(sequence.name(), "it has fewer than 3 frames: add frames"))
}

/// Mattes of a model, with the post-processing of the element.
#[derive(Debug)]
pub struct Matter {
    tracker: Tracker,
    settings: MatteSettings,
}

impl Matter {
    /// Runs `tracker`; `settings` are those of the element.
    pub fn new(tracker: Tracker, settings: MatteSettings) -> Self {
        Self { tracker, settings }
    }

    /// Makes the mattes of a sequence and scores them. With `out`, writes them as `out/<sequence>/<frame>.png`, that of
    /// the first frame included.
    ///
    /// # Errors
    /// A file cannot be read or written, sizes differ, or the network fails.
    pub fn score(
        &mut self,
        sequence: &MatteSequence,
        out: Option<&Path>,
        progress: &ProgressBar,
    ) -> Result<MatteScore> {
        let folder = out.map(|out| out.join(&sequence.name));
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).map_err(|source| Error::write(folder, source))?;
        }
        let mut post_processor = PostProcessor::default();
        let mut scorer = MatteScorer::default();
        for (index, (frame, alpha)) in sequence.frames.iter().enumerate() {
            let place = || format!("{}, frame {frame}", sequence.name);
            let truth = read_alpha(alpha)?;
            let (width, height) = truth.size();
            let picture = sequence.picture(frame)?;
            let mut view = picture.as_picture();
            if (view.width, view.height) != (width, height) {
                let reason = format!(
                    "it has {width}x{height} pixels, but the frame {}x{}: give both the same size",
                    view.width, view.height
                );
                return Err(Error::picture(alpha, reason));
            }
            let mut values = truth.values().to_vec();
            if index == 0 {
                let mask = ReferenceMask::open(alpha)?;
                self.tracker
                    .set_reference(&mut view, &mask)
                    .map_err(|error| Error::from(error).at(place()))?;
            } else {
                let matte = self.tracker.step(&mut view).map_err(|error| Error::from(error).at(place()))?;
                let mut plane = PlaneMut { data: &mut values, width, height, stride: width };
                let guide = Guide::from_picture(&view);
                post_processor.write_alpha(&self.settings, Some(&matte), guide.as_ref(), &mut plane)?;
            }
            if let Some(folder) = &folder {
                let path = folder.join(format!("{frame}.png"));
                let size = (width as u32, height as u32);
                image::save_buffer(&path, &values, size.0, size.1, image::ColorType::L8)
                    .map_err(|error| Error::write(&path, std::io::Error::other(error)))?;
            }
            if let Some(matte) = AlphaPlane::new(width, values).filter(|_| index > 0) {
                scorer.add(&place(), matte, truth)?;
                progress.inc(1);
            }
        }
        finish(&scorer, sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_a_picture_are_named_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/alpha")).unwrap();
        for frame in 0..3 {
            fs::write(root.path().join(format!("a/alpha/{frame}.png")), "").unwrap();
        }
        let found = sequences(root.path()).unwrap();
        let error = found[0].picture("1").unwrap_err().to_string();
        assert!(error.contains("a/frame/1.png: no such file") && error.contains("add it"), "{error}");
    }
}
