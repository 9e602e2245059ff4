// SPDX-License-Identifier: MPL-2.0

//! Annotated video: sequences of frames with known objects, listed by folders or by `meta.json`, decoded on demand and kept in
//! a cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use indicatif::{ParallelProgressIterator, ProgressBar};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rayon::prelude::*;
use serde::Deserialize;

use super::Size;
use super::broken::Broken;
use super::picture::{Picture, Still};
use super::settings::{Layout, Objects, Source};
use crate::dataset::{self, Dataset, Selection};
use crate::{Error, LabelMap, Result};

/// Name of the file of YouTube-VOS that lists the frames in which each object is annotated.
const META: &str = "meta.json";

/// Id of the union of all objects.
const UNION: u8 = 1;

#[derive(Debug)]
pub struct Video {
    /// Index among the sources, part of the cache key.
    index: usize,
    /// Those that have objects.
    pub sequences: Vec<Sequence>,
    objects: Objects,
    limit: Size,
    /// Frames that `meta.json` lists, but that have no mask, as SEQUENCE/FRAME.
    unknown: BTreeSet<String>,
    /// All pictures by sequence and frame; `None` = read on demand.
    preloaded: Option<Vec<Vec<Option<Arc<Picture>>>>>,
}

/// Annotated frames of a video.
#[derive(Debug)]
pub struct Sequence {
    index: usize,
    frames: Vec<dataset::Frame>,
    /// At least one.
    pub objects: Vec<Object>,
    ids: Vec<u8>,
}

#[derive(Debug)]
pub struct Object {
    /// Id in the masks.
    pub id: u8,
    /// Frames in which its ground truth is known.
    pub known: BTreeSet<usize>,
    /// Frames that show it.
    pub seen: Vec<usize>,
}

/// Shared state of reading video.
#[derive(Debug)]
pub struct Reading {
    /// Recently used pictures by the indices of source, sequence and frame; `None` for a broken file.
    cache: Cache<(usize, usize, usize), Option<Arc<Picture>>, Bytes>,
    pub(super) broken: Broken,
}

impl Reading {
    /// Creates a cache of `cache` MiB, and tolerates up to `broken_limit` broken files.
    pub fn new(cache: u64, broken_limit: usize) -> Self {
        // Size of a frame of 480 x 854 with one mask, to estimate the number of entries.
        const TYPICAL: u64 = 4 * 480 * 854;
        let bytes = cache.saturating_mul(1 << 20);
        let cache = Cache::with_weighter((bytes / TYPICAL) as usize, bytes, Bytes);
        Self { cache, broken: Broken::new(broken_limit) }
    }
}

/// Limits the cache in bytes.
#[derive(Clone, Debug)]
struct Bytes;

impl<Key> Weighter<Key, Option<Arc<Picture>>> for Bytes {
    fn weight(&self, _: &Key, picture: &Option<Arc<Picture>>) -> u64 {
        picture.as_ref().map_or(64, |picture| picture.bytes())
    }
}

impl Video {
    /// Finds the sequences and objects of `source`, which has the index `index` among the sources. With the layout
    /// of DAVIS, an object that covers less than the share `min_share` of every picture is left out.
    pub fn open(
        index: usize,
        source: &Source,
        min_share: f64,
        reading: &Reading,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let selection = Selection {
            split: source.split.clone(),
            resolution: source.resolution.clone(),
            ..Selection::default()
        };
        let dataset = Dataset::open_for_training(&source.path, &selection)?;
        let chosen = not_excluded(&dataset, &source.exclude)?;
        let layout = source.layout.unwrap_or(match source.path.join(META).exists() {
            true => Layout::YoutubeVos,
            false => Layout::Davis,
        });
        let mut video = Self {
            index,
            sequences: Vec::new(),
            objects: source.objects,
            limit: source.limit(),
            unknown: BTreeSet::new(),
            preloaded: None,
        };
        let frames: Vec<Vec<dataset::Frame>> = chosen
            .iter()
            .map(|sequence| {
                sequence.frames().iter().filter(|frame| frame.annotation().is_some()).cloned().collect()
            })
            .collect();
        let objects = match layout {
            Layout::Davis => from_masks(&frames, source.objects, min_share, reading, bar)?,
            Layout::YoutubeVos => {
                let meta = Meta::read(&source.path)?;
                let of = |(sequence, frames): (&&dataset::Sequence, &Vec<dataset::Frame>)| {
                    let listed = meta.objects(&source.path, sequence.name())?;
                    let (objects, unknown) = from_meta(&listed, frames, source.objects);
                    video.unknown.extend(unknown.iter().map(|frame| format!("{}/{frame}", sequence.name())));
                    Ok(objects)
                };
                chosen.iter().zip(&frames).map(of).collect::<Result<Vec<_>>>()?
            }
        };
        for (frames, objects) in frames.into_iter().zip(objects).filter(|(_, objects)| !objects.is_empty()) {
            let ids = objects.iter().map(|object| object.id).collect();
            video.sequences.push(Sequence { index: video.sequences.len(), frames, objects, ids });
        }
        if video.sequences.is_empty() {
            let reason = "no annotated sequence is left to train on; check exclude, split and \
                          data.augment.least_object";
            return Err(Error::dataset(&source.path, reason));
        }
        if source.preload {
            video.preload(reading, bar)?;
        }
        Ok(video)
    }

