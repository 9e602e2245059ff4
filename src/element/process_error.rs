// SPDX-License-Identifier: MPL-2.0

//! Errors of buffers, and their conversion to GStreamer error messages.

use std::panic::Location;

use gstreamer as gst;

use crate::Error;

/// Why a buffer could not be processed.
pub enum ProcessError {
    /// Not to be posted: the pipeline is stopping, or another element has posted the error.
    Flow(gst::FlowError),
    /// To be posted as an element error.
    Error(Failure),
}

/// An error and the source line where it occurred.
pub struct Failure {
    cause: Cause,
    location: &'static Location<'static>,
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
        Self::Error(Failure { cause: Cause::Error(error), location: Location::caller() })
    }
}

impl From<glib::BoolError> for ProcessError {
    #[track_caller]
    fn from(error: glib::BoolError) -> Self {
        Self::Error(Failure { cause: Cause::Frame(error), location: Location::caller() })
    }
}

impl Failure {
    /// Returns the error message. `function` is the virtual method that failed.
    pub fn message(&self, function: &'static str) -> gst::ErrorMessage {
        match &self.cause {
            Cause::Error(error) => message_at(error, function, self.location),
            Cause::Frame(error) => {
                let text = format!("Cannot process a frame: {error}");
                build_message(self.location, function, &gst::StreamError::Failed, &text)
            }
        }
    }
}

/// Converts an error of this library to a GStreamer error message with the caller's line. `function` is the
/// function that failed.
#[track_caller]
pub fn message(error: &Error, function: &'static str) -> gst::ErrorMessage {
    message_at(error, function, Location::caller())
}

fn message_at(
    error: &Error,
    function: &'static str,
    location: &'static Location<'static>,
) -> gst::ErrorMessage {
    let file = match error {
        Error::Mask { path, .. }
        | Error::Picture { path, .. }
        | Error::Weights { path, .. }
        | Error::Read { path, .. } => Some(path),
        _ => None,
    };
    let text = error.to_string();
    let resource = |kind: gst::ResourceError| build_message(location, function, &kind, &text);
    match (error, file) {
        (_, Some(path)) if !path.exists() => resource(gst::ResourceError::NotFound),
        (_, Some(_)) => resource(gst::ResourceError::Read),
        (Error::Write { .. }, _) => resource(gst::ResourceError::Write),
        (Error::Device { .. }, _) => resource(gst::ResourceError::OpenReadWrite),
        (Error::Config(_), _) => resource(gst::ResourceError::Settings),
        _ => build_message(location, function, &gst::LibraryError::Failed, &text),
    }
}

fn build_message<T: gst::MessageErrorDomain>(
    location: &'static Location<'static>,
    function: &'static str,
    kind: &T,
    text: &str,
) -> gst::ErrorMessage {
    gst::ErrorMessage::new(kind, Some(text), None, location.file(), function, location.line())
}
