// SPDX-License-Identifier: MPL-2.0

//! Build script: the run-time search path of libtorch, and the functions for several processes that its bindings
//! lack.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of the shim's sources.
const SOURCES: &str = "src/distributed";

fn main() {
    // Cargo does not pass on the rpath of a dependency, without which the programs would need LD_LIBRARY_PATH.
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    for file in ["shim.h", "shim.cpp", "nccl.cpp", "include"] {
        println!("cargo:rerun-if-changed={SOURCES}/{file}");
    }
    let libtorch = env::var_os("LIBTORCH").map(PathBuf::from);
    if let Some(libtorch) = &libtorch {
        // Location of libtorch in packages.
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/fastganseg");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let libtorch = libtorch.ok_or_else(|| "LIBTORCH is not set".to_owned());
    let shim = libtorch.clone().and_then(|libtorch| compile_shim(&libtorch, &out.join("shim.so")));
    if let Err(reason) = &shim {
        println!("cargo:warning=building for a single process, without --ranks: {reason}");
        std::fs::write(out.join("shim.so"), b"").expect("OUT_DIR can be written");
    }
    let nccl = libtorch.and_then(|libtorch| compile_nccl(&libtorch, &out.join("nccl.so")));
    if let Err(reason) = nccl {
        std::fs::write(out.join("nccl.so"), b"").expect("OUT_DIR can be written");
        // The normal case on machines without a GPU, so no warning. The program prints it on a GPU.
        println!("cargo:rustc-env=FASTGANSEG_NO_NCCL={reason}");
    }
}

/// Compiles the store, gloo and the reducer. libtorch contains gloo, but not its headers; `include` declares the
/// types that libtorch's headers name.
fn compile_shim(libtorch: &Path, out: &Path) -> Result<(), String> {
    let mut command = compiler(libtorch)?;
    command.args(["-DUSE_C10D_GLOO", "-idirafter", &format!("{SOURCES}/include")]);
    command.arg(format!("{SOURCES}/shim.cpp")).args(["-ltorch_cpu", "-lc10"]);
    finish(command, out)
}

/// Compiles NCCL's process group, which needs the headers of CUDA's libraries.
fn compile_nccl(libtorch: &Path, out: &Path) -> Result<(), String> {
    if !libtorch.join("lib/libtorch_cuda.so").exists() {
        return Err(format!("{} has no lib/libtorch_cuda.so", libtorch.display()));
    }
    let wheels = std::fs::read_dir(libtorch.join("../nvidia")).ok().into_iter().flatten().flatten();
    let toolkit = env::var_os("CUDA_HOME").map(PathBuf::from);
    let folders: Vec<PathBuf> =
        wheels.map(|entry| entry.path()).chain(toolkit).map(|folder| folder.join("include")).collect();
    for header in ["nccl.h", "cuda_runtime_api.h", "cublas_v2.h", "cusparse.h", "cusolverDn.h", "nv/target"] {
        if !folders.iter().any(|folder| folder.join(header).exists()) {
            return Err(format!("{header} is neither beside libtorch nor in CUDA_HOME"));
        }
    }
    let mut command = compiler(libtorch)?;
    for folder in folders {
        command.arg("-I").arg(folder);
    }
    // NVIDIA's wheels lack two headers, which have this definition.
    command.arg("-D__forceinline__=inline __attribute__((always_inline))");
    command.args(["-idirafter", "../src/cuda/include"]);
    command.args(["-DUSE_C10D_NCCL", "-DUSE_NCCL"]).arg(format!("{SOURCES}/nccl.cpp"));
    command.args(["-Wl,--no-as-needed", "-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"]);
    finish(command, out)
}

fn compiler(libtorch: &Path) -> Result<Command, String> {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Err("several processes are supported on Linux only".into());
    }
    let compiler = cc::Build::new().cpp(true).warnings(false).cargo_metadata(false).try_get_compiler();
    let mut command = compiler.map_err(|error| error.to_string())?.to_command();
    command
        .args(["-std=c++17", "-O1", "-g0", "-fPIC", "-shared", "-w", "-D_GLIBCXX_USE_CXX11_ABI=1"])
        .arg("-I")
        .arg(libtorch.join("include"))
        .arg("-I")
        .arg(libtorch.join("include/torch/csrc/api/include"))
        .arg("-L")
        .arg(libtorch.join("lib"));
    Ok(command)
}

fn finish(mut command: Command, out: &Path) -> Result<(), String> {
    // Dependencies of libtorch that are not installed are resolved when the library is loaded.
    command.args(["-Wl,--unresolved-symbols=ignore-all", "-Wl,-s", "-o"]).arg(out);
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = message.lines().find(|line| line.contains("error")).unwrap_or("the C++ compiler failed");
    Err(error.to_owned())
}
