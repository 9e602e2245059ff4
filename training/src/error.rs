use std::path::{Path, PathBuf};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in training and evaluation. Every message names the file or folder at fault
/// and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A single file, the model or the device.
    #[error(transparent)]
    Core(#[from] gstfastganseg::Error),
    /// A folder of sequences that is not laid out as DAVIS is.
    #[error("data {}: {reason}", path.display())]
    Dataset {
        /// The folder or list at fault.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A training configuration that cannot be used.
    #[error("configuration {}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Data of which no clip can be made.
    #[error("training clips: {0}")]
    Clips(String),
    /// More broken files among the training data than the configuration lets pass.
    #[error(
        "{count} broken files, the last: {source}; mend or remove the files named above, or raise \
         data.broken_limit"
    )]
    Broken {
        /// How many there are so far.
        count: usize,
        /// What is wrong with the last.
        source: Box<Error>,
    },
    /// A file of scalars that cannot be gone on with.
    #[error("curve {}: {reason}; move it away to begin another", path.display())]
    Curve {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A chart that cannot be drawn.
    #[error("chart: {0}")]
    Chart(String),
    /// A checkpoint that does not fit the run.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A loss or gradient that is no number any more.
    #[error(
        "{what} diverged at step {step}: try a lower optimiser.learning_rate or critics.learning_rate, a higher \
         critics.penalty_weight, mixed_precision = false; {remedy}"
    )]
    Diverged {
        /// Whose loss or gradient.
        what: String,
        /// The step that failed.
        step: u64,
        /// Where the last good state is, if there is one.
        remedy: String,
    },
    /// Too little memory for a step.
    #[error(
        "out of memory at step {step} ({reason}): lower data.batch, data.size, data.window or \
         critics.shape.max_channels, put the critics elsewhere with critics.device, or set mixed_precision = true on \
         CUDA"
    )]
    OutOfMemory {
        /// The step that failed.
        step: u64,
        /// libtorch's words.
        reason: String,
    },
    /// Signals cannot be caught.
    #[error("signals cannot be handled: {0}")]
    Signal(#[from] ctrlc::Error),
    /// A call into libtorch that failed.
    #[error("libtorch: {}", .0.to_string().lines().next().unwrap_or_default())]
    Torch(#[from] tch::TchError),
    /// Masks that cannot be compared with the ground truth.
    #[error("cannot score {what}: {reason}")]
    Score {
        /// The sequence, frame or file.
        what: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A fault met on the way through a video.
    #[error("{place}: {source}")]
    At {
        /// The sequence and frame.
        place: String,
        /// What went wrong there.
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

    /// A file that could not be written.
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
        Self::Dataset { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn score(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Score { what: what.into(), reason: reason.into() }
    }
}
