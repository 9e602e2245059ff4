// SPDX-License-Identifier: MPL-2.0

//! Requests to select an object, between the threads that make them and the streaming thread.

use std::path::PathBuf;

use super::reference::Ask;
use crate::Result;
use crate::image::OwnedPicture;
use crate::model::prompt::Prompt;

/// What to select in the next buffer.
#[derive(Debug)]
pub struct SelectionRequest {
    pub prompt: Prompt,
    pub kind: RequestKind,
    pub ask: Ask,
}

impl SelectionRequest {
    /// The same request. Its prompt has no mask.
    pub fn repeated(&self) -> Self {
        let Prompt { points, rect, .. } = &self.prompt;
        Self { prompt: Prompt { points: points.clone(), rect: *rect, mask: None }, ..*self }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// From `ref-box` and `ref-points`: in `ref-image`, if it is set.
    Property,
    /// A selection in the frame.
    New,
    /// A correction of the mask of the frame.
    Correction,
}

/// The picture in which something is selected.
pub enum Source {
    /// A frame.
    Frame(OwnedPicture),
    /// A file, `ref-image`. Reading it may take longer than a frame.
    File(PathBuf),
}

impl Source {
    /// Returns the picture. Checks the `prompt` for a file.
    ///
    /// # Errors
    /// The file cannot be read, or the prompt does not fit its picture.
    pub fn open(self, prompt: Option<&Prompt>) -> Result<OwnedPicture> {
        let path = match self {
            Self::Frame(picture) => return Ok(picture),
            Self::File(path) => path,
        };
        let picture = OwnedPicture::open(&path)?;
        let view = picture.as_picture();
        prompt.map(|prompt| prompt.check((view.width, view.height))).transpose()?;
        Ok(picture)
    }
}
