// SPDX-License-Identifier: MPL-2.0

//! Still pictures with objects: photos with the mask of one object, and photos with a region map, of which any
//! region of suitable size can serve as the object.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageFormat, RgbImage};
use indicatif::{ParallelProgressIterator, ProgressBar};
use rayon::prelude::*;

use super::Size;
use super::broken::Broken;
use super::picture::{Picture, Still, shrunk};
use super::random::Random;
use super::settings::Source;
use crate::dataset::{PICTURE_EXTENSIONS, check_size, entries, has_extension, read_picture};
use crate::{Error, LabelMap, Result};

/// Range of a region's share of the pixels for use as an object.
const REGION: std::ops::Range<f64> = 0.01..0.35;
/// Id of the object in a mask of one object.
const OBJECT: u8 = 1;

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
    /// Reads a folder with `JPEGImages/NAME.jpg` (or `.jpeg`, `.png`) and either `Annotations/NAME.png` (non-zero is the
    /// object) or `Labels/NAME.png` (region ids; 0 is no region). Pictures without a mask are skipped.
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
        } else if !root.is_dir() {
            return Err(Error::dataset(root, "no such folder; correct the path of the source"));
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
    let (width, height) = picture.dimensions();
    let to = shrunk((height.into(), width.into()), limit);
    let labels = labels.resized(to.1 as usize, to.0 as usize);
    let picture = match to == (height.into(), width.into()) {
        true => picture,
        false => imageops::resize(&picture, to.1 as u32, to.0 as u32, FilterType::Triangle),
    };
    let counts = labels.counts();
    let pixels = labels.ids().len() as f64;
    let fit: Vec<u8> =
        (1..=255u8).filter(|&id| REGION.contains(&(counts[usize::from(id)] as f64 / pixels))).collect();
    Ok((!fit.is_empty()).then_some(Regions { picture, labels, fit }))
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
    // `a.b.png` for `a.b.jpg`.
    let mask = |path: &Path| labels.join(path.with_extension("png").file_name().unwrap_or_default());
    let mut files = entries(&pictures)?;
    files.retain(|path| has_extension(path, &PICTURE_EXTENSIONS) && mask(path).exists());
    files.sort();
    bar.inc_length(files.len() as u64);
    let read: Vec<Option<T>> = files
        .par_iter()
        .progress_with(bar.clone())
        .map(|path| {
            let pair = read_pair(path, &mask(path));
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
    let bytes = std::fs::read(mask).map_err(|error| {
        Error::mask(mask, format!("it cannot be opened ({error}); make it readable, or remove it"))
    })?;
    let labels = match image::load_from_memory_with_format(&bytes, ImageFormat::Png).map_err(broken)? {
        // Region maps are grey with arbitrary ids, which the reader of masks refuses as shades of grey.
        DynamicImage::ImageLuma8(map) => {
            LabelMap::new(map.width() as usize, map.height() as usize, map.into_raw())?
        }
        _ => LabelMap::open(mask)?,
    };
    check_size(mask, &labels, &picture)?;
    Ok((picture, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clips::Kind;

    /// Writes a picture and its region map: 30 % region 0, 20 % region 3, half of it region 1.
    fn write(root: &Path, picture: &str, map: &str) {
        for path in [picture, map] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        }
        let pixels = RgbImage::from_fn(40, 20, |x, y| image::Rgb([x as u8, y as u8, 90]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        let is_png = picture.ends_with("png");
        let format = if is_png { image::ImageFormat::Png } else { image::ImageFormat::Jpeg };
        pixels.write_to(&mut bytes, format).unwrap();
        std::fs::write(root.join(picture), bytes.into_inner()).unwrap();
        let region = |x: u32| match x {
            0..12 => 0,
            12..20 => 3,
            _ => 1,
        };
        image::GrayImage::from_fn(40, 20, |x, _| image::Luma([region(x)])).save(root.join(map)).unwrap();
    }

    fn read(root: &Path) -> Stills {
        let text = format!("kind = \"stills\"\npath = {root:?}\n");
        let source: Source = toml::from_str(&text).unwrap();
        assert_eq!(source.kind, Kind::Stills);
        Stills::read(&source, &Broken::new(0), &ProgressBar::hidden()).unwrap()
    }

    #[test]
    fn pictures_of_every_extension_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (index, extension) in ["jpg", "JPG", "jpeg", "png"].into_iter().enumerate() {
            let picture = format!("JPEGImages/p.{index}.{extension}");
            write(folder.path(), &picture, &format!("Labels/p.{index}.png"));
        }
        std::fs::write(folder.path().join("JPEGImages/p.0.txt"), "no picture").unwrap();
        assert_eq!(read(folder.path()).len(), 4);
    }

    #[test]
    fn masks_that_cannot_be_opened_are_told_from_broken_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(folder.path(), "JPEGImages/p.jpg", "Labels/p.png");
        let reason = || {
            let error = read_pair(&path("JPEGImages/p.jpg"), &path("Labels/p.png")).unwrap_err().to_string();
            assert!(error.contains("Labels/p.png"), "{error}");
            error
        };
        std::fs::write(path("Labels/p.png"), "no picture").unwrap();
        assert!(reason().contains("not a readable PNG"), "{}", reason());
        std::fs::remove_file(path("Labels/p.png")).unwrap();
        assert!(reason().contains("cannot be opened"), "{}", reason());
        std::fs::create_dir(path("Labels/p.png")).unwrap();
        assert!(reason().contains("cannot be opened"), "{}", reason());
    }

    #[test]
    fn region_0_is_not_an_object() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "JPEGImages/p.jpg", "Labels/p.png");
        let Stills::Regions(pictures) = read(folder.path()) else { panic!("no region maps") };
        assert_eq!(pictures[0].fit, [3], "region 0 covers 30 % of the picture, region 1 half of it");
    }
}
