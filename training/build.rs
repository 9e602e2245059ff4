//! Build script: the run-time path to libtorch.

use std::path::PathBuf;

fn main() {
    // A dependency's rpath never reaches this crate, so libtorch's is set here: the plugin then
    // loads with no LD_LIBRARY_PATH.
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = PathBuf::from(libtorch).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
