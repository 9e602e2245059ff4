// SPDX-License-Identifier: MPL-2.0

//! ResNet-50 with a mask input, the Siamese encoder of frame and reference; or without one, up to stride 16.
//!
//! Deep Residual Learning for Image Recognition, He et al., 2016, with the stride on the 3x3 convolution. Tensor
//! names are those of torchvision, so that its ImageNet weights load by name. The mask convolution `conv1_mask` is
//! the only addition.

use tch::{Kind, Tensor, nn};

use super::norm::{BatchNorm, ConvNorm, scale_outputs};
use crate::Result;
use crate::model::config::Config;
use crate::model::layers::{Conv, ConvSpec, Padding, Visit};
use crate::visit_fields;

/// Mean and standard deviation of RGB over ImageNet, for values in [0, 1].
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

const DEPTHS: [i64; 4] = [3, 4, 6, 3];

/// Ratio of output to inner channels of a bottleneck.
const EXPANSION: i64 = 4;

/// A constant that moves to the device of its network and stays float32.
#[derive(Debug)]
struct Constant(Tensor);

impl Visit for Constant {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        let mut probe = self.0.shallow_clone();
        f(&mut probe)?;
        self.0 = self.0.f_to_device(probe.device())?;
        Ok(())
    }
}

/// Normalises RGB in [0, 1] to zero mean and unit variance over ImageNet.
#[derive(Debug)]
struct Normalise {
    scale: Constant,
    shift: Constant,
}

visit_fields!(Normalise: scale, shift);

impl Normalise {
    fn new(path: &nn::Path) -> Result<Self> {
        let column = |values: [f32; 3]| -> Result<Constant> {
            let tensor = Tensor::f_from_slice(&values)?.f_reshape([1, 3, 1, 1])?;
            Ok(Constant(tensor.f_to_device(path.device())?))
        };
        Ok(Self {
            scale: column(DEVIATION.map(|deviation| 1.0 / deviation))?,
            shift: column([0, 1, 2].map(|i| -MEAN[i] / DEVIATION[i]))?,
        })
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.f_to_kind(Kind::Float)?.f_mul(&self.scale.0)?.f_add(&self.shift.0)?)
    }
}

/// conv1 of the image plus, with a mask input, conv1_mask of the mask, then bn1 and ReLU: (N, 64, H/2, W/2).
#[derive(Debug)]
enum Stem {
    Trained {
        image: Conv,
        mask: Option<Conv>,
        norm: BatchNorm,
    },
    /// All in one convolution of RGB and mask.
    Folded(Conv),
}

impl Visit for Stem {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Trained { image, mask, norm } => {
                image.visit(f)?;
                mask.visit(f)?;
                norm.visit(f)
            }
            Self::Folded(conv) => conv.visit(f),
        }
    }
}

