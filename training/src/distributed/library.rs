// SPDX-License-Identifier: MPL-2.0

//! Loads the compiled `shim.cpp` and `nccl.cpp`, which are part of the program.

use libloading::Library;

/// The library of `shim.cpp`; empty if the build script could not compile it.
const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim.so"));
/// The library of `nccl.cpp`; empty without NCCL's headers.
const NCCL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nccl.so"));

/// Loads the store, gloo and the reducer.
pub fn shim() -> Result<Library, String> {
    if SHIM.is_empty() {
        return Err(
            "this build is for a single process, because a C++ compiler or libtorch's headers were missing: \
                    install a C++ compiler, run scripts/setup.sh and build again"
                .into(),
        );
    }
    open(SHIM)
}

/// Loads NCCL's process group. libtorch's CUDA libraries must be loaded already.
pub fn nccl() -> Result<Library, String> {
    if NCCL.is_empty() {
        let reason = option_env!("FASTGANSEG_NO_NCCL").unwrap_or("its headers were missing");
        return Err(format!(
            "this build has no NCCL ({reason}): run CUDA=1 scripts/setup.sh and build again"
        ));
    }
    open(NCCL)
}

/// Loads a library from a file in memory, so that the program remains a single file.
#[cfg(target_os = "linux")]
fn open(bytes: &[u8]) -> Result<Library, String> {
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};

    use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};

    let in_memory = || -> std::io::Result<std::fs::File> {
        // SAFETY: the name is null-terminated, and the descriptor has no other owner.
        let mut file = unsafe {
            let descriptor = libc::memfd_create(c"libfastganseg_distributed.so".as_ptr(), libc::MFD_CLOEXEC);
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
    // SAFETY: the shim has no initialisers except those of the C++ runtime.
    let library = unsafe { unix::Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(Library::from).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn open(_: &[u8]) -> Result<Library, String> {
    Err("several processes are supported on Linux only".into())
}
