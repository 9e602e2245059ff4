// SPDX-License-Identifier: MPL-2.0

//! Statistics of a frame in one tensor, so that the host waits for the device only once.

use tch::{Device, Kind, Tensor};

use super::ObjectStats;
use super::object_stats;
use crate::Result;
use crate::model::layers::average_pool;

/// Side of the cells that components consist of, in pixels at network size.
pub const CELL: i64 = 8;

/// Computes the statistics of `masks` (N, 1, H, W) and `likeness` (N, 1, H/s, W/s), both float32.
///
/// The result is one flat tensor: means of the masks over [`CELL`] x [`CELL`] squares, `likeness`, and
/// [`object_stats::raw_stats`].
pub fn compute(masks: &Tensor, likeness: &Tensor) -> Result<Tensor> {
    let parts =
        [average_pool(masks, CELL)?, likeness.shallow_clone(), object_stats::raw_stats(masks, likeness)?];
    let flat = parts.iter().map(|part| part.f_reshape([-1])).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&flat, 0)?)
}

/// Statistics of a frame on the host.
pub struct FrameStats {
    numbers: Vec<f32>,
    /// Height and width of the masks.
    size: (usize, usize),
    /// Height and width of the similarity map.
    likeness_size: (usize, usize),
    objects: usize,
}

impl FrameStats {
    /// Copies the statistics to the host. Waits for the device.
    pub fn read(stats: &Tensor, masks: &Tensor, likeness: &Tensor) -> Result<Self> {
        let numbers = Vec::<f32>::try_from(&stats.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?)?;
        let sides = |x: &Tensor| -> Result<(usize, usize, usize)> {
            let (n, _, height, width) = x.size4()?;
            Ok((n as usize, height as usize, width as usize))
        };
        let ((objects, height, width), (_, rows, columns)) = (sides(masks)?, sides(likeness)?);
        Ok(Self { numbers, size: (height, width), likeness_size: (rows, columns), objects })
    }

    /// Rows and columns of cells.
    pub fn cells(&self) -> (usize, usize) {
        (self.size.0 / CELL as usize, self.size.1 / CELL as usize)
    }

    /// Mean mask of an object in every cell.
    pub fn mask(&self, object: usize) -> &[f32] {
        let (rows, columns) = self.cells();
        part(&self.numbers, object * rows * columns, rows * columns)
    }

    /// Similarity of every cell to the reference of an object.
    pub fn likeness(&self, object: usize) -> Vec<f32> {
        let ((rows, columns), (height, width)) = (self.cells(), self.likeness_size);
        let start = self.objects * rows * columns + object * height * width;
        let values = part(&self.numbers, start, height * width);
        let at = |row: usize, column: usize| row * height / rows * width + column * width / columns;
        (0..rows * columns)
            .map(|cell| values.get(at(cell / columns, cell % columns)).copied().unwrap_or_default())
            .collect()
    }

    pub fn objects(&self) -> Vec<ObjectStats> {
        let ((rows, columns), (height, width)) = (self.cells(), self.likeness_size);
        let start = self.objects * (rows * columns + height * width);
        object_stats::from_raw(self.numbers.get(start..).unwrap_or_default(), self.size)
    }
}

fn part(numbers: &[f32], start: usize, length: usize) -> &[f32] {
    numbers.get(start..start + length).unwrap_or_default()
}
