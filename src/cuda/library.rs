//! Where the compiled `shim.cpp` comes from.

use libloading::Library;

/// Empty if the build script could not compile it.
const BYTES: &[u8] = include_bytes!(env!("FASTGANSEG_CUDA_SHIM"));

/// Loads it from a file that is nowhere but in memory, so that the plugin remains one file that works wherever
/// it is copied to.
#[cfg(target_os = "linux")]
pub fn open() -> Result<Library, String> {
    use std::os::fd::AsRawFd;

    use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};

    if BYTES.is_empty() {
        return Err(concat!(
            "this build was made without it, for want of a C++ compiler or of CUDA's headers, which ",
            "scripts/setup.sh provides"
        )
        .into());
    }
    let file = in_memory().map_err(|error| format!("no file in memory can be had ({error})"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: our own library, which has no initialisers but those of the C++ runtime.
    let library = unsafe { unix::Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(Library::from).map_err(|error| error.to_string())
}

#[cfg(target_os = "linux")]
fn in_memory() -> std::io::Result<std::fs::File> {
    use std::io::Write;
    use std::os::fd::FromRawFd;

    // SAFETY: the name is a string that ends, and the descriptor is nobody else's.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"libfastganseg_cuda.so".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        std::fs::File::from_raw_fd(descriptor)
    };
    file.write_all(BYTES)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
pub fn open() -> Result<Library, String> {
    let _ = BYTES;
    Err("there is one for Linux only".into())
}
