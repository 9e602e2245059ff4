// SPDX-License-Identifier: MPL-2.0

//! Cache of decoded pictures, limited in bytes.

use std::sync::Arc;

use quick_cache::Weighter;

use super::picture::Picture;
use crate::Result;

/// Indices of source, sequence and frame.
type Key = (usize, usize, usize);
/// `None` for a broken file.
type Value = Option<Arc<Picture>>;

/// Recently used pictures, shared by all threads.
#[derive(Debug)]
pub struct Cache(quick_cache::sync::Cache<Key, Value, Bytes>);

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Key, Value> for Bytes {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        value.as_ref().map_or(64, |picture| picture.bytes())
    }
}

impl Cache {
    /// Creates a cache of up to `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        // Size of a frame of 480 x 854 with one mask, to estimate the number of entries.
        const TYPICAL: u64 = 4 * 480 * 854;
        Self(quick_cache::sync::Cache::with_weighter((bytes / TYPICAL) as usize, bytes, Bytes))
    }

    /// Returns the picture and reads it if it is not in the cache. Threads that request the same picture wait for
    /// the one that reads it.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn get(&self, key: Key, read: impl FnOnce() -> Result<Value>) -> Result<Value> {
        self.0.get_or_insert_with(&key, read)
    }
}
