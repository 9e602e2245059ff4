// SPDX-License-Identifier: MPL-2.0

//! Folders of video frames and masks in the layout of the DAVIS benchmark.
//!
//! ```text
//! ROOT/JPEGImages/[480p/]<sequence>/<frame>.jpg
//! ROOT/Annotations/[480p/]<sequence>/<frame>.png
//! ROOT/ImageSets/2017/val.txt
//! ```
//!
//! The folder of the resolution is optional. Frames are ordered by name, in which numbers count as such: `2`
//! precedes `10`. A frame may lack an annotation (YouTube-VOS annotates every fifth) and, if only masks are compared,
//! a picture.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gstfastganseg::image::OwnedPicture;
use image::RgbImage;

use crate::{Error, LabelMap, Result};

/// Folder of pictures.
const PICTURES: &str = "JPEGImages";
/// Extensions of pictures, in any case.
pub(crate) const PICTURE_EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Folder of masks.
const ANNOTATIONS: &str = "Annotations";
/// Resolution used by default, if present.
const DEFAULT_RESOLUTION: &str = "480p";

/// Part of a folder to read.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Text file with one sequence per line; `None` = `ImageSets/**/val.txt` if present, else every folder. Empty
    /// lines and lines that begin with `#` are skipped. Lists of DAVIS-2016, which name the files of every frame,
    /// are valid.
    pub split: Option<PathBuf>,
    /// Sequences by name, in this order, instead of those of a list; empty = those of `split`.
    pub sequences: Vec<String>,
    /// Folder of the resolution, such as `1080p`; `None` = `480p` if present, else no such folder.
    pub resolution: Option<String>,
}

/// Sequences found in a folder.
#[derive(Clone, Debug)]
pub struct Dataset {
    root: PathBuf,
    split: Option<PathBuf>,
    sequences: Vec<Sequence>,
}

/// Frames of one video.
#[derive(Clone, Debug)]
pub struct Sequence {
    name: String,
    pictures: PathBuf,
    annotations: PathBuf,
    frames: Vec<Frame>,
}

/// Files of one frame.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    name: String,
    picture: Option<PathBuf>,
    annotation: Option<PathBuf>,
}

impl Dataset {
    /// Lists the frames of the selected sequences of `root` without opening pictures.
    ///
    /// # Errors
    /// If `root`, the split or a sequence is missing, or if a sequence has no annotations. The message names the
    /// path and the remedy.
    pub fn open(root: &Path, selection: &Selection) -> Result<Self> {
        Self::open_listed(root, selection, "val.txt")
    }

    /// As [`open`](Self::open), with `ImageSets/**/train.txt` as the default list.
    pub(crate) fn open_for_training(root: &Path, selection: &Selection) -> Result<Self> {
        Self::open_listed(root, selection, "train.txt")
    }

    fn open_listed(root: &Path, selection: &Selection, default_list: &str) -> Result<Self> {
        if !root.is_dir() {
            let reason = "no such folder; give a folder that contains Annotations and JPEGImages";
            return Err(Error::dataset(root, reason));
        }
        let resolution = selection.resolution.as_deref();
        let annotations = level(root, ANNOTATIONS, resolution)?;
        // Scoring needs no pictures.
        let pictures = match root.join(PICTURES).is_dir() {
            true => level(root, PICTURES, resolution)?,
            false => root.join(PICTURES),
        };
        let split = match &selection.split {
            _ if !selection.sequences.is_empty() => None,
            Some(split) => Some(split.clone()),
            None => find_list(root, default_list, resolution)?,
        };
        let names = match &split {
            _ if !selection.sequences.is_empty() => selection.sequences.clone(),
            Some(split) => names_in(split)?,
            None => folders(&annotations)?,
        };
        if names.is_empty() {
            let reason = "it contains no folders of sequences; add them, or give another folder";
            return Err(Error::dataset(&annotations, reason));
        }
        let sequences = names.into_iter().map(|name| {
            let sequence = Sequence::open(name, &pictures, &annotations)?;
            if sequence.annotated().next().is_none() {
                return Err(sequence.without_annotations(split.as_deref(), resolution));
            }
            Ok(sequence)
        });
        Ok(Self { root: root.to_path_buf(), sequences: sequences.collect::<Result<_>>()?, split })
    }

