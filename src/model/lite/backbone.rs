// SPDX-License-Identifier: MPL-2.0

//! Image encoder without mask input: MobileNetV2. In `large`, only its features at strides 2 and 4 are used, and those
//! at strides 8 and 16 are of a ResNet-50.

use tch::{Kind, Tensor, nn};

use super::encoder::Encoder;
use super::features::EncoderFeatures;
use crate::model::Factors;
use crate::model::config::{Architecture, Config};
use crate::model::layers::Visit;
use crate::model::resnet50::encoder::Encoder as Resnet;
use crate::{Result, visit_fields};

/// Channel counts of the encoder features.
pub(super) struct Channels {
    pub s2: i64,
    pub s4: i64,
    pub s8: i64,
    /// Channels of the expansion of block 7 at stride 8; of ResNet-50, which has none, those of `s8`.
    pub s8_expanded: i64,
    pub s16: i64,
}

impl Channels {
    pub fn new(config: &Config) -> Self {
        let lite = Self {
            s2: config.channels(16),
            s4: config.channels(24),
            s8: config.channels(32),
            s8_expanded: 6 * config.channels(32),
            s16: config.channels(96),
        };
        match config.architecture {
            Architecture::Lite => lite,
            Architecture::Resnet50 => {
                let [_, s8, s16, _] = Resnet::channels(config);
                Self { s8, s8_expanded: s8, s16, ..lite }
            }
        }
    }
}

/// Encoder of a configuration. Tensor names are those of torchvision.
#[derive(Debug)]
pub struct Backbone {
    mobilenet: Encoder,
    /// Its features take the place of those of MobileNetV2 at strides 8 and 16.
    resnet: Option<Resnet>,
}

visit_fields!(Backbone: mobilenet, resnet);

impl Backbone {
    /// Creates a trainable encoder with random weights; ImageNet weights load by name.
    pub(super) fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        Ok(match config.architecture {
            Architecture::Lite => Self { mobilenet: Encoder::new(path, config), resnet: None },
            Architecture::Resnet50 => Self {
                mobilenet: Encoder::fine(path, config),
                resnet: Some(Resnet::without_masks(path, config)?),
            },
        })
    }

    /// Encodes `image` (N, 3, H, W), RGB in [0, 1], and computes in its kind.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) on other shapes.
    pub fn forward(&self, image: &Tensor) -> Result<EncoderFeatures> {
        let Some(resnet) = &self.resnet else { return self.mobilenet.forward(image) };
        let [s2, s4] = self.mobilenet.forward_fine(image)?;
        let kind = image.kind();
        // Packed networks have float32 images and a ResNet-50 in bfloat16. In training, images may be bfloat16, and the
        // weights are float32.
        let computed = if resnet.kind() == Kind::BFloat16 { Kind::BFloat16 } else { kind };
        let [_, _, s8, s16] = resnet.forward_image(&image.f_to_kind(computed)?)?;
        let (s8, s16) = (s8.f_to_kind(kind)?, s16.f_to_kind(kind)?);
        Ok(EncoderFeatures { s2, s4, s8_expanded: s8.shallow_clone(), s8, s16 })
    }

    /// Packs the weights for faster inference; they must not change afterwards. Returns whether that was possible.
    pub(super) fn pack(&mut self, factors: Factors) -> Result<bool> {
        let packed = self.mobilenet.pack(factors)?;
        let Some(resnet) = &mut self.resnet else { return Ok(packed) };
        // libtorch's kernels have factors of the weights' kind.
        if factors == Factors::Bfloat16 {
            resnet.visit(&mut |tensor| {
                *tensor = tensor.f_to_kind(Kind::BFloat16)?;
                Ok(())
            })?;
        }
        Ok(false)
    }

    /// Folds batch normalisation, if any, into the convolutions.
    pub(super) fn fold(&mut self) -> Result<()> {
        self.resnet.as_mut().map_or(Ok(()), Resnet::fold)
    }
}
