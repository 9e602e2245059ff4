// SPDX-License-Identifier: MPL-2.0

//! Part of a frame in which one of several objects is decoded: its surroundings in the previous frame. What lies
//! outside of it would be background anyway, and takes no time.

use tch::{Kind, Tensor};

use super::features::Features;
use crate::Result;
use crate::image::Region;
use crate::model::ShallowClone;
use crate::model::layers::channels_last;
use crate::model::tensor_slices::{floats, plain};

/// Side of a cell in pixels: the largest stride.
const CELL: i64 = 16;
/// Pixels above this value belong to the surroundings of an object.
const LEAST: f32 = 0.1;
/// Width of the margin on each side of an object, relative to its length along the axis.
const MARGIN: f64 = 0.5;
/// The margin is at least the longer side of the frame divided by this number.
const MARGINS_PER_FRAME: i64 = 7;

/// A rectangle of cells of 16 x 16 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    y: i64,
    x: i64,
    height: i64,
    width: i64,
    /// Rows and columns of the frame.
    frame: (i64, i64),
}

impl Window {
    /// Returns the surroundings of the object with the soft mask `mask` (1, 1, H, W) of the previous frame: all of the
    /// frame if the mask is empty.
    pub fn around(mask: &Tensor) -> Result<Self> {
        let size = mask.size();
        let frame = (size[2] / CELL, size[3] / CELL);
        let mask = plain(mask)?;
        let Some(object) = Region::bounding(floats(&mask), size[3] as usize, |value| *value > LEAST) else {
            return Ok(Self { y: 0, x: 0, height: frame.0, width: frame.1, frame });
        };
        let least = (frame.0.max(frame.1) + MARGINS_PER_FRAME - 1) / MARGINS_PER_FRAME;
        let (y, height) = cells(object.y, object.height, frame.0, least);
        let (x, width) = cells(object.x, object.width, frame.1, least);
        Ok(Self { y, x, height, width, frame })
    }

    pub fn is_whole(&self) -> bool {
        (self.height, self.width) == self.frame
    }

    /// Returns the part of `x` (…, rows, columns), at any stride of at most 16, that lies in the window. It shares memory
    /// with `x`.
    pub fn of(&self, x: &Tensor) -> Result<Tensor> {
        let scale = x.size()[x.dim() - 2] / self.frame.0;
        let rows = x.f_narrow(-2, self.y * scale, self.height * scale)?;
        Ok(rows.f_narrow(-1, self.x * scale, self.width * scale)?)
    }

    /// As [`of`](Self::of), for the columns alone: `x` (…, columns).
    pub fn of_columns(&self, x: &Tensor) -> Result<Tensor> {
        let scale = x.size()[x.dim() - 1] / self.frame.1;
        Ok(x.f_narrow(-1, self.x * scale, self.width * scale)?)
    }

    /// As [`of`](Self::of), for positions at stride 16 in one dimension, (…, rows · columns).
    pub fn of_positions(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.size();
        shape.pop();
        shape.extend([self.frame.0, self.frame.1]);
        Ok(self.of(&x.f_reshape(&shape)?)?.f_flatten(-2, -1)?)
    }

    /// Returns the features of the window. Their rows are adjacent, as convolutions need them.
    pub fn of_features(&self, features: &Features) -> Result<Features> {
        let part = |x: &Tensor| channels_last(&self.of(x)?);
        Ok(Features {
            s2: part(&features.s2)?,
            s4: part(&features.s4)?,
            s8: part(&features.s8)?,
            detail: features.detail.as_ref().map(part).transpose()?,
            ..self.of_previous(features)?
        })
    }

    /// As [`of_features`](Self::of_features), of the features that the next frame is matched with. The others are
    /// unchanged.
    pub fn of_previous(&self, features: &Features) -> Result<Features> {
        let part = |x: &Tensor| channels_last(&self.of(x)?);
        Ok(Features {
            s16: part(&features.s16)?,
            key16: self.of_positions(&features.key16)?,
            key8: part(&features.key8)?,
            ..features.shallow_clone()
        })
    }

    /// Returns a tensor of the frame's size and of `value` outside of the window, with `x` (1, C, rows, columns) in it.
    pub fn placed(&self, x: &Tensor, value: f64) -> Result<Tensor> {
        let (_, channels, height, _) = x.size4()?;
        let scale = height / self.height;
        let size = [1, self.frame.0 * scale, self.frame.1 * scale, channels];
        let all = Tensor::f_full(size, value, (Kind::Float, x.device()))?.f_permute([0, 3, 1, 2])?;
        self.of(&all)?.f_copy_(x)?;
        Ok(all)
    }
}

/// Returns the first cell and the number of cells of an object at the pixels `start..start + length` and its margin, at least
/// `least` cells on each side, along an axis of `cells`.
fn cells(start: usize, length: usize, cells: i64, least: i64) -> (i64, i64) {
    let (first, last) = (start as i64 / CELL, (start + length - 1) as i64 / CELL);
    let margin = least.max((MARGIN * length as f64 / CELL as f64).ceil() as i64);
    let (first, end) = ((first - margin).max(0), (last + 1 + margin).min(cells));
    (first, end - first)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// The window around an object at `rows` and `columns`, in a frame of 192 x 336 pixels: 12 x 21 cells.
    fn window(rows: Range<i64>, columns: Range<i64>) -> Window {
        let mask = Tensor::zeros([1, 1, 192, 336], FLOAT);
        let part = mask.narrow(2, rows.start, rows.end - rows.start);
        let _ = part.narrow(3, columns.start, columns.end - columns.start).fill_(0.4);
        Window::around(&mask).unwrap()
    }

    #[test]
    fn the_margin_is_half_of_the_object_and_at_least_a_seventh_of_the_frame() {
        let frame = (12, 21);
        assert_eq!(window(96..97, 160..161), Window { y: 3, x: 7, height: 7, width: 7, frame });
        assert_eq!(window(90..102, 96..224), Window { y: 2, x: 2, height: 8, width: 16, frame });
        assert_eq!(window(0..16, 320..336), Window { y: 0, x: 17, height: 4, width: 4, frame });
    }

    #[test]
    fn an_object_that_was_not_seen_is_searched_in_all_of_the_frame() {
        assert!(window(0..0, 0..0).is_whole());
        assert!(Window::around(&Tensor::full([1, 1, 64, 96], 0.05, FLOAT)).unwrap().is_whole());
    }

    #[test]
    fn parts_are_put_back_in_their_place() {
        let window = window(96..97, 160..161);
        let x = Tensor::rand([1, 3, 24, 42], FLOAT);
        let placed = window.placed(&window.of(&x).unwrap(), -2.0).unwrap();
        let part = |x: &Tensor| x.narrow(2, 6, 14).narrow(3, 14, 14);
        assert!(part(&placed).equal(&part(&x)));
        let _ = part(&placed).fill_(-2.0);
        assert_eq!(placed.mean(Kind::Float).double_value(&[]), -2.0);

        let positions = Tensor::arange(12 * 21, FLOAT).reshape([1, 252]);
        let part = window.of_positions(&positions).unwrap();
        assert_eq!((part.size(), part.double_value(&[0, 8])), (vec![1, 49], (4 * 21 + 8) as f64));
    }
}
