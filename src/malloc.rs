// SPDX-License-Identifier: MPL-2.0

//! Keeps freed memory in the process for the next frame.

/// Makes glibc keep freed memory, for the whole process.
///
/// A network allocates and frees tens of megabytes per frame. By default glibc returns them to the kernel each time,
/// and the kernel clears every page again in the next frame, which can take a third of the frame's time. Other
/// allocators are not changed.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest value that glibc accepts.
        const MMAP_THRESHOLD: libc::c_int = 32 << 20;
        const TRIM_THRESHOLD: libc::c_int = 64 << 20;
        /// glibc allocates heaps of 64 MiB for each thread. It deletes an empty heap unless less than this amount
        /// of the previous heap is free.
        const TOP_PAD: libc::c_int = 16 << 20;
        // SAFETY: glibc changes these parameters under the lock of its allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
            libc::mallopt(libc::M_TOP_PAD, TOP_PAD);
        }
    }
}
