//! Pictures of what a run trains on.

use image::{Rgb, RgbImage};
use tch::{Kind, Tensor};

use super::Mix;
use super::settings::Data;
use crate::report::{ContactSheet, Tile};
use crate::{LabelMap, Result};

/// What pixels are mixed with whose truth is not known.
const UNKNOWN: Rgb<u8> = Rgb([255, 0, 255]);

/// The clips of the first `batches` steps of a run, frame by frame, with their masks; where the truth
/// is not known, the picture is magenta.
///
/// # Errors
/// As a training run: bad data or configuration.
pub fn preview(data: &Data, seed: u64, batches: u64) -> Result<ContactSheet> {
    let mix = Mix::open(data, seed)?;
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
                let image = picture(&of(&batch.images, frame), Some(&of(&batch.valid, frame)))?;
                sheet.push(tile(&image, &of(&batch.masks, frame), caption)?);
            }
            let caption = format!("{} previous, as given", step as i64 * clips + clip);
            let image = picture(&of(&batch.images, 1), None)?;
            sheet.push(tile(&image, &batch.previous.get(clip), caption)?);
        }
    }
    Ok(sheet)
}

fn picture(image: &Tensor, valid: Option<&Tensor>) -> Result<RgbImage> {
    let (_, height, width) = image.size3()?;
    let rgb = bytes(&image.f_permute([1, 2, 0])?)?;
    let mut picture = RgbImage::from_raw(width as u32, height as u32, rgb).unwrap_or_default();
    let valid = valid.map(bytes).transpose()?.unwrap_or_default();
    for (pixel, _) in picture.pixels_mut().zip(valid).filter(|(_, valid)| *valid == 0) {
        pixel.0.iter_mut().zip(UNKNOWN.0).for_each(|(value, unknown)| *value = *value / 2 + unknown / 2);
    }
    Ok(picture)
}

fn tile(picture: &RgbImage, mask: &Tensor, caption: String) -> Result<Tile> {
    let labels = bytes(mask)?.iter().map(|&value| u8::from(value > 127)).collect();
    let labels = LabelMap::new(picture.width() as usize, picture.height() as usize, labels)?;
    Ok(Tile::new(picture, &labels, ContactSheet::TILE_WIDTH, caption))
}

/// [0, 1] to 0 to 255.
fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let x = x.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?;
    Ok(Vec::<u8>::try_from(&x.f_contiguous()?.f_reshape([-1])?)?)
}
