// SPDX-License-Identifier: MPL-2.0

//! Build script: version information, the run-time path to libtorch, and the CUDA functions that the bindings of
//! libtorch lack.

#[path = "build/commit.rs"]
mod commit;

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    gst_plugin_version_helper::info();
    // The files below would otherwise be the only ones that let cargo read the commit again. Only the plugin has a version
    // with a commit; without it, as for the trainer, commits need no new build.
    if env::var_os("CARGO_FEATURE_PLUGIN").is_some() {
        for path in commit::files(Path::new(".")) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }

    // The rpath of a dependency does not apply to this crate. It is set here so that the plugin loads without
    // LD_LIBRARY_PATH.
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libtorch = env::var_os("LIBTORCH").map(PathBuf::from);
    if let Some(libtorch) = &libtorch {
        // Where `make install` and packages put libtorch.
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../fastganseg");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    }

    println!("cargo:rerun-if-changed=src/cuda/shim.cpp");
    println!("cargo:rerun-if-changed=src/cuda/include");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("libfastganseg_cuda.so");
    let compiled = match &libtorch {
        Some(libtorch) => compile_shim(libtorch, &out),
        None => Err("LIBTORCH is not set".into()),
    };
    if let Err(reason) = compiled {
        println!("cargo:warning=building without CUDA graphs, which only NVIDIA GPUs use: {reason}");
        std::fs::write(&out, b"").expect("OUT_DIR can be written");
    }
    println!("cargo:rustc-env=FASTGANSEG_CUDA_SHIM={}", out.display());
}

/// Compiles the shim to a separate library, which only CUDA machines need. The headers of the CUDA run-time come
/// with the wheel that libtorch needs anyway. NVIDIA's libraries are incomplete on machines without a GPU, but
/// linking does not need them, because libtorch loads them.
fn compile_shim(libtorch: &Path, out: &Path) -> Result<(), String> {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Err("they are supported on Linux only".into());
    }
    let headers =
        headers(libtorch).ok_or("cuda_runtime_api.h is neither beside libtorch nor in CUDA_HOME")?;
    let lib = libtorch.join("lib");
    if !lib.join("libtorch_cuda.so").exists() {
        return Err(format!("{} has no libtorch_cuda.so", lib.display()));
    }
    let compiler = cc::Build::new().cpp(true).warnings(false).cargo_metadata(false).try_get_compiler();
    let mut command = compiler.map_err(|error| error.to_string())?.to_command();
    command
        .args(["-std=c++17", "-O1", "-g0", "-fPIC", "-shared", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1"])
        .arg("-I")
        .arg(libtorch.join("include"))
        .arg("-I")
        .arg(libtorch.join("include/torch/csrc/api/include"))
        .arg("-I")
        .arg(headers)
        // Searched after NVIDIA's own headers, which may be incomplete.
        .args(["-idirafter", "src/cuda/include", "src/cuda/shim.cpp", "-o"])
        .arg(out)
        .arg("-L")
        .arg(lib)
        .args(["-Wl,--no-as-needed", "-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"])
        .args(["-Wl,--unresolved-symbols=ignore-all", "-Wl,-s"]);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = message.lines().find(|line| line.contains("error")).unwrap_or("the C++ compiler failed");
    Err(error.to_owned())
}

/// The folder with the headers of the CUDA run-time.
fn headers(libtorch: &Path) -> Option<PathBuf> {
    let wheels = std::fs::read_dir(libtorch.join("../nvidia")).ok();
    let wheels = wheels.into_iter().flatten().flatten().map(|entry| entry.path().join("include"));
    let toolkit = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("include"));
    wheels.chain(toolkit).find(|folder| folder.join("cuda_runtime_api.h").exists())
}
