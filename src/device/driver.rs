// SPDX-License-Identifier: MPL-2.0

//! Direct queries to NVIDIA's driver about its version and GPUs, because libtorch does not report what is missing.

use std::ffi::{c_char, c_int, c_uint};

use libloading::Library;

/// A GPU as reported by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (i32, i32),
    /// Total memory in bytes.
    pub memory: u64,
}

/// The driver and its GPUs in CUDA's order, without those hidden by `CUDA_VISIBLE_DEVICES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Supported CUDA version, 1000 * major + 10 * minor.
    pub version: i32,
    pub cards: Vec<Card>,
}

const LIBRARY: &str = "libcuda.so.1";
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

impl Driver {
    /// Queries the driver. The error names what is missing and the remedy.
    pub fn query() -> Result<Self, String> {
        Self::open(LIBRARY)
    }

    fn open(library: &str) -> Result<Self, String> {
        // SAFETY: this is the driver's library; its initialisers affect only itself.
        let library = unsafe { Library::new(library) }.map_err(|error| {
            format!(
                "there is no NVIDIA driver ({error}). Install NVIDIA's driver 580 or newer; in a container, pass \
                 the GPU through (docker run --gpus all)"
            )
        })?;
        let driver = Self::read(&library);
        // The library keeps threads running, so it must not be unloaded.
        std::mem::forget(library);
        driver
    }

    fn read(library: &Library) -> Result<Self, String> {
        /// # Safety
        /// `T` must be the type of the function.
        unsafe fn find<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
            // SAFETY: passed on to the caller.
            let found = unsafe { library.get::<T>(name.as_bytes()) };
            found
                .map(|symbol| *symbol)
                .map_err(|error| format!("the NVIDIA driver is damaged ({error}): reinstall it"))
        }
        let checked = |status: c_int| if status == 0 { Ok(()) } else { Err(reason(status)) };
        // SAFETY: the declarations match cuda.h; every pointer is to a local variable, and the length of the name
        // is passed.
        unsafe {
            let init: unsafe extern "C" fn(c_uint) -> c_int = find(library, "cuInit\0")?;
            let version: unsafe extern "C" fn(*mut c_int) -> c_int = find(library, "cuDriverGetVersion\0")?;
            let count: unsafe extern "C" fn(*mut c_int) -> c_int = find(library, "cuDeviceGetCount\0")?;
            let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = find(library, "cuDeviceGet\0")?;
            let name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
                find(library, "cuDeviceGetName\0")?;
            let attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int =
                find(library, "cuDeviceGetAttribute\0")?;
            let memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int =
                find(library, "cuDeviceTotalMem_v2\0")?;

            checked(init(0))?;
            let mut driver = Self { version: 0, cards: Vec::new() };
            checked(version(&mut driver.version))?;
            let mut cards = 0;
            checked(count(&mut cards))?;
            for index in 0..cards {
                let (mut card, mut text, mut bytes) = (0, [0 as c_char; 128], 0usize);
                let mut capability = (0, 0);
                checked(get(&mut card, index))?;
                checked(name(text.as_mut_ptr(), 127, card))?;
                checked(attribute(&mut capability.0, CAPABILITY_MAJOR, card))?;
                checked(attribute(&mut capability.1, CAPABILITY_MINOR, card))?;
                checked(memory(&mut bytes, card))?;
                let name = text.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<_>>();
                let name = String::from_utf8_lossy(&name).into_owned();
                driver.cards.push(Card { name, capability, memory: bytes as u64 });
            }
            Ok(driver)
        }
    }
}

fn reason(status: c_int) -> String {
    match status {
        100 if std::env::var_os("CUDA_VISIBLE_DEVICES").is_some() => {
            "the NVIDIA driver finds no GPU: check CUDA_VISIBLE_DEVICES, which is set".into()
        }
        100 => "the NVIDIA driver finds no GPU: check that nvidia-smi lists it".into(),
        2 => "the GPU has no free memory: close other programs that use it (nvidia-smi lists them)".into(),
        803 | 804 => format!(
            "the NVIDIA driver and its library have different versions (error {status}): restart the machine, \
             as after every driver update"
        ),
        _ => format!("the NVIDIA driver does not start (error {status}): check that nvidia-smi runs"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_missing_driver_is_reported() {
        let error = Driver::open("libcuda-missing.so.1").unwrap_err();
        assert!(error.contains("there is no NVIDIA driver") && error.contains("580"), "{error}");
    }

    #[test]
    fn a_library_without_driver_functions_is_refused() {
        let error = Driver::open("libc.so.6").unwrap_err();
        assert!(error.contains("damaged") && error.contains("cuInit"), "{error}");
    }

    /// Compiles a driver library whose `cuInit` returns `status`.
    fn fake_driver(folder: &Path, status: c_int) -> Option<PathBuf> {
        let (source, library) = (folder.join("driver.c"), folder.join(format!("driver-{status}.so")));
        let code = format!(
            "int cuInit(unsigned flags) {{ return {status}; }}\n\
             int cuDriverGetVersion(int *version) {{ *version = 13000; return 0; }}\n\
             int cuDeviceGetCount(int *count) {{ *count = 1; return 0; }}\n\
             int cuDeviceGet(int *device, int index) {{ *device = index; return 0; }}\n\
             int cuDeviceGetName(char *name, int length, int device) {{ name[0] = 'X'; name[1] = 0; return 0; }}\n\
             int cuDeviceGetAttribute(int *value, int key, int device) {{ *value = key == 75 ? 9 : 0; return 0; }}\n\
             int cuDeviceTotalMem_v2(unsigned long *bytes, int device) {{ *bytes = 1ul << 36; return 0; }}\n"
        );
        std::fs::write(&source, code).unwrap();
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        match compiled {
            Ok(status) if status.success() => Some(library),
            _ => {
                assert!(std::env::var_os("FASTGANSEG_REQUIRE_ALL").is_none(), "cc does not run");
                None
            }
        }
    }

    #[test]
    fn errors_of_the_driver_at_its_start_have_remedies() {
        let folder = tempfile::tempdir().unwrap();
        for (status, remedy) in [
            (2, "close other programs"),
            (3, "error 3"),
            (34, "error 34"),
            (35, "error 35"),
            (46, "error 46"),
            (100, "no GPU"),
            (101, "error 101"),
            (802, "error 802"),
            (803, "restart"),
            (804, "restart"),
            (999, "error 999"),
        ] {
            let Some(library) = fake_driver(folder.path(), status) else { return };
            let error = Driver::open(library.to_str().unwrap()).unwrap_err();
            assert!(error.contains(remedy), "{status}: {error}");
        }
    }

    #[test]
    fn a_driver_that_starts_lists_its_gpus() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = fake_driver(folder.path(), 0) else { return };
        let driver = Driver::open(library.to_str().unwrap()).unwrap();
        let card = Card { name: "X".into(), capability: (9, 0), memory: 1 << 36 };
        assert_eq!(driver, Driver { version: 13000, cards: vec![card] });
    }
}
