use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong outside GStreamer. Every message names the file or setting at fault and, where
/// there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("mask {}: {reason}", path.display())]
    Mask { path: PathBuf, reason: String },
    #[error("picture {}: {reason}", path.display())]
    Picture { path: PathBuf, reason: String },
    #[error("weights {}: {reason}", path.display())]
    Weights { path: PathBuf, reason: String },
    #[error("configuration: {0}")]
    Config(String),
    #[error("device {device:?}: {reason}")]
    Device { device: String, reason: String },
    #[error("there is no reference yet: give a mask first")]
    NoReference,
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
}

/// libtorch appends a stack trace of its own to every message.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
