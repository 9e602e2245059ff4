//! The part of a frame that the network sees.

use crate::image::Region;
use crate::model::layers::Part;

/// Where the network looks in frames of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropWindow {
    pub region: Region,
    pub frame: (usize, usize),
    /// Height and width at which the region enters the network.
    pub size: (i64, i64),
}

impl CropWindow {
    /// The same part of frames of another size.
    pub fn of(self, frame: (usize, usize)) -> Self {
        Self { region: self.region.scaled(self.frame, frame), frame, ..self }
    }

    /// `region` of the same frames in parts of this.
    pub fn part(&self, region: Region) -> Part {
        let along = |start: usize, length: usize, from: usize, of: usize| {
            ((start as f64 - from as f64) / of as f64, length as f64 / of as f64)
        };
        let (x, width) = along(region.x, region.width, self.region.x, self.region.width);
        let (y, height) = along(region.y, region.height, self.region.y, self.region.height);
        Part { x, y, width, height }
    }
}
