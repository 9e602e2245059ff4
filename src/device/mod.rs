// SPDX-License-Identifier: MPL-2.0

//! Selection of the device and the precision of the network.

mod driver;

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use tch::{Device, Kind};

use self::driver::{Card, Driver};
use crate::model::has_bfloat16;
use crate::{Error, Result};

/// The requested device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if it can be used, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index, counted from 0; an error if it is not available.
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

/// Number format that the network computes in. State that is kept between frames is always float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "plugin", derive(glib::Enum), enum_type(name = "GstFastGanSegPrecision"))]
#[repr(i32)]
pub enum Precision {
    /// The fastest format that the device supports natively without loss of quality.
    #[default]
    #[cfg_attr(
        feature = "plugin",
        enum_value(name = "The fastest format that the device supports natively", nick = "auto")
    )]
    Auto,
    /// 32-bit floating point.
    #[cfg_attr(feature = "plugin", enum_value(name = "32-bit floating point", nick = "float32"))]
    Float32,
    /// 16-bit brain floating point: the range of float32, 8 bits of precision.
    #[cfg_attr(feature = "plugin", enum_value(name = "16-bit brain floating point", nick = "bfloat16"))]
    Bfloat16,
    /// 16-bit floating point; CUDA only.
    #[cfg_attr(feature = "plugin", enum_value(name = "16-bit floating point, CUDA only", nick = "float16"))]
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
    pub(crate) fn of(kind: Kind) -> Self {
        match kind {
            Kind::BFloat16 => Self::Bfloat16,
            Kind::Half => Self::Float16,
            _ => Self::Float32,
        }
    }

    /// The tensor kind to compute in on `device`. float16 is refused on the CPU, which has no fast convolutions for it.
    pub(crate) fn kind(self, device: Device) -> Result<Kind> {
        match (self, device) {
            (Self::Float32, _) => Ok(Kind::Float),
            (Self::Bfloat16, _) => Ok(Kind::BFloat16),
            (Self::Float16, Device::Cpu) => Err(Error::Config(
                "precision float16 needs a CUDA device; on the CPU use auto, bfloat16 or float32".into(),
            )),
            (Self::Float16, _) => Ok(Kind::Half),
            (Self::Auto, Device::Cpu) if has_bfloat16() => Ok(Kind::BFloat16),
            (Self::Auto, Device::Cpu) => Ok(Kind::Float),
            (Self::Auto, Device::Cuda(index)) => {
                Ok(card(index).map_or(Kind::Float, |card| fastest(card.capability)))
            }
            (Self::Auto, _) => Ok(Kind::Float),
        }
    }
}

/// The GPU with this index, if the driver lists it.
fn card(index: usize) -> Option<Card> {
    Driver::query().ok()?.cards.into_iter().nth(index)
}

/// The fastest kind without loss of quality on a GPU of this compute capability: from Ampere on bfloat16, which
/// has the range of float32; float16 on Pascal, Volta and Turing.
fn fastest(capability: (i32, i32)) -> Kind {
    match capability.0 {
        8.. => Kind::BFloat16,
        6 | 7 => Kind::Half,
        _ => Kind::Float,
    }
}

/// Opens a device. Also returns the reason if `auto` selected the CPU.
pub(crate) fn open(choice: DeviceChoice) -> Result<(Device, Option<String>)> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::Cpu, None)),
        DeviceChoice::Cuda(index) => cuda(index)
            .map(|device| (device, None))
            .map_err(|reason| Error::Device { device: choice.to_string(), reason: with_choices(&reason) }),
        DeviceChoice::Auto => Ok(match cuda(0) {
            Ok(device) => (device, None),
            Err(reason) => (Device::Cpu, Some(reason)),
        }),
    }
}

