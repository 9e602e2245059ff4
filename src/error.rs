use std::path::PathBuf;

/// The result of what can fail outside GStreamer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong outside GStreamer. Every message names the file or setting at fault and, where
/// there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A mask that is of no use.
    #[error("mask {}: {reason}", path.display())]
    Mask {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A picture that is of no use.
    #[error("picture {}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A weights file that is of no use.
    #[error("weights {}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A setting out of its range, or one that does not go with another.
    #[error("configuration: {0}")]
    Config(String),
    /// A device that cannot be had.
    #[error("device {device:?}: {reason}")]
    Device {
        /// As it was asked for.
        device: String,
        /// Why not, and the remedy.
        reason: String,
    },
    /// A call into CUDA that failed.
    #[error("CUDA: {0}")]
    Cuda(String),
    /// Tracking was asked for before a mask was given.
    #[error("there is no reference yet: give a mask first")]
    NoReference,
    /// The thread that looked at a frame before its turn is gone.
    #[error("the thread that looks ahead has ended: leave frame-threading off, and please report it")]
    NoPrefetch,
    /// A call into libtorch that failed.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
}

/// libtorch appends a stack trace of its own to every message.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
