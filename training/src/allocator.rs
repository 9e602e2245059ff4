//! Keeps memory that a training step gives back within the process, for the next step.

/// Bytes by which the heap grows beyond what is asked for, so that it grows in few calls.
const PADDING: i32 = 64 << 20;

/// A step takes and gives back gigabytes in large blocks. glibc maps each of them anew, and the kernel clears
/// every page: a fifth of a step's time. Here they come from a heap that is never given back. Other allocators
/// have no such call and do not mind.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: these set numbers of glibc's allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, PADDING);
    }
}
