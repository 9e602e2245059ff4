//! The soft masks of one frame, and their way into 8-bit planes of any size.

use tch::{Device, Kind, Tensor};

use super::{PlaneMut, Region};
use crate::mask::ReferenceMask;
use crate::model::layers::resize;
use crate::{Error, Result};

/// Soft masks of one frame, one an object, (N, 1, h, w) in [0, 1]; the background is what is left. They
/// cover a region of the frame, outside of which there is no object.
#[derive(Debug)]
pub struct Matte {
    masks: Tensor,
    ids: Vec<u8>,
    region: Region,
    /// Width and height of the picture that `region` is part of.
    frame: (usize, usize),
}

impl Matte {
    pub(super) fn new(masks: &Tensor, ids: &[u8], region: Region, frame: (usize, usize)) -> Result<Self> {
        let masks = masks.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?;
        Ok(Self { masks, ids: ids.to_vec(), region, frame })
    }

    /// The matte of the reference frame itself: the mask as the user drew it.
    pub fn from_mask(mask: &ReferenceMask) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<u8> = mask.objects().iter().map(|object| object.id).collect();
        let frame = (mask.width(), mask.height());
        Self::new(&planes(mask)?, &ids, Region::whole(frame), frame)
    }

    /// Ids of the objects, as the mask has them.
    pub fn object_ids(&self) -> &[u8] {
        &self.ids
    }

    /// Soft alpha, 0 to 255, of one object, or of all together for `None` and `Some(0)`, resized
    /// bilinearly to the plane. An object that is not there is transparent everywhere.
    pub fn write_alpha(&self, object: Option<u8>, plane: &mut PlaneMut) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let mask = match object.filter(|&id| id != 0) {
            None if self.ids.len() == 1 => self.masks.shallow_clone(),
            None => self.masks.f_sum_dim_intlist(0, true, None::<Kind>)?.f_clamp(0.0, 1.0)?,
            Some(id) => match self.ids.iter().position(|&known| known == id) {
                Some(index) => self.masks.f_narrow(0, index as i64, 1)?,
                None => return fill(plane, 0),
            },
        };
        // Bytes are resized several times as fast as floats are.
        self.write(plane, |region| to_size(&bytes(&mask)?, region))
    }

    /// The id of the object, or 0, that each pixel most probably belongs to.
    pub fn write_labels(&self, plane: &mut PlaneMut) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.write(plane, |region| {
            let masks = to_size(&self.masks, region)?;
            let background = masks.f_sum_dim_intlist(0, true, None::<Kind>)?.f_neg()?.f_add_scalar(1.0)?;
            let winner = Tensor::f_cat(&[background, masks], 0)?.f_argmax(0, false)?;
            let ids: Vec<u8> = std::iter::once(0).chain(self.ids.iter().copied()).collect();
            let ids = Tensor::f_from_slice(&ids)?;
            Ok(ids.f_index_select(0, &winner.f_reshape([-1])?)?)
        })
    }

    /// Writes what `values` makes of the region, and nothing but zeros around it.
    fn write(&self, plane: &mut PlaneMut, values: impl FnOnce(Region) -> Result<Tensor>) -> Result<()> {
        let size = (plane.width, plane.height);
        let region = self.region.scaled(self.frame, size);
        if region != Region::whole(size) {
            fill(plane, 0)?;
        }
        let PlaneMut { width, height, stride, .. } = *plane;
        drop(rows(plane)?);
        let part = plane.data.get_mut(region.y * stride + region.x..).unwrap_or_default();
        debug_assert!(region.x + region.width <= width && region.y + region.height <= height);
        let mut part = PlaneMut { data: part, width: region.width, height: region.height, stride };
        write(&values(region)?, &mut part)
    }
}

