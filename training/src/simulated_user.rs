// SPDX-License-Identifier: MPL-2.0

//! A user who selects objects with a box or clicks, and corrects masks, simulated from the true masks.

use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;

use gstfastganseg::torch::model::prompt::{MAX_POINTS, Prompt, PromptNetwork};
use gstfastganseg::torch::model::weights::open_tensors;
use image::RgbImage;

use crate::clicks::{bounds, click, is_inside};
use crate::method::as_picture;
use crate::score::{Bitmap, region_similarity};
use crate::{LabelMap, Result};

/// What the user gives in the first frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstMask {
    /// The true mask.
    #[default]
    Mask,
    /// The bounding box of each object.
    Box,
    /// This number of clicks on each object.
    Points(usize),
}

impl FromStr for FirstMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.strip_prefix("points:").and_then(|count| count.parse().ok());
        match (text, count) {
            ("mask", _) => Ok(Self::Mask),
            ("box", _) => Ok(Self::Box),
            (_, Some(count)) if (1..=MAX_POINTS).contains(&count) => Ok(Self::Points(count)),
            _ => Err(format!("give mask, box or points:N with N from 1 to {MAX_POINTS}")),
        }
    }
}

/// The network that turns boxes and clicks into masks.
#[derive(Debug)]
pub(crate) struct SimulatedUser(PromptNetwork);

impl SimulatedUser {
    /// Loads a prompt network on the CPU; `None` = the built-in one.
    pub fn new(weights: Option<&Path>) -> Result<Self> {
        let (device, kind) = (tch::Device::Cpu, tch::Kind::Float);
        Ok(Self(match weights {
            Some(path) => PromptNetwork::from_tensors(&open_tensors(path)?.0, path, device, kind)?,
            None => PromptNetwork::load(device, kind)?,
        }))
    }

    /// Returns the masks that the user selects in `picture`, and their mean intersection over union with the `truth`.
    pub fn select(&self, picture: &RgbImage, truth: &LabelMap, first: FirstMask) -> Result<(LabelMap, f64)> {
        if first == FirstMask::Mask {
            return Ok((truth.clone(), 1.0));
        }
        let truth = &truth.without_void();
        let size = (picture.width() as usize, picture.height() as usize);
        let truth_in_picture = truth.resized(size.0, size.1);
        let view = as_picture(picture);
        let mut embedding = None;
        let mut masks = Vec::new();
        for id in 1..=truth.largest() {
            let object = pixels_of(&truth_in_picture, id);
            let Some(rect) = bounds(&object, size.0) else { continue };
            let mut alpha = vec![0; object.len()];
            if let FirstMask::Points(count) = first {
                let embedding = match &mut embedding {
                    Some(embedding) => embedding,
                    none => none.insert(self.0.encode(&view)?),
                };
                let mut prompt = Prompt::default();
                for _ in 0..count {
                    let Some(point) = click(&is_inside(&alpha), &object, size.0) else { break };
                    prompt.points.push(point);
                    alpha = self
                        .0
                        .select_encoded(&view, embedding, &prompt, |_| ControlFlow::Continue(()))?
                        .alpha;
                }
            } else {
                alpha = self.0.select(&view, &Prompt { rect: Some(rect), ..Prompt::default() })?.alpha;
            }
            masks.push((id, alpha));
        }
        let labels = combined(size, &masks).resized(truth.width(), truth.height());
        let overlap = |&(id, _): &(u8, Vec<u8>)| {
            region_similarity(&Bitmap::of_object(&labels, id), &Bitmap::of_object(truth, id))
        };
        let overlaps: Vec<f64> = masks.iter().map(overlap).collect();
        let mean = overlaps.iter().sum::<f64>() / overlaps.len().max(1) as f64;
        Ok((labels, mean))
    }

    /// Corrects `labels` of a frame by one click on the object with the largest error. Returns `None` if they equal the
    /// `truth`.
    pub fn correct(
        &self,
        picture: &RgbImage,
        labels: &LabelMap,
        truth: &LabelMap,
    ) -> Result<Option<LabelMap>> {
        let size = (picture.width() as usize, picture.height() as usize);
        let truth = truth.without_void().resized(size.0, size.1);
        let labels_in_picture = labels.resized(size.0, size.1);
        let errors = |id: u8| {
            let pairs = labels_in_picture.ids().iter().zip(truth.ids());
            pairs.filter(|(a, b)| (**a == id) != (**b == id)).count()
        };
        let Some(id) = (1..=truth.largest().max(labels.largest())).max_by_key(|&id| errors(id)) else {
            return Ok(None);
        };
        let (mask, object) = (pixels_of(&labels_in_picture, id), pixels_of(&truth, id));
        let Some(point) = click(&mask, &object, size.0) else { return Ok(None) };
        let alpha: Vec<u8> = mask.iter().map(|&inside| if inside { 255 } else { 0 }).collect();
        let alpha = self.0.correct(&as_picture(picture), &alpha, &[point])?;
        let mut corrected = labels_in_picture;
        for (label, value) in corrected.ids_mut().iter_mut().zip(alpha) {
            *label = match (value > 127, *label == id) {
                (true, _) => id,
                (false, true) => 0,
                (false, false) => *label,
            };
        }
        Ok(Some(corrected.resized(labels.width(), labels.height())))
    }
}

fn pixels_of(labels: &LabelMap, id: u8) -> Vec<bool> {
    labels.ids().iter().map(|&label| label == id).collect()
}

/// Returns the id of the largest alpha of each pixel, or the background where none exceeds one half.
fn combined((width, height): (usize, usize), masks: &[(u8, Vec<u8>)]) -> LabelMap {
    let mut largest = vec![127; width * height];
    let mut labels = LabelMap::background(width, height);
    for (id, alpha) in masks {
        for ((label, largest), value) in labels.ids_mut().iter_mut().zip(&mut largest).zip(alpha) {
            if value > largest {
                (*label, *largest) = (*id, *value);
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_masks_are_read_from_their_names() {
        assert_eq!("mask".parse(), Ok(FirstMask::Mask));
        assert_eq!("box".parse(), Ok(FirstMask::Box));
        assert_eq!("points:3".parse(), Ok(FirstMask::Points(3)));
        for bad in ["", "points", "points:0", "points:x", "points:65", "boxes"] {
            let error = bad.parse::<FirstMask>().unwrap_err();
            assert!(error.contains("points:N"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_largest_alpha_of_a_pixel_wins() {
        let masks = [(1, vec![200, 200, 100, 0]), (2, vec![210, 150, 90, 128])];
        assert_eq!(combined((4, 1), &masks).ids(), [2, 1, 0, 2]);
    }
}
