// SPDX-License-Identifier: MPL-2.0

//! The part of a frame that enters the network.

use crate::image::Region;
use crate::model::layers::RelativeRect;

/// Region of a frame and the size at which it enters the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropWindow {
    pub region: Region,
    /// Width and height of the frame in pixels.
    pub frame: (usize, usize),
    /// Height and width at which the region enters the network.
    pub size: (i64, i64),
}

impl CropWindow {
    /// Returns the same part of a frame of another size.
    pub fn of(self, frame: (usize, usize)) -> Self {
        Self { region: self.region.scaled(self.frame, frame), frame, ..self }
    }

    /// Returns `region` of the same frame as fractions of this window.
    pub fn part(&self, region: Region) -> RelativeRect {
        let along = |start: usize, length: usize, from: usize, of: usize| {
            ((start as f64 - from as f64) / of as f64, length as f64 / of as f64)
        };
        let (x, width) = along(region.x, region.width, self.region.x, self.region.width);
        let (y, height) = along(region.y, region.height, self.region.y, self.region.height);
        RelativeRect { x, y, width, height }
    }
}
