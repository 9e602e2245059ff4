// SPDX-License-Identifier: MPL-2.0

use std::path::Path;

use gstfastganseg::mask::color;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::canvas::{save_png, write_text};
use crate::{LabelMap, Result};

/// Share of the object's colour in a tinted pixel.
const TINT: f32 = 0.4;
/// Gap between tiles in pixels.
const GAP: u32 = 4;
/// Height of the caption above a picture in pixels.
const CAPTION: u32 = 18;
const PAPER: Rgb<u8> = Rgb([24, 24, 24]);
const INK: Rgb<u8> = Rgb([240, 240, 240]);

/// One frame of a contact sheet.
#[derive(Clone, Debug)]
struct Tile {
    image: RgbImage,
    caption: String,
}

impl Tile {
    /// Scales `picture` to a width of `width` pixels, tints the objects of `labels` (of any size) in the colours of the
    /// DAVIS palette, and draws their outlines.
    fn new(picture: &RgbImage, labels: &LabelMap, width: u32, caption: &str) -> Self {
        let width = width.max(1);
        let height = u64::from(width) * u64::from(picture.height()) / u64::from(picture.width().max(1));
        let height = u32::try_from(height).unwrap_or(u32::MAX).clamp(1, 4 * width);
        let mut image = imageops::resize(picture, width, height, FilterType::Triangle);
        let labels = labels.without_void().resized(width as usize, height as usize);
        tint(&mut image, &labels);
        Self { image, caption: caption.to_owned() }
    }
}

fn tint(image: &mut RgbImage, labels: &LabelMap) {
    let (width, height) = labels.size();
    for y in 0..height {
        for x in 0..width {
            let id = labels.at(x, y);
            if id == 0 {
                continue;
            }
            let inside = |x: usize, y: usize| x < width && y < height && labels.at(x, y) == id;
            let (left, above) = (x.wrapping_sub(1), y.wrapping_sub(1));
            let ring = [(left, y), (x + 1, y), (x, above), (x, y + 1)];
            let outline = !ring.into_iter().all(|(x, y)| inside(x, y));
            let colour = color(id);
            let Rgb(pixel) = image.get_pixel_mut(x as u32, y as u32);
            for (value, colour) in pixel.iter_mut().zip(colour) {
                *value = if outline {
                    // The palette is dark; outlines are lightened to be visible on the tint.
                    colour / 2 + 127
                } else {
                    (f32::from(*value) * (1.0 - TINT) + f32::from(colour) * TINT) as u8
                };
            }
        }
    }
}

/// Frames of one sequence in rows, with captions and a title.
#[derive(Clone, Debug, Default)]
pub struct ContactSheet {
    /// Title above the frames.
    pub title: String,
    tiles: Vec<Tile>,
}

impl ContactSheet {
    /// Tiles per row.
    const COLUMNS: usize = 4;
    /// Width of a tile in pixels.
    pub(crate) const TILE_WIDTH: u32 = 320;

