// SPDX-License-Identifier: MPL-2.0

//! Panel of a training window: each frame with its true and its predicted mask.

use image::{DynamicImage, GrayImage, RgbImage};
use tch::Tensor;

use crate::report::{ContactSheet, bytes, labels, picture};
use crate::{LabelMap, Result};

/// Draws the predicted frames of one clip, one row per frame: the frame, the true mask over it, the predicted mask
/// (above one half) over it, and the predicted soft mask.
///
/// `images` (K, 3, H, W) is RGB in [0, 1]; `truth` and `prediction` (K, 1, H, W) are in [0, 1]. The tensors may
/// have any kind and device.
pub fn window_panel(title: &str, images: &Tensor, truth: &Tensor, prediction: &Tensor) -> Result<RgbImage> {
    let _no_grad = tch::no_grad_guard();
    let mut sheet = ContactSheet::new(title);
    let (frames, _, height, width) = images.size4()?;
    let (height, width) = (height as usize, width as usize);
    let background = LabelMap::background(width, height);
    for frame in 0..frames {
        let picture = picture(&images.f_get(frame)?)?;
        let soft = bytes(&prediction.f_get(frame)?)?;
        let predicted = labels(&soft, width, height)?;
        let true_labels = labels(&bytes(&truth.f_get(frame)?)?, width, height)?;
        let grey = GrayImage::from_raw(width as u32, height as u32, soft).unwrap_or_default();
        let grey = DynamicImage::ImageLuma8(grey).into_rgb8();
        let mut push = |picture: &RgbImage, labels: &LabelMap, name: &str| {
            sheet.push(picture, labels, &format!("{name} {}", frame + 1));
        };
        push(&picture, &background, "frame");
        push(&picture, &true_labels, "truth");
        push(&picture, &predicted, "prediction");
        push(&grey, &background, "soft mask");
    }
    sheet.draw()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn a_row_has_frame_truth_prediction_and_soft_mask() {
        let images = Tensor::full([2, 3, 32, 64], 0.8, (Kind::Float, Device::Cpu));
        let truth = Tensor::zeros([2, 1, 32, 64], (Kind::Float, Device::Cpu));
        let _ = truth.narrow(3, 0, 32).fill_(1.0);
        let prediction = truth.flip([3]).to_kind(Kind::BFloat16).set_requires_grad(true);
        let panel = window_panel("step 3", &images, &truth, &prediction).unwrap();
        let tile = ContactSheet::TILE_WIDTH;
        let height = tile / 2;
        // Colour in the middle row of a tile, at the fraction `x` of its width.
        let at = |column: u32, row: u32, x: f32| {
            let (gap, caption) = (4, 18);
            let left = gap + column * (tile + gap);
            let top = 2 * caption + gap + row * (caption + height + gap);
            panel.get_pixel(left + (x * tile as f32) as u32, top + height / 2).0
        };
        for row in 0..2 {
            let grey = [204, 204, 204];
            assert_eq!((at(0, row, 0.25), at(0, row, 0.75)), (grey, grey));
            assert!(at(1, row, 0.25) != grey && at(1, row, 0.75) == grey, "the true object is on the left");
            assert!(
                at(2, row, 0.25) == grey && at(2, row, 0.75) != grey,
                "the predicted one is on the right"
            );
            assert_eq!((at(3, row, 0.25), at(3, row, 0.75)), ([0; 3], [255; 3]));
        }
    }
}
