// SPDX-License-Identifier: MPL-2.0

//! State behind the lock `shared`.

use super::latency::Latency;
use super::qos::Qos;
use super::reference::ReferenceSlot;
use super::statistics::Statistics;

/// State that the streaming thread shares with other threads.
#[derive(Default)]
pub struct Shared {
    pub slot: ReferenceSlot,
    pub statistics: Statistics,
    pub qos: Qos,
    pub latency: Latency,
    pub active_device: Option<String>,
    /// The application has requested a restart of tracking from the reference.
    pub reset: bool,
    /// Whether the output has the colours of the input. `transform_meta` reads it while `stream` is locked.
    pub keeps_colors: bool,
}
