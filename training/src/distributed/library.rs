// SPDX-License-Identifier: MPL-2.0

//! Loads the compiled `shim.cpp` and `nccl.cpp`, which are part of the program.

use gstfastganseg::torch::cuda::open_embedded;
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
    open_embedded(SHIM)
}

/// Loads NCCL's process group. libtorch's CUDA libraries must be loaded already.
pub fn nccl() -> Result<Library, String> {
    if NCCL.is_empty() {
        let reason = option_env!("FASTGANSEG_NO_NCCL").unwrap_or("its headers were missing");
        return Err(format!(
            "this build has no NCCL ({reason}): run CUDA=1 scripts/setup.sh and build again"
        ));
    }
    open_embedded(NCCL)
}
