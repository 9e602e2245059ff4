// SPDX-License-Identifier: MPL-2.0

//! Enlargement of masks on the network's device.

use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::{Argument, ArgumentUse, Mode, PlanCache, RecordableFn};
use crate::Result;
use crate::cuda::{Shim, Stream, StreamGuard};
use crate::image::PlaneMut;
use crate::matte::{DeviceEnlarger, enlarge_on_device};
use crate::model::Role;

/// Frames with the same region before its enlargement is recorded, because regions move from time to time.
const DIRECT_RUNS: u32 = 6;
/// Maximum number of region sizes whose enlargement is recorded.
const MAX_PLANS: usize = 6;

/// Stream and enlargement buffers of a tracker on a GPU.
#[derive(Debug)]
pub struct Gpu {
    device: Device,
    /// `None` without a shim; work then goes to the device's default stream.
    stream: Option<Stream>,
    shim: Option<Shim>,
    /// Enlargements, and the page-locked buffer that alpha is copied to.
    enlarging: Mutex<(PlanCache<()>, Option<Tensor>)>,
}

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
        let replays = PlanCache::new(mode, DIRECT_RUNS, MAX_PLANS);
        Ok(Arc::new(Self { device, stream, shim, enlarging: Mutex::new((replays, None)) }))
    }

    pub fn shim(&self) -> Option<&Shim> {
        self.shim.as_ref()
    }

    pub fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }
}

impl DeviceEnlarger for Gpu {
    fn enter(&self) -> Result<Option<StreamGuard>> {
        self.stream.as_ref().map(Stream::enter).transpose()
    }

    fn enlarge(&self, mask: &Tensor, plane: &mut PlaneMut) -> Result<()> {
        let mut enlarging = self.enlarging.lock().unwrap_or_else(PoisonError::into_inner);
        let (replays, staging) = &mut *enlarging;
        let size = (plane.height as i64, plane.width as i64);
        let arguments = vec![Argument::new(mask, ArgumentUse::Model(Role::Input))];
        let number = (size.0 as u64) << 32 | size.1 as u64;
        let results = replays.run(&(), number, arguments, || recipe(size))?;
        let [alpha] = &results[..] else { return Ok(()) };
        let count = plane.width * plane.height;
        let host_alpha = match (&self.shim, &self.stream) {
            (Some(shim), Some(stream)) => {
                let staging = page_locked(staging, count, self.device)?;
                let mut to = staging.f_narrow(0, 0, count as i64)?;
                shim.copy(&mut to, &alpha.f_reshape([-1])?)?;
                stream.wait()?;
                to
            }
            _ => alpha.f_reshape([-1])?.f_to_device(Device::Cpu)?,
        };
        // SAFETY: `host_alpha` is a contiguous tensor of `count` bytes in host memory, and nothing writes to it
        // while it is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(host_alpha.data_ptr().cast::<u8>(), count) };
        plane.copy(bytes)
    }
}

fn page_locked(staging: &mut Option<Tensor>, count: usize, device: Device) -> Result<&Tensor> {
    if staging.as_ref().is_none_or(|staging| staging.numel() < count) {
        let new = Tensor::f_zeros([count as i64], (Kind::Uint8, Device::Cpu))?.f_pin_memory(device)?;
        *staging = Some(new);
    }
    staging.as_ref().ok_or(crate::Error::NoReference)
}

fn recipe(size: (i64, i64)) -> RecordableFn<()> {
    Box::new(move |(), tensors| match tensors {
        [mask, ..] => Ok(vec![enlarge_on_device(mask, size)?]),
        [] => Err(crate::Error::NoReference),
    })
}
