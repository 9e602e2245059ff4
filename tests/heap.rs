// SPDX-License-Identifier: MPL-2.0

//! Checks that the allocator keeps the network's memory from frame to frame. A binary of its own: the kernel counts
//! page faults per process.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use gstfastganseg::device::DeviceChoice;
use gstfastganseg::image::Picture;
use gstfastganseg::mask::ReferenceMask;
use gstfastganseg::tracker::{Options, Tracker};

fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn frames_reuse_mapped_memory() {
    // On another thread, as in a pipeline: glibc has a heap per thread.
    let run = || {
        let options = Options { device: DeviceChoice::Cpu, ..Options::default() };
        let mut tracker = Tracker::new(&options).unwrap();
        let (width, height) = (336, 192);
        let data: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
        let mut picture = Picture { data: &data, width, height, stride: 3 * width };
        let alpha = (0..width * height).map(|i| if i % width > 100 { 255 } else { 0 }).collect();
        tracker
            .set_reference(&mut picture, &ReferenceMask::from_soft(width, height, alpha).unwrap())
            .unwrap();
        let mut step = || drop(tracker.step(&mut picture).unwrap());
        (0..10).for_each(|_| step());
        let before = page_faults();
        (0..20).for_each(|_| step());
        (page_faults() - before) / 20
    };
    let faults = std::thread::spawn(run).join().unwrap();
    println!("{faults} page faults a frame");
    assert!(faults < 1000, "{faults} page faults a frame");
}
