// SPDX-License-Identifier: MPL-2.0

//! Temporal flicker of alpha at static pixels.

use image::RgbImage;

use crate::LabelMap;

/// Maximum change of green, 0 to 255, at a static pixel.
const MAX_CHANGE: u8 = 2;
/// Maximum distance from an object's contour, pixels.
const MAX_DISTANCE: usize = 8;

/// Mean change of alpha, 0 to 255, from one frame to the next, over the static pixels near a contour: those whose
/// colour and true id do not change.
#[derive(Clone, Debug, Default)]
pub struct Flicker {
    last: Option<(RgbImage, LabelMap, Vec<u8>)>,
    sum: u64,
    count: u64,
}

impl Flicker {
    /// Adds the next frame of a sequence. A frame of another size is not compared with the previous one.
    pub fn add(&mut self, picture: &RgbImage, truth: &LabelMap, alpha: &[u8]) {
        let size = (truth.width() * truth.height(), picture.as_raw().len());
        if size.1 != 3 * size.0 || alpha.len() != size.0 {
            self.last = None;
            return;
        }
        if let Some((before, labels, alphas)) = &self.last
            && labels.width() == truth.width()
            && alphas.len() == alpha.len()
        {
            for (index, (&a, &b)) in alphas.iter().zip(alpha).enumerate() {
                let green = |picture: &RgbImage| picture.as_raw()[3 * index + 1];
                if green(before).abs_diff(green(picture)) <= MAX_CHANGE
                    && labels.ids()[index] == truth.ids()[index]
                    && is_near_contour(truth, index)
                {
                    self.sum += u64::from(a.abs_diff(b));
                    self.count += 1;
                }
            }
        }
        self.last = Some((picture.clone(), truth.clone(), alpha.to_vec()));
    }

    /// Returns the mean so far; `None` without pixels.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

/// Returns whether the id differs at the distance [`MAX_DISTANCE`] in one of eight directions.
fn is_near_contour(truth: &LabelMap, index: usize) -> bool {
    let (x, y) = (index % truth.width(), index / truth.width());
    let own = truth.ids()[index];
    let columns = [x.saturating_sub(MAX_DISTANCE), x, (x + MAX_DISTANCE).min(truth.width() - 1)];
    let rows = [y.saturating_sub(MAX_DISTANCE), y, (y + MAX_DISTANCE).min(truth.height() - 1)];
    rows.iter().any(|&y| columns.iter().any(|&x| truth.at(x, y) != own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_pixels_near_a_contour_count() {
        let width = 40;
        let truth = LabelMap::new(width, 1, (0..40).map(|x| u8::from(x >= 20)).collect()).unwrap();
        let mut picture = RgbImage::new(40, 1);
        let mut flicker = Flicker::default();
        flicker.add(&picture, &truth, &[100; 40]);
        assert_eq!(flicker.mean(), None);
        picture.get_pixel_mut(20, 0)[1] = 3;
        let mut alpha = [100; 40];
        alpha[0] = 200;
        alpha[19] = 116;
        alpha[20] = 200;
        flicker.add(&picture, &truth, &alpha);
        // 8 pixels on either side, except the one whose colour changed.
        assert_eq!(flicker.mean(), Some(16.0 / 15.0));
        flicker.add(&picture, &truth, &[0; 3]);
        flicker.add(&picture, &truth, &alpha);
        assert_eq!(flicker.mean(), Some(16.0 / 15.0));
    }
}
