// SPDX-License-Identifier: MPL-2.0

//! Loads the compiled `shim.cpp`, and other libraries that are part of a program.

use std::ffi::{CStr, c_char};

use libloading::Library;

/// The shared library; empty if the build script could not compile it.
const BYTES: &[u8] = include_bytes!(env!("FASTGANSEG_CUDA_SHIM"));

/// Loads the shim.
///
/// # Errors
/// The reason if the library is not part of this build or cannot be loaded.
pub fn open() -> Result<Library, String> {
    if BYTES.is_empty() {
        return Err(concat!(
            "this build has no CUDA shim, because a C++ compiler or CUDA's headers were missing: run ",
            "scripts/setup.sh, install a C++ compiler, and build again"
        )
        .into());
    }
    open_embedded(BYTES)
}

/// Loads the shared library `bytes` from a file in memory, so that a plugin or program remains a single file. It must have no
/// initialisers except those of the C++ runtime.
///
/// # Errors
/// The reason if the library cannot be loaded; always on other systems than Linux.
#[cfg(target_os = "linux")]
pub fn open_embedded(bytes: &[u8]) -> Result<Library, String> {
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};

    use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};

    let in_memory = || -> std::io::Result<std::fs::File> {
        // SAFETY: the name is null-terminated, and the descriptor has no other owner.
        let mut file = unsafe {
            let descriptor = libc::memfd_create(c"libfastganseg_embedded.so".as_ptr(), libc::MFD_CLOEXEC);
            if descriptor < 0 {
                return Err(std::io::Error::last_os_error());
            }
            std::fs::File::from_raw_fd(descriptor)
        };
        file.write_all(bytes)?;
        Ok(file)
    };
    let file = in_memory().map_err(|error| format!("cannot create a file in memory: {error}"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the libraries have no initialisers except those of the C++ runtime.
    let library = unsafe { unix::Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map(Library::from).map_err(|error| error.to_string())?;
    // The linker knows loaded libraries by their path, so no other file may have this number.
    std::mem::forget(file);
    Ok(library)
}

#[cfg(not(target_os = "linux"))]
pub fn open_embedded(_: &[u8]) -> Result<Library, String> {
    Err("shared libraries that are part of a program are supported on Linux only".into())
}

/// Returns a function of a library.
///
/// # Errors
/// The library has no such symbol.
///
/// # Safety
/// `T` must be the type of the symbol.
pub unsafe fn find<T: Copy>(library: &Library, symbol: &str) -> Result<T, String> {
    // SAFETY: guaranteed by the caller.
    let found = unsafe { library.get::<T>(format!("{symbol}\0").as_bytes()) };
    found.map(|symbol| *symbol).map_err(|error| error.to_string())
}

/// Returns the first line of the message that `error` returns.
///
/// # Safety
/// `error` must return a null-terminated string that stays valid until the next failed call on this thread.
pub unsafe fn message(error: unsafe extern "C" fn() -> *const c_char) -> String {
    // SAFETY: guaranteed by the caller.
    let reason = unsafe { CStr::from_ptr(error()) }.to_string_lossy();
    reason.lines().next().unwrap_or_default().to_owned()
}