    pub fn objects(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.objects.len()).sum()
    }

    /// Returns the number of annotated frames in all sequences.
    pub fn frames(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.frames.len()).sum()
    }

    /// Returns a frame with the mask of one object; `None` if one of its files is broken.
    pub fn still(
        &self,
        sequence: &Sequence,
        frame: usize,
        object: u8,
        reading: &Reading,
    ) -> Result<Option<Still>> {
        let picture = match &self.preloaded {
            Some(pictures) => pictures[sequence.index][frame].clone(),
            None => {
                let key = (self.index, sequence.index, frame);
                reading.cache.get_or_insert_with(&key, || self.read(sequence, frame, reading))?
            }
        };
        Ok(picture.map(|picture| picture.still(object)))
    }

    /// Returns a note on the frames that `meta.json` lists, but that have no mask; empty if there are none.
    pub fn note(&self) -> String {
        self.unknown.first().map_or_else(String::new, |frame| {
            format!(
                "; {} lists {} frames without a mask, such as {frame}, which are not used: add their masks, or correct \
                 their names",
                META,
                self.unknown.len()
            )
        })
    }

    fn read(&self, sequence: &Sequence, frame: usize, reading: &Reading) -> Result<Option<Arc<Picture>>> {
        let frame = &sequence.frames[frame];
        let read = || -> Result<Picture> {
            let (picture, labels) = frame.read_annotated()?;
            Picture::new(&picture, &merged(labels, self.objects), &sequence.ids, self.limit)
        };
        Ok(reading.broken.skip(frame.file(), read())?.map(Arc::new))
    }

    fn preload(&mut self, reading: &Reading, bar: &ProgressBar) -> Result<()> {
        let all: Vec<(&Sequence, usize)> = self
            .sequences
            .iter()
            .flat_map(|sequence| (0..sequence.frames.len()).map(move |frame| (sequence, frame)))
            .collect();
        bar.inc_length(all.len() as u64);
        let mut read = all
            .into_par_iter()
            .progress_with(bar.clone())
            .map(|(sequence, frame)| self.read(sequence, frame, reading))
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let pictures =
            self.sequences.iter().map(|sequence| read.by_ref().take(sequence.frames.len()).collect());
        self.preloaded = Some(pictures.collect());
        Ok(())
    }
}

impl Object {
    /// Returns the possible first frames of a window of `frames` frames at a distance of `step`.
    pub fn windows(&self, frames: usize, step: usize) -> Vec<usize> {
        let whole = |first: &usize| (1..frames).all(|frame| self.known.contains(&(first + frame * step)));
        self.known.iter().copied().filter(|first| whole(first)).collect()
    }
}

/// Contents of [`META`].
#[derive(Debug, Deserialize)]
struct Meta {
    videos: BTreeMap<String, MetaVideo>,
}

#[derive(Debug, Deserialize)]
struct MetaVideo {
    objects: BTreeMap<String, MetaObject>,
}

/// One object; its category is ignored.
#[derive(Debug, Deserialize)]
struct MetaObject {
    frames: Vec<String>,
}

impl Meta {
    /// Reads the file in the folder `root`.
    fn read(root: &Path) -> Result<Self> {
        let path = root.join(META);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::dataset(
                &path,
                "no such file; copy it from the data set, or set layout = \"davis\" to take the objects \
                 from the masks",
            ),
            _ => Error::read(&path, source),
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("not a valid meta.json of YouTube-VOS ({error}); download it again");
            Error::dataset(&path, reason)
        })
    }

    /// Returns the objects of a video: the id and the names of the annotated frames.
    fn objects(&self, root: &Path, video: &str) -> Result<Vec<(u8, &[String])>> {
        let invalid = |reason: String| Error::dataset(&root.join(META), reason);
        let entry = self.videos.get(video).ok_or_else(|| {
            invalid(format!("it does not list the sequence {video}; add it, or leave it out with exclude"))
        })?;
        let object = |(id, object)| {
            let (id, object): (&String, &MetaObject) = (id, object);
            match id.parse() {
                Ok(id) if id != 0 && id != LabelMap::VOID => Ok((id, object.frames.as_slice())),
                _ => Err(invalid(format!("{video} has an object with the id {id:?}; ids must be 1 to 254"))),
            }
        };
        entry.objects.iter().map(object).collect()
    }
}

fn not_excluded<'a>(dataset: &'a Dataset, exclude: &[String]) -> Result<Vec<&'a dataset::Sequence>> {
    let names: BTreeSet<&str> = dataset.sequences().iter().map(|sequence| sequence.name()).collect();
    if let Some(name) = exclude.iter().find(|name| !names.contains(name.as_str())) {
        let reason =
            format!("exclude names {name}, which is not one of its sequences; correct or remove the name");
        return Err(Error::dataset(dataset.root(), reason));
    }
    let kept = |sequence: &&dataset::Sequence| !exclude.iter().any(|name| name == sequence.name());
    Ok(dataset.sequences().iter().filter(kept).collect())
}

