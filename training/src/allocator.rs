// SPDX-License-Identifier: MPL-2.0

//! Reuse of freed memory between training steps.

/// Bytes by which the heap grows beyond a request, to reduce the number of system calls.
const PADDING: i32 = 64 << 20;

/// Keeps freed memory in the process. Without effect on other allocators than glibc's.
///
/// A step allocates and frees gigabytes in large blocks. By default, glibc maps each of them anew and the kernel
/// clears every page, which takes a fifth of a step's time. With these settings, they come from a heap that is
/// never returned.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt sets parameters of glibc's allocator under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, PADDING);
    }
}
