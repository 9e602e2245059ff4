// SPDX-License-Identifier: MPL-2.0

//! Conversion of the stored planes of a frame to a picture, on the network's device.
//!
//! Cropping, antialiased resizing and chroma siting are linear and separable, so they are two matrix products per
//! component. Their shapes depend only on the sizes of frame and network: a region that moves changes the content
//! of two matrices, but no shape. Colours are converted last, at network size, where there are the fewest pixels.

use std::hash::{DefaultHasher, Hash, Hasher};

use tch::{Device, Kind, Tensor};

use crate::image::{Colors, Component, PlaneFormat, Planes, Region};
use crate::{Error, Result};

/// Planes start at multiples of this number of bytes.
const ALIGNMENT: usize = 64;

/// Offsets of the planes of a frame in one contiguous buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    format: PlaneFormat,
    starts: Vec<usize>,
    length: usize,
}

impl Layout {
    pub fn new(planes: &Planes) -> Result<Self> {
        let PlaneFormat { width, height, components, .. } = planes.format;
        let mut starts = Vec::with_capacity(planes.data.len());
        let mut length = 0;
        for plane in &planes.data {
            starts.push(length);
            length += plane.len().next_multiple_of(ALIGNMENT);
        }
        let fits = |component: &Component| {
            let plane = planes.data.get(component.plane);
            plane.is_some_and(|plane| component.end((width, height)) <= plane.len())
        };
        if width == 0 || height == 0 || !components.iter().all(fits) {
            return Err(Error::Config(format!(
                "planes of {:?} bytes are too short for a frame of {width}x{height}",
                planes.data.iter().map(|plane| plane.len()).collect::<Vec<_>>()
            )));
        }
        Ok(Self { format: planes.format, starts, length })
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn pack(&self, planes: &Planes, to: &mut [u8]) {
        for (plane, &start) in planes.data.iter().zip(&self.starts) {
            if let Some(to) = to.get_mut(start..start + plane.len()) {
                to.copy_from_slice(plane);
            }
        }
    }

    pub fn hash_value(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.format.width, self.format.height, self.format.components, &self.starts).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the width and height of the frame in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.format.width, self.format.height)
    }

    /// Returns the samples of a component as a view, (rows, columns) uint8.
    fn samples(&self, bytes: &Tensor, component: &Component) -> Result<Tensor> {
        let (columns, rows) = component.size(self.size());
        let start = self.starts[component.plane] + component.offset;
        let strides = [component.stride as i64, component.step as i64];
        Ok(bytes.f_as_strided([rows as i64, columns as i64], strides, start as i64)?)
    }

    /// Returns the matrices that crop to `region`, resize to (height, width) and convert to RGB: the factors of each component on
    /// both sides of its samples, (height, rows) and (columns, width), in the kind to compute in; then the colour matrix
    /// (3, 3) and the colour offset (3, 1).
    pub fn crop_matrices(
        &self,
        region: Region,
        (height, width): (i64, i64),
        to: (Kind, Device),
    ) -> Result<Vec<Tensor>> {
        let axes = |component: &Component| -> Result<[Tensor; 2]> {
            let (columns, rows) = component.size(self.size());
            let axis = |start, length, shift, cosited| Axis { start, length, shift, cosited };
            let (x, y) = component.subsampling;
            let rows =
                axis(region.y, region.height, y, component.cosited.1).weights(rows, height as usize)?;
            let columns =
                axis(region.x, region.width, x, component.cosited.0).weights(columns, width as usize)?;
            let to_device = |x: Tensor| -> Result<Tensor> { Ok(x.f_to_device(to.1)?.f_to_kind(to.0)?) };
            Ok([to_device(rows)?, to_device(columns.f_transpose(0, 1)?.f_contiguous()?)?])
        };
        let [first, second, third] = &self.format.components;
        // Components of the same siting share their matrices.
        let next = |component: &Component, last: &Component, of_last: &[Tensor; 2]| {
            if (component.subsampling, component.cosited) == (last.subsampling, last.cosited) {
                Ok(of_last.each_ref().map(Tensor::shallow_clone))
            } else {
                axes(component)
            }
        };
        let own = axes(first)?;
        let other = next(second, first, &own)?;
        let last = next(third, second, &other)?;
        let Colors { matrix, offset } = self.format.colors;
        let matrix = Tensor::f_from_slice(matrix.as_flattened())?.f_reshape([3, 3])?.f_to_device(to.1)?;
        let offset = Tensor::f_from_slice(&offset)?.f_reshape([3, 1])?.f_to_device(to.1)?;
        Ok(own.into_iter().chain(other).chain(last).chain([matrix, offset]).collect())
    }

    /// Applies [`crop_matrices`](Self::crop_matrices) to the buffer: (1, 3, height, width) float32, RGB in [0, 1].
    pub fn picture(&self, bytes: &Tensor, matrices: &[Tensor]) -> Result<Tensor> {
        let [a, b, c, d, e, f, matrix, offset] = matrices else {
            return Err(Error::Config(format!("{} crop matrices instead of 8", matrices.len())));
        };
        let resized = |(component, [rows, columns]): (&Component, [&Tensor; 2])| -> Result<Tensor> {
            let samples = self.samples(bytes, component)?.f_to_kind(rows.kind())?;
            Ok(rows.f_matmul(&samples)?.f_matmul(columns)?)
        };
        let components = self.format.components.iter().zip([[a, b], [c, d], [e, f]]);
        let components = components.map(resized).collect::<Result<Vec<_>>>()?;
        let size = components[0].size();
        let samples = Tensor::f_stack(&components, 0)?.f_to_kind(Kind::Float)?.f_reshape([3, -1])?;
        let rgb = matrix.f_matmul(&samples)?.f_add(offset)?.f_clamp(0.0, 1.0)?;
        Ok(rgb.f_reshape([1, 3, size[0], size[1]])?)
    }
}

