//! The way of a frame's bytes to the device of the network, by one copy that is not waited for, and what the
//! network is shown of them.

use tch::{Device, Kind, Tensor};

use super::layout::{Cut, Layout};
use super::{Argument, Gpu, Mode, Recipe, Replays, Use};
use crate::Result;
use crate::cuda::Shim;
use crate::image::{Planes, Region};
use crate::model::Role;
use crate::model::layers::channels_last;

/// Views of a format that are kept: of the region, and of the whole.
const CUTS: usize = 4;
/// Formats whose way to the network is kept recorded.
const PLANS: usize = 4;

/// Brings up frames, and keeps what it needs for that.
#[derive(Debug)]
pub struct Upload {
    device: Device,
    replays: Replays<()>,
    /// What the frames that come now look like.
    format: Option<Format>,
    /// The present frame is there.
    there: bool,
    /// The last copy may not be done yet.
    on_its_way: bool,
}

#[derive(Debug)]
struct Format {
    layout: Layout,
    /// Page-locked, where there is a GPU.
    staging: Option<Tensor>,
    bytes: Tensor,
    cuts: Vec<(Region, Cut)>,
}

impl Upload {
    pub fn new(device: Device, mode: Mode) -> Self {
        let replays = Replays::new(mode, 1, PLANS);
        Self { device, replays, format: None, there: false, on_its_way: false }
    }

    /// What is brought up next is another frame.
    pub fn begin(&mut self) {
        self.there = false;
    }

    /// The device has been waited for.
    pub fn arrived(&mut self) {
        self.on_its_way = false;
    }

    /// How `region` of the present frame is seen by a network of `size` (height, width) that computes in
    /// `kind`: (1, 3, height, width), RGB in [0, 1], channels last, valid until the next frame.
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
            self.there = false;
            self.format = Some(Format::new(layout, self.device)?);
        }
        let Self { format, there, on_its_way, replays, device } = self;
        let Some(format) = format else { return Err(crate::Error::NoReference) };
        if !*there {
            if let (true, Some(stream)) = (*on_its_way, gpu.stream()) {
                stream.wait()?;
            }
            format.fill(planes, gpu.shim())?;
            *there = true;
            *on_its_way = true;
        }
        // Sums of bytes are exact enough in float16; the fraction of bfloat16 is too short for them.
        let precision = if kind == Kind::Float || *device == Device::Cpu { Kind::Float } else { Kind::Half };
        let cut = format.cut(region, size, (precision, *device))?;
        let known = |tensor| Argument::new(tensor, Use::Model(Role::Constant));
        let bytes = Argument::new(&format.bytes, Use::InPlace);
        let arguments = std::iter::once(bytes).chain(cut.tensors().into_iter().map(known)).collect();
        let layout = &format.layout;
        let mut results = replays.run(&(), layout.number(), arguments, || recipe(layout.clone(), kind))?;
        results.pop().ok_or(crate::Error::NoReference)
    }

    /// Luma or green of the present frame, (H, W) uint8 on the device; it will be that of the next frame.
    pub fn guide(&self) -> Result<Option<Tensor>> {
        let format = self.format.as_ref().filter(|_| self.there);
        format.map(|format| format.layout.guide(&format.bytes)).transpose()
    }
}

/// The picture from the bytes and the cut.
fn recipe(layout: Layout, kind: Kind) -> Recipe<()> {
    Box::new(move |(), tensors| {
        let [bytes, cut @ ..] = tensors else { return Err(crate::Error::NoReference) };
        let picture = layout.picture(bytes, &Cut::of_tensors(cut))?;
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
        // SAFETY: a contiguous tensor of as many bytes in the memory of this process, that no device is
        // copying from and nobody else refers to meanwhile.
        let to = unsafe { std::slice::from_raw_parts_mut(to.data_ptr().cast::<u8>(), self.layout.length()) };
        self.layout.pack(planes, to);
        match (&self.staging, shim) {
            (Some(staging), Some(shim)) => shim.copy(&mut self.bytes, staging),
            (Some(staging), None) => Ok(self.bytes.f_copy_(staging)?),
            (None, _) => Ok(()),
        }
    }

    fn cut(&mut self, region: Region, size: (i64, i64), to: (Kind, Device)) -> Result<Cut> {
        if let Some((_, cut)) = self.cuts.iter().find(|(known, _)| *known == region) {
            return Ok(cut.shallow_clone());
        }
        let cut = self.layout.cut(region, size, to)?;
        if self.cuts.len() >= CUTS {
            self.cuts.remove(0);
        }
        self.cuts.push((region, cut.shallow_clone()));
        Ok(cut)
    }
}

/// What a network of `size` (width, height) is shown of a frame's planes where it does not run on the CPU,
/// (1, 3, height, width) float32.
#[cfg(all(test, feature = "plugin"))]
pub fn picture_of_planes(planes: &Planes, region: Region, size: (usize, usize)) -> Result<Tensor> {
    let mut upload = Upload::new(Device::Cpu, Mode::Direct);
    let gpu = Gpu::new(Device::Cpu, Mode::Direct)?;
    upload.image(planes, region, (size.1 as i64, size.0 as i64), Kind::Float, &gpu)
}