/// The planes of a reference mask as (N, 1, height, width) in [0, 1].
pub(super) fn planes(mask: &ReferenceMask) -> Result<Tensor> {
    let size = [1, 1, mask.height() as i64, mask.width() as i64];
    let planes = mask
        .objects()
        .iter()
        .map(|object| {
            let plane = Tensor::f_from_data_size(&object.alpha, &size, Kind::Uint8)?;
            Ok(plane.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
        })
        .collect::<Result<Vec<Tensor>>>()?;
    Ok(Tensor::f_cat(&planes, 0)?)
}

/// Resizes (N, C, h, w) to network size; averages over what a smaller picture cannot show.
pub(super) fn shrink(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    if x.size()[2..] == [height, width] {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?)
}

/// 0 to 1 as 0 to 255.
fn bytes(mask: &Tensor) -> Result<Tensor> {
    Ok(mask.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?)
}

/// Enlarges bilinearly, shrinks with averaging.
fn to_size(masks: &Tensor, region: Region) -> Result<Tensor> {
    let (height, width) = (region.height as i64, region.width as i64);
    let size = masks.size();
    if size[2] > height || size[3] > width {
        shrink(masks, height, width)
    } else {
        resize(masks, height, width)
    }
}

fn rows<'a>(plane: &'a mut PlaneMut) -> Result<impl Iterator<Item = &'a mut [u8]>> {
    let PlaneMut { width, height, stride, .. } = *plane;
    if width == 0 || height == 0 || stride < width || plane.data.len() < stride * (height - 1) + width {
        return Err(Error::Config(format!(
            "a plane of {width}x{height} does not fit {} bytes in rows of {stride}",
            plane.data.len()
        )));
    }
    Ok(plane.data.chunks_mut(stride).take(height).map(move |row| &mut row[..width]))
}

fn fill(plane: &mut PlaneMut, value: u8) -> Result<()> {
    rows(plane)?.for_each(|row| row.fill(value));
    Ok(())
}

/// Copies bytes, as many as the plane has pixels, into its rows.
fn write(values: &Tensor, plane: &mut PlaneMut) -> Result<()> {
    let (width, count) = (plane.width, plane.width * plane.height);
    let values = values.f_contiguous()?;
    if plane.stride == width && plane.data.len() >= count {
        return Ok(values.f_copy_data_u8(plane.data, count)?);
    }
    let mut packed = vec![0; count];
    values.f_copy_data_u8(&mut packed, count)?;
    for (row, values) in rows(plane)?.zip(packed.chunks(width)) {
        row.copy_from_slice(values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_the_enlarged_mask() {
        let _guard = tch::no_grad_guard();
        let x = Tensor::arange(24 * 40, (Kind::Float, Device::Cpu)).reshape([1, 1, 24, 40]);
        let mask = (&x * 0.37).sin() * 0.5 + 0.5;
        let matte = Matte::new(&mask, &[1], Region::whole((40, 24)), (40, 24)).unwrap();
        for (width, height, stride) in [(40, 24, 40), (200, 101, 256), (64, 64, 64), (41, 25, 43)] {
            let expected = resize(&mask, height as i64, width as i64).unwrap() * 255.0;
            let expected = Vec::<f32>::try_from(&expected.reshape([-1])).unwrap();
            let mut data = vec![3; stride * height];
            matte.write_alpha(None, &mut PlaneMut { data: &mut data, width, height, stride }).unwrap();
            for (row, expected) in data.chunks(stride).zip(expected.chunks(width)) {
                assert!(row[..width].iter().zip(expected).all(|(a, b)| (f32::from(*a) - b).abs() <= 1.6));
                assert!(row[width..].iter().all(|&value| value == 3));
            }
        }
    }

    #[test]
    fn outside_its_region_a_matte_is_transparent() {
        let region = Region { x: 4, y: 2, width: 4, height: 4 };
        let mask = Tensor::ones([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        let matte = Matte::new(&mask, &[3], region, (10, 8)).unwrap();
        for labels in [false, true] {
            let mut data = vec![9; 20 * 16];
            let mut plane = PlaneMut { data: &mut data, width: 20, height: 16, stride: 20 };
            if labels {
                matte.write_labels(&mut plane).unwrap();
            } else {
                matte.write_alpha(None, &mut plane).unwrap();
            }
            let inside = if labels { 3 } else { 255 };
            for (index, &value) in data.iter().enumerate() {
                let (x, y) = (index % 20, index / 20);
                let expected = if (8..16).contains(&x) && (4..12).contains(&y) { inside } else { 0 };
                assert_eq!(value, expected, "at {x}, {y}");
            }
        }
    }
}
