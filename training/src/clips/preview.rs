// SPDX-License-Identifier: MPL-2.0

//! Contact sheet of training clips.

use image::{Rgb, RgbImage};
use tch::Tensor;

use super::Mix;
use super::settings::Data;
use crate::Result;
use crate::report::{ContactSheet, bytes, labels, picture};

/// Tint of the pixels whose ground truth is unknown.
const UNKNOWN: Rgb<u8> = Rgb([255, 0, 255]);

/// Returns a contact sheet of the clips of the first `batches` steps of a run, frame by frame, with their masks.
/// Pixels whose ground truth is unknown are tinted magenta.
///
/// # Errors
/// Errors of the data or configuration, as in a training run.
pub fn preview(data: &Data, seed: u64, batches: u64) -> Result<ContactSheet> {
    let mix = Mix::open(data, seed, true)?;
    let mut sheet = ContactSheet::new(format!("training clips, seed {seed}"));
    for step in 0..batches {
        let batch = mix.batch(step)?;
        let (frames, clips) = (batch.images.size()[0], batch.images.size()[1]);
        for clip in 0..clips {
            let of = |x: &Tensor, frame: i64| x.get(frame).get(clip);
            for frame in 0..frames {
                let name = match frame {
                    0 => "reference".to_owned(),
                    1 => "previous, true mask".to_owned(),
                    _ => format!("predicted {}", frame - 1),
                };
                let caption = format!("{} {name}", step as i64 * clips + clip);
                let image = tint_unknown(&of(&batch.images, frame), &of(&batch.valid, frame))?;
                push(&mut sheet, &image, &of(&batch.masks, frame), &caption)?;
            }
            let caption = format!("{} previous, perturbed mask", step as i64 * clips + clip);
            let image = picture(&of(&batch.images, 1))?;
            push(&mut sheet, &image, &batch.previous.get(clip), &caption)?;
        }
    }
    Ok(sheet)
}

/// Returns the picture with a magenta tint where the ground truth is unknown.
fn tint_unknown(image: &Tensor, valid: &Tensor) -> Result<RgbImage> {
    let mut picture = picture(image)?;
    for (pixel, _) in picture.pixels_mut().zip(bytes(valid)?).filter(|(_, valid)| *valid == 0) {
        pixel.0.iter_mut().zip(UNKNOWN.0).for_each(|(value, unknown)| *value = *value / 2 + unknown / 2);
    }
    Ok(picture)
}

fn push(sheet: &mut ContactSheet, picture: &RgbImage, mask: &Tensor, caption: &str) -> Result<()> {
    let labels = labels(&bytes(mask)?, picture.width() as usize, picture.height() as usize)?;
    sheet.push(picture, &labels, caption);
    Ok(())
}
