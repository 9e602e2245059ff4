// SPDX-License-Identifier: MPL-2.0

//! Sets the run-time path of libtorch, which dependencies cannot pass on.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}/lib", libtorch.display());
    }
}