    /// Returns the root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the list of the sequences; `None` = every folder.
    pub fn split(&self) -> Option<&Path> {
        self.split.as_deref()
    }

    /// Returns the sequences, in the order of the list or by name.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Keeps every `step`-th frame, from the first annotated frame of each sequence on.
    pub(crate) fn thinned(mut self, step: usize) -> Self {
        for sequence in &mut self.sequences {
            let first = sequence.frames.iter().position(|frame| frame.annotation.is_some());
            let frames = std::mem::take(&mut sequence.frames);
            sequence.frames = frames.into_iter().skip(first.unwrap_or(0)).step_by(step.max(1)).collect();
        }
        self
    }

    /// Returns the number of frames in all sequences.
    pub fn frames(&self) -> usize {
        self.sequences.iter().map(|s| s.frames.len()).sum()
    }
}

impl Sequence {
    fn open(name: String, pictures: &Path, annotations: &Path) -> Result<Self> {
        let (pictures, annotations) = (pictures.join(&name), annotations.join(&name));
        let mut frames = BTreeMap::<String, Frame>::new();
        for (stem, path) in files(&pictures, &PICTURE_EXTENSIONS)? {
            frames.entry(stem).or_default().picture = Some(path);
        }
        for (stem, path) in files(&annotations, &["png"])? {
            frames.entry(stem).or_default().annotation = Some(path);
        }
        let frames = frames.into_iter().map(|(name, frame)| Frame { name, ..frame });
        let mut frames: Vec<Frame> = frames.collect();
        frames.sort_by(|a, b| by_number(&a.name, &b.name));
        Ok(Self { frames, name, pictures, annotations })
    }

    /// Returns the name of the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the frames, in order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Returns the names and masks of the annotated frames, in order.
    pub fn annotated(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.frames.iter().filter_map(|frame| Some((frame.name(), frame.annotation()?)))
    }

    /// Returns the frames to track: those from the first annotated frame on.
    pub(crate) fn tracked(&self) -> Result<&[Frame]> {
        let first = self.frames.iter().position(|frame| frame.annotation.is_some());
        let frames = &self.frames[first.unwrap_or(self.frames.len())..];
        if !self.pictures.is_dir() {
            return Err(Error::dataset(
                &self.pictures,
                format!("no such folder; put the frames of {} there as JPEG files", self.name),
            ));
        }
        match frames.iter().find(|frame| frame.picture.is_none()) {
            Some(frame) => Err(Error::dataset(
                &self.pictures.join(format!("{}.jpg", frame.name)),
                format!(
                    "no such file, but {} has an annotation of this frame; add the file",
                    self.annotations.display()
                ),
            )),
            None => Ok(frames),
        }
    }

    fn without_annotations(&self, split: Option<&Path>, resolution: Option<&str>) -> Error {
        let mut nested = folders(&self.annotations).unwrap_or_default().into_iter();
        let reason = match (self.annotations.is_dir(), nested.next(), split) {
            (true, Some(inner), None) if resolution.is_none() => format!(
                "it contains only folders, such as {inner}; if this folder is a resolution, select it \
                 by name: {}",
                self.name
            ),
            (true, ..) => "it contains no PNG masks; add them, or select sequences with a \
                           split file"
                .to_string(),
            (false, _, Some(split)) => format!(
                "no such folder, but {} lists it; correct the list, or select another \
                 resolution",
                split.display()
            ),
            (false, _, None) => "no such folder; correct the name of the sequence".to_string(),
        };
        Error::dataset(&self.annotations, reason)
    }
}

impl Frame {
    /// Returns the file name without extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of the picture.
    fn picture(&self) -> Option<&Path> {
        self.picture.as_deref()
    }

    /// Returns the path of the mask.
    pub(crate) fn annotation(&self) -> Option<&Path> {
        self.annotation.as_deref()
    }

    /// Returns the path of the mask, or of the picture if there is no mask.
    pub(crate) fn file(&self) -> &Path {
        self.annotation().or(self.picture()).unwrap_or(Path::new(&self.name))
    }

