//! Files that cannot be used: named, left out, counted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// The broken files met so far.
#[derive(Debug)]
pub struct Broken {
    limit: usize,
    files: Mutex<BTreeSet<PathBuf>>,
}

impl Broken {
    /// None so far; up to `limit` are let pass.
    pub fn new(limit: usize) -> Self {
        Self { limit, files: Mutex::default() }
    }

    /// What was read, or nothing if the file is broken: the first time this is said on stderr.
    ///
    /// # Errors
    /// One broken file more than the limit, and what is no fault of a file.
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
        eprintln!("left out ({count} of at most {}): {error}", self.limit);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_too_many_are_an_error() {
        let broken = Broken::new(2);
        let fault = |name: &str| -> Result<u8> { Err(Error::picture(Path::new(name), "broken")) };
        assert_eq!(broken.skip(Path::new("whole.jpg"), Ok(7)).unwrap(), Some(7));
        for name in ["a.jpg", "b.jpg", "a.jpg", "b.jpg"] {
            assert_eq!(broken.skip(Path::new(name), fault(name)).unwrap(), None);
        }
        let error = broken.skip(Path::new("c.jpg"), fault("c.jpg")).unwrap_err().to_string();
        assert!(error.contains("c.jpg") && error.contains("data.broken_limit"), "{error}");
    }
}