fn merged(mut labels: LabelMap, objects: Objects) -> LabelMap {
    if objects == Objects::Union {
        labels
            .ids_mut()
            .iter_mut()
            .filter(|id| !matches!(**id, 0 | LabelMap::VOID))
            .for_each(|id| *id = UNION);
    }
    labels
}

/// Returns the objects of each sequence, as found in its masks.
fn from_masks(
    frames: &[Vec<dataset::Frame>],
    objects: Objects,
    min_share: f64,
    reading: &Reading,
    bar: &ProgressBar,
) -> Result<Vec<Vec<Object>>> {
    bar.inc_length(frames.iter().map(Vec::len).sum::<usize>() as u64);
    let flat: Vec<&dataset::Frame> = frames.iter().flatten().collect();
    let mut shares = flat
        .into_par_iter()
        .progress_with(bar.clone())
        .map(|frame| {
            let labels = reading.broken.skip(frame.file(), frame.read_annotation())?.flatten();
            Ok(labels.map(|labels| shares(&merged(labels, objects))).unwrap_or_default())
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter();
    let sequence = |frames: &Vec<dataset::Frame>| {
        let mut seen = BTreeMap::<u8, Vec<usize>>::new();
        for (frame, shares) in shares.by_ref().take(frames.len()).enumerate() {
            for (id, _) in shares.into_iter().filter(|(_, share)| *share >= min_share) {
                seen.entry(id).or_default().push(frame);
            }
        }
        let known: BTreeSet<usize> = (0..frames.len()).collect();
        seen.into_iter().map(|(id, seen)| Object { id, known: known.clone(), seen }).collect()
    };
    Ok(frames.iter().map(sequence).collect())
}

/// Returns the share of the pixels of each object.
fn shares(labels: &LabelMap) -> Vec<(u8, f64)> {
    let pixels = labels.ids().len() as f64;
    let counts = labels.counts();
    let share = |id: u8| (id, counts[usize::from(id)] as f64 / pixels);
    (1..LabelMap::VOID).map(share).filter(|(_, share)| *share > 0.0).collect()
}

/// Returns the objects of a sequence as listed in `meta.json`, and the listed names that are not in `frames`. In other
/// frames, the objects may be visible without a mask.
fn from_meta<'a>(
    meta: &[(u8, &'a [String])],
    frames: &[dataset::Frame],
    objects: Objects,
) -> (Vec<Object>, Vec<&'a str>) {
    let places: HashMap<&str, usize> =
        frames.iter().enumerate().map(|(place, frame)| (frame.name(), place)).collect();
    let place = |name: &String| places.get(name.as_str()).copied();
    let names = meta.iter().flat_map(|(_, names)| names.iter());
    let unknown = names.filter(|name| place(name).is_none()).map(String::as_str).collect();
    let mut known: Vec<(u8, BTreeSet<usize>)> =
        meta.iter().map(|(id, names)| (*id, names.iter().filter_map(place).collect())).collect();
    if objects == Objects::Union {
        let all = known.into_iter().map(|(_, frames)| frames).reduce(|all, frames| &all & &frames);
        known = all.into_iter().map(|frames| (UNION, frames)).collect();
    }
    known.retain(|(_, frames)| !frames.is_empty());
    let object =
        |(id, known): (u8, BTreeSet<usize>)| Object { id, seen: known.iter().copied().collect(), known };
    (known.into_iter().map(object).collect(), unknown)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Frames after 9 were not found, since 10 precedes 9 as text.
    #[test]
    fn frames_named_without_leading_zeros_are_found_by_meta_json() {
        let root = tempfile::tempdir().unwrap();
        let masks = root.path().join("Annotations/v");
        fs::create_dir_all(&masks).unwrap();
        let mut names: Vec<String> = (1..=12).map(|frame| frame.to_string()).collect();
        names.iter().for_each(|name| fs::write(masks.join(format!("{name}.png")), "").unwrap());
        let open = |names: &[String]| {
            let text = serde_json::json!({ "videos": { "v": { "objects": { "1": { "frames": names } } } } });
            fs::write(root.path().join("meta.json"), text.to_string()).unwrap();
            let source = format!("kind = \"video\"\npath = {:?}\nratio = 1.0\n", root.path());
            let source = toml::from_str::<Source>(&source).unwrap();
            Video::open(0, &source, 0.0, &Reading::new(1, 0), &ProgressBar::hidden()).unwrap()
        };
        let video = open(&names);
        assert!(video.sequences[0].objects[0].known.iter().copied().eq(0..12));
        assert_eq!(video.note(), "");
        names.push("13".into());
        let note = open(&names).note();
        assert!(note.contains("meta.json lists 1 frames") && note.contains("v/13"), "{note}");
    }
}
