// SPDX-License-Identifier: MPL-2.0

//! State behind the lock `shared`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::auto_reference::AutoReference;
use super::background::BackgroundSlot;
use super::latency::Latency;
use super::marks::Marks;
use super::navigation::Gestures;
use super::qos::Qos;
use super::reference::ReferenceSlot;
use super::request::SelectionRequest;
use super::statistics::Statistics;

/// State that the streaming thread shares with other threads.
#[derive(Default)]
pub struct Shared {
    pub slot: ReferenceSlot,
    pub background: BackgroundSlot,
    pub statistics: Statistics,
    pub qos: Qos,
    pub latency: Latency,
    pub active_device: Option<String>,
    /// The application has requested a restart of tracking from the reference.
    pub reset: bool,
    /// What to select in the next buffer.
    pub request: Option<SelectionRequest>,
    pub gestures: Gestures,
    pub auto: AutoReference,
    /// The user wants the next frame and its mask to be saved.
    pub save_mask: bool,
    /// Marks of the last selection, for the overlay.
    pub marks: Option<Marks>,
    /// Width and height of the picture; zero until caps are set.
    pub frame_size: (u32, u32),
    /// Selections that are not finished.
    pub selecting: InProgress,
    /// Whether the output has the colours of the input. `transform_meta` reads it while `stream` is locked.
    pub keeps_colors: bool,
}

/// Work in progress on other threads. It ends with its tickets, however the work ends.
#[derive(Debug, Default)]
pub struct InProgress(Arc<()>);

/// Belongs to work that is in progress until the ticket is dropped.
#[derive(Debug)]
pub struct Ticket {
    _count: Arc<()>,
}

impl InProgress {
    pub fn begin(&self) -> Ticket {
        Ticket { _count: Arc::clone(&self.0) }
    }

    pub fn is_empty(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Locks a mutex. A panic of another thread does not matter: state is replaced as a whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
