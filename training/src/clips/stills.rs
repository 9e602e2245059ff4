// SPDX-License-Identifier: MPL-2.0

//! Still pictures with objects: photos with the mask of one object, and photos with a region map, of which any
//! region of suitable size can serve as the object.

use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, RgbImage};
use indicatif::{ParallelProgressIterator, ProgressBar};
use rayon::prelude::*;

use super::Size;
use super::broken::Broken;
use super::picture::{Picture, Still};
use super::random::Random;
use super::settings::Source;
use crate::dataset::{check_size, read_picture};
use crate::{Error, LabelMap, Result, indexed_png};

/// Range of a region's share of the pixels for use as an object.
const REGION: std::ops::Range<f64> = 0.01..0.35;
/// Id of the object in a mask of one object.
const OBJECT: u8 = 1;

/// Pictures of a folder.
#[derive(Debug)]
pub enum Stills {
    /// Each with one object.
    Objects(Vec<Still>),
    /// Each with a region map.
    Regions(Vec<Regions>),
}

/// Photo with a region map.
#[derive(Debug)]
pub struct Regions {
    picture: RgbImage,
    labels: LabelMap,
    /// Ids of the regions of suitable size.
    fit: Vec<u8>,
}

impl Stills {
    /// Reads a folder with `JPEGImages/NAME.jpg` and either `Annotations/NAME.png` (non-zero is the object) or
    /// `Labels/NAME.png` (region ids). Pictures without a mask are skipped.
    ///
    /// # Errors
    /// If the folder has neither masks nor region maps, or no usable picture, or if too many files are broken.
    pub fn read(source: &Source, broken: &Broken, bar: &ProgressBar) -> Result<Self> {
        let root = &source.path;
        let (annotations, labels) = (root.join("Annotations"), root.join("Labels"));
        let limit = source.limit();
        let stills = if annotations.is_dir() {
            let make = |picture, labels| object(&picture, labels, limit);
            Self::Objects(read_all(root, &annotations, broken, bar, make)?)
        } else if labels.is_dir() {
            let make = |picture, labels| regions(picture, labels, limit);
            Self::Regions(read_all(root, &labels, broken, bar, make)?)
        } else {
            return Err(Error::dataset(
                root,
                "it has neither Annotations nor Labels; add either folder, with a PNG of each picture's name",
            ));
        };
        match stills.len() {
            0 => Err(Error::dataset(
                root,
                "it has no usable pictures; add pictures with masks, or remove the source",
            )),
            _ => Ok(stills),
        }
    }

    /// Returns the number of pictures.
    pub fn len(&self) -> usize {
        match self {
            Self::Objects(pictures) => pictures.len(),
            Self::Regions(pictures) => pictures.len(),
        }
    }

    /// Draws a picture with an object, which consists of two regions of a region map with the probability `pairs`.
    pub fn draw(&self, pairs: f64, random: &mut Random) -> Result<Still> {
        match self {
            Self::Objects(pictures) => Ok(random.pick(pictures).clone()),
            Self::Regions(pictures) => {
                let regions = random.pick(pictures);
                let mut chosen = vec![*random.pick(&regions.fit)];
                if regions.fit.len() > 1 && random.chance(pairs) {
                    chosen.push(*random.pick(&regions.fit));
                }
                regions.cut(&chosen)
            }
        }
    }
}

impl Regions {
    fn cut(&self, chosen: &[u8]) -> Result<Still> {
        let mut mask = self.labels.clone();
        mask.ids_mut().iter_mut().for_each(|id| *id = if chosen.contains(id) { OBJECT } else { 0 });
        let size = (i64::from(self.picture.height()), i64::from(self.picture.width()));
        Ok(Picture::new(&self.picture, &mask, &[OBJECT], size)?.still(OBJECT))
    }
}

fn object(picture: &RgbImage, mut labels: LabelMap, limit: Size) -> Result<Option<Still>> {
    labels.ids_mut().iter_mut().filter(|id| **id != 0).for_each(|id| *id = OBJECT);
    let still = Picture::new(picture, &labels, &[OBJECT], limit)?.still(OBJECT);
    Ok((still.coverage() > 0.0).then_some(still))
}

fn regions(picture: RgbImage, labels: LabelMap, limit: Size) -> Result<Option<Regions>> {
    let (picture, labels) = shrunk(picture, labels, limit);
    let counts = labels.counts();
    let pixels = labels.ids().len() as f64;
    let fit: Vec<u8> =
        (0..=255u8).filter(|&id| REGION.contains(&(counts[usize::from(id)] as f64 / pixels))).collect();
    Ok((!fit.is_empty()).then_some(Regions { picture, labels, fit }))
}

fn shrunk(picture: RgbImage, labels: LabelMap, limit: Size) -> (RgbImage, LabelMap) {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let scale = (limit.0 as f64 / height).min(limit.1 as f64 / width);
    if scale >= 1.0 {
        return (picture, labels);
    }
    let [width, height] = [width, height].map(|side| ((side * scale).round() as u32).max(1));
    let picture = imageops::resize(&picture, width, height, FilterType::Triangle);
    (picture, labels.resized(width as usize, height as usize))
}

/// Returns the file name of a picture's mask: `a.b.png` for `a.b.jpg`.
fn mask_name(picture: &Path) -> std::ffi::OsString {
    let mut name = picture.file_stem().unwrap_or_default().to_owned();
    name.push(".png");
    name
}

/// Reads all pairs of picture and labels; pictures without labels are skipped.
fn read_all<T: Send>(
    root: &Path,
    labels: &Path,
    broken: &Broken,
    bar: &ProgressBar,
    make: impl Fn(RgbImage, LabelMap) -> Result<Option<T>> + Sync,
) -> Result<Vec<T>> {
    let pictures = root.join("JPEGImages");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&pictures)
        .map_err(|source| Error::read(&pictures, source))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .filter(|path| labels.join(mask_name(path)).exists())
        .collect();
    files.sort();
    bar.inc_length(files.len() as u64);
    let read: Vec<Option<T>> = files
        .par_iter()
        .progress_with(bar.clone())
        .map(|path| {
            let pair = read_pair(path, &labels.join(mask_name(path)));
            match broken.skip(path, pair)? {
                Some((picture, labels)) => make(picture, labels),
                None => Ok(None),
            }
        })
        .collect::<Result<_>>()?;
    Ok(read.into_iter().flatten().collect())
}

fn read_pair(picture: &Path, mask: &Path) -> Result<(RgbImage, LabelMap)> {
    let picture = read_picture(picture)?;
    let broken = |error: image::ImageError| {
        Error::mask(mask, format!("not a readable PNG ({error}); write or download it again"))
    };
    let labels = match image::open(mask).map_err(broken)? {
        // Region maps are grey with arbitrary ids, which the reader of masks refuses as shades of grey.
        DynamicImage::ImageLuma8(map) => {
            LabelMap::new(map.width() as usize, map.height() as usize, map.into_raw())?
        }
        _ => indexed_png::read(mask)?,
    };
    check_size(mask, &labels, &picture)?;
    Ok((picture, labels))
}
