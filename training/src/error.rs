// SPDX-License-Identifier: MPL-2.0

use std::path::{Path, PathBuf};

/// Result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of training and evaluation. Messages name the file or folder concerned and, if possible, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Error of a single file, of the model or of the device.
    #[error(transparent)]
    Core(#[from] gstfastganseg::Error),
    /// Folder or list of sequences that does not have the layout of DAVIS, with what is wrong and the remedy.
    #[error("data {}: {}", .0.display(), .1)]
    Dataset(PathBuf, String),
    /// Invalid training configuration, with what is wrong.
    #[error("configuration {}: {}", .0.display(), .1)]
    Config(PathBuf, String),
    /// Error while making training clips.
    #[error("training clips: {0}")]
    Clips(String),
    /// More broken files in the training data than the configuration tolerates.
    #[error(
        "{count} broken files, the last: {source}; repair or remove the files named above, or raise \
         data.broken_limit"
    )]
    Broken {
        /// Number of broken files so far.
        count: usize,
        /// Error of the last one.
        source: Box<Error>,
    },
    /// File of scalars that cannot be continued, with what is wrong.
    #[error("curve {}: {}; move it away to start a new one", .0.display(), .1)]
    Curve(PathBuf, String),
    /// Chart that cannot be drawn.
    #[error("chart: {0}")]
    Chart(String),
    /// Checkpoint that does not match the run, with what is wrong and the remedy.
    #[error("checkpoint {}: {}", .0.display(), .1)]
    Checkpoint(PathBuf, String),
    /// Folder in which another run writes.
    #[error("another run uses the folder {}: wait until it has ended, or set another folder with --out", .0.display())]
    InUse(PathBuf),
    /// Loss or gradient that is not finite.
    #[error("{what} diverged at step {step}: {remedy}")]
    Diverged {
        /// Name of the loss or gradient.
        what: String,
        /// The step that failed.
        step: u64,
        /// Settings to try, and the location of the last valid state, if there is one.
        remedy: String,
    },
    /// Out of memory during a step.
    #[error(
        "out of memory at step {step} ({reason}): lower data.batch, data.size, data.window or \
         critics.shape.max_channels, move the critics to another device with critics.device, or set \
         mixed_precision = true on CUDA"
    )]
    OutOfMemory {
        /// The step that failed.
        step: u64,
        /// Message of libtorch.
        reason: String,
    },
    /// Signal handler that cannot be installed.
    #[error("cannot install the signal handler: {0}")]
    Signal(#[from] ctrlc::Error),
    /// Error of the work on several ranks.
    #[error("{0}")]
    Ranks(String),
    /// Error of libtorch.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// Sequence, frame or file whose masks cannot be compared with the ground truth, with what is wrong and the remedy.
    #[error("cannot score {0}: {1}")]
    Score(String, String),
    /// Error at a frame of a video.
    #[error("{place}: {source}")]
    At {
        /// Sequence and frame.
        place: String,
        /// The error.
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn at(self, place: impl Into<String>) -> Self {
        Self::At { place: place.into(), source: Box::new(self) }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        gstfastganseg::Error::Read { path: path.to_path_buf(), source }.into()
    }

    /// Returns the error of a file that could not be written.
    pub fn write(path: &Path, source: std::io::Error) -> Self {
        gstfastganseg::Error::Write { path: path.to_path_buf(), source }.into()
    }

    pub(crate) fn mask(path: &Path, reason: impl Into<String>) -> Self {
        gstfastganseg::Error::Mask { path: path.to_path_buf(), reason: reason.into() }.into()
    }

    pub(crate) fn picture(path: &Path, reason: impl Into<String>) -> Self {
        gstfastganseg::Error::Picture { path: path.to_path_buf(), reason: reason.into() }.into()
    }

    pub(crate) fn dataset(path: &Path, reason: impl Into<String>) -> Self {
        Self::Dataset(path.to_path_buf(), reason.into())
    }

    pub(crate) fn score(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Score(what.into(), reason.into())
    }
}
