// SPDX-License-Identifier: MPL-2.0

//! Counts broken files of training data up to a limit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Broken files found so far, shared by all threads.
#[derive(Debug)]
pub struct Broken {
    limit: usize,
    files: Mutex<BTreeSet<PathBuf>>,
}

impl Broken {
    /// Creates an empty set that tolerates up to `limit` files.
    pub fn new(limit: usize) -> Self {
        Self { limit, files: Mutex::default() }
    }

    /// Returns the value that was read, or `None` if the file is broken. The first failure of each file is printed
    /// on stderr.
    ///
    /// # Errors
    /// [`Error::Broken`] if there are more broken files than the limit; errors of libtorch as they are.
    pub fn skip<T>(&self, file: &Path, read: Result<T>) -> Result<Option<T>> {
        let error = match read {
            Ok(value) => return Ok(Some(value)),
            Err(error @ Error::Torch(_)) => return Err(error),
            Err(error) => error,
        };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.insert(file.to_owned()) {
            return Ok(None);
        }
        let count = files.len();
        if count > self.limit {
            return Err(Error::Broken { count, source: Box::new(error) });
        }
        eprintln!("skipping broken file ({count} of at most {}): {error}", self.limit);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_too_many_are_an_error() {
        let broken = Broken::new(2);
        let broken_file = |name: &str| -> Result<u8> { Err(Error::picture(Path::new(name), "broken")) };
        assert_eq!(broken.skip(Path::new("whole.jpg"), Ok(7)).unwrap(), Some(7));
        for name in ["a.jpg", "b.jpg", "a.jpg", "b.jpg"] {
            assert_eq!(broken.skip(Path::new(name), broken_file(name)).unwrap(), None);
        }
        let error = broken.skip(Path::new("c.jpg"), broken_file("c.jpg")).unwrap_err().to_string();
        assert!(error.contains("c.jpg") && error.contains("data.broken_limit"), "{error}");
    }
}
