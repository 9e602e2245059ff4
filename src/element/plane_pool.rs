//! Planes that return to be used again, so that no frame allocates one.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// As many as a queue downstream may hold at a time; more are freed.
const KEPT: usize = 32;

type Store = Mutex<Vec<Vec<u8>>>;

/// A store of byte planes, all of the size last asked for.
#[derive(Debug, Default)]
pub struct PlanePool(Arc<Store>);

impl PlanePool {
    /// A plane of `size` bytes. What is in it is left over from earlier.
    pub fn take(&self, size: usize) -> Plane {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.retain(|data| data.len() == size);
        let data = store.pop().unwrap_or_else(|| vec![0; size]);
        Plane { data, home: Arc::downgrade(&self.0) }
    }
}

/// Bytes that go back to their pool when dropped, if the pool is still there.
#[derive(Debug)]
pub struct Plane {
    data: Vec<u8>,
    home: Weak<Store>,
}

impl AsMut<[u8]> for Plane {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut store = home.lock().unwrap_or_else(PoisonError::into_inner);
        if store.len() < KEPT {
            store.push(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_come_back() {
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
        assert!(store.upgrade().is_none(), "with the planes in it");
        drop(used);
    }
}
