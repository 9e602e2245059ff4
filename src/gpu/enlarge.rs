//! What the network's device does beside the network.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::{Argument, Mode, Recipe, Replays, Use};
use crate::Result;
use crate::cuda::{Current, Shim, Stream};
use crate::image::{PlaneMut, Region};
use crate::matte::{Boxes, DeviceEnlarger, enlarge_on_device};
use crate::model::Role;

/// Frames with the same region until its enlargement is recorded: regions move now and then.
const PATIENCE: u32 = 6;
/// Regions whose enlargement is kept recorded.
const PLANS: usize = 6;

/// Stream and memory of a tracker that does not run on the CPU.
#[derive(Debug)]
pub struct Gpu {
    device: Device,
    /// None where there is no shim; then all goes to the device's default stream.
    stream: Option<Stream>,
    shim: Option<Shim>,
    enlarging: Mutex<Enlarging>,
}

#[derive(Debug)]
struct Enlarging {
    replays: Replays<()>,
    boxes: Vec<(BoxKey, Boxes)>,
    /// Page-locked where alpha arrives.
    staging: Option<Tensor>,
}

/// Sizes of mask and plane.
type BoxKey = ((i64, i64), (i64, i64));

impl Gpu {
    pub fn new(device: Device, mode: Mode) -> Result<Arc<Self>> {
        let shim = match &mode {
            Mode::Graphs(shim) => Some(shim.clone()),
            Mode::Direct | Mode::Fixed => match device {
                Device::Cuda(_) => Shim::load().ok(),
                _ => None,
            },
        };
        let stream = match (&shim, device) {
            (Some(shim), Device::Cuda(index)) => Some(shim.stream(index)?),
            _ => None,
        };
        let replays = Replays::new(mode, PATIENCE, PLANS);
        let enlarging = Mutex::new(Enlarging { replays, boxes: Vec::new(), staging: None });
        Ok(Arc::new(Self { device, stream, shim, enlarging }))
    }

    pub fn shim(&self) -> Option<&Shim> {
        self.shim.as_ref()
    }

    pub fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }
}

impl DeviceEnlarger for Gpu {
    fn enter(&self) -> Result<Option<Current>> {
        self.stream.as_ref().map(Stream::enter).transpose()
    }

    fn enlarge(
        &self,
        mask: &Tensor,
        region: Region,
        guide: Option<&Tensor>,
        plane: &mut PlaneMut,
    ) -> Result<()> {
        let mut enlarging = self.enlarging.lock().unwrap_or_else(PoisonError::into_inner);
        let Enlarging { replays, boxes, staging } = &mut *enlarging;
        let size = (region.height as i64, region.width as i64);
        let mask_size = mask.size();
        let mut arguments = vec![Argument::new(mask, Use::Model(Role::Given))];
        if let Some(guide) = guide {
            let luma = guide.f_narrow(0, region.y as i64, size.0)?.f_narrow(1, region.x as i64, size.1)?;
            let boxes = boxes_of(boxes, ((mask_size[2], mask_size[3]), size), self.device)?;
            arguments.push(Argument::new(&luma, Use::InPlace));
            arguments.extend(boxes.tensors().map(|tensor| Argument::new(tensor, Use::Model(Role::Constant))));
        }
        let number = (size.0 as u64) << 32 | size.1 as u64;
        let results = replays.run(&(), number, arguments, || recipe(size))?;
        let [alpha] = &results[..] else { return Ok(()) };
        let count = region.width * region.height;
        let arrived = match (&self.shim, &self.stream) {
            (Some(shim), Some(stream)) => {
                let staging = page_locked(staging, count, self.device)?;
                let mut to = staging.f_narrow(0, 0, count as i64)?;
                shim.copy(&mut to, &alpha.f_reshape([-1])?)?;
                stream.wait()?;
                to
            }
            _ => alpha.f_reshape([-1])?.f_to_device(Device::Cpu)?,
        };
        // SAFETY: a contiguous tensor of `count` bytes in the memory of this process, that nobody writes to
        // while it is borrowed here.
        let bytes = unsafe { std::slice::from_raw_parts(arrived.data_ptr().cast::<u8>(), count) };
        plane.copy(bytes)
    }
}

fn boxes_of(known: &mut Vec<(BoxKey, Boxes)>, key: BoxKey, device: Device) -> Result<&Boxes> {
    let index = match known.iter().position(|(other, _)| *other == key) {
        Some(index) => index,
        None => {
            if known.len() >= PLANS {
                known.remove(0);
            }
            let kind = if device == Device::Cpu { Kind::Float } else { Kind::Half };
            known.push((key, Boxes::new(key.0, key.1, (kind, device))?));
            known.len() - 1
        }
    };
    Ok(&known[index].1)
}

fn page_locked(staging: &mut Option<Tensor>, count: usize, device: Device) -> Result<&Tensor> {
    if staging.as_ref().is_none_or(|staging| staging.numel() < count) {
        let new = Tensor::f_zeros([count as i64], (Kind::Uint8, Device::Cpu))?.f_pin_memory(device)?;
        *staging = Some(new);
    }
    staging.as_ref().ok_or(crate::Error::NoReference)
}

fn recipe(size: (i64, i64)) -> Recipe<()> {
    Box::new(move |(), tensors| {
        let alpha = match tensors {
            [mask, luma, rows, columns] => {
                let boxes = Boxes::of_tensors([rows, columns]);
                enlarge_on_device(mask, size, Some((luma, &boxes)))?
            }
            [mask, ..] => enlarge_on_device(mask, size, None)?,
            [] => return Err(crate::Error::NoReference),
        };
        Ok(vec![alpha])
    })
}
