// SPDX-License-Identifier: MPL-2.0

//! Mattes of videos whose alpha is known.
//!
//! ```text
//! ROOT/<sequence>/frame/<frame>.png or .jpg
//! ROOT/<sequence>/alpha/<frame>.png
//! ```
//!
//! The alpha of the first frame is the reference mask. That frame is not scored. Frames before it are not used; every
//! frame after it needs alpha, since a gap would change the video that is tracked.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gstfastganseg::image::{OwnedPicture, PlaneMut};
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::matte::{Guide, MatteSettings, PostProcessor};
use gstfastganseg::tracker::Tracker;
use image::{DynamicImage, ImageFormat};
use indicatif::ProgressBar;

use crate::dataset::{PICTURE_EXTENSIONS, by_number, files, folders};
use crate::files::create_folder;
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
/// There is no sequence, or one has fewer than three frames with alpha, or a frame without alpha after them.
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
        check_gaps(&folder, &frames, &pictures)?;
        found.push(MatteSequence { name, folder, frames, pictures });
    }
    if found.is_empty() {
        let reason = "it has no sequences: give a folder with SEQUENCE/frame/*.png and SEQUENCE/alpha/*.png";
        return Err(Error::dataset(root, reason));
    }
    Ok(found)
}

/// Checks that every picture after the first frame with alpha has alpha.
fn check_gaps(
    folder: &Path,
    frames: &[(String, PathBuf)],
    pictures: &BTreeMap<String, PathBuf>,
) -> Result<()> {
    let known: BTreeSet<&String> = frames.iter().map(|(name, _)| name).collect();
    let follows = |name: &&String| by_number(name, &frames[0].0) == Ordering::Greater;
    match pictures.keys().find(|name| follows(name) && !known.contains(name)) {
        Some(name) => Err(Error::dataset(
            &folder.join("alpha").join(format!("{name}.png")),
            format!(
                "no such file, but {} is a frame after the first one with alpha: add its alpha, or move the frame away",
                pictures[name].display()
            ),
        )),
        None => Ok(()),
    }
}

/// Position of the colour type in a PNG. Its bits say whether there is a palette, which the decoder replaces by its colours,
/// colour and an alpha channel.
const COLOUR_TYPE: usize = 25;
const PALETTE: u8 = 1;
const ALPHA: u8 = 4;

/// Reads a grey PNG, or the alpha channel of a PNG if it is not opaque everywhere.
fn read_alpha(path: &Path) -> Result<AlphaPlane> {
    let bad = |reason: String| Error::picture(path, reason);
    let bytes = fs::read(path).map_err(|error| {
        bad(format!(
            "it cannot be opened ({error}): each frame needs a readable PNG with the name of its alpha"
        ))
    })?;
    let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png)
        .map_err(|error| bad(format!("it cannot be decoded ({error}): write 8-bit grey PNG")))?;
    let width = picture.width() as usize;
    let kind = bytes.get(COLOUR_TYPE).copied().unwrap_or(0);
    if kind & PALETTE != 0 {
        return Err(bad("it has a palette, which does not give alpha: write 8-bit grey PNG".into()));
    }
    let values = alpha_values(picture, kind & ALPHA != 0).ok_or_else(|| {
        bad("it is in colour without transparency, which does not give alpha: write 8-bit grey PNG".into())
    })?;
    AlphaPlane::new(width, values).ok_or_else(|| bad("it has no pixels".into()))
}

/// Returns the alpha channel, if there is one that is not opaque everywhere, or the grey values; `None` for colour.
fn alpha_values(picture: DynamicImage, has_alpha: bool) -> Option<Vec<u8>> {
    if !has_alpha && !picture.color().has_color() {
        return Some(picture.into_luma8().into_raw());
    }
    let samples = picture.into_rgba16().into_raw();
    let pixels = || samples.chunks_exact(4);
    let channel = |channel: usize| {
        let to_8_bits = |value: u16| ((u32::from(value) * 255 + 32_767) / 65_535) as u8;
        pixels().map(|pixel| to_8_bits(pixel[channel])).collect()
    };
    if has_alpha && pixels().any(|pixel| pixel[3] != u16::MAX) {
        return Some(channel(3));
    }
    pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]).then(|| channel(0))
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