    /// Opens the picture.
    pub(crate) fn read_picture(&self) -> Result<RgbImage> {
        match self.picture() {
            Some(path) => read_picture(path),
            None => Err(Error::dataset(
                self.file(),
                format!("{PICTURES} has no picture of this frame; add it, or remove the mask"),
            )),
        }
    }

    /// Opens the mask; `None` if the frame has none.
    pub(crate) fn read_annotation(&self) -> Result<Option<LabelMap>> {
        self.annotation().map(LabelMap::open).transpose()
    }

    /// Opens picture and mask.
    pub(crate) fn read_annotated(&self) -> Result<(RgbImage, LabelMap)> {
        let picture = self.read_picture()?;
        match self.annotation() {
            Some(path) => {
                let labels = LabelMap::open(path)?;
                check_size(path, &labels, &picture)?;
                Ok((picture, labels))
            }
            None => Err(Error::dataset(
                self.file(),
                format!("{ANNOTATIONS} has no mask of this frame; add it, or remove the picture"),
            )),
        }
    }
}

/// Checks that a mask has the size of its picture.
pub(crate) fn check_size(mask: &Path, labels: &LabelMap, picture: &RgbImage) -> Result<()> {
    let ((width, height), size) = (labels.size(), (picture.width() as usize, picture.height() as usize));
    if size == (width, height) {
        return Ok(());
    }
    let reason = format!(
        "it has {width}x{height} pixels, but its picture has {}x{}; use the same resolution for both",
        size.0, size.1
    );
    Err(Error::mask(mask, reason))
}

/// Opens a JPEG or PNG picture as RGB, as [`OwnedPicture::open`] does.
pub(crate) fn read_picture(path: &Path) -> Result<RgbImage> {
    let (width, height, data) = OwnedPicture::open(path)?.into_rgb();
    let picture = RgbImage::from_raw(width as u32, height as u32, data);
    picture
        .ok_or_else(|| Error::picture(path, "its data does not have the size of its header; save it again"))
}

/// Returns the folder that contains the folders of the sequences.
fn level(root: &Path, kind: &str, resolution: Option<&str>) -> Result<PathBuf> {
    let top = root.join(kind);
    if !top.is_dir() {
        return Err(Error::dataset(
            &top,
            "no such folder; a data set in the layout of DAVIS has Annotations and JPEGImages",
        ));
    }
    let Some(resolution) = resolution else {
        let default = top.join(DEFAULT_RESOLUTION);
        return Ok(if default.is_dir() { default } else { top });
    };
    let path = top.join(resolution);
    if path.is_dir() {
        return Ok(path);
    }
    let found = folders(&top)?;
    let found: Vec<_> = found.iter().map(String::as_str).take(8).collect();
    Err(Error::dataset(&path, format!("no such resolution; {kind} has {}", found.join(", "))))
}

/// Returns the list `name` under `ImageSets`. If there are several, the order of preference is the folder `2017`,
/// `2016`, that of the resolution, `ImageSets` itself, and then the first by name.
fn find_list(root: &Path, name: &str, resolution: Option<&str>) -> Result<Option<PathBuf>> {
    let sets = root.join("ImageSets");
    if !sets.is_dir() {
        return Ok(None);
    }
    let resolution = resolution.unwrap_or(DEFAULT_RESOLUTION);
    for folder in ["2017", "2016", resolution, ""] {
        let list = sets.join(folder).join(name);
        if list.is_file() {
            return Ok(Some(list));
        }
    }
    first_list_under(&sets, name, 4)
}

