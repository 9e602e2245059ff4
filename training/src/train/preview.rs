//! Pictures of what a run trains on.

use image::RgbImage;
use tch::{Kind, Tensor};

use super::TrainConfig;
use crate::clips::Mix;
use crate::report::{ContactSheet, Tile};
use crate::{LabelMap, Result};

/// The clips of the first `batches` steps of a run, frame by frame, with their masks.
///
/// # Errors
/// As a training run: bad data or configuration.
pub fn preview(config: &TrainConfig, batches: u64) -> Result<ContactSheet> {
    let mix = Mix::open(&config.data, config.seed)?;
    let mut sheet = ContactSheet::new(format!("training clips, seed {}", config.seed));
    for step in 0..batches {
        let batch = mix.batch(step)?;
        let (frames, clips) = (batch.images.size()[0], batch.images.size()[1]);
        for clip in 0..clips {
            let image = |frame: i64| batch.images.get(frame).get(clip);
            for frame in 0..frames {
                let name = match frame {
                    0 => "reference".to_owned(),
                    1 => "previous, true mask".to_owned(),
                    _ => format!("predicted {}", frame - 1),
                };
                let caption = format!("{} {name}", step as i64 * clips + clip);
                sheet.push(tile(&image(frame), &batch.masks.get(frame).get(clip), caption)?);
            }
            let caption = format!("{} previous, as given", step as i64 * clips + clip);
            sheet.push(tile(&image(1), &batch.previous.get(clip), caption)?);
        }
    }
    Ok(sheet)
}

fn tile(image: &Tensor, mask: &Tensor, caption: String) -> Result<Tile> {
    let (_, height, width) = image.size3()?;
    let bytes = |x: &Tensor| -> Result<Vec<u8>> {
        let x = x.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?;
        Ok(Vec::<u8>::try_from(&x.f_contiguous()?.f_reshape([-1])?)?)
    };
    let rgb = bytes(&image.f_permute([1, 2, 0])?)?;
    let picture = RgbImage::from_raw(width as u32, height as u32, rgb).unwrap_or_default();
    let labels = bytes(mask)?.iter().map(|&value| u8::from(value > 127)).collect();
    let labels = LabelMap::new(width as usize, height as usize, labels)?;
    Ok(Tile::new(&picture, &labels, ContactSheet::TILE_WIDTH, caption))
}