/// Makes the mattes of a sequence with `tracker` and the post-processing of the element, and scores them. With `out`, writes
/// them as `out/<sequence>/<frame>.png`, that of the first frame included.
///
/// # Errors
/// A file cannot be read or written, sizes differ, or the network fails.
pub fn score_model(
    tracker: &mut Tracker,
    settings: &MatteSettings,
    sequence: &MatteSequence,
    out: Option<&Path>,
    progress: &ProgressBar,
) -> Result<MatteScore> {
    let folder = out.map(|out| out.join(&sequence.name));
    if let Some(folder) = &folder {
        create_folder(folder)?;
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
            // Read as the truth is; the element would take values up to 16 for objects.
            let mask = ReferenceMask::from_soft(width, height, values.clone());
            let mask = mask.map_err(|error| match error {
                gstfastganseg::Error::Mask { reason, .. } => Error::mask(alpha, reason),
                error => error.into(),
            })?;
            tracker.set_reference(&mut view, &mask).map_err(|error| Error::from(error).at(place()))?;
        } else {
            let matte = tracker.step(&mut view).map_err(|error| Error::from(error).at(place()))?;
            let mut plane = PlaneMut { data: &mut values, width, height, stride: width };
            let guide = Guide::from_picture(&view);
            post_processor.write_alpha(settings, Some(&matte), guide.as_ref(), &mut plane)?;
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

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;
    use crate::LabelMap;

    #[test]
    fn alpha_is_read_from_grey_or_an_alpha_channel_and_not_from_colours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.png");
        let read = |picture: &dyn Fn() -> DynamicImage| {
            picture().save(&path).unwrap();
            read_alpha(&path).map(|alpha| alpha.values().to_vec()).map_err(|error| error.to_string())
        };
        const GREY: [u8; 2] = [90, 255];
        let grey = |x: u32| GREY[x as usize];
        let pictures: [&dyn Fn() -> DynamicImage; 6] = [
            &|| GrayImage::from_fn(2, 1, |x, _| Luma([grey(x)])).into(),
            &|| ImageBuffer::from_fn(2, 1, |x, _| Luma([257 * u16::from(grey(x)) - 20])).into(),
            &|| GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([grey(x), 255])).into(),
            &|| RgbImage::from_fn(2, 1, |x, _| Rgb([grey(x); 3])).into(),
            &|| GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([7, grey(x)])).into(),
            &|| RgbaImage::from_fn(2, 1, |x, _| Rgba([9, 200, 30, grey(x)])).into(),
        ];
        for (index, picture) in pictures.into_iter().enumerate() {
            assert_eq!(read(picture).as_deref(), Ok(&GREY[..]), "{index}");
        }
        let red = || RgbImage::from_fn(2, 1, |x, _| Rgb([grey(x), 0, 0]));
        let opaque = || DynamicImage::from(red()).into_rgba8().into();
        for picture in [&(|| red().into()) as &dyn Fn() -> DynamicImage, &opaque] {
            let error = read(picture).unwrap_err();
            assert!(error.contains("0.png: it is in colour") && error.contains("grey PNG"), "{error}");
        }
        LabelMap::new(2, 1, vec![0, 1]).unwrap().save(&path).unwrap();
        let error = read_alpha(&path).unwrap_err().to_string();
        assert!(error.contains("0.png: it has a palette") && error.contains("grey PNG"), "{error}");
    }

    #[test]
    fn a_frame_without_alpha_is_refused_and_not_skipped() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str| {
            let path = root.path().join("a").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for frame in [2, 3, 10, 11] {
            write(&format!("alpha/{frame}.png"));
        }
        // A frame before the first alpha is not used.
        for frame in [1, 2, 3, 10, 11] {
            write(&format!("frame/{frame}.jpg"));
        }
        assert_eq!(sequences(root.path()).unwrap()[0].frames(), 4);
        for gap in ["5", "12"] {
            write(&format!("frame/{gap}.jpg"));
            let error = sequences(root.path()).unwrap_err().to_string();
            let words = [format!("a/alpha/{gap}.png"), format!("a/frame/{gap}.jpg"), "add its alpha".into()];
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            fs::remove_file(root.path().join(format!("a/frame/{gap}.jpg"))).unwrap();
        }
    }

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
