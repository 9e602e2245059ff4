// SPDX-License-Identifier: MPL-2.0

//! Soft masks of one frame, and their conversion to 8-bit planes of any size.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::refine::RefinerNetwork;
use super::{Enlarger, MaskView};
use crate::Result;
use crate::cuda::StreamGuard;
use crate::image::{PlaneMut, Region};
use crate::mask::ReferenceMask;
use crate::model::layers::{resize, shrink};

/// Soft masks of one frame, one per object; the background is the rest up to 1. They cover a region of the frame, outside of
/// which there is no object.
#[derive(Debug)]
pub struct Matte {
    /// (N, 1, h, w): float32 in [0, 1], or uint8 from 0 to 255.
    masks: Tensor,
    ids: Vec<u8>,
    region: Region,
    /// Width and height of the frame that `region` is part of.
    frame: (usize, usize),
    drawn: bool,
    /// Enlarges masks on the device of the network; `None` on the CPU.
    enlarger: Option<Arc<dyn DeviceEnlarger>>,
    /// Refines edges; `None` if the model cannot.
    refiner: Option<Arc<dyn RefinerNetwork>>,
}

/// Enlarges masks on the device of the network, if that is not the CPU.
pub(crate) trait DeviceEnlarger: std::fmt::Debug + Send + Sync {
    /// Makes the stream of the masks current on this thread while the guard lives.
    fn enter(&self) -> Result<Option<StreamGuard>>;

    /// Enlarges a soft mask (1, 1, h, w) to `plane`, which is at least as large in both dimensions.
    fn enlarge(&self, mask: &Tensor, plane: &mut PlaneMut) -> Result<()>;
}

impl Matte {
    pub(crate) fn new(masks: &Tensor, ids: &[u8], region: Region, frame: (usize, usize)) -> Result<Self> {
        let masks =
            if masks.kind() == Kind::Uint8 { masks.shallow_clone() } else { masks.f_to_kind(Kind::Float)? };
        Ok(Self { masks, ids: ids.to_vec(), region, frame, drawn: false, enlarger: None, refiner: None })
    }

    /// Sets what enlarges masks on the device of the network.
    pub(crate) fn with_enlarger(self, enlarger: Option<Arc<dyn DeviceEnlarger>>) -> Self {
        Self { enlarger, ..self }
    }

    /// Sets what refines edges.
    pub(crate) fn with_refiner(self, refiner: Option<Arc<dyn RefinerNetwork>>) -> Self {
        Self { refiner, ..self }
    }

    /// What refines edges. A drawn mask keeps its own.
    pub(crate) fn refiner(&self) -> Option<&dyn RefinerNetwork> {
        self.refiner.as_deref().filter(|_| !self.drawn)
    }

    /// Writes the alpha of one object, or of all for 0, with the enlarger of the device. Returns false if the caller has to do
    /// this on the CPU.
    pub(crate) fn write_on_device(&self, object: u8, plane: &mut PlaneMut) -> Result<bool> {
        let Some(enlarger) = &self.enlarger else { return Ok(false) };
        let _no_grad = tch::no_grad_guard();
        let _current = enlarger.enter()?;
        let region = self.region_in((plane.width, plane.height));
        if is_larger(&self.masks, region) {
            return Ok(false);
        }
        let Some(mask) = self.mask(Some(object))? else { return Ok(false) };
        enlarger.enlarge(&mask, &mut self.clear_outside(region, plane)?)?;
        Ok(true)
    }

    /// The soft mask (1, 1, h, w) of one object, or of all for `None` and `Some(0)`. `None` for an unknown id.
    fn mask(&self, object: Option<u8>) -> Result<Option<Tensor>> {
        let mut of_objects = (0..self.ids.len()).map(|index| object_mask(&self.masks, index));
        match object.filter(|&id| id != 0) {
            None => {
                let Some(first) = of_objects.next() else { return Ok(None) };
                of_objects.try_fold(first?, |sum, mask| Ok(sum.f_add(&mask?)?)).map(Some)
            }
            Some(id) => self
                .ids
                .iter()
                .position(|&other| other == id)
                .map(|index| object_mask(&self.masks, index))
                .transpose(),
        }
    }

    fn enter(&self) -> Result<Option<StreamGuard>> {
        self.enlarger.as_ref().map_or(Ok(None), |enlarger| enlarger.enter())
    }