/// Whether this machine has an NVIDIA GPU or driver, usable or not. `root` is `/`, or a folder in its place for
/// tests.
pub fn has_nvidia_gpu(root: &Path) -> bool {
    let entries = |folder: &str| fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let is_gpu = |device: &Path| {
        let read = |name: &str| fs::read_to_string(device.join(name)).unwrap_or_default();
        // Class 3 is display controllers; NVIDIA also makes audio devices and bridges.
        read("vendor").trim() == "0x10de" && read("class").trim().starts_with("0x03")
    };
    root.join("proc/driver/nvidia").exists()
        || entries("dev").any(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"))
        || entries("sys/bus/pci/devices").any(|entry| is_gpu(&entry.path()))
}

fn cuda(index: usize) -> Result<Device, String> {
    load_cuda_libraries()?;
    let driver = Driver::query()?;
    let card = chosen(&driver, index)?;
    // 13000 for CUDA 13.0. A driver runs programs for older versions and for its own major version.
    let needed = tch::utils::version_cudart();
    if let Some(reason) = too_old(driver.version, needed) {
        return Err(reason);
    }
    if !tch::Cuda::is_available() || index as i64 >= tch::Cuda::device_count() {
        return Err(format!("libtorch cannot use the {}, although the NVIDIA driver lists it", card.name));
    }
    let device = Device::Cuda(index);
    run_test(device).map_err(|error| explain(&error.to_string(), card))?;
    Ok(device)
}

fn chosen(driver: &Driver, index: usize) -> Result<&Card, String> {
    let count = driver.cards.len();
    driver.cards.get(index).ok_or_else(|| match count {
        0 => "the NVIDIA driver finds no GPU: check that nvidia-smi lists it".into(),
        1 => "there is 1 CUDA device, cuda:0".into(),
        _ => format!("there are {count} CUDA devices, counted from 0 (cuda:0 to cuda:{})", count - 1),
    })
}

/// Error message if the driver does not support the CUDA version of libtorch; both are 1000 * major + 10 * minor.
fn too_old(driver: i32, needed: i64) -> Option<String> {
    let version = |number: i64| format!("{}.{}", number / 1000, number % 1000 / 10);
    (i64::from(driver) / 1000 < needed / 1000).then(|| {
        format!(
            "the NVIDIA driver is too old: it supports CUDA up to {}, but libtorch is built for CUDA {}. \
             Update the driver; CUDA 13 needs 580 or newer",
            version(driver.into()),
            version(needed)
        )
    })
}

fn run_test(device: Device) -> Result<()> {
    let two = tch::Tensor::f_ones([1], (Kind::Float, device))?.f_add_scalar(1.0)?;
    let _ = two.f_to_device(Device::Cpu)?;
    Ok(())
}

fn explain(error: &str, card: &Card) -> String {
    let Card { name, capability: (major, minor), memory } = card;
    if error.contains("no kernel image") {
        return format!(
            "the {name} has compute capability {major}.{minor}, for which this libtorch has no code: use a \
             newer GPU (libtorch for CUDA 13 needs 7.5 or more), or set LIBTORCH to a libtorch 2.11 built for \
             this GPU"
        );
    }
    if error.contains("out of memory") {
        return format!(
            "the {name}, which has {} MiB, has too little free memory: close other programs that use it \
             (nvidia-smi lists them)",
            memory >> 20
        );
    }
    format!("the {name} failed: {error}")
}

/// Adds the remedy to an out-of-memory error of libtorch on `device`; other errors are returned unchanged.
pub(crate) fn with_remedy(error: Error, device: Device) -> Error {
    let Device::Cuda(index) = device else { return error };
    let text = error.to_string();
    if !text.contains("out of memory") {
        return error;
    }
    let reason = card(index).map_or(text.clone(), |card| explain(&text, &card));
    Error::Device { device: DeviceChoice::Cuda(index).to_string(), reason: with_choices(&reason) }
}

fn with_choices(reason: &str) -> String {
    format!("{reason}. Set device=auto or device=cpu to run on the CPU")
}

/// Loads libtorch's CUDA libraries; the plugin is linked only to those for the CPU. They register themselves when
/// they are loaded. This must happen before anything in the process queries libtorch about CUDA, because libtorch
/// caches the answer.
fn load_cuda_libraries() -> Result<(), String> {
    use once_cell::sync::OnceCell;
    static LOADED: OnceCell<Result<(), String>> = OnceCell::new();
    LOADED.get_or_init(load_once).clone()
}

#[cfg(unix)]
fn load_once() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: this is a library of libtorch itself; its initialisers only register kernels.
    match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            // Its kernels stay registered with libtorch, so it must not be unloaded.
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(format!(
            "the CUDA libraries of libtorch cannot be loaded ({error}). Install them with CUDA=1 scripts/setup.sh"
        )),
    }
}

