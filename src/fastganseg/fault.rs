//! Errors on their way to the bus.

use gstreamer as gst;

use crate::Error;

/// Why a buffer could not be processed.
pub enum Fault {
    /// Nothing to tell anyone: the pipeline is stopping, or somebody else has told already.
    Flow(gst::FlowError),
    /// To be posted as an element error.
    Error(gst::ErrorMessage),
}

impl From<gst::FlowError> for Fault {
    fn from(error: gst::FlowError) -> Self {
        Self::Flow(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(message(&error))
    }
}

impl From<glib::BoolError> for Fault {
    fn from(error: glib::BoolError) -> Self {
        Self::Error(gst::error_msg!(gst::StreamError::Failed, ("A frame cannot be processed: {error}")))
    }
}

/// An error of the rest of this library as one of GStreamer.
pub fn message(error: &Error) -> gst::ErrorMessage {
    let file = match error {
        Error::Mask { path, .. }
        | Error::Picture { path, .. }
        | Error::Weights { path, .. }
        | Error::Read { path, .. } => Some(path),
        _ => None,
    };
    match (error, file) {
        (_, Some(path)) if !path.exists() => gst::error_msg!(gst::ResourceError::NotFound, ("{error}")),
        (_, Some(_)) => gst::error_msg!(gst::ResourceError::Read, ("{error}")),
        (Error::Write { .. }, _) => gst::error_msg!(gst::ResourceError::Write, ("{error}")),
        (Error::Device { .. }, _) => gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{error}")),
        (Error::Config(_), _) => gst::error_msg!(gst::ResourceError::Settings, ("{error}")),
        _ => gst::error_msg!(gst::LibraryError::Failed, ("{error}")),
    }
}
