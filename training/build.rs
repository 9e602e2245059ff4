// SPDX-License-Identifier: MPL-2.0

//! Build script: sets the runtime search path of libtorch.

use std::path::PathBuf;

fn main() {
    // Cargo does not pass on the rpath of a dependency, without which the programs would need LD_LIBRARY_PATH.
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = PathBuf::from(libtorch).join("lib");
        // Location of libtorch in packages.
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/fastganseg");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