fn first_list_under(folder: &Path, name: &str, depth: usize) -> Result<Option<PathBuf>> {
    let list = folder.join(name);
    if list.is_file() {
        return Ok(Some(list));
    }
    if depth == 0 {
        return Ok(None);
    }
    for inner in folders(folder)? {
        if let Some(list) = first_list_under(&folder.join(inner), name, depth - 1)? {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

/// Returns the sequences of a list in order, without duplicates.
fn names_in(list: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(list).map_err(|source| Error::read(list, source))?;
    let mut names = Vec::<String>::new();
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = sequence_in(line).ok_or_else(|| {
            let reason = format!("{line:?} is not the name of a sequence; write one name per line");
            Error::dataset(list, reason)
        })?;
        if names.last().is_none_or(|last| last != name) && !names.iter().any(|n| n == name) {
            names.push(name.to_string());
        }
    }
    match names.is_empty() {
        true => Err(Error::dataset(list, "the list is empty; write one name of a sequence per line")),
        false => Ok(names),
    }
}

/// Returns the sequence of a line such as `bear`, or `/JPEGImages/480p/bear/00000.jpg /Annotations/…`.
fn sequence_in(line: &str) -> Option<&str> {
    let path = Path::new(line.split_whitespace().next()?);
    let name = match path.extension().is_some() && path.components().count() > 1 {
        true => path.parent()?.file_name()?.to_str()?,
        false => line,
    };
    let mut parts = Path::new(name).components();
    let plain = matches!(parts.next(), Some(std::path::Component::Normal(_)));
    (plain && parts.next().is_none()).then_some(name)
}

/// Returns the paths in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| Error::read(folder, source))
}

/// Returns the names of the folders in `folder`, sorted, without hidden ones.
pub(crate) fn folders(folder: &Path) -> Result<Vec<String>> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let mut names: Vec<String> =
        entries(folder)?.iter().filter(|path| path.is_dir()).filter_map(name).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(names)
}

/// Returns whether a file has one of the extensions, in any case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|wanted| wanted.eq_ignore_ascii_case(extension)))
}

