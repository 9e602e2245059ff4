//! What is done with a matte on its way to the viewer: which object, threshold, inversion, colours. All
//! of it on 8-bit planes, 0 transparent to 255 opaque.

use crate::Result;
use crate::tracker::{Matte, PlaneMut};

/// The settings of the matte that can change from frame to frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Look {
    /// One object alone, or 0 for all together.
    pub object: u8,
    /// From this alpha (0 to 1) on, a pixel is opaque, and below it transparent; 0 leaves soft edges.
    pub threshold: f64,
    /// What is opaque becomes transparent.
    pub invert: bool,
}

impl Look {
    /// The alpha of `matte` as the settings want it; without a matte all is opaque.
    ///
    /// # Errors
    /// A plane that is too small for its size, or an error of libtorch.
    pub fn write_alpha(&self, matte: Option<&Matte>, plane: &mut PlaneMut) -> Result<()> {
        match matte {
            Some(matte) => self.write_object(matte, self.object, plane),
            None => {
                fill(plane, 255);
                Ok(())
            }
        }
    }

    /// As [`write_alpha`](Self::write_alpha), of the given object (0 = all) in place of the chosen one.
    ///
    /// # Errors
    /// Those of [`write_alpha`](Self::write_alpha).
    pub fn write_object(&self, matte: &Matte, object: u8, plane: &mut PlaneMut) -> Result<()> {
        matte.write_alpha((object != 0).then_some(object), plane)?;
        if let Some(table) = self.table() {
            for row in rows(plane) {
                row.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
            }
        }
        Ok(())
    }

    /// Object ids; 0 where there is none, and everywhere without a matte. With one object chosen, the
    /// others count as background.
    ///
    /// # Errors
    /// Those of [`write_alpha`](Self::write_alpha).
    pub fn write_labels(&self, matte: Option<&Matte>, plane: &mut PlaneMut) -> Result<()> {
        let Some(matte) = matte else {
            fill(plane, 0);
            return Ok(());
        };
        matte.write_labels(plane)?;
        if self.object != 0 {
            for value in rows(plane).flatten() {
                if *value != self.object {
                    *value = 0;
                }
            }
        }
        Ok(())
    }

    /// What each value becomes, or nothing if all stay.
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

/// Enlarges `height` rows of `width` alphas, each 0 to 1, to the plane, bilinearly and with pixel centres
/// in the same places (`align_corners = false`). No matter how large the plane, each of its pixels costs
/// no more than two multiplications of integers.
///
/// # Panics
/// If there are not `width` x `height` values, or none.
pub fn enlarge(values: &[f32], width: usize, height: usize, plane: &mut PlaneMut) {
    assert!(width * height > 0 && values.len() == width * height);
    let columns = taps(width, plane.width);
    let lines = taps(height, plane.height);
    // A line of the small picture, spread to the plane's width; 255 is FULL.
    let spread = |y: usize, line: &mut Vec<u16>| {
        let small: Vec<u32> = values[y * width..][..width]
            .iter()
            .map(|value| (value.clamp(0.0, 1.0) * FULL as f32 + 0.5) as u32)
            .collect();
        line.clear();
        line.extend(columns.iter().map(|tap| {
            let (a, b) = (small[tap.first], small[tap.second]);
            ((a * (ONE - tap.weight) + b * tap.weight + ONE / 2) / ONE) as u16
        }));
    };

    let (mut above, mut below) = (Vec::new(), Vec::new());
    let mut held = None;
    for (row, tap) in rows(plane).zip(&lines) {
        if held != Some((tap.first, tap.second)) {
            if held.is_some_and(|(_, second)| second == tap.first) {
                std::mem::swap(&mut above, &mut below);
            } else {
                spread(tap.first, &mut above);
            }
            spread(tap.second, &mut below);
            held = Some((tap.first, tap.second));
        }
        let (upper, lower) = (ONE - tap.weight, tap.weight);
        for ((value, &a), &b) in row.iter_mut().zip(&above).zip(&below) {
            let sum = u32::from(a) * upper + u32::from(b) * lower;
            *value = ((sum + HALF) >> SHIFT) as u8;
        }
    }
}

/// What 1.0 is in a line of [`enlarge`].
const FULL: u32 = 255 << 8;
/// What the two weights of a pixel add up to.
const ONE: u32 = 1 << 12;
const SHIFT: u32 = 20;
const HALF: u32 = 1 << (SHIFT - 1);

/// Between which two samples one lies, and how far it is to the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: u32,
}

fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to.max(1) as f64;
    (0..to)
        .map(|i| {
            let place = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
            let first = (place as usize).min(from - 1);
            let weight = ((place - first as f64).min(1.0) * f64::from(ONE)).round() as u32;
            Tap { first, second: (first + 1).min(from - 1), weight }
        })
        .collect()
}

