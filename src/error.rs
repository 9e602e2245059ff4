// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

/// Result of operations outside GStreamer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors outside GStreamer. Every message names the file or setting at fault and, if there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A mask that cannot be used.
    #[error("mask {}: {reason}", path.display())]
    Mask {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// A picture that cannot be used.
    #[error("picture {}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// A weights file that cannot be used.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// A setting out of its range, or incompatible with another.
    #[error("configuration: {0}")]
    Config(String),
    /// A device that is not available.
    #[error("device {device:?}: {reason}")]
    Device {
        /// The device as requested.
        device: String,
        /// The cause, and the remedy.
        reason: String,
    },
    /// A call into CUDA that failed.
    #[error("CUDA: {0}")]
    Cuda(String),
    /// An operation that needs a reference was called before one was set.
    #[error("no reference is set: set a reference mask first")]
    NoReference,
    /// The thread that prefetches frames has ended.
    #[error("the prefetch thread has ended: set frame-threading=false, and please report it")]
    NoPrefetch,
    /// A call into libtorch that failed.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl From<tch::TchError> for Error {
    /// Keeps the first line of the message, without the stack trace that libtorch appends.
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}