/// Compares names as text, but runs of digits by their number: 2 precedes 10.
pub(crate) fn by_number(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    while let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let [x, y] = [&mut left, &mut right].map(split_number);
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
            x.cmp(&y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then(a.cmp(b))
}

/// Removes the digits that `text` starts with. Returns them without leading zeros.
fn split_number<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find(|x: char| !x.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    number.trim_start_matches('0')
}

/// Returns the files with one of the extensions, by stem and sorted; empty if the folder does not exist.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let named = |path: PathBuf| Some((path.file_stem()?.to_str()?.to_owned(), path));
    let mut files: Vec<_> = entries(folder)?.into_iter().filter_map(named).collect();
    files.retain(|(stem, path)| has_extension(path, extensions) && !stem.starts_with('.'));
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Folders with empty files at `paths`.
    fn tree(paths: &[impl AsRef<Path>]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn names(dataset: &Dataset) -> Vec<&str> {
        dataset.sequences().iter().map(Sequence::name).collect()
    }

    fn open(root: &TempDir) -> Result<Dataset> {
        Dataset::open(root.path(), &Selection::default())
    }

    fn message(root: &TempDir, selection: &Selection) -> String {
        let error = Dataset::open(root.path(), selection).unwrap_err();
        error.to_string()
    }

    #[test]
    fn every_folder_is_a_sequence_without_a_resolution() {
        let root = tree(&[
            "Annotations/b/00001.png",
            "Annotations/b/00000.png",
            "Annotations/a/00000.png",
            "Annotations/.hidden/00000.png",
            "JPEGImages/a/00000.jpg",
            "JPEGImages/b/00000.JPG",
            "JPEGImages/b/00001.jpeg",
            "JPEGImages/b/notes.txt",
        ]);
        let dataset = open(&root).unwrap();
        assert_eq!(names(&dataset), ["a", "b"]);
        assert_eq!((dataset.frames(), dataset.split()), (3, None));
        let frames = dataset.sequences()[1].tracked().unwrap();
        let frames: Vec<_> = frames.iter().map(Frame::name).collect();
        assert_eq!(frames, ["00000", "00001"]);
    }

    #[test]
    fn frames_are_ordered_by_their_numbers() {
        let order = |names: &[&str]| {
            let paths: Vec<String> = names.iter().map(|name| format!("Annotations/a/{name}.png")).collect();
            let dataset = open(&tree(&paths)).unwrap();
            dataset.sequences()[0].frames().iter().map(|frame| frame.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(order(&["1", "10", "11", "2", "0"]), ["0", "1", "2", "10", "11"]);
        assert_eq!(order(&["img_10", "img_9", "img_100"]), ["img_9", "img_10", "img_100"]);
        assert_eq!(order(&["00010", "00009", "00000"]), ["00000", "00009", "00010"], "as in DAVIS");
        assert_eq!(order(&["01", "1", "2b", "2a", "b"]), ["01", "1", "2a", "2b", "b"]);
        let long = ["99999999999999999998", "100000000000000000000"];
        assert_eq!(order(&[long[1], long[0]]), long);
    }

    #[test]
    fn the_default_resolution_is_480p() {
        let root = tree(&[
            "Annotations/480p/a/0.png",
            "Annotations/1080p/a/0.png",
            "Annotations/1080p/a/1.png",
            "JPEGImages/1080p/a/0.jpg",
        ]);
        assert_eq!(open(&root).unwrap().frames(), 1, "480p by default");
        let mut selection = Selection { resolution: Some("1080p".into()), ..Selection::default() };
        let dataset = Dataset::open(root.path(), &selection).unwrap();
        assert_eq!(dataset.frames(), 2);
        selection.resolution = Some("720p".into());
        let error = message(&root, &selection);
        assert!(error.contains("Annotations/720p") && error.contains("1080p, 480p"), "{error}");
    }

    #[test]
    fn an_unselected_resolution_is_suggested() {
        let root = tree(&["Annotations/Full-Resolution/bear/00000.png"]);
        let error = message(&root, &Selection::default());
        assert!(error.contains("by name: Full-Resolution"), "{error}");
    }

    #[test]
    fn a_split_selects_and_orders_sequences() {
        let root = tree(&["Annotations/a/0.png", "Annotations/b/0.png", "Annotations/c/0.png"]);
        let split = root.path().join("dev.txt");
        fs::write(&split, "\u{feff}# held out\r\nc\r\n\r\n a \nc\n").unwrap();
        let selection = Selection { split: Some(split), ..Selection::default() };
        let dataset = Dataset::open(root.path(), &selection).unwrap();
        assert_eq!(names(&dataset), ["c", "a"]);
    }

    #[test]
    fn names_take_precedence_over_a_list() {
        let root = tree(&["Annotations/a/0.png", "Annotations/b/0.png", "ImageSets/val.txt"]);
        fs::write(root.path().join("ImageSets/val.txt"), "a\n").unwrap();
        let named = |names: &[&str]| {
            let sequences = names.iter().map(|name| name.to_string()).collect();
            Dataset::open(root.path(), &Selection { sequences, ..Selection::default() })
        };
        assert_eq!(names(&named(&["b", "a"]).unwrap()), ["b", "a"]);
        assert_eq!(names(&named(&[]).unwrap()), ["a"]);
        let error = named(&["zebra"]).unwrap_err().to_string();
        assert!(error.contains("zebra") && error.contains("no such folder"), "{error}");
    }

    #[test]
    fn thinning_keeps_every_nth_frame() {
        let pictures = (0..9).map(|frame| format!("JPEGImages/a/{frame}.jpg"));
        let paths: Vec<_> =
            pictures.chain((2..9).map(|frame| format!("Annotations/a/{frame}.png"))).collect();
        let root = tree(&paths);
        let dataset = open(&root).unwrap().thinned(3);
        let frames: Vec<_> = dataset.sequences()[0].tracked().unwrap().iter().map(Frame::name).collect();
        assert_eq!(frames, ["2", "5", "8"]);
        assert_eq!(open(&root).unwrap().thinned(1).frames(), 7);
    }

    #[test]
    fn lists_of_davis_2016_name_files() {
        let root = tree(&["Annotations/480p/bear/0.png", "Annotations/480p/cow/0.png"]);
        let lists = root.path().join("ImageSets/480p");
        fs::create_dir_all(&lists).unwrap();
        let lines = "/JPEGImages/480p/cow/00000.jpg /Annotations/480p/cow/00000.png \n\
                     /JPEGImages/480p/cow/00001.jpg /Annotations/480p/cow/00001.png \n";
        fs::write(lists.join("val.txt"), lines).unwrap();
        let dataset = open(&root).unwrap();
        assert_eq!(names(&dataset), ["cow"]);
        assert_eq!(dataset.split(), Some(lists.join("val.txt").as_path()));
        // Training has a separate list.
        fs::write(lists.join("train.txt"), "/JPEGImages/480p/bear/00000.jpg x\n").unwrap();
        let training = Dataset::open_for_training(root.path(), &Selection::default()).unwrap();
        assert_eq!(names(&training), ["bear"]);
        // A newer list takes precedence. Lists in other folders are found.
        let newer = root.path().join("ImageSets/2017");
        fs::create_dir_all(&newer).unwrap();
        fs::write(newer.join("val.txt"), "bear\n").unwrap();
        assert_eq!(names(&open(&root).unwrap()), ["bear"]);
        let other = tree(&["Annotations/x/0.png", "Annotations/y/0.png"]);
        let deep = other.path().join("ImageSets/mine/small");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("val.txt"), "y\n").unwrap();
        assert_eq!(names(&open(&other).unwrap()), ["y"]);
    }

    #[test]
    fn errors_name_missing_paths() {
        let root = tree(&["JPEGImages/a/0.jpg"]);
        let error = message(&root, &Selection::default());
        assert!(error.contains("Annotations") && error.contains("no such folder"), "{error}");
        let nowhere = Dataset::open(Path::new("/nonexistent-data"), &Selection::default());
        assert!(nowhere.unwrap_err().to_string().contains("/nonexistent-data"));

        let root = tree(&["Annotations/a/0.png", "Annotations/empty/readme.txt"]);
        let error = message(&root, &Selection::default());
        assert!(error.contains("Annotations/empty") && error.contains("no PNG"), "{error}");
        let with_split = |lines: &str| {
            let split = root.path().join("split.txt");
            fs::write(&split, lines).unwrap();
            Selection { split: Some(split), ..Selection::default() }
        };
        let error = message(&root, &with_split("a\nzebra\n"));
        assert!(error.contains("zebra") && error.contains("split.txt"), "{error}");
        let error = message(&root, &with_split("# nothing\n"));
        assert!(error.contains("split.txt") && error.contains("empty"), "{error}");
        let error = message(&root, &with_split("../a\n"));
        assert!(error.contains("../a") && error.contains("one name per line"), "{error}");
        fs::remove_file(root.path().join("split.txt")).unwrap();
        let gone = Selection { split: Some(root.path().join("split.txt")), ..Selection::default() };
        assert!(message(&root, &gone).contains("split.txt"));
    }

    #[test]
    fn frames_without_a_picture_cannot_be_tracked() {
        let root = tree(&[
            "Annotations/a/1.png",
            "Annotations/a/2.png",
            "JPEGImages/a/0.jpg",
            "JPEGImages/a/1.jpg",
            "Annotations/b/0.png",
        ]);
        let dataset = open(&root).unwrap();
        let error = dataset.sequences()[0].tracked().unwrap_err().to_string();
        assert!(error.contains("JPEGImages/a/2.jpg"), "{error}");
        let error = dataset.sequences()[1].tracked().unwrap_err().to_string();
        assert!(error.contains("JPEGImages/b"), "{error}");
    }

    #[test]
    fn errors_name_the_path_of_a_frame_that_lacks_a_file() {
        let root = tree(&["Annotations/a/0.png", "JPEGImages/a/2.jpg"]);
        RgbImage::new(4, 4).save(root.path().join("JPEGImages/a/2.jpg")).unwrap();
        let dataset = open(&root).unwrap();
        let frames = dataset.sequences()[0].frames();
        for (error, words) in [
            (frames[0].read_picture().unwrap_err(), ["Annotations/a/0.png", "no picture", "add it"]),
            (frames[0].read_annotated().unwrap_err(), ["Annotations/a/0.png", "no picture", "add it"]),
            (frames[1].read_annotated().unwrap_err(), ["JPEGImages/a/2.jpg", "no mask", "add it"]),
        ] {
            let (error, root) = (error.to_string(), root.path().display().to_string());
            assert!(error.contains(&root) && words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn errors_name_broken_files() {
        let root = tree(&["Annotations/a/0.png", "JPEGImages/a/0.jpg"]);
        let dataset = open(&root).unwrap();
        let frame = &dataset.sequences()[0].frames()[0];
        let error = frame.read_picture().unwrap_err().to_string();
        assert!(error.contains("JPEGImages/a/0.jpg") && error.contains("again"), "{error}");
        let error = frame.read_annotation().unwrap_err().to_string();
        assert!(error.contains("Annotations/a/0.png"), "{error}");
    }
}
