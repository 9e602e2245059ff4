//! Which buffers are marked as discontinuous. BaseTransform marks what goes out next after one that was marked came in or
//! one was dropped; where buffers wait for the next, that is another.

use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;

#[derive(Debug, Default)]
pub struct DiscontTracker {
    /// Something is missing before the next buffer.
    gap: AtomicBool,
    /// The buffer that goes out is marked.
    marked: AtomicBool,
}

impl DiscontTracker {
    /// A buffer will not go out.
    pub fn miss(&self) {
        self.gap.store(true, Ordering::Relaxed);
    }

    /// Marks `buffer`, which goes out next, if it came in marked or something is missing before it.
    pub fn mark(&self, buffer: &mut gst::Buffer, came_marked: bool) {
        let gap = self.gap.swap(false, Ordering::Relaxed);
        if gap {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        self.marked.store(gap || came_marked, Ordering::Relaxed);
    }

    /// Takes away a mark from what goes out that was set in the meantime.
    pub fn correct(&self, buffer: &mut gst::Buffer) {
        if !self.marked.load(Ordering::Relaxed) && buffer.flags().contains(gst::BufferFlags::DISCONT) {
            buffer.make_mut().unset_flags(gst::BufferFlags::DISCONT);
        }
    }
}
