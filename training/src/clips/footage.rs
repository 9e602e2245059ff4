//! Annotated video held in memory at a small size.

use std::path::Path;

use indicatif::{ParallelProgressIterator, ProgressBar};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::Size;
use crate::dataset::{Dataset, Frame, Selection};
use crate::{LabelMap, Result};

/// One frame and its mask, packed bytes.
#[derive(Clone, Debug)]
pub struct Still {
    /// Rows.
    pub height: i64,
    /// Columns.
    pub width: i64,
    /// (3, h, w) RGB.
    rgb: Vec<u8>,
    /// (h, w), 0 to 255.
    mask: Vec<u8>,
}

impl Still {
    /// From packed RGB and a mask of 0 to 255 of the same size, shrunk to fit `limit` if it is larger.
    pub fn new(rgb: &[u8], mask: &[u8], size: Size, limit: Size) -> Result<Self> {
        let (height, width) = size;
        let rgb = Tensor::f_from_data_size(rgb, &[1, height, width, 3], Kind::Uint8)?
            .f_permute([0, 3, 1, 2])?
            .f_contiguous()?;
        let mask = Tensor::f_from_data_size(mask, &[1, 1, height, width], Kind::Uint8)?;
        let scale = (limit.0 as f64 / height as f64).min(limit.1 as f64 / width as f64).min(1.0);
        let target = [height, width].map(|side| ((side as f64 * scale).round() as i64).max(1));
        let shrink = |x: &Tensor| -> Result<Vec<u8>> {
            let x = x
                .f_to_kind(Kind::Float)?
                .f_internal_upsample_bilinear2d_aa(target, false, None, None)?
                .f_round()?
                .f_clamp(0.0, 255.0)?
                .f_to_kind(Kind::Uint8)?
                .f_reshape([-1])?;
            Ok(Vec::<u8>::try_from(&x)?)
        };
        Ok(Self { height: target[0], width: target[1], rgb: shrink(&rgb)?, mask: shrink(&mask)? })
    }

    /// (1, 3, h, w) in [0, 1].
    pub fn image(&self) -> Result<Tensor> {
        unit(&self.rgb, &[1, 3, self.height, self.width])
    }

    /// (1, 1, h, w) in [0, 1].
    pub fn mask(&self) -> Result<Tensor> {
        unit(&self.mask, &[1, 1, self.height, self.width])
    }

    /// Share of the picture that is object.
    pub fn coverage(&self) -> f64 {
        self.mask.iter().filter(|&&value| value > 127).count() as f64 / self.mask.len() as f64
    }

    /// Columns `x0..x1` and rows `y0..y1` that hold the object.
    pub fn bounds(&self) -> Option<(i64, i64, i64, i64)> {
        bounds(&self.mask, self.width)
    }

    /// The middle of the object in parts of the width and height.
    pub fn centroid(&self) -> Option<(f64, f64)> {
        let (mut x, mut y, mut n) = (0.0, 0.0, 0.0);
        for (index, _) in self.mask.iter().enumerate().filter(|(_, value)| **value > 127) {
            x += (index as i64 % self.width) as f64;
            y += (index as i64 / self.width) as f64;
            n += 1.0;
        }
        (n > 0.0).then(|| (x / n / self.width as f64, y / n / self.height as f64))
    }
}

/// Columns `x0..x1` and rows `y0..y1` of what is above one half.
pub fn bounds(mask: &[u8], width: i64) -> Option<(i64, i64, i64, i64)> {
    let set = |row: &[u8]| row.iter().any(|&value| value > 127);
    let rows: Vec<&[u8]> = mask.chunks(width as usize).collect();
    let y0 = rows.iter().position(|row| set(row))?;
    let y1 = rows.iter().rposition(|row| set(row))? + 1;
    let column = |x: usize| rows[y0..y1].iter().any(|row| row[x] > 127);
    let x0 = (0..width as usize).find(|&x| column(x))?;
    let x1 = (0..width as usize).rev().find(|&x| column(x))? + 1;
    Some((x0 as i64, x1 as i64, y0 as i64, y1 as i64))
}

fn unit(bytes: &[u8], size: &[i64]) -> Result<Tensor> {
    let bytes = Tensor::f_from_data_size(bytes, size, Kind::Uint8)?;
    Ok(bytes.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
}

/// The sequences of a dataset.
#[derive(Debug)]
pub struct Footage {
    sequences: Vec<Vec<Still>>,
}

impl Footage {
    /// Reads every annotated frame of `root` but those of the sequences in `exclude`, shrunk to fit
    /// `limit`.
    ///
    /// # Errors
    /// A folder that is no dataset, a broken file.
    pub fn read(root: &Path, exclude: &[String], limit: Size, bar: &ProgressBar) -> Result<Self> {
        let dataset = Dataset::open(root, &Selection::default())?;
        let chosen: Vec<&[Frame]> = dataset
            .sequences()
            .iter()
            .filter(|sequence| !exclude.iter().any(|name| name == sequence.name()))
            .map(|sequence| sequence.frames())
            .collect();
        let frames: Vec<(usize, &Frame)> = chosen
            .iter()
            .enumerate()
            .flat_map(|(index, frames)| frames.iter().map(move |frame| (index, frame)))
            .collect();
        bar.set_length(frames.len() as u64);
        let read: Vec<(usize, Option<Still>)> = frames
            .into_par_iter()
            .progress_with(bar.clone())
            .map(|(index, frame)| Ok((index, still(frame, limit)?)))
            .collect::<Result<_>>()?;
        let mut sequences: Vec<Vec<Still>> = chosen.iter().map(|_| Vec::new()).collect();
        for (index, still) in read {
            sequences[index].extend(still);
        }
        sequences.retain(|frames| frames.iter().any(|frame| frame.coverage() > 0.0));
        if sequences.is_empty() {
            return Err(crate::Error::dataset(root, "no annotated sequence is left to train on"));
        }
        Ok(Self { sequences })
    }

    /// Takes over the sequences of another.
    pub fn extend(&mut self, other: Self) {
        self.sequences.extend(other.sequences);
    }

    /// The frames of each sequence.
    pub fn sequences(&self) -> &[Vec<Still>] {
        &self.sequences
    }

    /// Number of frames in all sequences.
    pub fn frames(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }
}

fn still(frame: &Frame, limit: Size) -> Result<Option<Still>> {
    let Some(labels) = frame.read_annotation()? else { return Ok(None) };
    let picture = frame.read_picture()?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let labels = labels.resized(width, height);
    let mask: Vec<u8> =
        labels.ids().iter().map(|&id| if id == 0 || id == LabelMap::VOID { 0 } else { 255 }).collect();
    Ok(Some(Still::new(&picture, &mask, (height as i64, width as i64), limit)?))
}