    /// The matte of the reference frame: the reference mask itself.
    pub fn from_mask(mask: &ReferenceMask) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<u8> = mask.objects().iter().map(|object| object.id).collect();
        let frame = (mask.width(), mask.height());
        let matte = Self::new(&mask_planes(mask)?, &ids, Region::whole(frame), frame)?;
        Ok(Self { drawn: true, ..matte })
    }

    /// Object ids of the reference mask.
    pub fn object_ids(&self) -> &[u8] {
        &self.ids
    }

    /// Writes the soft alpha, 0 to 255, of one object, or of all for `None` and `Some(0)`, resized bilinearly to
    /// the plane. An unknown object is transparent everywhere.
    pub fn write_alpha(&self, object: Option<u8>, plane: &mut PlaneMut) -> Result<()> {
        let mut bytes = Vec::new();
        let region = self.region_in((plane.width, plane.height));
        match self.alpha_bytes(object, region, &mut bytes)? {
            Some(small) => {
                let mut part = self.clear_outside(region, plane)?;
                Enlarger::default().enlarge(&small, &mut part)
            }
            None => plane.fill(0),
        }
    }

    /// The soft alpha of one object, or of all for `None` and `Some(0)`, at the size of the masks; masks that are
    /// larger than `region` are reduced to its size. `None` for an unknown id.
    pub(crate) fn alpha_bytes<'a>(
        &self,
        object: Option<u8>,
        region: Region,
        bytes: &'a mut Vec<u8>,
    ) -> Result<Option<MaskView<'a>>> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let Some(mask) = self.mask(object)? else { return Ok(None) };
        let mut mask = to_bytes(&mask)?.f_to_device(Device::Cpu)?;
        if is_larger(&mask, region) {
            mask = shrink(&mask, region.height as i64, region.width as i64)?;
        }
        let &[.., height, width] = mask.size().as_slice() else { return Ok(None) };
        let (width, height) = (width as usize, height as usize);
        bytes.resize(width * height, 0);
        mask.f_contiguous()?.f_copy_data_u8(bytes, width * height)?;
        Ok(Some(MaskView { values: bytes, width, height }))
    }

    /// The region of a plane of this size that the masks cover.
    pub(crate) fn region_in(&self, size: (usize, usize)) -> Region {
        self.region.scaled(self.frame, size)
    }

    /// The part of `plane` at `region`; everything around it becomes transparent.
    pub(crate) fn clear_outside<'a>(&self, region: Region, plane: &'a mut PlaneMut) -> Result<PlaneMut<'a>> {
        if region != Region::whole((plane.width, plane.height)) {
            plane.fill(0)?;
        }
        drop(plane.rows()?);
        Ok(plane.part(region))
    }

    /// Writes the id of the most probable object of each pixel, or 0 for the background.
    pub fn write_labels(&self, plane: &mut PlaneMut) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let region = self.region_in((plane.width, plane.height));
        let mut part = self.clear_outside(region, plane)?;
        // One object at a time: libtorch's argmax over the first dimension takes ten times as long, and the masks of all
        // objects at this size may take gigabytes.
        let size = [region.height as i64, region.width as i64];
        let mut labels = Tensor::f_zeros(size, (Kind::Uint8, Device::Cpu))?;
        let mut sum = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
        let mut highest = sum.shallow_clone();
        for (index, &id) in self.ids.iter().enumerate() {
            let mask = object_mask(&self.masks, index)?.f_to_device(Device::Cpu)?;
            let mask = to_size(&mask, region)?.f_reshape(size)?;
            labels = labels.f_masked_fill(&mask.f_gt_tensor(&highest)?, i64::from(id))?;
            highest = highest.f_maximum(&mask)?;
            sum = sum.f_add(&mask)?;
        }
        let background = sum.f_neg()?.f_add_scalar(1.0)?;
        let labels = labels.f_masked_fill(&highest.f_le_tensor(&background)?, 0)?;
        let mut packed = vec![0; region.width * region.height];
        labels.f_contiguous()?.f_copy_data_u8(&mut packed, region.width * region.height)?;
        part.copy(&packed)
    }
}

/// The object planes of a reference mask, uint8 (N, 1, H, W) from 0 to 255.
pub(crate) fn mask_planes(mask: &ReferenceMask) -> Result<Tensor> {
    let size = [1, 1, mask.height() as i64, mask.width() as i64];
    let plane = |alpha: &[u8]| Ok(Tensor::f_from_data_size(alpha, &size, Kind::Uint8)?);
    let planes = mask.objects().iter().map(|object| plane(&object.alpha)).collect::<Result<Vec<Tensor>>>()?;
    Ok(Tensor::f_cat(&planes, 0)?)
}

/// The mask (1, 1, H, W) of one of several objects, float32 in [0, 1]. `masks` are (N, 1, H, W), float32 in [0, 1] or uint8
/// from 0 to 255.
pub(crate) fn object_mask(masks: &Tensor, index: usize) -> Result<Tensor> {
    let mask = masks.f_narrow(0, index as i64, 1)?;
    match mask.kind() {
        Kind::Uint8 => Ok(mask.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?),
        _ => Ok(mask),
    }
}

/// Converts [0, 1] to uint8, 0 to 255.
fn to_bytes(mask: &Tensor) -> Result<Tensor> {
    Ok(mask.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?)
}

/// Resizes masks to the size of `region`: enlarges bilinearly, shrinks with anti-aliasing.
fn to_size(masks: &Tensor, region: Region) -> Result<Tensor> {
    let (height, width) = (region.height as i64, region.width as i64);
    if is_larger(masks, region) { shrink(masks, height, width) } else { resize(masks, height, width) }
}

fn is_larger(masks: &Tensor, region: Region) -> bool {
    let size = masks.size();
    size[2] > region.height as i64 || size[3] > region.width as i64
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
