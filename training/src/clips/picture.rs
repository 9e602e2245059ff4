// SPDX-License-Identifier: MPL-2.0

//! Pictures and masks in memory: bytes, shrunk to the size limit of their source.

use std::sync::Arc;

use gstfastganseg::image::Region;
use image::RgbImage;
use tch::{Kind, Tensor};

use super::Size;
use crate::report::bytes;
use crate::{LabelMap, Result};

/// Picture with the masks of its objects.
#[derive(Clone, Debug)]
pub struct Picture {
    height: i64,
    width: i64,
    rgb: Arc<[u8]>,
    /// Masks by object id; objects without pixels have none.
    masks: Vec<(u8, Arc<[u8]>)>,
    known: Option<Arc<[u8]>>,
}

/// Picture with the mask of one object.
#[derive(Clone, Debug)]
pub struct Still {
    pub height: i64,
    pub width: i64,
    /// (3, h, w) RGB.
    rgb: Arc<[u8]>,
    /// (h, w), 0 to 255; `None` = the object is not visible.
    mask: Option<Arc<[u8]>>,
    /// (h, w), 255 where the ground truth is known; `None` = everywhere.
    known: Option<Arc<[u8]>>,
}

impl Picture {
    /// Packs a picture and its labels of the same size, shrunk to fit `limit` if larger, with the masks of the ids
    /// in `objects`.
    pub fn new(picture: &RgbImage, labels: &LabelMap, objects: &[u8], limit: Size) -> Result<Self> {
        let from = (i64::from(picture.height()), i64::from(picture.width()));
        let to = shrunk(from, limit);
        let plane = |id: u8, value: u8, others: u8| -> Result<Arc<[u8]>> {
            let mut table = [others; 256];
            table[usize::from(id)] = value;
            let plane: Vec<u8> = labels.ids().iter().map(|&id| table[usize::from(id)]).collect();
            shrink(&Tensor::f_from_data_size(&plane, &[1, 1, from.0, from.1], Kind::Uint8)?, to)
        };
        let counts = labels.counts();
        let present = |id: u8| counts[usize::from(id)] > 0;
        let masks = objects.iter().filter(|&&id| present(id));
        let void = LabelMap::VOID;
        let rgb = Tensor::f_from_data_size(picture.as_raw(), &[1, from.0, from.1, 3], Kind::Uint8)?;
        Ok(Self {
            height: to.0,
            width: to.1,
            rgb: shrink(&rgb.f_permute([0, 3, 1, 2])?, to)?,
            masks: masks.map(|&id| Ok((id, plane(id, 255, 0)?))).collect::<Result<_>>()?,
            known: if present(void) { Some(plane(void, 0, 255)?) } else { None },
        })
    }

    /// Returns the picture with the mask of one object.
    pub fn still(&self, object: u8) -> Still {
        let mask = self.masks.iter().find(|(id, _)| *id == object);
        Still {
            height: self.height,
            width: self.width,
            rgb: Arc::clone(&self.rgb),
            mask: mask.map(|(_, mask)| Arc::clone(mask)),
            known: self.known.clone(),
        }
    }

    pub fn bytes(&self) -> u64 {
        let planes = 3 + self.masks.len() + usize::from(self.known.is_some());
        planes as u64 * (self.height * self.width) as u64
    }
}

impl Still {
    /// Packs an image (1, 3, h, w) and the mask (1, 1, h, w) of its object, both in [0, 1].
    pub fn new(image: &Tensor, mask: &Tensor) -> Result<Self> {
        let (_, _, height, width) = image.size4()?;
        Ok(Self { height, width, rgb: bytes(image)?.into(), mask: Some(bytes(mask)?.into()), known: None })
    }

    /// Returns the image (1, 3, h, w) in [0, 1].
    pub fn image(&self) -> Result<Tensor> {
        unit(&self.rgb, &[1, 3, self.height, self.width])
    }

    /// Returns the mask (1, 1, h, w) in [0, 1].
    pub fn mask(&self) -> Result<Tensor> {
        let size = [1, 1, self.height, self.width];
        match &self.mask {
            Some(mask) => unit(mask, &size),
            None => Ok(Tensor::f_zeros(size, (Kind::Float, tch::Device::Cpu))?),
        }
    }

    /// Returns (1, 1, h, w), 1 where the ground truth is known; `None` = everywhere.
    pub fn known(&self) -> Result<Option<Tensor>> {
        self.known.as_ref().map(|known| unit(known, &[1, 1, self.height, self.width])).transpose()
    }

