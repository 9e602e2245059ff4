// SPDX-License-Identifier: MPL-2.0

//! Image encoder without mask input: MobileNetV2, or ResNet-50 in the large variant.

use tch::{Kind, Tensor, nn};

use super::encoder::Encoder;
use super::features::EncoderFeatures;
use crate::Result;
use crate::model::Factors;
use crate::model::config::{Architecture, Config};
use crate::model::layers::Visit;
use crate::model::resnet50::encoder::Encoder as Resnet;

/// Channel counts of the encoder features.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// Channels at stride 2.
    pub s2: i64,
    /// Channels at stride 4.
    pub s4: i64,
    /// Channels at stride 8.
    pub s8: i64,
    /// Channels of the expansion of block 7 at stride 8; of ResNet-50, which has none, those of `s8`.
    pub s8_expanded: i64,
    /// Channels at stride 16.
    pub s16: i64,
}

impl Channels {
    /// Returns the channel counts of a configuration.
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

/// Encoder of a configuration. Tensor names are those of torchvision.
#[derive(Debug)]
pub struct Backbone(Network);

#[derive(Debug)]
enum Network {
    MobileNetV2(Encoder),
    Resnet50(Resnet),
}

impl Visit for Backbone {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match &mut self.0 {
            Network::MobileNetV2(encoder) => encoder.visit(f),
            Network::Resnet50(encoder) => encoder.visit(f),
        }
    }
}

impl Backbone {
    /// Creates a trainable encoder with random weights; ImageNet weights load by name.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        Ok(Self(match config.architecture {
            Architecture::Lite => Network::MobileNetV2(Encoder::new(path, config)),
            Architecture::Resnet50 => Network::Resnet50(Resnet::without_masks(path, config)?),
        }))
    }

    /// Encodes `image` (N, 3, H, W), RGB in [0, 1], and computes in its kind.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) on other shapes.
    pub fn forward(&self, image: &Tensor) -> Result<EncoderFeatures> {
        match &self.0 {
            Network::MobileNetV2(encoder) => encoder.forward(image),
            Network::Resnet50(encoder) => {
                let kind = image.kind();
                // Packed networks have float32 images and a backbone in bfloat16. In training, images may be bfloat16, and the
                // weights are float32.
                let computed = if encoder.kind() == Kind::BFloat16 { Kind::BFloat16 } else { kind };
                let features = encoder.forward_image(&image.f_to_kind(computed)?)?;
                let [s2, s4, s8, s16] = features.map(|x| x.f_to_kind(kind));
                let (s2, s4, s8, s16) = (s2?, s4?, s8?, s16?);
                Ok(EncoderFeatures { s8_expanded: s8.shallow_clone(), s2, s4, s8, s16 })
            }
        }
    }

    /// Packs the weights for faster inference; they must not change afterwards. Returns whether that was possible.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn pack(&mut self, factors: Factors) -> Result<bool> {
        match (&mut self.0, factors) {
            (Network::MobileNetV2(encoder), _) => encoder.pack(factors),
            (Network::Resnet50(_), Factors::Float32) => Ok(false),
            // libtorch's kernels have factors of the weights' kind.
            (Network::Resnet50(encoder), Factors::Bfloat16) => {
                encoder.visit(&mut |tensor| {
                    *tensor = tensor.f_to_kind(Kind::BFloat16)?;
                    Ok(())
                })?;
                Ok(false)
            }
        }
    }

    /// Folds batch normalisation, if any, into the convolutions.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn fold(&mut self) -> Result<()> {
        match &mut self.0 {
            Network::MobileNetV2(_) => Ok(()),
            Network::Resnet50(encoder) => encoder.fold(),
        }
    }
}
