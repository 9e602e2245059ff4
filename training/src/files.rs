// SPDX-License-Identifier: MPL-2.0

//! Atomic replacement of files, and the lock of a run's folder.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// Calls `write` with the path of a temporary file, syncs that file to disk and renames it to `path`. After an
/// error or a crash, `path` has its previous contents.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |source| Error::write(path, source);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let replaced = write(&partial).and_then(|()| {
        File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&partial, path).map_err(failed)
    });
    if replaced.is_err() {
        // The first error is reported, not that of the clean-up.
        let _ = fs::remove_file(&partial);
        return replaced;
    }
    sync_folder(path).map_err(failed)
}

/// Replaces the file by `text`, as [`replace`] does.
pub(crate) fn replace_text(path: &Path, text: &[u8]) -> Result<()> {
    replace(path, |partial| fs::write(partial, text).map_err(|source| Error::write(partial, source)))
}

/// Syncs the folder of `path` to disk, without which a rename may be lost.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::write(path, source))
}

/// Name of the file in a run's folder that is locked. It stays after the run; only its lock counts.
const LOCK: &str = ".lock";

/// Creates the folder `folder` and locks it for one run, until the returned file is closed. The system unlocks it if the
/// process is killed.
///
/// # Errors
/// [`Error::InUse`] if another run has locked it; an error if the folder cannot be written.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    create_folder(folder)?;
    let path = folder.join(LOCK);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|source| Error::write(&path, source))?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => return Err(Error::InUse(folder.to_owned())),
        // Some network file systems have no locks.
        Err(TryLockError::Error(error)) => {
            eprintln!("warning: cannot lock {} ({error}): start no other run in its folder", path.display());
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_its_run_ends() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("new/run");
        let first = lock(&folder).unwrap();
        let error = lock(&folder).unwrap_err().to_string();
        assert!(error.contains("new/run: wait") && error.contains("--out"), "{error}");
        drop(first);
        lock(&folder).unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.bin");
        replace_text(&path, b"first").unwrap();
        replace_text(&path, b"second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        let error = replace(&path, |path| {
            fs::write(path, "half of the thi").unwrap();
            Err(Error::Clips("the disk is full".into()))
        });
        assert!(error.unwrap_err().to_string().contains("the disk is full"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        let error = replace_text(&folder.path().join("nowhere/state.bin"), b"");
        assert!(error.unwrap_err().to_string().contains("nowhere"));
    }
}
