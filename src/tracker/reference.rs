// SPDX-License-Identifier: MPL-2.0

//! Encoding of references, on the tracker's thread or another.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::crop::CropWindow;
use super::input_size::InputSizes;
use super::options::Roi;
use super::roi::{Bounds, RoiPlanner};
use super::runner::{EncodeReference, EncodedViews};
use super::{MAX_OBJECTS, object_stats};
use crate::image::{FrameSource, Picture, Region};
use crate::mask::ReferenceMask;
use crate::matte::{mask_planes, object_mask};
use crate::model::layers::{channels_last, picture_tensor, shrink};
use crate::team::TeamGuard;
use crate::{Error, Result};

/// What a reference is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceUse {
    /// To replace all earlier references.
    Set,
    /// To be added to the present ones. Objects without pixels in the mask are not in the picture.
    Add,
}

/// Encodes references for a [`Tracker`](super::Tracker) on any thread.
pub struct ReferenceEncoder {
    /// Identity of the tracker's network.
    pub(super) network: Arc<()>,
    pub(super) encode: EncodeReference,
    pub(super) plan: ViewPlan,
    pub(super) kind: Kind,
    /// Whether libtorch needs no threads.
    pub(super) packed: bool,
    /// Ids of the objects that were tracked when this was made.
    pub(super) ids: Vec<u8>,
}

/// A reference that is encoded for one tracker.
#[derive(Debug)]
pub struct EncodedReference {
    pub(super) network: Arc<()>,
    pub(super) purpose: ReferenceUse,
    /// Ids of its objects.
    pub(super) ids: Vec<u8>,
    pub(super) views: EncodedViews,
    /// Crop window of the view that tracking starts from.
    pub(super) crop: CropWindow,
}

impl EncodedReference {
    /// What it is for.
    pub fn purpose(&self) -> ReferenceUse {
        self.purpose
    }
}

impl ReferenceEncoder {
    /// Encodes a picture and its mask, which is scaled to the picture.
    ///
    /// # Errors
    /// [`Error::Config`] for more than [`MAX_OBJECTS`] objects, or for an object to add that is not tracked. Also errors
    /// of libtorch and of the conversion of the picture.
    pub fn encode(
        &self,
        source: &mut dyn FrameSource,
        mask: &ReferenceMask,
        purpose: ReferenceUse,
    ) -> Result<EncodedReference> {
        let _no_grad = tch::no_grad_guard();
        let _team = self.packed.then(TeamGuard::new);
        let (ids, planes) = planes(mask, purpose, &self.ids)?;
        let frame = source.size();
        let (views, crop) = self.plan.views(frame, &planes, |region, size| {
            let picture = source.crop(region, (size.1 as usize, size.0 as usize))?;
            input_image(&picture, size, (self.kind, Device::Cpu))
        })?;
        let views = (self.encode)(&views)?;
        Ok(EncodedReference { network: self.network.clone(), purpose, ids, views, crop })
    }
}

/// Resizes a picture to `size` (H, W) and returns it as (1, 3, H, W), RGB in [0, 1], channels last.
pub fn input_image(picture: &Picture, size: (i64, i64), (kind, device): (Kind, Device)) -> Result<Tensor> {
    let image = picture_tensor(picture)?.f_to_device(device)?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
    channels_last(&shrink(&image, size.0, size.1)?.f_to_kind(kind)?)
}

/// Returns the ids of a reference's objects and their masks (N, 1, H, W), uint8 from 0 to 255. `tracked` are the ids of the present objects.
pub fn planes(mask: &ReferenceMask, purpose: ReferenceUse, tracked: &[u8]) -> Result<(Vec<u8>, Tensor)> {
    let objects = mask.objects();
    match purpose {
        ReferenceUse::Set if objects.len() > MAX_OBJECTS => {
            Err(Error::Config(format!("the mask has {} objects; use at most {MAX_OBJECTS}", objects.len())))
        }
        ReferenceUse::Set => Ok((objects.iter().map(|object| object.id).collect(), mask_planes(mask)?)),
        ReferenceUse::Add if tracked.is_empty() => Err(Error::NoReference),
        ReferenceUse::Add => {
            mask.check_ids(tracked)?;
            let planes = mask_planes(mask)?;
            let absent = planes.f_narrow(0, 0, 1)?.f_zeros_like()?;
            let plane = |id: &u8| match objects.iter().position(|object| object.id == *id) {
                Some(index) => planes.f_narrow(0, index as i64, 1),
                None => Ok(absent.shallow_clone()),
            };
            let planes: Vec<Tensor> = tracked.iter().map(plane).collect::<Result<_, _>>()?;
            Ok((tracked.to_vec(), Tensor::f_cat(&planes, 0)?))
        }
    }
}

#[derive(Clone)]
pub struct ViewPlan {
    pub roi: Roi,
    pub sizes: InputSizes,
}

impl ViewPlan {
    /// Returns the images of the views of a picture of size `frame`, each with its masks, and the crop window of the first. `masks` is
    /// (N, 1, height, width) at any size, uint8 from 0 to 255. `input` converts a region to an input image of (height, width).
    pub fn views(
        &self,
        frame: (usize, usize),
        masks: &Tensor,
        mut input: impl FnMut(Region, (i64, i64)) -> Result<Tensor>,
    ) -> Result<(Vec<(Tensor, Tensor)>, CropWindow)> {
        let mask_size = (masks.size()[3] as usize, masks.size()[2] as usize);
        // One object at a time: large masks of many objects take gigabytes as float32.
        let objects = 0..masks.size()[0] as usize;
        let bounds = |index: usize| object_stats::bounds_of(&masks.f_narrow(0, index as i64, 1)?);
        let bounds = objects.clone().map(bounds).collect::<Result<Vec<_>>>()?;
        let bounds = bounds.into_iter().flatten().reduce(Bounds::join);
        let whole = Region::whole(frame);
        let region = match self.roi {
            Roi::Auto | Roi::Frame => RoiPlanner::new(self.sizes.follows_region()).begin(bounds, frame),
            Roi::Off => whole,
        };
        let crop = CropWindow { region, frame, size: self.sizes.of(region) };
        // Background outside of the region may enter it later and must not be taken for an object.
        let others = (region != whole).then_some((whole, self.sizes.for_search(whole)));
        let mut views = Vec::new();
        for (region, (height, width)) in [(region, crop.size)].into_iter().chain(others) {
            let part = region.scaled(frame, mask_size);
            let rows = masks.f_narrow(2, part.y as i64, part.height as i64)?;
            let masks = rows.f_narrow(3, part.x as i64, part.width as i64)?;
            let shrunk = |index: usize| shrink(&object_mask(&masks, index)?, height, width);
            let shrunk = objects.clone().map(shrunk).collect::<Result<Vec<_>>>()?;
            let image = input(region, (height, width))?;
            let masks = Tensor::f_cat(&shrunk, 0)?.f_to_device(image.device())?;
            views.push((image, masks));
        }
        Ok((views, crop))
    }
}
