// SPDX-License-Identifier: MPL-2.0

//! Frames that the tracker reads by region.

use super::{Picture, Planes};
use crate::Result;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Columns to the left of it.
    pub x: usize,
    /// Rows above it.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Region {
    /// Returns the bounding box of the values, rows of `width`, for which `inside` holds. `None` if there are none.
    pub fn bounding<T>(values: &[T], width: usize, inside: impl Fn(&T) -> bool) -> Option<Self> {
        let rows = || values.chunks_exact(width.max(1));
        let y = rows().position(|row| row.iter().any(&inside))?;
        let bottom = rows().rposition(|row| row.iter().any(&inside))?;
        let x = rows().filter_map(|row| row.iter().position(&inside)).min()?;
        let right = rows().filter_map(|row| row.iter().rposition(&inside)).max()?;
        Some(Self { x, y, width: right + 1 - x, height: bottom + 1 - y })
    }

    /// All of a picture of `width` x `height`.
    pub fn whole((width, height): (usize, usize)) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// The same part of a picture of another size, rounded to whole pixels, at least one in each dimension.
    pub fn scaled(&self, from: (usize, usize), to: (usize, usize)) -> Self {
        let part = |start: usize, length: usize, from: usize, to: usize| {
            let at = |position: usize| (position * to + from / 2) / from.max(1);
            let first = at(start).min(to.saturating_sub(1));
            (first, at(start + length).clamp(first + 1, to.max(first + 1)) - first)
        };
        let (x, width) = part(self.x, self.width, from.0, to.0);
        let (y, height) = part(self.y, self.height, from.1, to.1);
        Self { x, y, width, height }
    }
}

/// A frame of which any region can be read as RGB.
pub trait FrameSource {
    /// Width and height in pixels.
    fn size(&self) -> (usize, usize);

    /// Returns `region`, which is inside the frame, as RGB. `size` (width, height) is preferred but not
    /// guaranteed.
    ///
    /// # Errors
    /// The frame cannot be converted.
    fn crop(&mut self, region: Region, size: (usize, usize)) -> Result<Picture<'_>>;

    /// As [`crop`](Self::crop), for an additional, coarse picture; it must not evict what `crop` has cached.
    ///
    /// # Errors
    /// Those of [`crop`](Self::crop).
    fn overview(&mut self, region: Region, size: (usize, usize)) -> Result<Picture<'_>> {
        self.crop(region, size)
    }

    /// The frame as stored, for conversion on the device of the network. `None` if the format does not allow that;
    /// then [`crop`](Self::crop) is used.
    fn planes(&self) -> Option<Planes<'_>> {
        None
    }
}

impl FrameSource for Picture<'_> {
    fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    fn crop(&mut self, region: Region, _: (usize, usize)) -> Result<Picture<'_>> {
        self.check()?;
        let first = region.y * self.stride + 3 * region.x;
        Ok(Picture {
            data: self.data.get(first..).unwrap_or_default(),
            width: region.width,
            height: region.height,
            stride: self.stride,
        })
    }

    fn planes(&self) -> Option<Planes<'_>> {
        Some(Planes::from_picture(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_scale_with_the_picture() {
        let region = Region { x: 10, y: 20, width: 30, height: 40 };
        assert_eq!(region.scaled((100, 100), (100, 100)), region);
        assert_eq!(region.scaled((100, 100), (50, 10)), Region { x: 5, y: 2, width: 15, height: 4 });
        assert_eq!(region.scaled((100, 100), (1, 1)), Region { x: 0, y: 0, width: 1, height: 1 });
        let whole = Region::whole((7, 5));
        assert_eq!(whole.scaled((7, 5), (640, 360)), Region::whole((640, 360)));
    }

    #[test]
    fn parts_of_a_picture_are_not_copied() {
        let data: Vec<u8> = (0..4 * 15).collect();
        let mut picture = Picture { data: &data, width: 4, height: 4, stride: 15 };
        let part = picture.crop(Region { x: 1, y: 2, width: 2, height: 2 }, (9, 9)).unwrap();
        assert_eq!((part.width, part.height, part.data[0], part.data[15]), (2, 2, 33, 48));
    }
}