    /// Returns the share of the pixels that belong to the object.
    pub fn coverage(&self) -> f64 {
        let Some(mask) = &self.mask else { return 0.0 };
        mask.iter().filter(|&&value| value > 127).count() as f64 / mask.len() as f64
    }

    /// Returns the object's bounding box (x0, x1, y0, y1): columns `x0..x1` and rows `y0..y1`.
    pub fn bounds(&self) -> Option<(i64, i64, i64, i64)> {
        let inside = |value: &u8| *value > 127;
        let Region { x, y, width, height } =
            Region::bounding(self.mask.as_ref()?, self.width as usize, inside)?;
        Some((x as i64, (x + width) as i64, y as i64, (y + height) as i64))
    }

    /// Returns the object's centroid (x, y) as fractions of the width and height.
    pub fn centroid(&self) -> Option<(f64, f64)> {
        let (mut x, mut y, mut n) = (0, 0, 0);
        for (row, line) in self.mask.as_ref()?.chunks(self.width as usize).enumerate() {
            for (column, _) in line.iter().enumerate().filter(|(_, value)| **value > 127) {
                (x, y, n) = (x + column, y + row, n + 1);
            }
        }
        let part = |sum: usize, side: i64| sum as f64 / n as f64 / side as f64;
        (n > 0).then(|| (part(x, self.width), part(y, self.height)))
    }
}

/// Returns `size` reduced to fit `limit`, with the same aspect ratio.
pub fn shrunk(size: Size, limit: Size) -> Size {
    let scale = (limit.0 as f64 / size.0 as f64).min(limit.1 as f64 / size.1 as f64).min(1.0);
    let side = |side: i64| ((side as f64 * scale).round() as i64).max(1);
    (side(size.0), side(size.1))
}

/// Resizes (1, C, h, w) with an antialiased filter and returns the bytes.
fn shrink(x: &Tensor, to: Size) -> Result<Arc<[u8]>> {
    let x = match (x.size()[2], x.size()[3]) == to {
        true => x.shallow_clone(),
        false => x.f_internal_upsample_bilinear2d_aa([to.0, to.1], false, None, None)?,
    };
    Ok(Vec::<u8>::try_from(&x.f_contiguous()?.f_reshape([-1])?)?.into())
}

fn unit(bytes: &[u8], size: &[i64]) -> Result<Tensor> {
    let bytes = Tensor::f_from_data_size(bytes, size, Kind::Uint8)?;
    Ok(bytes.f_to_kind(Kind::Float)?.f_mul_scalar(1.0 / 255.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 x 10 pixels: object 1 on the left, object 3 on the right, a column of void between.
    fn picture(limit: Size) -> Picture {
        let ids = (0..200).map(|i| match i % 20 {
            0..4 => 1,
            4 => LabelMap::VOID,
            12.. => 3,
            _ => 0,
        });
        let labels = LabelMap::new(20, 10, ids.collect()).unwrap();
        let rgb = RgbImage::from_fn(20, 10, |x, _| image::Rgb([10 * x as u8, 0, 200]));
        Picture::new(&rgb, &labels, &[1, 2, 3], limit).unwrap()
    }

    #[test]
    fn each_object_has_a_mask() {
        let picture = picture((100, 100));
        assert_eq!(picture.still(1).bounds(), Some((0, 4, 0, 10)));
        assert_eq!(picture.still(3).bounds(), Some((12, 20, 0, 10)));
        assert_eq!(picture.still(3).centroid(), Some((0.775, 0.45)));
        assert_eq!(picture.still(2).bounds(), None, "not visible");
        assert_eq!(picture.still(2).mask().unwrap().sum(Kind::Float).double_value(&[]), 0.0);
        assert!((picture.still(1).coverage() - 0.2).abs() < 1e-9);
        assert_eq!(picture.bytes(), 6 * 200, "RGB, two masks, void");
    }

    #[test]
    fn void_pixels_have_no_known_truth() {
        let known = picture((100, 100)).still(1).known().unwrap().unwrap();
        assert_eq!(known.double_value(&[0, 0, 5, 4]), 0.0);
        assert_eq!(known.sum(Kind::Float).double_value(&[]), 190.0);
    }

    #[test]
    fn shrunk_pictures_keep_aspect_ratio_and_coverage() {
        let still = picture((100, 10)).still(3);
        assert_eq!((still.height, still.width), (5, 10));
        assert!((still.coverage() - 0.4).abs() < 1e-9);
        let red = still.image().unwrap().double_value(&[0, 0, 2, 5]) * 255.0;
        assert!((red - 105.0).abs() < 6.0, "{red}");
    }
}
