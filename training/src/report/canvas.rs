// SPDX-License-Identifier: MPL-2.0

//! Charts and text on a picture in memory. The font is built in, so none has to be installed.

use std::path::Path;
use std::sync::OnceLock;

use image::{Rgb, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Text, WHITE};
use plotters::style::{FontStyle, register_font};

use crate::{Error, Result, files};

pub const FONT: &str = "sans-serif";
pub const INK: RGBColor = RGBColor(40, 40, 40);
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// Colours of series, distinguishable with colour blindness (Okabe and Ito, 2008).
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

/// Returns the colour of the series `index`.
pub fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Calls `draw` on a white picture of `width` x `height` pixels and returns the picture.
pub fn paint(width: u32, height: u32, draw: impl FnOnce(&Area) -> DrawResult) -> Result<RgbImage> {
    register()?;
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let whole = || -> DrawResult {
            area.fill(&WHITE)?;
            draw(&area)?;
            Ok(area.present()?)
        };
        whole().map_err(|error| Error::Chart(error.to_string()))?;
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::Chart("it has no pixels".into()))
}

fn register() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered = *REGISTERED
        .get_or_init(|| register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok());
    if registered { Ok(()) } else { Err(Error::Chart("the built-in font cannot be loaded".into())) }
}

/// Draws a line of text with its top left corner at (`x`, `y`).
pub fn write_text(picture: &mut RgbImage, text: &str, (x, y): (u32, u32), colour: Rgb<u8>) -> Result<()> {
    register()?;
    let size = picture.dimensions();
    let area = BitMapBackend::with_buffer(picture.as_mut(), size).into_drawing_area();
    let [red, green, blue] = colour.0;
    let style = (FONT, 15).into_font().color(&RGBColor(red, green, blue));
    let text = Text::new(text.to_owned(), (x as i32, y as i32 + 1), style);
    area.draw(&text).map_err(|error| Error::Chart(error.to_string()))
}

/// Writes a picture as PNG, atomically.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<()> {
    files::replace(path, |partial| {
        let saved = picture.save_with_format(partial, image::ImageFormat::Png);
        saved.map_err(|source| Error::write(path, std::io::Error::other(source)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn() {
        let picture = paint(60, 30, |area| {
            area.draw(&Text::new("J&F 84", (2, 4), (FONT, 16).into_font()))?;
            Ok(())
        })
        .unwrap();
        assert!(picture.pixels().filter(|pixel| pixel.0[0] < 128).count() > 20);
        assert_eq!(picture.get_pixel(59, 29).0, [255; 3]);
    }

    #[test]
    fn errors_name_the_cause() {
        let error = paint(8, 8, |_| Err("no such series".into())).unwrap_err().to_string();
        assert!(error.contains("no such series"), "{error}");
        let error = save_png(&RgbImage::new(1, 1), Path::new("/nonexistent-folder/a.png")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/a.png"));
    }
}
