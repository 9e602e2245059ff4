// SPDX-License-Identifier: MPL-2.0

//! Requests to select an object, between the threads that make them and the streaming thread.

use crate::model::prompt::Prompt;

/// What to select in the next buffer.
#[derive(Debug)]
pub struct SelectionRequest {
    pub prompt: Prompt,
    pub kind: RequestKind,
    /// [Epoch](super::reference::ReferenceSlot::epoch) of the reference that the user saw.
    pub epoch: u64,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// From `ref-box` and `ref-points`: in `ref-image`, if it is set.
    Property,
    /// A selection in the frame.
    New,
    /// A correction of the mask of the frame.
    Correction,
}
