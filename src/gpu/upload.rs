// SPDX-License-Identifier: MPL-2.0

//! Uploads the planes of a frame to the network's device with one asynchronous copy, and converts them to the
//! input of the network there.

use tch::{Device, Kind, Tensor};

use super::graphs::shallow_clones;
use super::layout::Layout;
use super::{Argument, ArgumentUse, Gpu, Mode, PlanCache, RecordableFn};
use crate::Result;
use crate::cuda::Shim;
use crate::image::{Planes, Region};
use crate::model::Role;
use crate::model::layers::channels_last;

/// Maximum number of cached crop matrices of a format, for the region of interest and the whole frame.
const MAX_CUTS: usize = 4;
/// Maximum number of formats whose conversion is recorded.
const MAX_PLANS: usize = 4;

/// Uploads frames and owns the buffers for it.
#[derive(Debug)]
pub struct Upload {
    device: Device,
    replays: PlanCache<()>,
    format: Option<Format>,
    /// The present frame has been uploaded or its copy is pending.
    uploaded: bool,
    /// The last copy may still read the staging buffer.
    copying: bool,
}

#[derive(Debug)]
struct Format {
    layout: Layout,
    /// Page-locked host memory; `None` on the CPU.
    staging: Option<Tensor>,
    bytes: Tensor,
    cuts: Vec<(Region, Vec<Tensor>)>,
}

impl Upload {
    pub fn new(device: Device, mode: Mode) -> Self {
        let replays = PlanCache::new(mode, 1, MAX_PLANS);
        Self { device, replays, format: None, uploaded: false, copying: false }
    }

    pub fn begin(&mut self) {
        self.uploaded = false;
    }

    /// Records that the host has waited for the device.
    pub fn mark_synchronised(&mut self) {
        self.copying = false;
    }

    /// Returns `region` of the present frame, resized to `size` (height, width), as (1, 3, height, width) in
    /// `kind`: RGB in [0, 1], channels last. With recorded runs, it is valid until the next call.
    pub fn image(
        &mut self,
        planes: &Planes,
        region: Region,
        size: (i64, i64),
        kind: Kind,
        gpu: &Gpu,
    ) -> Result<Tensor> {
        let layout = Layout::new(planes)?;
        if self.format.as_ref().is_none_or(|format| format.layout != layout) {
            self.uploaded = false;
            self.format = Some(Format::new(layout, self.device)?);
        }
        let Self { format, uploaded, copying, replays, device } = self;
        let Some(format) = format else { return Err(crate::Error::NoReference) };
        if !*uploaded {
            if let (true, Some(stream)) = (*copying, gpu.stream()) {
                stream.wait()?;
            }
            format.fill(planes, gpu.shim())?;
            *uploaded = true;
            *copying = true;
        }
        // Float16 is precise enough for weighted sums of bytes, the mantissa of bfloat16 is too short.
        let precision = if kind == Kind::Float || *device == Device::Cpu { Kind::Float } else { Kind::Half };
        let cut = format.crop_matrices(region, size, (precision, *device))?;
        let constant = |tensor| Argument::new(tensor, ArgumentUse::Model(Role::Constant));
        let bytes = Argument::new(&format.bytes, ArgumentUse::InPlace);
        let arguments = std::iter::once(bytes).chain(cut.iter().map(constant)).collect();
        let layout = &format.layout;
        let mut results =
            replays.run(&(), layout.hash_value(), arguments, || recipe(layout.clone(), kind))?;
        results.pop().ok_or(crate::Error::NoReference)
    }
}

/// Returns the conversion of the bytes with the crop matrices to a picture.
fn recipe(layout: Layout, kind: Kind) -> RecordableFn<()> {
    Box::new(move |(), tensors| {
        let [bytes, cut @ ..] = tensors else { return Err(crate::Error::NoReference) };
        let picture = layout.picture(bytes, cut)?;
        Ok(vec![channels_last(&picture.f_to_kind(kind)?)?])
    })
}

impl Format {
    fn new(layout: Layout, device: Device) -> Result<Self> {
        let size = [layout.length() as i64];
        let bytes = Tensor::f_zeros(size, (Kind::Uint8, device))?;
        let staging = match device {
            Device::Cpu => None,
            _ => Some(Tensor::f_zeros(size, (Kind::Uint8, Device::Cpu))?.f_pin_memory(device)?),
        };
        Ok(Self { layout, staging, bytes, cuts: Vec::new() })
    }

    fn fill(&mut self, planes: &Planes, shim: Option<&Shim>) -> Result<()> {
        let to = self.staging.as_ref().unwrap_or(&self.bytes);
        // SAFETY: `to` is a contiguous tensor of that many bytes in host memory. No device copies from it, and
        // there is no other reference to it while it is borrowed.
        let to = unsafe { std::slice::from_raw_parts_mut(to.data_ptr().cast::<u8>(), self.layout.length()) };
        self.layout.pack(planes, to);
        match (&self.staging, shim) {
            (Some(staging), Some(shim)) => shim.copy(&mut self.bytes, staging),
            (Some(staging), None) => Ok(self.bytes.f_copy_(staging)?),
            (None, _) => Ok(()),
        }
    }

    fn crop_matrices(&mut self, region: Region, size: (i64, i64), to: (Kind, Device)) -> Result<Vec<Tensor>> {
        if let Some((_, cut)) = self.cuts.iter().find(|(cached, _)| *cached == region) {
            return Ok(shallow_clones(cut));
        }
        let cut = self.layout.crop_matrices(region, size, to)?;
        if self.cuts.len() >= MAX_CUTS {
            self.cuts.remove(0);
        }
        self.cuts.push((region, shallow_clones(&cut)));
        Ok(cut)
    }
}

/// Converts a frame's planes to the input of a network of `size` (width, height) as on a GPU, (1, 3, height,
/// width) float32.
#[cfg(all(test, feature = "plugin"))]
pub fn picture_of_planes(planes: &Planes, region: Region, size: (usize, usize)) -> Result<Tensor> {
    let mut upload = Upload::new(Device::Cpu, Mode::Direct);
    let gpu = Gpu::new(Device::Cpu, Mode::Direct)?;
    upload.image(planes, region, (size.1 as i64, size.0 as i64), Kind::Float, &gpu)
}
