// SPDX-License-Identifier: MPL-2.0

//! The files that make cargo read the commit of the plugin's version again.

#[path = "../../build/commit.rs"]
mod commit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

fn git(folder: &Path, line: &str) {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn times(files: &[PathBuf]) -> Vec<Option<SystemTime>> {
    files.iter().map(|file| fs::metadata(file).and_then(|data| data.modified()).ok()).collect()
}

/// The version showed the commit of the first build for ever.
#[test]
fn the_version_follows_the_commit() {
    let root = tempfile::tempdir().unwrap();
    let (main, tree) = (root.path().join("main"), root.path().join("tree"));
    fs::create_dir_all(main.join("inner")).unwrap();
    git(&main, "init -q -b feature/a");
    git(&main, "commit -q --allow-empty -m first");
    git(&main, "worktree add -q -b side ../tree");
    let commit = "commit -q --allow-empty -m next";
    for (before, folder, change) in [
        ("status", main.clone(), commit),
        ("status", main.join("inner"), commit),
        ("status", tree, commit),
        ("pack-refs --all --prune", main.clone(), commit),
        ("pack-refs --all --prune", main.clone(), "checkout -q -b feature/b"),
        ("status", main.clone(), "pack-refs --all --prune"),
        ("checkout -q --detach", main.clone(), commit),
        ("status", main.clone(), "checkout -q feature/a"),
    ] {
        git(&folder, before);
        let files = commit::files(&folder);
        assert!(files.iter().all(|file| file.exists() && !file.ends_with(".git")), "{files:?}");
        let earlier = times(&files);
        // File systems count time in ticks of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(earlier, times(&commit::files(&folder)), "{folder:?}: nothing has changed");
        git(&folder, change);
        assert!(earlier != times(&files), "{folder:?}: {before}, {change}: {files:?}");
    }
}

#[test]
fn a_source_archive_without_a_repository_is_built() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(commit::files(root.path()), Vec::<PathBuf>::new());
}
