// SPDX-License-Identifier: MPL-2.0

//! Layers of the person network. Feature maps are (N, C, H, W), channels last.

use tch::{Kind, Tensor};

use crate::Result;
use crate::model::layers::{Conv, ConvSpec, double};
use crate::model::store::Store;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Relu,
    HardSwish,
}

impl Activation {
    /// Applies it in place.
    pub fn apply(self, mut x: Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Relu => x.f_relu_()?,
            Self::HardSwish => x.f_hardswish_()?,
        })
    }
}

/// Weights of channels, from the means of channels (squeeze and excitation).
#[derive(Debug)]
struct Attention {
    reduce: Conv,
    expand: Conv,
}

impl Attention {
    fn new(store: &Store, channels: i64, hidden: i64) -> Result<Self> {
        Ok(Self {
            reduce: store.at("reduce").conv(ConvSpec::square(channels, hidden, 1))?,
            expand: store.at("expand").conv(ConvSpec::square(hidden, channels, 1))?,
        })
    }

    /// Maps (N, C, H, W) to (N, C, 1, 1), 0 to 1.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.reduce.forward(&mean(x)?)?.f_relu()?;
        Ok(self.expand.forward(&hidden)?.f_sigmoid()?)
    }
}

/// Mean over positions, (N, C, 1, 1).
fn mean(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_mean_dim([2i64, 3].as_slice(), true, None::<Kind>)?)
}

#[derive(Clone, Copy, Debug)]
pub struct BlockSpec {
    pub inputs: i64,
    pub hidden: i64,
    pub outputs: i64,
    /// Rows and columns of the depthwise kernel.
    pub side: i64,
    pub stride: i64,
    /// Hidden channels of the attention, if there is one.
    pub attention: Option<i64>,
    pub activation: Activation,
}

/// Inverted bottleneck of MobileNetV3: expansion, depthwise convolution, attention, projection.
#[derive(Debug)]
pub struct Block {
    expand: Conv,
    depthwise: Conv,
    attention: Option<Attention>,
    project: Conv,
    spec: BlockSpec,
}

impl Block {
    pub fn new(store: &Store, spec: BlockSpec) -> Result<Self> {
        let BlockSpec { inputs, hidden, outputs, side, stride, attention, .. } = spec;
        let depthwise = ConvSpec::square(hidden, hidden, side).depthwise().strided_same(stride);
        let attention = attention.map(|channels| Attention::new(&store.at("attention"), hidden, channels));
        Ok(Self {
            expand: store.at("expand").conv(ConvSpec::square(inputs, hidden, 1))?,
            depthwise: store.at("depthwise").conv(depthwise)?,
            attention: attention.transpose()?,
            project: store.at("project").conv(ConvSpec::square(hidden, outputs, 1))?,
            spec,
        })
    }

    /// Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride). The input is added if the shapes are equal.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let BlockSpec { inputs, outputs, stride, activation, .. } = self.spec;
        let hidden = activation.apply(self.expand.forward(x)?)?;
        let mut hidden = activation.apply(self.depthwise.forward(&hidden)?)?;
        if let Some(attention) = &self.attention {
            let weights = attention.forward(&hidden)?;
            hidden = hidden.f_mul_(&weights)?;
        }
        let mut y = self.project.forward(&hidden)?;
        Ok(if stride == 1 && inputs == outputs { y.f_add_(x)? } else { y })
    }
}

/// Head of MobileNetV3 (LR-ASPP): a convolution whose channels are weighted by their context.
#[derive(Debug)]
pub struct Head {
    conv: Conv,
    attention: Conv,
}

impl Head {
    pub fn new(store: &Store, inputs: i64, outputs: i64) -> Result<Self> {
        Ok(Self {
            conv: store.at("conv").conv(ConvSpec::square(inputs, outputs, 1))?,
            attention: store.at("attention").conv(ConvSpec::square(inputs, outputs, 1))?,
        })
    }

    /// Maps (N, inputs, H, W) to (N, outputs, H, W).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weights = self.attention.forward(&mean(x)?)?.f_sigmoid()?;
        Ok(self.conv.forward(x)?.f_relu_()?.f_mul_(&weights)?)
    }
}

/// Decoder block: doubles the resolution and adds encoder features whose channels are weighted.
#[derive(Debug)]
pub struct DecoderBlock {
    reduce: Conv,
    attention: Attention,
    fuse: Conv,
    depthwise: Conv,
}

impl DecoderBlock {
    /// Reads a block. `channels` are those of the encoder features and of the output.
    pub fn new(store: &Store, inputs: i64, channels: i64) -> Result<Self> {
        Ok(Self {
            reduce: store.at("reduce").conv(ConvSpec::square(inputs, channels, 1))?,
            attention: Attention::new(&store.at("attention"), channels, channels)?,
            fuse: store.at("fuse").conv(ConvSpec::square(channels, channels, 1))?,
            depthwise: store.at("depthwise").conv(ConvSpec::square(channels, channels, 3).depthwise())?,
        })
    }

    /// Maps `x` (N, inputs, H, W) and `skip` (N, C, 2H, 2W) to (N, C, 2H, 2W).
    pub fn forward(&self, x: &Tensor, skip: &Tensor) -> Result<Tensor> {
        // The original enlarges first. The order does not change the result: the weights of an interpolation add to 1.
        let x = double(&self.reduce.forward(x)?)?;
        let weights = self.attention.forward(&x.f_add(skip)?)?;
        let fused = self.fuse.forward(&skip.f_mul(&weights)?.f_add_(&x)?)?.f_relu_()?;
        Ok(self.depthwise.forward(&fused)?.f_relu_()?.f_add_(&fused)?)
    }
}
