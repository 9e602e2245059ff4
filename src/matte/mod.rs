// SPDX-License-Identifier: MPL-2.0

//! Mattes and their post-processing: object selection, enlargement, growth, feathering,
//! threshold, inversion, labels; and the colours of soft edges and of the background. Planes are 8-bit, 0 (transparent)
//! to 255 (opaque).

mod background_blur;
mod blocks;
mod enlarge;
mod expand;
mod feather;
mod foreground;
mod guide;
mod on_device;
mod post_process;
mod refine;
mod soft;
mod subsample;
#[cfg(test)]
mod testing;

pub use self::background_blur::BackgroundBlur;
pub use self::enlarge::Enlarger;
pub use self::expand::MAX_EXPAND;
pub use self::feather::MAX_FEATHER;
pub use self::foreground::ForegroundEstimator;
pub use self::guide::Guide;
pub(crate) use self::on_device::enlarge as enlarge_on_device;
pub use self::post_process::PostProcessor;
pub(crate) use self::refine::{Extent, RefinerNetwork, refiner_input};
pub use self::soft::Matte;
pub(crate) use self::soft::{DeviceEnlarger, mask_planes, object_mask};
pub use self::subsample::subsample;
use crate::image::{PlaneMut, SamplesMut};
use crate::{Error, Result};

/// Settings of the matte, which can change from frame to frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatteSettings {
    /// Id of the only object to show, or 0 for all objects.
    pub object: u8,
    /// Alpha (0 to 1) from which a pixel becomes opaque; below it, transparent. 0 keeps soft edges.
    pub threshold: f64,
    /// Exchanges opaque and transparent.
    pub invert: bool,
    /// Width added to edges in pixels of the plane, up to [`MAX_FEATHER`].
    pub feather: f64,
    /// Growth of the matte in pixels of the plane, up to [`MAX_EXPAND`]; negative values shrink it.
    pub expand: f64,
    /// Enlargement from the network's size to that of the frame.
    pub edges: Edges,
}

/// Enlargement of a small matte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "plugin", derive(glib::Enum), enum_type(name = "GstFastGanSegEdges"))]
#[repr(i32)]
pub enum Edges {
    /// Edges are refined by the model's network for it, which sees the frame. As `Bilinear` if the model has none.
    #[default]
    #[cfg_attr(
        feature = "plugin",
        enum_value(
            name = "Refined by a network that sees the picture, or bilinear if the model has no refiner",
            nick = "refine"
        )
    )]
    Refine,
    /// Bilinear interpolation.
    #[cfg_attr(feature = "plugin", enum_value(name = "Bilinear interpolation", nick = "bilinear"))]
    Bilinear,
}

/// An 8-bit mask of at least one pixel, rows without padding.
#[derive(Clone, Copy, Debug)]
pub struct MaskView<'a> {
    /// `height` rows of `width` bytes.
    pub values: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl MaskView<'_> {
    /// Checks that the mask has the size of `samples`, and that both fit in their data.
    fn check_for(&self, samples: &SamplesMut) -> Result<()> {
        samples.check()?;
        let Self { width, height, values } = *self;
        if (width, height) == (samples.width, samples.height) && values.len() == width * height {
            return Ok(());
        }
        Err(Error::Config(format!(
            "alpha of {width}x{height} in {} bytes does not match samples of {}x{}",
            values.len(),
            samples.width,
            samples.height
        )))
    }
}

impl MatteSettings {
    /// Writes object ids; 0 is background, and without a matte everything is. If `object` selects an object, the
    /// others are background. The remaining settings are not used.
    ///
    /// # Errors
    /// [`Error::Config`] if the plane has too little data for its size, or an error of
    /// libtorch.
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

    /// Lookup table of threshold and inversion; `None` if both are off.
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
    fn alpha_is_soft_by_default_and_can_be_binarised_and_inverted() {
        let values = [0, 1, 127, 128, 255];
        assert_eq!(alpha(MatteSettings::default(), &values), values);
        for (threshold, invert, values, expected) in [
            (0.5, false, &values[..], &[0, 0, 0, 255, 255][..]),
            (1.0, false, &[0, 254, 255], &[0, 0, 255]),
            (0.0, true, &[0, 1, 255], &[255, 254, 0]),
            // Inversion follows the threshold.
            (0.5, true, &[0, 127, 128], &[255, 255, 0]),
        ] {
            let settings = MatteSettings { threshold, invert, ..MatteSettings::default() };
            assert_eq!(alpha(settings, values), expected, "{settings:?}");
        }
    }

    #[test]
    fn one_object_or_all_are_shown() {
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
    fn without_a_matte_alpha_is_opaque_and_labels_are_0() {
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
    fn object_colours_are_those_of_davis() {
        assert_eq!(color(1), [128, 0, 0]);
        assert_eq!(color(2), [0, 128, 0]);
        assert_eq!(color(3), [128, 128, 0]);
        assert_eq!(color(4), [0, 0, 128]);
        assert_eq!(color(8), [64, 0, 0]);
        assert_eq!(color(254), [96, 224, 192]);
    }
}
