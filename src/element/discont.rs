// SPDX-License-Identifier: MPL-2.0

//! DISCONT flags with frame threading.

use gstreamer as gst;

/// Moves DISCONT flags to the buffers that they belong to. `GstBaseTransform` flags the buffer that it pushes after it
/// received a flagged buffer or dropped one. With frame threading, that is a different buffer.
#[derive(Debug, Default)]
pub struct DiscontTracker {
    /// A buffer is missing before the next one.
    gap: bool,
    /// The buffer that is pushed next has the flag.
    flagged: bool,
}

impl DiscontTracker {
    /// Records that a buffer is not pushed.
    pub fn record_gap(&mut self) {
        self.gap = true;
    }

    /// Flags `buffer`, which is pushed next, if a buffer is missing before it. `came_flagged` = the input buffer
    /// had the flag.
    pub fn mark(&mut self, buffer: &mut gst::Buffer, came_flagged: bool) {
        let gap = std::mem::take(&mut self.gap);
        if gap {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        self.flagged = gap || came_flagged;
    }

    /// Removes the flag from the pushed buffer if `GstBaseTransform` set it after [`mark`](Self::mark).
    pub fn correct(&self, buffer: &mut gst::Buffer) {
        if !self.flagged && buffer.flags().contains(gst::BufferFlags::DISCONT) {
            buffer.make_mut().unset_flags(gst::BufferFlags::DISCONT);
        }
    }
}
