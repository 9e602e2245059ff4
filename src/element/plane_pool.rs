// SPDX-License-Identifier: MPL-2.0

//! Pool of byte planes, which avoids an allocation per frame.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Maximum number of unused planes; more are freed. A queue downstream may hold this many.
const MAX_PLANES: usize = 32;

type Store = Mutex<Vec<Vec<u8>>>;

/// Pool of planes of the size that was last requested.
#[derive(Debug, Default)]
pub struct PlanePool(Arc<Store>);

impl PlanePool {
    /// Returns a plane of `size` bytes with arbitrary content.
    pub fn take(&self, size: usize) -> Plane {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.retain(|data| data.len() == size);
        let data = store.pop().unwrap_or_else(|| vec![0; size]);
        Plane { data, pool: Arc::downgrade(&self.0) }
    }
}

/// Bytes that return to their pool when dropped, if the pool still exists.
#[derive(Debug)]
pub struct Plane {
    data: Vec<u8>,
    pool: Weak<Store>,
}

impl AsMut<[u8]> for Plane {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut store = pool.lock().unwrap_or_else(PoisonError::into_inner);
        if store.len() < MAX_PLANES {
            store.push(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_reused() {
        let pool = PlanePool::default();
        let mut first = pool.take(100);
        let address = first.as_mut().as_ptr();
        drop(first);
        assert_eq!(pool.take(100).as_mut().as_ptr(), address);
        assert_eq!(pool.take(50).as_mut().len(), 50);
        assert_eq!(pool.take(100).as_mut().len(), 100);
    }

    #[test]
    fn planes_that_are_in_use_do_not_keep_the_pool() {
        let pool = PlanePool::default();
        let (returned, used) = (pool.take(100), pool.take(100));
        drop(returned);
        let store = Arc::downgrade(&pool.0);
        drop(pool);
        assert!(store.upgrade().is_none(), "the pool and its planes are freed");
        drop(used);
    }
}
