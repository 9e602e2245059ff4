//! Frames as they are stored, made into pictures for the network on its own device.
//!
//! Cutting out a region, resizing it with averaging, and placing chroma where its samples were taken are all
//! linear, and separate into rows and columns: two matrix products a component, of shapes that depend on the
//! sizes of frame and network alone. So a region that moves changes what is in two matrices, and no shape; and
//! colours are converted where there are the fewest pixels, at network size.

use std::hash::{DefaultHasher, Hash, Hasher};

use tch::{Device, Kind, Tensor};

use crate::image::{Colors, Component, PlaneFormat, Planes, Region};
use crate::{Error, Result};

/// Planes begin at multiples of so many bytes.
const ALIGNMENT: usize = 64;

/// Where the planes of a frame are when they lie one behind the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    format: PlaneFormat,
    starts: Vec<usize>,
    length: usize,
}

impl Layout {
    /// # Errors
    /// [`Error::Config`] for planes that are too short.
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
                "a frame of {width}x{height} does not fit its planes of {:?} bytes",
                planes.data.iter().map(|plane| plane.len()).collect::<Vec<_>>()
            )));
        }
        Ok(Self { format: planes.format, starts, length })
    }

    /// Bytes of all planes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Copies the planes to where the layout has them.
    pub fn pack(&self, planes: &Planes, to: &mut [u8]) {
        for (plane, &start) in planes.data.iter().zip(&self.starts) {
            if let Some(to) = to.get_mut(start..start + plane.len()) {
                to.copy_from_slice(plane);
            }
        }
    }

    /// A number that another layout hardly has.
    pub fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.format.width, self.format.height, self.format.components, &self.starts).hash(&mut hasher);
        hasher.finish()
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.format.width, self.format.height)
    }

    /// The samples of a component as (rows, columns), uint8, without a copy.
    fn samples(&self, bytes: &Tensor, component: &Component) -> Result<Tensor> {
        let (columns, rows) = component.size(self.size());
        let start = self.starts[component.plane] + component.offset;
        Ok(bytes.f_as_strided(
            [rows as i64, columns as i64],
            [component.stride as i64, component.step as i64],
            start as i64,
        )?)
    }

    /// Luma, or green, of every pixel, (H, W) uint8, without a copy.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn guide(&self, bytes: &Tensor) -> Result<Tensor> {
        let is_rgb = self.format.colors.matrix[0][1] == 0.0 && self.format.colors.matrix[1][0] == 0.0;
        self.samples(bytes, &self.format.components[usize::from(is_rgb)])
    }

    /// How to see `region` at (height, width), in the kind in which resizing is to be computed.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn cut(&self, region: Region, (height, width): (i64, i64), to: (Kind, Device)) -> Result<Cut> {
        let axes = |component: &Component| -> Result<[Tensor; 2]> {
            let (columns, rows) = component.size(self.size());
            let place = |start, length, shift, cosited| Axis { start, length, shift, cosited };
            let (x, y) = component.subsampling;
            let rows =
                place(region.y, region.height, y, component.cosited.1).weights(rows, height as usize)?;
            let columns =
                place(region.x, region.width, x, component.cosited.0).weights(columns, width as usize)?;
            let there = |x: Tensor| -> Result<Tensor> { Ok(x.f_to_device(to.1)?.f_to_kind(to.0)?) };
            Ok([there(rows)?, there(columns.f_transpose(0, 1)?.f_contiguous()?)?])
        };
        let [first, second, third] = &self.format.components;
        let alike = |a: &Component, b: &Component| a.subsampling == b.subsampling && a.cosited == b.cosited;
        let own = axes(first)?;
        let other =
            if alike(first, second) { [&own[0], &own[1]].map(Tensor::shallow_clone) } else { axes(second)? };
        let last = if alike(second, third) {
            [&other[0], &other[1]].map(Tensor::shallow_clone)
        } else {
            axes(third)?
        };
        let Colors { matrix, offset } = self.format.colors;
        let matrix = Tensor::f_from_slice(matrix.as_flattened())?.f_reshape([3, 3])?.f_to_device(to.1)?;
        let offset = Tensor::f_from_slice(&offset)?.f_reshape([3, 1])?.f_to_device(to.1)?;
        Ok(Cut { axes: [own, other, last], matrix, offset })
    }

    /// What the cut shows, (1, 3, height, width) float32, RGB in [0, 1].
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn picture(&self, bytes: &Tensor, cut: &Cut) -> Result<Tensor> {
        let resized = |(component, [rows, columns]): (&Component, &[Tensor; 2])| -> Result<Tensor> {
            let samples = self.samples(bytes, component)?.f_to_kind(rows.kind())?;
            Ok(rows.f_matmul(&samples)?.f_matmul(columns)?)
        };
        let components = self.format.components.iter().zip(&cut.axes);
        let components = components.map(resized).collect::<Result<Vec<_>>>()?;
        let size = components[0].size();
        let samples = Tensor::f_stack(&components, 0)?.f_to_kind(Kind::Float)?.f_reshape([3, -1])?;
        let rgb = cut.matrix.f_matmul(&samples)?.f_add(&cut.offset)?.f_clamp(0.0, 1.0)?;
        Ok(rgb.f_reshape([1, 3, size[0], size[1]])?)
    }
}