impl Stem {
    fn new(path: &nn::Path, channels: i64, masks: bool) -> Result<Self> {
        let spec = |inputs| ConvSpec::square(inputs, channels, 7).stride(2).padding(Padding::Zeros(3, 3));
        Ok(Self::Trained {
            image: Conv::new(&(path / "conv1"), spec(3).without_bias()),
            mask: masks.then(|| Conv::new(&(path / "conv1_mask"), spec(1))),
            norm: BatchNorm::new(&(path / "bn1"), channels)?,
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Trained { image, .. } => image.weight.kind(),
            Self::Folded(conv) => conv.weight.kind(),
        }
    }

    /// Takes `image` (1 or N, 3, H, W), normalised, and `mask` (N, 1, H, W) of the same kind.
    fn forward(&self, image: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let mut y = match self {
            Self::Trained { image: conv, mask: mask_conv, norm } => {
                let of_image = conv.forward(image)?;
                let sum = match (mask_conv, mask) {
                    (Some(conv), Some(mask)) => conv.forward(mask)?.f_add_(&of_image)?,
                    _ => of_image,
                };
                norm.forward(&sum)?
            }
            Self::Folded(conv) => conv.forward(&match mask {
                Some(mask) => {
                    let image = image.f_expand([mask.size()[0], -1, -1, -1], false)?;
                    Tensor::f_cat(&[&image, mask], 1)?
                }
                None => image.shallow_clone(),
            })?,
        };
        Ok(y.f_relu_()?)
    }

    fn fold(&mut self) -> Result<()> {
        if let Self::Trained { image, mask, norm } = self {
            let (scale, mut shift) = norm.scale_shift()?;
            let mut weights = vec![image.weight.f_to_kind(Kind::Float)?];
            if let Some(mask) = mask {
                weights.push(mask.weight.f_to_kind(Kind::Float)?);
                if let Some(bias) = &mask.bias {
                    shift = shift.f_add(&bias.f_to_kind(Kind::Float)?.f_mul(&scale)?)?;
                }
            }
            let weight = scale_outputs(&Tensor::f_cat(&weights, 1)?, &scale)?;
            let spec = ConvSpec { inputs: weight.size()[1], bias: true, ..*image.spec() };
            let conv = Conv::from_tensors(weight, Some(shift), spec).named(image.name());
            *self = Self::Folded(conv);
        }
        Ok(())
    }
}

/// 1x1, 3x3 with the stride, 1x1, each normalised; plus the input, projected if the shape changes.
#[derive(Debug)]
struct Bottleneck {
    reduce: ConvNorm,
    spatial: ConvNorm,
    expand: ConvNorm,
    downsample: Option<ConvNorm>,
}

visit_fields!(Bottleneck: reduce, spatial, expand, downsample);

impl Bottleneck {
    fn new(path: &nn::Path, inputs: i64, inner: i64, stride: i64) -> Result<Self> {
        let outputs = EXPANSION * inner;
        let unit = |i: i64, spec: ConvSpec| {
            ConvNorm::new(&(path / format!("conv{i}")), &(path / format!("bn{i}")), spec)
        };
        let downsample = if stride != 1 || inputs != outputs {
            let path = path / "downsample";
            let spec = ConvSpec::square(inputs, outputs, 1).stride(stride);
            Some(ConvNorm::new(&(&path / 0), &(&path / 1), spec)?)
        } else {
            None
        };
        Ok(Self {
            reduce: unit(1, ConvSpec::square(inputs, inner, 1))?,
            spatial: unit(2, ConvSpec::square(inner, inner, 3).stride(stride))?,
            expand: unit(3, ConvSpec::square(inner, outputs, 1))?,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.reduce.forward(x)?.f_relu_()?;
        let y = self.spatial.forward(&y)?.f_relu_()?;
        let mut y = self.expand.forward(&y)?;
        let mut y = match &self.downsample {
            Some(downsample) => y.f_add_(&downsample.forward(x)?)?,
            None => y.f_add_(x)?,
        };
        Ok(y.f_relu_()?)
    }

    fn fold(&mut self) -> Result<()> {
        self.reduce.fold()?;
        self.spatial.fold()?;
        self.expand.fold()?;
        self.downsample.iter_mut().try_for_each(ConvNorm::fold)
    }
}

/// Encoder features of one frame, (N, C, H / s, W / s) each.
#[derive(Debug)]
pub struct Features {
    /// layer1: 256 channels, s = 4.
    pub stride4: Tensor,
    /// layer2: 512 channels, s = 8.
    pub stride8: Tensor,
    /// layer3: 1024 channels, s = 16.
    pub stride16: Tensor,
    /// layer4: 2048 channels, s = 32.
    pub stride32: Tensor,
}

#[derive(Debug)]
pub struct Encoder {
    normalise: Normalise,
    stem: Stem,
    layers: Vec<Vec<Bottleneck>>,
    /// Kind to compute in; without one, the kind of the weights.
    kind: Option<Kind>,
}

visit_fields!(Encoder: normalise, stem, layers);

impl Encoder {
    /// Creates a trainable encoder with mask input, up to layer4.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        Self::to_layer(path, config, 4, true)
    }

    /// Creates a trainable encoder without mask input, up to layer3.
    pub fn without_masks(path: &nn::Path, config: &Config) -> Result<Self> {
        Self::to_layer(path, config, 3, false)
    }

    fn to_layer(path: &nn::Path, config: &Config, last: usize, masks: bool) -> Result<Self> {
        let stem = config.channels(64);
        let mut inputs = stem;
        let mut layers = Vec::with_capacity(last);
        for (i, depth) in DEPTHS.into_iter().take(last).enumerate() {
            let path = path / format!("layer{}", i + 1);
            let inner = config.channels(64 << i);
            let mut layer = Vec::new();
            for block in 0..depth {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                layer.push(Bottleneck::new(&(&path / block), inputs, inner, stride)?);
                inputs = EXPANSION * inner;
            }
            layers.push(layer);
        }
        Ok(Self { normalise: Normalise::new(path)?, stem: Stem::new(path, stem, masks)?, layers, kind: None })
    }

    /// Returns the channel counts at strides 4, 8, 16 and 32.
    pub fn channels(config: &Config) -> [i64; 4] {
        [64, 128, 256, 512].map(|inner| EXPANSION * config.channels(inner))
    }

    pub fn kind(&self) -> Kind {
        self.stem.kind()
    }

    /// Sets the kind to compute in, independent of the kind of the weights.
    pub fn compute_in(&mut self, kind: Kind) {
        self.kind = Some(kind);
    }

    /// Encodes `image` (1 or N, 3, H, W), RGB in [0, 1], with `masks` (N, 1, H, W) in [0, 1]. Computes in the kind
    /// of the weights, or in that of [`compute_in`](Self::compute_in).
    pub fn forward(&self, image: &Tensor, masks: &Tensor) -> Result<Features> {
        let kind = self.kind.unwrap_or(self.stem.kind());
        let image = self.normalise.forward(image)?.f_to_kind(kind)?;
        let x = self.stem.forward(&image, Some(&masks.f_to_kind(kind)?))?;
        let [stride4, stride8, stride16] = self.to_stride16(&x)?;
        let stride32 = self.layer(3, &stride16)?;
        Ok(Features { stride4, stride8, stride16, stride32 })
    }

    /// Encodes `image` [without masks](Self::without_masks), in its kind. Returns the features at strides 2 (those
    /// of the stem), 4, 8 and 16.
    pub fn forward_image(&self, image: &Tensor) -> Result<[Tensor; 4]> {
        let stride2 = self.stem.forward(&self.normalise.forward(image)?.f_to_kind(image.kind())?, None)?;
        let [stride4, stride8, stride16] = self.to_stride16(&stride2)?;
        Ok([stride2, stride4, stride8, stride16])
    }

    fn to_stride16(&self, stem: &Tensor) -> Result<[Tensor; 3]> {
        let x = stem.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let stride4 = self.layer(0, &x)?;
        let stride8 = self.layer(1, &stride4)?;
        let stride16 = self.layer(2, &stride8)?;
        Ok([stride4, stride8, stride16])
    }

    fn layer(&self, index: usize, x: &Tensor) -> Result<Tensor> {
        self.layers[index].iter().try_fold(x.shallow_clone(), |x, block| block.forward(&x))
    }

    /// Folds every batch normalisation into the preceding convolution.
    pub fn fold(&mut self) -> Result<()> {
        self.stem.fold()?;
        self.layers.iter_mut().flatten().try_for_each(Bottleneck::fold)
    }
}
