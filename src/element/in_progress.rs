// SPDX-License-Identifier: MPL-2.0

//! Work in progress on other threads.

use std::sync::Arc;

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
