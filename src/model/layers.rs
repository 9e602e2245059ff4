// SPDX-License-Identifier: MPL-2.0

//! Layers and tensor operations shared by all networks.

use tch::{Device, Kind, Tensor, nn};

use super::meter;
use super::packed::{Factors, PackedConv, Tiles};
use super::zero_init::unless_zero_init;
use crate::Result;
use crate::image::Picture;

/// Access to every tensor of a network, for conversion to another device, kind or memory layout.
pub trait Visit {
    /// Calls `f` on every tensor, always in the same order.
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()>;
}

impl Visit for Tensor {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        f(self)
    }
}

impl<T: Visit> Visit for Option<T> {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.iter_mut().try_for_each(|item| item.visit(f))
    }
}

impl<T: Visit> Visit for Vec<T> {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        self.iter_mut().try_for_each(|item| item.visit(f))
    }
}

/// Implements [`Visit`] by visiting the named fields in order.
#[macro_export]
#[doc(hidden)]
macro_rules! visit_fields {
    ($type:ty: $($field:ident),+ $(,)?) => {
        impl $crate::model::layers::Visit for $type {
            fn visit(
                &mut self,
                f: &mut dyn FnMut(&mut tch::Tensor) -> $crate::Result<()>,
            ) -> $crate::Result<()> {
                $($crate::model::layers::Visit::visit(&mut self.$field, f)?;)+
                Ok(())
            }
        }
    };
}

/// Padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros: rows above and below, columns left and right.
    Zeros(i64, i64),
    /// TensorFlow's "SAME" at stride 2 on even sizes: one row more below than above, one column more to the right than
    /// to the left.
    TensorflowSame,
}

/// Parameters of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    /// Input channels.
    pub inputs: i64,
    /// Output channels.
    pub outputs: i64,
    /// Kernel size, rows and columns.
    pub kernel: (i64, i64),
    /// Stride along rows and columns.
    pub stride: i64,
    /// Padding.
    pub padding: Padding,
    /// Channel groups.
    pub groups: i64,
    /// Whether there is a bias.
    pub bias: bool,
}

impl ConvSpec {
    /// Returns a square kernel of stride 1 that keeps the size, with bias.
    pub fn square(inputs: i64, outputs: i64, side: i64) -> Self {
        Self {
            inputs,
            outputs,
            kernel: (side, side),
            stride: 1,
            padding: Padding::Zeros(side / 2, side / 2),
            groups: 1,
            bias: true,
        }
    }

    /// Returns a rectangular kernel of stride 1 that keeps the size, with bias.
    pub fn rectangular(inputs: i64, outputs: i64, rows: i64, columns: i64) -> Self {
        Self {
            kernel: (rows, columns),
            padding: Padding::Zeros(rows / 2, columns / 2),
            ..Self::square(inputs, outputs, 1)
        }
    }

    /// Sets the stride.
    pub fn stride(self, stride: i64) -> Self {
        Self { stride, ..self }
    }

    /// Sets the stride; with stride 2, TensorFlow's padding.
    pub(crate) fn strided_same(self, stride: i64) -> Self {
        if stride == 1 { self } else { self.stride(stride).padding(Padding::TensorflowSame) }
    }

    /// Sets the padding.
    pub fn padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// Makes the convolution depthwise.
    pub fn depthwise(self) -> Self {
        Self { groups: self.inputs, ..self }
    }

    /// Removes the bias.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// Two-dimensional convolution. The weights are converted to the kind of the input, so that float32 master weights
/// train in half precision.
#[derive(Debug)]
pub struct Conv {
    /// (outputs, inputs / groups, rows, columns).
    pub weight: Tensor,
    /// (outputs).
    pub bias: Option<Tensor>,
    spec: ConvSpec,
    name: String,
    /// Made of the current weights, for inference.
    packed: Option<Box<PackedConv>>,
}

impl Visit for Conv {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        // `f` may change the weights.
        self.packed = None;
        self.weight.visit(f)?;
        self.bias.visit(f)
    }
}

impl Conv {
    /// Creates a trainable convolution with random weights.
    pub fn new(path: &nn::Path, spec: ConvSpec) -> Self {
        let (rows, columns) = spec.kernel;
        let fan_in = spec.inputs / spec.groups * rows * columns;
        let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
        let weight = path.var(
            "weight",
            &[spec.outputs, spec.inputs / spec.groups, rows, columns],
            unless_zero_init(nn::init::DEFAULT_KAIMING_UNIFORM),
        );
        let uniform = unless_zero_init(nn::Init::Uniform { lo: -bound, up: bound });
        let bias = spec.bias.then(|| path.var("bias", &[spec.outputs], uniform));
        Self { weight, bias, spec, name: name_of(path), packed: None }
    }

