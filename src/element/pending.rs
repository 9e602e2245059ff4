//! With frame threading, the buffer whose turn comes with the one after it.

use gstreamer as gst;

use super::reference::Change;
use crate::tracker::Prefetched;

/// A buffer, and what is known of it before its turn.
pub struct PendingFrame {
    pub buffer: gst::Buffer,
    /// What was asked for before it came.
    pub change: Option<Change>,
    /// It does not follow the one before it.
    pub restart: bool,
    pub prefetched: Option<Prefetched>,
}

/// Whether what waits must leave before an event does, as it came before it.
pub fn goes_before(event: &gst::EventRef) -> bool {
    event.is_serialized() && event.type_() != gst::EventType::FlushStop
}
