//! Decoded pictures that may be needed again, up to a number of bytes.

use std::sync::Arc;

use quick_cache::Weighter;

use super::picture::Picture;
use crate::Result;

/// Source, sequence and frame.
type Key = (usize, usize, usize);
/// Nothing where the file is broken.
type Value = Option<Arc<Picture>>;

/// The pictures read last, shared by all threads.
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
    /// Keeps up to `bytes`.
    pub fn new(bytes: u64) -> Self {
        // About the size of a frame of 480 x 854, from which the number of entries is guessed.
        const USUAL: u64 = 4 * 480 * 854;
        Self(quick_cache::sync::Cache::with_weighter((bytes / USUAL) as usize, bytes, Bytes))
    }

    /// The picture, read if it is not kept. Threads that want the same wait for one to read it.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn get(&self, key: Key, read: impl FnOnce() -> Result<Value>) -> Result<Value> {
        self.0.get_or_insert_with(&key, read)
    }
}