    /// Returns its parameters.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Creates a convolution from existing weights, such as those of batch normalisation folding.
    pub fn from_tensors(weight: Tensor, bias: Option<Tensor>, spec: ConvSpec) -> Self {
        Self { weight, bias, spec, name: String::new(), packed: None }
    }

    /// Sets the layer name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Returns the layer name, as in weights files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Splits the convolution by input channels: the first `inputs` with the bias, and the rest without. The
    /// outputs add up to the output of the whole.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) if there are fewer than `inputs` channels.
    pub fn split(&self, inputs: i64) -> Result<(Self, Self)> {
        let part = |start: i64, inputs: i64, bias: Option<Tensor>| -> Result<Self> {
            let weight = self.weight.f_narrow(1, start, inputs)?;
            Ok(Self::from_tensors(weight, bias, ConvSpec { inputs, ..self.spec }).named(&self.name))
        };
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        Ok((part(0, inputs, bias)?, part(inputs, self.spec.inputs - inputs, None)?))
    }

    /// Packs the weights for faster inference, if kernel, device and kind allow it. They must not change afterwards.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn pack(&mut self, factors: Factors) -> Result<()> {
        let ConvSpec { kernel: (rows, columns), stride, padding, groups, .. } = self.spec;
        if (stride, groups, padding) == (1, 1, Padding::Zeros(rows / 2, columns / 2)) {
            self.packed = PackedConv::new(&self.weight, self.bias.as_ref(), factors)?.map(Box::new);
        }
        Ok(())
    }

    /// Returns whether the weights are packed.
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// As [`forward`](Self::forward), then ReLU.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) for another shape.
    pub fn forward_relu(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(packed) = &self.packed
            && let Some(y) = packed.forward(x, None, true)?
        {
            return Ok(y);
        }
        // In place: the output of a convolution has no other use.
        Ok(self.forward(x)?.f_relu_()?)
    }

    /// As [`forward`](Self::forward), then ReLU if `relu` is set, for one picture of which only `tiles` are needed. The result
    /// may be zero in the tiles next to them, and undefined elsewhere.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) for another shape.
    pub fn forward_tiles(&self, x: &Tensor, tiles: &Tiles, relu: bool) -> Result<Tensor> {
        if let Some(packed) = &self.packed
            && let Some(y) = packed.forward_tiles(x, tiles, relu)?
        {
            return Ok(y);
        }
        if relu { self.forward_relu(x) } else { self.forward(x) }
    }

    /// As [`forward`](Self::forward), then adds `added`, a tensor of the shape of the output, and applies ReLU if `relu` is set.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) for another shape.
    pub fn forward_added(&self, x: &Tensor, added: &Tensor, relu: bool) -> Result<Tensor> {
        if let Some(packed) = &self.packed
            && let Some(y) = packed.forward(x, Some(added), relu)?
        {
            return Ok(y);
        }
        let mut y = added.f_add(&self.forward(x)?)?;
        Ok(if relu { y.f_relu_()? } else { y })
    }

    /// Convolves `x` (N, inputs, H, W) to (N, outputs, H', W'), in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(packed) = &self.packed
            && let Some(y) = packed.forward(x, None, false)?
        {
            return Ok(y);
        }
        let kind = x.kind();
        let weight = self.weight.f_to_kind(kind)?;
        let bias = self.bias.as_ref().map(|bias| bias.f_to_kind(kind)).transpose()?;
        let stride = [self.spec.stride, self.spec.stride];
        let groups = self.spec.groups;
        let (below, right) = (self.spec.kernel.0 / 2, self.spec.kernel.1 / 2);
        let (x, weight, padding) = match self.spec.padding {
            Padding::Zeros(rows, columns) => (x.shallow_clone(), weight, [rows, columns]),
            // On the CPU padding the kernel costs a fraction of padding the image, which copies it.
            Padding::TensorflowSame if groups == self.spec.inputs && x.device() == Device::Cpu => {
                (x.shallow_clone(), weight.f_constant_pad_nd([1, 0, 1, 0])?, [below, right])
            }
            Padding::TensorflowSame => {
                (x.f_constant_pad_nd([right - 1, right, below - 1, below])?, weight, [0, 0])
            }
        };
        let y = x.f_conv2d(&weight, bias.as_ref(), stride, padding, [1, 1], groups)?;
        meter::count(&self.name, || {
            let (rows, columns) = self.spec.kernel;
            y.size().iter().product::<i64>() * self.spec.inputs / groups * rows * columns
        });
        Ok(y)
    }
}

