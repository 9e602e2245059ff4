//! Which processor runs the network, and in what precision.

use std::fmt;
use std::str::FromStr;

use tch::{Device, Kind};

use crate::{Error, Result};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device, or else the CPU with a warning.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that number, counted from 0; an error if it cannot be had.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda).ok_or_else(
                || Error::Device {
                    device: text.to_owned(),
                    reason: "not a device; use auto, cpu, cuda or cuda:N".into(),
                },
            ),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// In what kind of number the network computes. What is carried from frame to frame is float32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that the device has natively without loss of quality.
    #[default]
    Auto,
    /// 32-bit floating point.
    Float32,
    /// 16-bit brain floating point: the range of float32, 8 bits of precision.
    Bfloat16,
    /// 16-bit floating point; CUDA only.
    Float16,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "float32" => Ok(Self::Float32),
            "bfloat16" => Ok(Self::Bfloat16),
            "float16" => Ok(Self::Float16),
            _ => Err(Error::Config(format!("precision {text:?}: use auto, float32, bfloat16 or float16"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        })
    }
}

impl Precision {
    /// The kind to compute in on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for float16 on a CPU, which has no convolutions for it worth the name.
    pub fn kind(self, device: Device) -> Result<Kind> {
        match (self, device) {
            (Self::Float32, _) => Ok(Kind::Float),
            (Self::Bfloat16, _) => Ok(Kind::BFloat16),
            (Self::Float16, Device::Cpu) => Err(Error::Config(
                "precision float16 needs a CUDA device; on the CPU use auto, bfloat16 or float32".into(),
            )),
            (Self::Float16, _) => Ok(Kind::Half),
            (Self::Auto, Device::Cpu) if cpu_has_bfloat16() => Ok(Kind::BFloat16),
            (Self::Auto, Device::Cpu) => Ok(Kind::Float),
            (Self::Auto, _) => Ok(Kind::Half),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bfloat16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bfloat16() -> bool {
    false
}

/// The device that was got, with the reason if `auto` had to take the CPU.
pub fn open(choice: DeviceChoice) -> Result<(Device, Option<String>)> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::Cpu, None)),
        DeviceChoice::Cuda(index) => {
            cuda(index).map(|device| (device, None)).map_err(|reason| Error::Device {
                device: choice.to_string(),
                reason: format!("{reason}. Set device=auto or device=cpu to run on the CPU"),
            })
        }
        DeviceChoice::Auto => Ok(match cuda(0) {
            Ok(device) => (device, None),
            Err(reason) => (Device::Cpu, Some(reason)),
        }),
    }
}

fn cuda(index: usize) -> Result<Device, String> {
    load_cuda_libraries()?;
    if !tch::Cuda::is_available() {
        return Err("libtorch sees no usable NVIDIA driver".into());
    }
    let count = tch::Cuda::device_count();
    if index as i64 >= count {
        return Err(format!("there are {count} CUDA devices, counted from 0"));
    }
    Ok(Device::Cuda(index))
}

/// The plugin is linked to the CPU half of libtorch alone. The CUDA half registers itself when it is
/// loaded, which must come before anyone in the process asks libtorch about CUDA: the answer sticks.
fn load_cuda_libraries() -> Result<(), String> {
    use once_cell::sync::OnceCell;
    static LOADED: OnceCell<Result<(), String>> = OnceCell::new();
    LOADED.get_or_init(load_once).clone()
}

#[cfg(unix)]
fn load_once() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: libtorch_cuda is a library of libtorch itself, whose initialisers only register.
    match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            // Its kernels are registered with libtorch for good: it must never be unloaded.
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!("the CUDA libraries of libtorch cannot be loaded ({error})")),
    }
}

#[cfg(not(unix))]
fn load_once() -> Result<(), String> {
    Ok(())
}