    /// An empty sheet.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), tiles: Vec::new() }
    }

    /// Appends `picture` with the objects of `labels`, of any size, tinted in the colours of the DAVIS palette and
    /// outlined.
    pub fn push(&mut self, picture: &RgbImage, labels: &LabelMap, caption: &str) {
        self.tiles.push(Tile::new(picture, labels, Self::TILE_WIDTH, caption));
    }

    /// Draws the sheet. Text that is too wide is cut off.
    ///
    /// # Errors
    /// The font cannot be loaded.
    pub fn draw(&self) -> Result<RgbImage> {
        let columns = self.tiles.len().clamp(1, Self::COLUMNS);
        let rows = self.tiles.len().div_ceil(columns);
        let size = |tile: &Tile| (tile.image.width(), tile.image.height() + CAPTION);
        let width = self.tiles.iter().map(|tile| size(tile).0).max().unwrap_or(Self::TILE_WIDTH);
        let height = self.tiles.iter().map(|tile| size(tile).1).max().unwrap_or(0);
        let across = columns as u32 * (width + GAP) + GAP;
        let down = CAPTION + rows as u32 * (height + GAP) + GAP;
        let mut sheet = RgbImage::from_pixel(across, down, PAPER);
        write_text(&mut sheet, &self.title, (GAP, 0), INK)?;
        for (i, tile) in self.tiles.iter().enumerate() {
            let x = GAP + (i % columns) as u32 * (width + GAP);
            let y = CAPTION + GAP + (i / columns) as u32 * (height + GAP);
            // Captions are cut off at the width of the tile.
            let mut caption = RgbImage::from_pixel(width, CAPTION, PAPER);
            write_text(&mut caption, &tile.caption, (0, 0), INK)?;
            imageops::replace(&mut sheet, &caption, x.into(), y.into());
            imageops::replace(&mut sheet, &tile.image, x.into(), (y + CAPTION).into());
        }
        Ok(sheet)
    }

    /// Writes the sheet as PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_png(&self.draw()?, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(caption: &str) -> Tile {
        let picture = RgbImage::from_pixel(64, 32, Rgb([200, 200, 200]));
        let mut labels = LabelMap::background(16, 8);
        for y in 2..6 {
            labels.ids_mut()[16 * y + 4..16 * y + 12].fill(1);
        }
        labels.ids_mut()[0] = LabelMap::VOID;
        Tile::new(&picture, &labels, 32, caption)
    }

    #[test]
    fn objects_are_tinted_and_outlined() {
        let tile = tile("0");
        assert_eq!(tile.image.dimensions(), (32, 16));
        let at = |x, y| tile.image.get_pixel(x, y).0;
        assert_eq!(at(0, 0), [200, 200, 200], "void is left alone");
        assert_eq!(at(7, 8), [200, 200, 200], "outside");
        assert_eq!(at(8, 8), [191, 127, 127], "outline");
        assert_eq!(at(16, 8), [171, 120, 120], "inside");
    }

    #[test]
    fn sheets_have_rows_of_four_tiles_with_captions() {
        let mut sheet = ContactSheet::new("bear");
        for i in 0..5 {
            sheet.tiles.push(tile(&i.to_string()));
        }
        let picture = sheet.draw().unwrap();
        assert_eq!(picture.dimensions(), (4 * 36 + 4, 18 + 2 * (16 + 18 + 4) + 4));
        let ink = |x: u32, y: u32, width: u32| {
            let line = imageops::crop_imm(&picture, x, y, width, CAPTION).to_image();
            line.pixels().filter(|&&pixel| pixel != PAPER).count()
        };
        assert!(ink(0, 0, 60) > 0, "title");
        assert!(ink(GAP, CAPTION + GAP, 32) > 0, "caption of the first tile");
        let second_row = CAPTION + GAP + CAPTION + 16 + GAP;
        assert!(ink(GAP, second_row, 32) > 0, "caption of the fifth tile");
        assert_eq!(ink(40, second_row, 100), 0, "no sixth tile");
    }

    #[test]
    fn extreme_sizes_are_drawn() {
        let thin = Tile::new(&RgbImage::new(1, 5000), &LabelMap::background(1, 1), 10, "");
        assert_eq!(thin.image.dimensions(), (10, 40));
        let flat = Tile::new(&RgbImage::new(5000, 1), &LabelMap::background(1, 1), 10, "");
        assert_eq!(flat.image.dimensions(), (10, 1));
        let mut sheet = ContactSheet::new("a title that is far too long for a sheet as narrow as this");
        assert!(sheet.draw().unwrap().width() > 0);
        sheet.tiles.extend([thin, flat]);
        sheet.draw().unwrap();
    }

    #[test]
    fn sheets_are_saved_as_png() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bear.png");
        let mut sheet = ContactSheet::new("bear");
        sheet.tiles.push(tile("00000"));
        sheet.save(&path).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), sheet.draw().unwrap());
        let error = sheet.save(Path::new("/nonexistent-folder/a.png")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder/a.png"));
    }
}