#[cfg(not(unix))]
fn load_once() -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(cards: usize) -> Driver {
        let card = Card { name: "Test GPU".into(), capability: (6, 1), memory: 4 << 30 };
        Driver { version: 12040, cards: vec![card; cards] }
    }

    #[test]
    fn gpus_and_drivers_are_detected_whether_usable_or_not() {
        let detects = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            has_nvidia_gpu(root.path())
        };
        let pci = |vendor: &'static str, class: &'static str| {
            detects(&[
                ("sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"),
                ("sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n"),
                ("sys/bus/pci/devices/0000:01:00.0/vendor", vendor),
                ("sys/bus/pci/devices/0000:01:00.0/class", class),
            ])
        };
        assert!(!detects(&[]), "an empty machine");
        assert!(!detects(&[("dev/null", ""), ("proc/driver/rtc", "")]));
        assert!(detects(&[("proc/driver/nvidia/version", "")]));
        assert!(detects(&[("dev/nvidiactl", "")]));
        assert!(pci("0x10de\n", "0x030200\n"), "a GPU without a driver");
        assert!(!pci("0x10de\n", "0x040300\n"), "an audio device");
        assert!(!pci("0x1002\n", "0x030000\n"), "a GPU of another vendor");
    }

    #[test]
    fn an_index_out_of_range_is_refused_with_the_valid_ones() {
        assert!(chosen(&driver(0), 0).unwrap_err().contains("no GPU"));
        assert_eq!(chosen(&driver(1), 3).unwrap_err(), "there is 1 CUDA device, cuda:0");
        assert!(chosen(&driver(2), 2).unwrap_err().contains("there are 2 CUDA devices"));
        assert!(chosen(&driver(2), 1).is_ok());
    }

    #[test]
    fn an_old_driver_is_reported_with_both_cuda_versions() {
        let reason = too_old(12040, 13000).unwrap();
        assert!(reason.contains("up to 12.4") && reason.contains("CUDA 13.0"), "{reason}");
        assert_eq!(too_old(13000, 13010), None, "of the same major version");
        assert_eq!(too_old(13000, 12060), None);
    }

    #[test]
    fn errors_on_a_gpu_name_the_cause() {
        let card = &driver(1).cards[0];
        assert!(explain("CUDA error: no kernel image is available", card).contains("compute capability 6.1"));
        assert!(explain("CUDA out of memory. Tried to", card).contains("4096 MiB"));
        assert!(explain("CUDA error: unspecified launch failure", card).contains("unspecified"));
    }

    #[test]
    fn the_fastest_kind_follows_the_compute_capability() {
        assert_eq!([(9, 0), (8, 0)].map(fastest), [Kind::BFloat16; 2]);
        assert_eq!([(7, 5), (7, 0), (6, 1)].map(fastest), [Kind::Half; 3]);
        assert_eq!(fastest((5, 2)), Kind::Float);
    }

    #[test]
    fn other_errors_are_returned_unchanged() {
        let error = with_remedy(Error::Cuda("out of memory".into()), Device::Cpu);
        assert!(matches!(error, Error::Cuda(_)));
        let error = with_remedy(Error::NoReference, Device::Cuda(0));
        assert!(matches!(error, Error::NoReference));
    }
}