/// Crop of one axis of a frame.
struct Axis {
    /// Start and length in pixels.
    start: usize,
    length: usize,
    /// Subsampling of the component as a power of two.
    shift: u32,
    cosited: bool,
}

impl Axis {
    /// Returns the weights of `from` samples in each of `to` pixels, (to, from).
    ///
    /// The filter is a triangle around the pixel's centre. It reaches the centres of the neighbouring pixels or
    /// samples, whichever are farther.
    fn weights(&self, from: usize, to: usize) -> Result<Tensor> {
        let side = f64::from(1u32 << self.shift);
        let pixels = self.length as f64 / to as f64;
        let reach = (pixels / side).max(1.0);
        let first = self.start >> self.shift;
        let end = (self.start + self.length).div_ceil(1 << self.shift).min(from);
        let mut weights = vec![0.0f32; to * from];
        for (index, row) in weights.chunks_exact_mut(from).enumerate() {
            let centre = self.start as f64 + (index as f64 + 0.5) * pixels;
            // In samples; the centre of the first is at 0.5.
            let centre = if self.cosited { (centre - 0.5) / side + 0.5 } else { centre / side };
            let near = (centre - reach - 0.5).floor().max(first as f64) as usize;
            let far = ((centre + reach + 0.5).ceil().max(0.0) as usize).min(end);
            let weight = |sample: usize| (1.0 - (sample as f64 + 0.5 - centre).abs() / reach).max(0.0);
            let sum: f64 = (near..far).map(weight).sum();
            if sum > 0.0 {
                for (sample, share) in row.iter_mut().enumerate().take(far).skip(near) {
                    *share = (weight(sample) / sum) as f32;
                }
            } else {
                // The pixel is beyond the last sample: use the nearest.
                row[(centre.max(0.0) as usize).clamp(first, end.max(first + 1) - 1)] = 1.0;
            }
        }
        Ok(Tensor::f_from_slice(&weights)?.f_reshape([to as i64, from as i64])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Picture;
    use crate::model::layers::shrink;

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
    }

    fn convert(planes: &Planes, region: Region, size: (i64, i64), kind: Kind) -> Tensor {
        let layout = Layout::new(planes).unwrap();
        let mut bytes = vec![0; layout.length()];
        layout.pack(planes, &mut bytes);
        let cut = layout.crop_matrices(region, size, (kind, Device::Cpu)).unwrap();
        layout.picture(&Tensor::from_slice(&bytes), &cut).unwrap()
    }

    fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn regions_are_resized_as_by_libtorch() {
        let (width, height) = (101, 77);
        let data = noise(3 * width * height);
        let picture = Picture { data: &data, width, height, stride: 3 * width };
        let planes = Planes::from_picture(&picture);
        let all = Tensor::from_slice(&data).reshape([1, height as i64, width as i64, 3]);
        let all = all.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        for region in [
            Region::whole((width, height)),
            Region { x: 12, y: 8, width: 64, height: 32 },
            Region { x: 100, y: 76, width: 1, height: 1 },
            Region { x: 60, y: 0, width: 41, height: 77 },
        ] {
            for (h, w) in [(32, 48), (64, 64), (77, 101), (150, 16)] {
                let part = all.narrow(2, region.y as i64, region.height as i64);
                let part = part.narrow(3, region.x as i64, region.width as i64);
                let expected = shrink(&part, h, w).unwrap();
                let found = convert(&planes, region, (h, w), Kind::Float);
                let maximum = max_difference(&found, &expected);
                assert!(maximum < 1e-5, "{region:?} at {w}x{h}: {maximum}");
                let half = convert(&planes, region, (h, w), Kind::Half);
                let maximum = max_difference(&half, &expected);
                assert!(maximum < 2e-3, "{region:?} at {w}x{h} in float16: {maximum}");
            }
        }
    }

    #[test]
    fn chroma_siting_is_respected() {
        // A step of chroma between columns 8 and 9 of 16, luma flat.
        let luma = vec![128; 16 * 4];
        let chroma: Vec<u8> = (0..8 * 2).map(|i| if i % 8 < 4 { 64 } else { 192 }).collect();
        let component = |plane, shift: u32, cosited| Component {
            plane,
            stride: 16usize >> shift,
            step: 1,
            subsampling: (shift, shift),
            cosited: (cosited, false),
            ..Component::default()
        };
        let edge = |cosited| {
            let format = PlaneFormat {
                width: 16,
                height: 4,
                components: [component(0, 0, false), component(1, 1, cosited), component(1, 1, cosited)],
                colors: Colors::new([0.0, 128.0, 128.0], [255.0; 3], Some((0.299, 0.114))),
            };
            let planes = Planes { data: vec![&luma, &chroma], format };
            let picture = convert(&planes, Region::whole((16, 4)), (4, 16), Kind::Float);
            (0..16).map(|x| picture.double_value(&[0, 0, 1, x])).collect::<Vec<_>>()
        };
        // Samples 3 and 4 are at columns 6.5 and 8.5, or at 6 and 8.
        let centre = 0.5 * (edge(false)[0] + edge(false)[15]);
        assert!((0.5 * (edge(false)[7] + edge(false)[8]) - centre).abs() < 0.01);
        assert!((edge(true)[7] - centre).abs() < 0.01);
    }

    #[test]
    fn yuv_is_converted_to_rgb() {
        let colors = Colors::new([16.0, 128.0, 128.0], [219.0, 224.0, 224.0], Some((0.2126, 0.0722)));
        let rgb = |samples: [f32; 3]| {
            let sum = |row: usize| (0..3).map(|c| colors.matrix[row][c] * samples[c]).sum::<f32>();
            [0, 1, 2].map(|row| ((sum(row) + colors.offset[row]) * 255.0).round() as i32)
        };
        assert_eq!(rgb([16.0, 128.0, 128.0]), [0, 0, 0]);
        assert_eq!(rgb([235.0, 128.0, 128.0]), [255; 3]);
        let red = rgb([63.0, 102.0, 240.0]);
        assert!(red.iter().zip([255, 0, 0]).all(|(a, b)| a.abs_diff(b) <= 1), "BT.709: {red:?}");
    }

    #[test]
    fn planes_that_are_too_short_are_an_error() {
        let data = [0; 29];
        let picture = Picture { data: &data, width: 5, height: 2, stride: 15 };
        assert!(matches!(Layout::new(&Planes::from_picture(&picture)), Err(Error::Config(_))));
    }
}
