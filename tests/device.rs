// SPDX-License-Identifier: MPL-2.0

//! Opens CUDA devices on machines without a GPU, a driver or the CUDA libraries. The expected error depends on what
//! is missing, so that the same test covers a CPU build of libtorch, a CUDA build, and a GPU.

use std::path::Path;

use gstfastganseg::device::{DeviceChoice, Precision};
use gstfastganseg::torch::cuda::Shim;
use gstfastganseg::tracker::{Options, Tracker};

/// Whether NVIDIA's libraries are installed next to the libtorch that this process has loaded.
fn has_libraries() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps
        .lines()
        .find_map(|line| line.split_whitespace().last().filter(|path| path.ends_with("libtorch_cpu.so")));
    let folder = Path::new(library.expect("libtorch is loaded")).parent().unwrap();
    ["../../nvidia/cudnn/lib", "../lib/libcudnn.so.9"].iter().any(|path| folder.join(path).exists())
}

fn has_driver() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// One test for all checks: the first CUDA call initialises the whole process.
#[test]
fn missing_cuda_parts_are_named_with_a_remedy() {
    tch::set_num_threads(1);
    let opened = gstfastganseg::torch::open_device(DeviceChoice::Cuda(0));
    if has_libraries() && has_driver() {
        opened.unwrap();
        let error = gstfastganseg::torch::open_device(DeviceChoice::Cuda(99)).unwrap_err().to_string();
        assert!(error.contains("cuda:99") && error.contains("CUDA device"), "{error}");
        return;
    }
    let error = opened.unwrap_err().to_string();
    println!("{error}");
    assert!(error.starts_with("device \"cuda:0\": ") && error.contains("device=cpu"), "{error}");
    if has_libraries() {
        assert!(error.contains("there is no NVIDIA driver"), "{error}");
        // The shim loads without a driver; its calls then fail in the driver.
        let shim = Shim::load().expect("the shim");
        let error = shim.stream(0).unwrap_err().to_string();
        assert!(error.contains("driver"), "{error}");
        let error = shim.memory(0).unwrap_err().to_string();
        assert!(error.starts_with("CUDA: "), "{error}");
        assert!(shim.pool().is_ok(), "a pool id needs no driver");
    } else {
        assert!(error.contains("scripts/setup.sh"), "{error}");
        let reason = Shim::load().unwrap_err();
        assert!(reason.contains(".so") || reason.contains("scripts/setup.sh"), "{reason}");
    }
    assert!(
        gstfastganseg::torch::open_device(DeviceChoice::Cuda(7)).unwrap_err().to_string().contains("cuda:7")
    );
    let (device, warning) = gstfastganseg::torch::open_device(DeviceChoice::Auto).unwrap();
    assert_eq!(device, tch::Device::Cpu);
    assert!(error.contains(&warning.expect("a warning that names the reason")), "{error}");

    let tracker = Tracker::new(&Options { precision: Precision::Float32, ..Options::default() }).unwrap();
    assert_eq!(tracker.active_device(), "cpu");
    assert!(tracker.device_warning().is_some() && tracker.memory().is_none());
}