/// Returns the prefix of the names of a path's tensors in weights files.
pub(crate) fn name_of(path: &nn::Path) -> String {
    path.components().collect::<Vec<_>>().join(".")
}

/// Returns a picture as (1, 3, H, W) bytes, channels last, on the CPU.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if the picture does not fit in its data.
pub fn picture_tensor(picture: &Picture) -> Result<Tensor> {
    picture.check()?;
    let Picture { data, width, height, stride } = *picture;
    let row = 3 * width;
    let shape = [1, height as i64, width as i64, 3];
    let pixels = if stride == row {
        Tensor::f_from_data_size(&data[..row * height], &shape, Kind::Uint8)?
    } else {
        let rows = data.chunks(stride).take(height);
        let packed: Vec<u8> = rows.flat_map(|line| &line[..row]).copied().collect();
        Tensor::f_from_data_size(&packed, &shape, Kind::Uint8)?
    };
    Ok(pixels.f_permute([0, 3, 1, 2])?)
}

/// Converts [0, 1] to bytes, 0 to 255.
pub(super) fn to_bytes(x: &Tensor) -> Result<Vec<u8>> {
    let x = x.f_mul_scalar(255.0)?.f_round()?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
    let mut bytes = vec![0; x.numel()];
    x.f_copy_data(&mut bytes, x.numel())?;
    Ok(bytes)
}

/// Resizes bilinearly to (height, width), pixel centres at half-integers.
pub fn resize(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    if x.size()[2..] == [height, width] {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_upsample_bilinear2d([height, width], false, None, None)?)
}

/// As [`resize`], with anti-aliasing, so that smaller sizes are averages.
pub(crate) fn shrink(x: &Tensor, height: i64, width: i64) -> Result<Tensor> {
    if x.size()[2..] == [height, width] {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_internal_upsample_bilinear2d_aa([height, width], false, None, None)?)
}

/// Doubles height and width bilinearly.
pub fn double(x: &Tensor) -> Result<Tensor> {
    let size = x.size();
    resize(x, 2 * size[2], 2 * size[3])
}

/// Averages over squares of `side` x `side` positions.
pub fn average_pool(x: &Tensor, side: i64) -> Result<Tensor> {
    Ok(x.f_avg_pool2d([side, side], [side, side], [0, 0], false, true, None::<i64>)?)
}

/// Returns the same values in channels-last layout; CPU and GPU convolutions are up to twice as fast on it.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// Rectangle in fractions of an image's width and height; it may extend beyond the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelativeRect {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// Resamples a part of `x` (N, C, H, W) to (height, width) bilinearly. Positions beyond the image repeat its
/// border, or are zero with `zeros`.
pub fn resample_part(
    x: &Tensor,
    part: RelativeRect,
    (height, width): (i64, i64),
    zeros: bool,
) -> Result<Tensor> {
    let axis = |n: i64, start: f64, length: f64| -> Result<Tensor> {
        let centres = Tensor::f_arange(n, (Kind::Float, x.device()))?.f_add_scalar(0.5)?;
        Ok(centres.f_mul_scalar(2.0 * length / n as f64)?.f_add_scalar(2.0 * start - 1.0)?)
    };
    let columns = axis(width, part.x, part.width)?.f_unsqueeze(0)?.f_expand([height, width], false)?;
    let rows = axis(height, part.y, part.height)?.f_unsqueeze(1)?.f_expand([height, width], false)?;
    let grid = Tensor::f_stack(&[columns, rows], -1)?.f_unsqueeze(0)?;
    let grid = grid.f_expand([x.size()[0], -1, -1, -1], false)?;
    let kind = x.kind();
    let padding = if zeros { 0 } else { 1 };
    Ok(x.f_to_kind(Kind::Float)?.f_grid_sampler(&grid, 0, padding, false)?.f_to_kind(kind)?)
}

/// Returns the mean of `x` (1 or N, C, H, W) weighted by each of the masks (N, 1, H, W), as (N, C) float32.
pub fn masked_mean(x: &Tensor, masks: &Tensor) -> Result<Tensor> {
    let x = x.f_to_kind(Kind::Float)?;
    let space = [2i64, 3];
    let sum = x.f_mul(masks)?.f_sum_dim_intlist(space.as_slice(), false, None::<Kind>)?;
    let weight = masks.f_sum_dim_intlist(space.as_slice(), false, None::<Kind>)?.f_clamp_min(1e-6)?;
    Ok(sum.f_div(&weight)?)
}

