// SPDX-License-Identifier: MPL-2.0

//! The buffer that waits for the next one, with frame threading.

use gstreamer as gst;

use super::reference::Change;
use crate::tracker::Prefetched;

/// An input buffer that has not been processed yet.
pub struct PendingFrame {
    pub buffer: gst::Buffer,
    /// Change of the reference before this buffer.
    pub change: Option<Change>,
    /// Tracking restarts, because the buffer does not follow the one before.
    pub restart: bool,
    /// Result of the prefetch thread.
    pub prefetched: Option<Prefetched>,
}

/// Returns whether the pending buffer must be pushed before `event`.
pub fn drains_before(event: &gst::EventRef) -> bool {
    event.is_serialized() && event.type_() != gst::EventType::FlushStop
}

/// Whether the last buffer of a stream has failed. Elements upstream decide whether a pad without a link is an error.
pub fn is_failure(error: gst::FlowError) -> bool {
    !matches!(error, gst::FlowError::Eos | gst::FlowError::NotLinked)
}
