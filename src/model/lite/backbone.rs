//! What sees one frame and knows nothing of masks: MobileNetV2, or ResNet-50 in the larger sibling.

use tch::{Tensor, nn};

use super::encoder::Encoder;
use crate::Result;
use crate::model::config::{Architecture, Config};
use crate::model::layers::Visit;
use crate::model::resnet50::encoder::Encoder as Resnet;

/// Channels at strides 2, 4, 8, inside block 7 at stride 8, and at stride 16. ResNet-50 has no such block, and its
/// features at stride 8 stand for it.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// At stride 2.
    pub s2: i64,
    /// At stride 4.
    pub s4: i64,
    /// At stride 8.
    pub s8: i64,
    /// Inside block 7, at stride 8.
    pub s8_expanded: i64,
    /// At stride 16.
    pub s16: i64,
}

impl Channels {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        match config.architecture {
            Architecture::Lite => Self {
                s2: config.channels(16),
                s4: config.channels(24),
                s8: config.channels(32),
                s8_expanded: 6 * config.channels(32),
                s16: config.channels(96),
            },
            Architecture::Resnet50 => {
                let [s4, s8, s16, _] = Resnet::channels(config);
                Self { s2: config.channels(64), s4, s8, s8_expanded: s8, s16 }
            }
        }
    }
}

/// What the encoder gives to the rest of the network.
#[derive(Debug)]
pub struct EncoderFeatures {
    /// Block 1.
    pub s2: Tensor,
    /// Block 3.
    pub s4: Tensor,
    /// Block 6.
    pub s8: Tensor,
    /// The expansion of block 7: six times as many channels, before the stride to 16.
    pub s8_expanded: Tensor,
    /// Block 13.
    pub s16: Tensor,
}

/// The encoder of a configuration; names of its tensors are torchvision's either way.
#[derive(Debug)]
pub struct Backbone(Which);

#[derive(Debug)]
enum Which {
    MobileNetV2(Encoder),
    Resnet50(Resnet),
}

impl Visit for Backbone {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match &mut self.0 {
            Which::MobileNetV2(encoder) => encoder.visit(f),
            Which::Resnet50(encoder) => encoder.visit(f),
        }
    }
}

impl Backbone {
    /// Trainable, at random; ImageNet weights load by name.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        Ok(Self(match config.architecture {
            Architecture::Lite => Which::MobileNetV2(Encoder::new(path, config)),
            Architecture::Resnet50 => Which::Resnet50(Resnet::without_masks(path, config)?),
        }))
    }

    /// `image` (N, 3, H, W) with RGB in [0, 1], in the kind that is to be computed in.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) on other shapes.
    pub fn forward(&self, image: &Tensor) -> Result<EncoderFeatures> {
        match &self.0 {
            Which::MobileNetV2(encoder) => encoder.forward(image),
            Which::Resnet50(encoder) => {
                let [s2, s4, s8, s16] = encoder.forward_image(image)?;
                Ok(EncoderFeatures { s8_expanded: s8.shallow_clone(), s2, s4, s8, s16 })
            }
        }
    }

    /// Folds batch normalisation into convolutions, where there is any.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn fold(&mut self) -> Result<()> {
        match &mut self.0 {
            Which::MobileNetV2(_) => Ok(()),
            Which::Resnet50(encoder) => encoder.fold(),
        }
    }
}
