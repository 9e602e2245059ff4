//! Selection of one mask.

use super::{Prompt, PromptNetwork};
use crate::Result;
use crate::image::Picture;

/// The mask of the selected object.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Soft alpha at the size of the picture, 0 to 255, row by row.
    pub alpha: Vec<u8>,
    /// IoU with the object as the network predicts it, about 0 to 1.
    pub iou: f64,
}

impl PromptNetwork {
    /// Selects.
    ///
    /// # Errors
    /// todo
    pub fn select(&self, picture: &Picture, prompt: &Prompt) -> Result<Selection> {
        let embedding = self.encode(picture)?;
        let candidates = self.decode(&embedding, prompt)?;
        Ok(Selection { alpha: candidates[0].alpha()?, iou: candidates[0].iou })
    }
}