/// Returns float32 zeros of the given size on the device of `like`.
pub fn zeros(size: &[i64], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_zeros(size, (Kind::Float, like.device()))?)
}

/// Returns a copy in its own memory, in the same layout.
pub fn copy_of(tensor: &Tensor) -> Result<Tensor> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Tensor {
        Tensor::arange(8 * 8, (Kind::Float, Device::Cpu)).reshape([1, 1, 8, 8])
    }

    #[test]
    fn tensorflow_padding_is_below_and_to_the_right() {
        tch::manual_seed(2);
        let store = nn::VarStore::new(Device::Cpu);
        for (side, padding) in [(3, [0, 1, 0, 1]), (5, [1, 2, 1, 2])] {
            let spec = ConvSpec::square(6, 6, side).stride(2).padding(Padding::TensorflowSame);
            for spec in [spec, spec.depthwise()] {
                let conv = Conv::new(&(store.root() / side / spec.groups), spec);
                let x = Tensor::randn([2, 6, 8, 14], (Kind::Float, Device::Cpu));
                let y = conv.forward(&x).unwrap();
                assert_eq!(y.size(), [2, 6, 4, 7]);
                let (weight, bias) = (&conv.weight, conv.bias.as_ref());
                let padded = x.constant_pad_nd(padding);
                let expected = padded.conv2d(weight, bias, [2, 2], [0, 0], [1, 1], spec.groups);
                assert!((y - expected).abs().max().double_value(&[]) < 1e-5);
            }
        }
    }

    #[test]
    fn split_convolutions_add_up_to_the_whole() {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let conv = Conv::new(&store.root(), ConvSpec::square(5, 4, 3));
        let x = Tensor::randn([2, 5, 6, 8], (Kind::Float, Device::Cpu));
        let (first, rest) = conv.split(2).unwrap();
        let sum = first.forward(&x.narrow(1, 0, 2)).unwrap() + rest.forward(&x.narrow(1, 2, 3)).unwrap();
        assert!((conv.forward(&x).unwrap() - sum).abs().max().double_value(&[]) < 1e-5);
        assert!(conv.split(6).is_err());
    }

    #[test]
    fn resampling_the_whole_image_changes_nothing() {
        let whole = RelativeRect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let difference = resample_part(&ramp(), whole, (8, 8), false).unwrap() - ramp();
        assert!(difference.abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn a_part_is_enlarged_about_its_centre() {
        let part = RelativeRect { x: 0.25, y: 0.5, width: 0.5, height: 0.5 };
        let enlarged = resample_part(&ramp(), part, (8, 8), false).unwrap();
        // Pixel (r, c) has its centre at ((r + ½) / 16 + ½, (c + ½) / 16 + ¼) of the image.
        for (r, c) in [(1, 0), (3, 5), (6, 7)] {
            let at = |i: i64, start: f64| ((i as f64 + 0.5) / 16.0 + start) * 8.0 - 0.5;
            let expected = 8.0 * at(r, 0.5) + at(c, 0.25);
            assert!((enlarged.double_value(&[0, 0, r, c]) - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn positions_beyond_the_image_are_zero_or_its_border() {
        let part = RelativeRect { x: -1.0, y: 0.0, width: 1.0, height: 1.0 };
        let ones = ramp().ones_like();
        assert_eq!(resample_part(&ones, part, (8, 8), true).unwrap().double_value(&[0, 0, 3, 2]), 0.0);
        assert_eq!(resample_part(&ones, part, (8, 8), false).unwrap().double_value(&[0, 0, 3, 2]), 1.0);
    }

    #[test]
    fn means_are_weighted_by_each_mask() {
        let x = Tensor::cat(&[ramp(), ramp() * 2.0], 1);
        let masks = Tensor::zeros([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        let _ = masks.get(0).narrow(1, 1, 1).fill_(1.0);
        let means = masked_mean(&x, &masks).unwrap();
        assert_eq!(means.size(), [2, 2]);
        assert!((means.double_value(&[0, 0]) - 11.5).abs() < 1e-5);
        assert!((means.double_value(&[0, 1]) - 23.0).abs() < 1e-5);
        assert_eq!(means.double_value(&[1, 0]), 0.0);
    }
}
