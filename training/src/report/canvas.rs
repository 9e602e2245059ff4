//! What charts are drawn on: a picture in memory, with a font of our own so that none need be installed.

use std::path::Path;
use std::sync::OnceLock;

use image::{Rgb, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Text, WHITE};
use plotters::style::{FontStyle, register_font};

use crate::{Error, Result};

/// The one font of all charts.
pub const FONT: &str = "sans-serif";
/// Lines and texts.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// Lines to read values by.
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// Colours that people with any colour vision can tell apart (Okabe and Ito, 2008).
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// A part of a picture that is being drawn.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
/// What a drawing function returns.
pub type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// The colour of the series with that number.
pub fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A white picture of `width` x `height` pixels on which `draw` drew.
///
/// # Errors
/// [`Error::Chart`] with what `draw` failed with.
pub fn paint(width: u32, height: u32, draw: impl FnOnce(&Area) -> Drawn) -> Result<RgbImage> {
    register()?;
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let whole = || -> Drawn {
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
    if registered { Ok(()) } else { Err(Error::Chart("the font cannot be read".into())) }
}

/// Writes a line of text whose top left corner is given into a picture.
///
/// # Errors
/// The font cannot be loaded.
pub fn write_text(picture: &mut RgbImage, text: &str, (x, y): (u32, u32), colour: Rgb<u8>) -> Result<()> {
    register()?;
    let size = picture.dimensions();
    let area = BitMapBackend::with_buffer(picture.as_mut(), size).into_drawing_area();
    let [red, green, blue] = colour.0;
    let style = (FONT, 15).into_font().color(&RGBColor(red, green, blue));
    let text = Text::new(text.to_owned(), (x as i32, y as i32 + 1), style);
    area.draw(&text).map_err(|error| Error::Chart(error.to_string()))
}

/// Writes a picture as PNG; it appears under its name when it is complete.
///
/// # Errors
/// A file that cannot be written.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<()> {
    let partial = path.with_extension("png.part");
    picture
        .save_with_format(&partial, image::ImageFormat::Png)
        .map_err(|source| Error::write(path, std::io::Error::other(source)))?;
    std::fs::rename(&partial, path).map_err(|source| Error::write(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_leaves_ink() {
        let picture = paint(60, 30, |area| {
            area.draw(&Text::new("J&F 84", (2, 4), (FONT, 16).into_font()))?;
            Ok(())
        })
        .unwrap();
        assert!(picture.pixels().filter(|pixel| pixel.0[0] < 128).count() > 20);
        assert_eq!(picture.get_pixel(59, 29).0, [255; 3]);
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let error = paint(8, 8, |_| Err("no such series".into())).unwrap_err().to_string();
        assert!(error.contains("no such series"), "{error}");
        let error = save_png(&RgbImage::new(1, 1), Path::new("/nonexistent-folder/a.png")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/a.png"));
    }
}
