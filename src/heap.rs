//! Keeps memory that the network gives back within the process, for the next frame.

/// The largest block that teaches glibc anything: one more byte, and it is mapped and unmapped for good.
const LARGEST: usize = 32 * 1024 * 1024 - 64 * 1024;

/// A network takes and gives back tens of megabytes a frame. glibc returns the top of its heap to the
/// kernel whenever more than twice its threshold is free there, and the next frame has every page mapped
/// anew, which can cost a third of the frame's time. The threshold follows the largest block that was
/// mapped and freed; so one is, once. Nothing is written to it. Other allocators do not mind.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST)));
}
