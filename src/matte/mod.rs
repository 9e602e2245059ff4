//! What is done with a matte on its way to the viewer: which object, edges, smoothing, growth, softness,
//! threshold, inversion, colours. All of it on 8-bit planes, 0 transparent to 255 opaque.

mod blocks;
mod enlarge;
mod expand;
mod feather;
mod finish;
mod guide;
mod on_device;
mod refine;
mod smooth;
mod soft;
#[cfg(test)]
mod testing;

pub use self::enlarge::Enlarger;
pub use self::expand::MAX_EXPAND;
pub use self::feather::MAX_FEATHER;
pub use self::finish::PostProcessor;
pub use self::guide::Guide;
pub(crate) use self::on_device::{Boxes, enlarge as enlarge_on_device};
pub use self::soft::Matte;
pub(crate) use self::soft::{DeviceEnlarger, DeviceFrame, mask_planes, shrink};
use crate::Result;
use crate::image::PlaneMut;

/// The settings of the matte that can change from frame to frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatteSettings {
    /// One object alone, or 0 for all together.
    pub object: u8,
    /// From this alpha (0 to 1) on, a pixel is opaque, and below it transparent; 0 leaves soft edges.
    pub threshold: f64,
    /// What is opaque becomes transparent.
    pub invert: bool,
    /// Pixels of the plane by which edges become wider around where they are, up to [`MAX_FEATHER`].
    pub feather: f64,
    /// Pixels of the plane by which the matte grows, up to [`MAX_EXPAND`]; negative ones shrink it.
    pub expand: f64,
    /// How much the matte keeps of the frame before where nothing moves, 0 to 1.
    pub smoothing: f64,
    /// How the matte gets from the network's size to that of the picture.
    pub edges: Edges,
}

/// How a small matte is enlarged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// Its edges follow those of the picture.
    #[default]
    Refine,
    /// Evenly.
    Bilinear,
}

/// A small mask of bytes, rows without padding; it has at least one pixel.
#[derive(Clone, Copy, Debug)]
pub struct MaskView<'a> {
    /// `height` rows of `width` bytes.
    pub values: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl MatteSettings {
    /// Object ids; 0 where there is none, and everywhere without a matte. With one object chosen, the
    /// others count as background. Of the settings, only `object` matters.
    ///
    /// # Errors
    /// A plane that is too small for its size, or an error of libtorch.
    pub fn write_labels(&self, matte: Option<&Matte>, plane: &mut PlaneMut) -> Result<()> {
        let Some(matte) = matte else { return plane.fill(0) };
        matte.write_labels(plane)?;
        if self.object != 0 {
            for value in plane.rows()?.flatten() {
                if *value != self.object {
                    *value = 0;
                }
            }
        }
        Ok(())
    }

    /// What each value becomes by threshold and inversion, or nothing if all stay.
    fn table(&self) -> Option<[u8; 256]> {
        if self.threshold <= 0.0 && !self.invert {
            return None;
        }
        let limit = self.threshold * 255.0;
        Some(std::array::from_fn(|value| {
            let value = match value as u8 {
                value if self.threshold <= 0.0 => value,
                value if f64::from(value) >= limit => 255,
                _ => 0,
            };
            if self.invert { 255 - value } else { value }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{ReferenceMask, color};

    fn alpha(settings: MatteSettings, values: &[u8]) -> Vec<u8> {
        let mask = ReferenceMask::from_soft(values.len(), 1, values.to_vec()).unwrap();
        let matte = Matte::from_mask(&mask).unwrap();
        let mut data = vec![7; values.len() + 2];
        let mut plane =
            PlaneMut { width: values.len(), height: 1, stride: values.len() + 2, data: &mut data };
        PostProcessor::default().write_alpha(&settings, Some(&matte), None, &mut plane).unwrap();
        assert_eq!(data[values.len()..], [7, 7], "bytes beyond the row were written");
        data.truncate(values.len());
        data
    }

    #[test]
    fn soft_by_default() {
        assert_eq!(alpha(MatteSettings::default(), &[0, 1, 127, 128, 255]), [0, 1, 127, 128, 255]);
    }

    #[test]
    fn threshold_binarises() {
        let settings = MatteSettings { threshold: 0.5, ..MatteSettings::default() };
        assert_eq!(alpha(settings, &[0, 1, 127, 128, 255]), [0, 0, 0, 255, 255]);
        let settings = MatteSettings { threshold: 1.0, ..MatteSettings::default() };
        assert_eq!(alpha(settings, &[0, 254, 255]), [0, 0, 255]);
    }

    #[test]
    fn invert_comes_last() {
        assert_eq!(
            alpha(MatteSettings { invert: true, ..MatteSettings::default() }, &[0, 1, 255]),
            [255, 254, 0]
        );
        let settings = MatteSettings { threshold: 0.5, invert: true, ..MatteSettings::default() };
        assert_eq!(alpha(settings, &[0, 127, 128]), [255, 255, 0]);
    }

    #[test]
    fn one_object_or_all() {
        let mask = ReferenceMask::from_labels(4, 1, &[0, 1, 3, 3]).unwrap();
        let matte = Matte::from_mask(&mask).unwrap();
        let mut data = [9; 4];
        let mut write = |object: u8, labels: bool| {
            let settings = MatteSettings { object, ..MatteSettings::default() };
            let mut plane = PlaneMut { data: &mut data, width: 4, height: 1, stride: 4 };
            if labels {
                settings.write_labels(Some(&matte), &mut plane).unwrap();
            } else {
                PostProcessor::default().write_alpha(&settings, Some(&matte), None, &mut plane).unwrap();
            }
            data
        };
        assert_eq!(write(0, false), [0, 255, 255, 255]);
        assert_eq!(write(1, false), [0, 255, 0, 0]);
        assert_eq!(write(2, false), [0; 4]);
        assert_eq!(write(0, true), [0, 1, 3, 3]);
        assert_eq!(write(3, true), [0, 0, 3, 3]);
    }

    #[test]
    fn opaque_before_a_reference() {
        let mut data = [0; 4];
        let mut plane = PlaneMut { data: &mut data, width: 1, height: 2, stride: 2 };
        let settings = MatteSettings { invert: true, threshold: 0.5, object: 3, ..MatteSettings::default() };
        PostProcessor::default().write_alpha(&settings, None, None, &mut plane).unwrap();
        assert_eq!(data, [255, 0, 255, 0]);
        let mut plane = PlaneMut { data: &mut data, width: 2, height: 2, stride: 2 };
        settings.write_labels(None, &mut plane).unwrap();
        assert_eq!(data, [0; 4]);
    }

    #[test]
    fn colours_of_davis() {
        assert_eq!(color(1), [128, 0, 0]);
        assert_eq!(color(2), [0, 128, 0]);
        assert_eq!(color(3), [128, 128, 0]);
        assert_eq!(color(4), [0, 0, 128]);
        assert_eq!(color(8), [64, 0, 0]);
        assert_eq!(color(254), [96, 224, 192]);
    }
}
