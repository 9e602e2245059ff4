//! Still pictures with their objects cut out: photos of one object with a mask, and photos with maps
//! of regions, any of which can play the object.

use std::path::{Path, PathBuf};

use indicatif::{ParallelProgressIterator, ProgressBar};
use rayon::prelude::*;

use super::Size;
use super::footage::Still;
use super::random::Random;
use crate::dataset::read_picture;
use crate::{Error, LabelMap, Result};

/// Pictures of a size that clips are made of.
const LIMIT: Size = (400, 640);
/// Shares of the picture that a region may have to play the object.
const REGION: std::ops::Range<f64> = 0.01..0.35;

/// A photo with its regions.
#[derive(Debug)]
struct Regions {
    picture: image::RgbImage,
    labels: LabelMap,
    /// The labels of a size that can play the object.
    fit: Vec<u8>,
}

/// The pictures of some folders.
#[derive(Debug, Default)]
pub struct Stills {
    objects: Vec<Still>,
    regions: Vec<Regions>,
}

impl Stills {
    /// Reads folders with `JPEGImages/NAME.jpg` and either `Annotations/NAME.png` (non-zero is the
    /// object) or `Labels/NAME.png` (region ids).
    ///
    /// # Errors
    /// A folder that has neither, a broken file.
    pub fn read(roots: &[PathBuf], bar: &ProgressBar) -> Result<Self> {
        let mut stills = Self::default();
        for root in roots {
            let annotations = root.join("Annotations");
            if annotations.is_dir() {
                stills.objects.extend(read_all(root, &annotations, bar, object)?);
            } else if root.join("Labels").is_dir() {
                stills.regions.extend(read_all(root, &root.join("Labels"), bar, regions)?);
            } else {
                return Err(Error::dataset(root, "there is neither Annotations nor Labels in it"));
            }
        }
        if stills.objects.is_empty() && stills.regions.is_empty() {
            let root = roots.first().cloned().unwrap_or_default();
            return Err(Error::dataset(&root, "there are no pictures with masks in it"));
        }
        Ok(stills)
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.objects.len() + self.regions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A picture with an object.
    pub fn draw(&self, random: &mut Random) -> Result<Still> {
        let of_regions = self.objects.is_empty() || (!self.regions.is_empty() && random.chance(0.45));
        if of_regions {
            let regions = random.pick(&self.regions);
            let mut chosen = vec![*random.pick(&regions.fit)];
            if regions.fit.len() > 1 && random.chance(0.3) {
                chosen.push(*random.pick(&regions.fit));
            }
            return regions.cut(&chosen);
        }
        Ok(random.pick(&self.objects).clone())
    }
}

impl Regions {
    fn cut(&self, chosen: &[u8]) -> Result<Still> {
        let mask: Vec<u8> =
            self.labels.ids().iter().map(|id| if chosen.contains(id) { 255 } else { 0 }).collect();
        let size = (i64::from(self.picture.height()), i64::from(self.picture.width()));
        Still::new(&self.picture, &mask, size, size)
    }
}

fn object(picture: image::RgbImage, labels: LabelMap) -> Result<Option<Still>> {
    let mask: Vec<u8> = labels.ids().iter().map(|&id| if id == 0 { 0 } else { 255 }).collect();
    let size = (i64::from(picture.height()), i64::from(picture.width()));
    let still = Still::new(&picture, &mask, size, LIMIT)?;
    Ok((still.coverage() > 0.0).then_some(still))
}

fn regions(picture: image::RgbImage, labels: LabelMap) -> Result<Option<Regions>> {
    let mut counts = [0usize; 256];
    labels.ids().iter().for_each(|&id| counts[usize::from(id)] += 1);
    let pixels = labels.ids().len() as f64;
    let fit: Vec<u8> =
        (0..=255u8).filter(|&id| REGION.contains(&(counts[usize::from(id)] as f64 / pixels))).collect();
    Ok((!fit.is_empty()).then_some(Regions { picture, labels, fit }))
}

/// `a.b.jpg` goes with `a.b.png`.
fn mask_name(picture: &Path) -> std::ffi::OsString {
    let mut name = picture.file_stem().unwrap_or_default().to_owned();
    name.push(".png");
    name
}

/// Reads all pairs of picture and labels; a picture without labels, or of another size, is left out.
fn read_all<T: Send>(
    root: &Path,
    labels: &Path,
    bar: &ProgressBar,
    make: fn(image::RgbImage, LabelMap) -> Result<Option<T>>,
) -> Result<Vec<T>> {
    let pictures = root.join("JPEGImages");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&pictures)
        .map_err(|source| Error::read(&pictures, source))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
        .collect();
    files.sort();
    bar.inc_length(files.len() as u64);
    let read: Vec<Option<T>> = files
        .par_iter()
        .progress_with(bar.clone())
        .map(|path| {
            let mask = labels.join(mask_name(path));
            if !mask.exists() {
                return Ok(None);
            }
            let picture = read_picture(path)?;
            let map = image::open(&mask).map_err(|error| Error::mask(&mask, error.to_string()))?.to_luma8();
            if map.dimensions() != picture.dimensions() {
                return Ok(None);
            }
            let (width, height) = (map.width() as usize, map.height() as usize);
            make(picture, LabelMap::new(width, height, map.into_raw())?)
        })
        .collect::<Result<_>>()?;
    Ok(read.into_iter().flatten().collect())
}