/// The rows of a plane, without what lies beyond its width.
pub fn rows<'a>(plane: &'a mut PlaneMut) -> impl Iterator<Item = &'a mut [u8]> {
    let width = plane.width;
    plane.data.chunks_mut(plane.stride.max(1)).take(plane.height).map(move |row| {
        let width = width.min(row.len());
        &mut row[..width]
    })
}

fn fill(plane: &mut PlaneMut, value: u8) {
    rows(plane).for_each(|row| row.fill(value));
}

/// The colour (R, G, B) of an object, by the palette of the DAVIS and PASCAL VOC masks: the bits of the
/// id are dealt to the three channels, highest first.
pub fn color(object: u8) -> [u8; 3] {
    let mut color = [0; 3];
    for bit in 0..8 {
        let channel = bit % 3;
        color[channel] |= (object >> bit & 1) << (7 - bit / 3);
    }
    color
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::ReferenceMask;

    fn alpha(look: Look, values: &[u8]) -> Vec<u8> {
        let mask = ReferenceMask::from_soft(values.len(), 1, values.to_vec()).unwrap();
        let matte = Matte::from_mask(&mask).unwrap();
        let mut data = vec![7; values.len() + 2];
        let mut plane =
            PlaneMut { width: values.len(), height: 1, stride: values.len() + 2, data: &mut data };
        look.write_alpha(Some(&matte), &mut plane).unwrap();
        assert_eq!(data[values.len()..], [7, 7], "bytes beyond the row were written");
        data.truncate(values.len());
        data
    }

    #[test]
    fn soft_by_default() {
        assert_eq!(alpha(Look::default(), &[0, 1, 127, 128, 255]), [0, 1, 127, 128, 255]);
    }

    #[test]
    fn threshold_binarises() {
        let look = Look { threshold: 0.5, ..Look::default() };
        assert_eq!(alpha(look, &[0, 1, 127, 128, 255]), [0, 0, 0, 255, 255]);
        let look = Look { threshold: 1.0, ..Look::default() };
        assert_eq!(alpha(look, &[0, 254, 255]), [0, 0, 255]);
    }

    #[test]
    fn invert_comes_last() {
        assert_eq!(alpha(Look { invert: true, ..Look::default() }, &[0, 1, 255]), [255, 254, 0]);
        let look = Look { threshold: 0.5, invert: true, object: 0 };
        assert_eq!(alpha(look, &[0, 127, 128]), [255, 255, 0]);
    }

    #[test]
    fn one_object_or_all() {
        let mask = ReferenceMask::from_labels(4, 1, &[0, 1, 3, 3]).unwrap();
        let matte = Matte::from_mask(&mask).unwrap();
        let mut data = [9; 4];
        let mut write = |object: u8, labels: bool| {
            let look = Look { object, ..Look::default() };
            let mut plane = PlaneMut { data: &mut data, width: 4, height: 1, stride: 4 };
            if labels {
                look.write_labels(Some(&matte), &mut plane).unwrap();
            } else {
                look.write_alpha(Some(&matte), &mut plane).unwrap();
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
        let look = Look { invert: true, threshold: 0.5, object: 3 };
        look.write_alpha(None, &mut plane).unwrap();
        assert_eq!(data, [255, 0, 255, 0]);
        let mut plane = PlaneMut { data: &mut data, width: 2, height: 2, stride: 2 };
        look.write_labels(None, &mut plane).unwrap();
        assert_eq!(data, [0; 4]);
    }

    #[test]
    fn enlarged_as_by_libtorch() {
        for ((w, h), (width, height)) in [
            ((1, 1), (3, 2)),
            ((3, 2), (3, 2)),
            ((5, 3), (7, 11)),
            ((336, 192), (1920, 1080)),
            ((2, 9), (64, 9)),
        ] {
            let small: Vec<f32> = (0..w * h).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
            let mut data = vec![9; (width + 3) * height];
            let mut plane = PlaneMut { data: &mut data, width, height, stride: width + 3 };
            enlarge(&small, w, h, &mut plane);
            let tensor = tch::Tensor::from_slice(&small).reshape([1, 1, h as i64, w as i64]);
            let expected =
                tensor.upsample_bilinear2d([height as i64, width as i64], false, None, None) * 255.0;
            let expected = Vec::<f32>::try_from(expected.reshape([-1])).unwrap();
            for (row, expected) in data.chunks(width + 3).zip(expected.chunks(width)) {
                for (value, expected) in row.iter().zip(expected) {
                    assert!((f32::from(*value) - expected).abs() < 0.6, "{value} for {expected}");
                }
                assert_eq!(row[width..], [9; 3]);
            }
        }
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
