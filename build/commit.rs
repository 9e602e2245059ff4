// SPDX-License-Identifier: MPL-2.0

//! Files of the git repository that change when another commit is checked out or made.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the files of the repository around `folder` that change with its current commit: HEAD, its branch, and the
/// packed branches. All of them exist, since cargo takes a missing file for a changed one. Without git or a repository there
/// are none.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim_end_matches('\n').to_owned())
    };
    let path = |name: &str| Some(folder.join(git(&["rev-parse", "--git-path", name])?));
    let mut files: Vec<PathBuf> = ["HEAD", "packed-refs"].into_iter().filter_map(path).collect();
    if let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"]).and_then(|branch| path(&branch)) {
        // The next commit creates the file of a branch that is only among the packed ones.
        files.extend(branch.ancestors().find(|path| path.exists()).map(Path::to_owned));
    }
    files.retain(|path| path.exists());
    files
}