/// How to see a region at network size.
#[derive(Debug)]
pub struct Cut {
    /// For each component: (height, rows) times samples times (columns, width).
    axes: [[Tensor; 2]; 3],
    /// (3, 3).
    matrix: Tensor,
    /// (3, 1).
    offset: Tensor,
}

impl Cut {
    /// All of them.
    pub fn tensors(&self) -> Vec<&Tensor> {
        self.axes.iter().flatten().chain([&self.matrix, &self.offset]).collect()
    }

    /// From what [`tensors`](Self::tensors) gave.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn of_tensors(tensors: &[Tensor]) -> Self {
        let at = |index: usize| tensors[index].shallow_clone();
        Self { axes: [[at(0), at(1)], [at(2), at(3)], [at(4), at(5)]], matrix: at(6), offset: at(7) }
    }

    /// Another handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        let tensors: Vec<Tensor> = self.tensors().into_iter().map(Tensor::shallow_clone).collect();
        Self::of_tensors(&tensors)
    }
}

/// Part of an axis of a frame, in pixels.
struct Axis {
    start: usize,
    length: usize,
    /// Of the component looked at.
    shift: u32,
    cosited: bool,
}

impl Axis {
    /// How much each of `from` samples counts in each of `to` pixels, (to, from): a triangle about the pixel's
    /// middle that reaches the middles of its neighbours, or those of the next samples if they are farther.
    fn weights(&self, from: usize, to: usize) -> Result<Tensor> {
        let side = f64::from(1u32 << self.shift);
        let pixels = self.length as f64 / to as f64;
        let reach = (pixels / side).max(1.0);
        let first = self.start >> self.shift;
        let end = (self.start + self.length).div_ceil(1 << self.shift).min(from);
        let mut weights = vec![0.0f32; to * from];
        for (index, row) in weights.chunks_exact_mut(from).enumerate() {
            let middle = self.start as f64 + (index as f64 + 0.5) * pixels;
            // In samples, the first of which has its middle at one half.
            let middle = if self.cosited { (middle - 0.5) / side + 0.5 } else { middle / side };
            let near = (middle - reach - 0.5).floor().max(first as f64) as usize;
            let far = ((middle + reach + 0.5).ceil().max(0.0) as usize).min(end);
            let weight = |sample: usize| (1.0 - (sample as f64 + 0.5 - middle).abs() / reach).max(0.0);
            let sum: f64 = (near..far).map(weight).sum();
            if sum > 0.0 {
                for (sample, share) in row.iter_mut().enumerate().take(far).skip(near) {
                    *share = (weight(sample) / sum) as f32;
                }
            } else {
                // Beyond the last sample, which is then nearest.
                row[(middle.max(0.0) as usize).clamp(first, end.max(first + 1) - 1)] = 1.0;
            }
        }
        Ok(Tensor::f_from_slice(&weights)?.f_reshape([to as i64, from as i64])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Picture;
    use crate::matte::shrink;

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
    }

    fn show(planes: &Planes, region: Region, size: (i64, i64), kind: Kind) -> Tensor {
        let layout = Layout::new(planes).unwrap();
        let mut bytes = vec![0; layout.length()];
        layout.pack(planes, &mut bytes);
        let cut = layout.cut(region, size, (kind, Device::Cpu)).unwrap();
        layout.picture(&Tensor::from_slice(&bytes), &cut).unwrap()
    }

    /// The greatest and the mean difference.
    fn differ(a: &Tensor, b: &Tensor) -> (f64, f64) {
        let difference = (a - b).abs();
        (difference.max().double_value(&[]), difference.mean(Kind::Double).double_value(&[]))
    }

    #[test]
    fn a_part_of_a_picture_is_resized_as_libtorch_does_it() {
        let (width, height) = (101, 77);
        let data = noise(3 * width * height);
        let picture = Picture { data: &data, width, height, stride: 3 * width };
        let planes = Planes::of_picture(&picture);
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
                let found = show(&planes, region, (h, w), Kind::Float);
                let (greatest, _) = differ(&found, &expected);
                assert!(greatest < 1e-5, "{region:?} at {w}x{h}: {greatest}");
                let half = show(&planes, region, (h, w), Kind::Half);
                let (greatest, _) = differ(&half, &expected);
                assert!(greatest < 2e-3, "{region:?} at {w}x{h} in float16: {greatest}");
            }
        }
    }

    #[test]
    fn chroma_is_where_its_samples_were_taken() {
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
            let seen = show(&planes, Region::whole((16, 4)), (4, 16), Kind::Float);
            (0..16).map(|x| seen.double_value(&[0, 0, 1, x])).collect::<Vec<_>>()
        };
        // Samples 3 and 4 are at columns 6.5 and 8.5, or at 6 and 8.
        let middle = 0.5 * (edge(false)[0] + edge(false)[15]);
        assert!((0.5 * (edge(false)[7] + edge(false)[8]) - middle).abs() < 0.01);
        assert!((edge(true)[7] - middle).abs() < 0.01);
    }

    #[test]
    fn colours_of_yuv() {
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
        assert!(matches!(Layout::new(&Planes::of_picture(&picture)), Err(Error::Config(_))));
    }
}
