//! CUDA devices on machines that have none, or only a part of what they take. Which part is there decides what
//! must be said; so the same test covers a CPU's libtorch, one with CUDA's libraries, and a GPU.

use std::path::Path;

use gstfastganseg::cuda::Shim;
use gstfastganseg::device::{self, DeviceChoice, Precision};
use gstfastganseg::tracker::{Options, Tracker};

/// Whether the libtorch that this process has loaded is one with NVIDIA's libraries.
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

/// The first question about CUDA decides for the whole process, so all that is asked is asked in one test.
#[test]
fn what_is_missing_is_named_with_a_remedy() {
    tch::set_num_threads(1);
    let opened = device::open(DeviceChoice::Cuda(0));
    if has_libraries() && has_driver() {
        opened.unwrap();
        let error = device::open(DeviceChoice::Cuda(99)).unwrap_err().to_string();
        assert!(error.contains("cuda:99") && error.contains("CUDA device"), "{error}");
        return;
    }
    let error = opened.unwrap_err().to_string();
    println!("{error}");
    assert!(error.starts_with("device \"cuda:0\": ") && error.contains("device=cpu"), "{error}");
    if has_libraries() {
        assert!(error.contains("there is no NVIDIA driver"), "{error}");
        // The shim needs the libraries and no driver to be loaded; what it then says is the driver's affair.
        let shim = Shim::load().expect("the shim");
        let error = shim.stream(0).unwrap_err().to_string();
        assert!(error.contains("driver"), "{error}");
        let error = shim.memory(0).unwrap_err().to_string();
        assert!(error.starts_with("CUDA: "), "{error}");
        assert!(shim.pool().is_ok(), "a number alone");
    } else {
        assert!(error.contains("scripts/setup.sh"), "{error}");
        let reason = Shim::load().unwrap_err();
        assert!(reason.contains(".so") || reason.contains("scripts/setup.sh"), "{reason}");
    }
    assert!(device::open(DeviceChoice::Cuda(7)).unwrap_err().to_string().contains("cuda:7"));
    let (device, warning) = device::open(DeviceChoice::Auto).unwrap();
    assert_eq!(device, tch::Device::Cpu);
    assert!(error.contains(&warning.expect("why it is the CPU")), "{error}");

    let tracker = Tracker::new(&Options { precision: Precision::Float32, ..Options::default() }).unwrap();
    assert_eq!(tracker.active_device(), "cpu");
    assert!(tracker.device_warning().is_some() && tracker.memory().is_none());
}
