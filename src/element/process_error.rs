//! Errors on their way to the bus.

use std::panic::Location;

use gstreamer as gst;

use crate::Error;

/// Why a buffer could not be processed.
pub enum ProcessError {
    /// Nothing to tell anyone: the pipeline is stopping, or somebody else has told already.
    Flow(gst::FlowError),
    /// To be posted as an element error.
    Error(Failure),
}

/// An error, and the line of the source that met it.
pub struct Failure {
    cause: Cause,
    place: &'static Location<'static>,
}

enum Cause {
    Error(Error),
    Frame(glib::BoolError),
}

impl From<gst::FlowError> for ProcessError {
    fn from(error: gst::FlowError) -> Self {
        Self::Flow(error)
    }
}

impl From<Error> for ProcessError {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::Error(Failure { cause: Cause::Error(error), place: Location::caller() })
    }
}

impl From<glib::BoolError> for ProcessError {
    #[track_caller]
    fn from(error: glib::BoolError) -> Self {
        Self::Error(Failure { cause: Cause::Frame(error), place: Location::caller() })
    }
}

impl Failure {
    /// For the bus; `function` is the element's that fails.
    pub fn message(&self, function: &'static str) -> gst::ErrorMessage {
        match &self.cause {
            Cause::Error(error) => message_at(error, function, self.place),
            Cause::Frame(error) => {
                let text = format!("A frame cannot be processed: {error}");
                at(self.place, function, &gst::StreamError::Failed, &text)
            }
        }
    }
}

/// An error of the rest of this library as one of GStreamer, raised by the caller, which is in `function`.
#[track_caller]
pub fn message(error: &Error, function: &'static str) -> gst::ErrorMessage {
    message_at(error, function, Location::caller())
}

fn message_at(error: &Error, function: &'static str, place: &'static Location<'static>) -> gst::ErrorMessage {
    let file = match error {
        Error::Mask { path, .. }
        | Error::Picture { path, .. }
        | Error::Weights { path, .. }
        | Error::Read { path, .. } => Some(path),
        _ => None,
    };
    let text = error.to_string();
    let resource = |kind: gst::ResourceError| at(place, function, &kind, &text);
    match (error, file) {
        (_, Some(path)) if !path.exists() => resource(gst::ResourceError::NotFound),
        (_, Some(_)) => resource(gst::ResourceError::Read),
        (Error::Write { .. }, _) => resource(gst::ResourceError::Write),
        (Error::Device { .. }, _) => resource(gst::ResourceError::OpenReadWrite),
        (Error::Config(_), _) => resource(gst::ResourceError::Settings),
        _ => at(place, function, &gst::LibraryError::Failed, &text),
    }
}

fn at<T: gst::MessageErrorDomain>(
    place: &'static Location<'static>,
    function: &'static str,
    kind: &T,
    text: &str,
) -> gst::ErrorMessage {
    gst::ErrorMessage::new(kind, Some(text), None, place.file(), function, place.line())
}
