// SPDX-License-Identifier: MPL-2.0

//! MobileNetV2 (Sandler et al., 2018) up to block 13, with batch normalisation folded into the convolutions.
//! Tensor names are those of torchvision, so that its ImageNet weights load by name.

use std::ops::Range;

use tch::{Tensor, nn};

use super::super::config::Config;
use super::super::layers::{Conv, ConvSpec};
use super::super::packed::{self, Factors};
use super::features::{EncoderFeatures, FEATURE_BLOCKS};
use super::fused_encoder::{BlockLayers, FusedEncoder};
use crate::model::layers::Visit;
use crate::{Result, visit_fields};

/// Expansion, channels, repeats and stride of each stage.
const STAGES: [(i64, i64, usize, i64); 5] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)];

#[derive(Debug)]
struct InvertedResidual {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    residual: bool,
}

visit_fields!(InvertedResidual: expand, depthwise, project);

impl InvertedResidual {
    fn new(path: &nn::Path, inputs: i64, outputs: i64, stride: i64, expansion: i64) -> Self {
        let hidden = inputs * expansion;
        let path = path / "conv";
        let expanding = expansion != 1;
        let index = i64::from(expanding);
        Self {
            expand: expanding.then(|| Conv::new(&(&path / 0 / 0), ConvSpec::square(inputs, hidden, 1))),
            depthwise: Conv::new(
                &(&path / index / 0),
                ConvSpec::square(hidden, hidden, 3).depthwise().strided_same(stride),
            ),
            project: Conv::new(&(&path / (index + 1)), ConvSpec::square(hidden, outputs, 1)),
            residual: stride == 1 && inputs == outputs,
        }
    }

    fn layers(&self) -> BlockLayers<'_> {
        BlockLayers {
            expand: self.expand.as_ref(),
            depthwise: &self.depthwise,
            project: &self.project,
            residual: self.residual,
        }
    }

    fn expanded(&self, x: &Tensor) -> Result<Tensor> {
        match &self.expand {
            Some(expand) => relu6(expand.forward(x)?),
            None => Ok(x.shallow_clone()),
        }
    }

    fn rest(&self, x: &Tensor, expanded: &Tensor) -> Result<Tensor> {
        let y = self.project.forward(&relu6(self.depthwise.forward(expanded)?)?)?;
        if self.residual { Ok(x.f_add(&y)?) } else { Ok(y) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.rest(x, &self.expanded(x)?)
    }
}

/// In place: the output of a convolution has no other use.
fn relu6(mut x: Tensor) -> Result<Tensor> {
    Ok(x.f_clamp_(0.0, 6.0)?)
}

/// MobileNetV2 from the stem to block 13, or to block 3.
#[derive(Debug)]
pub struct Encoder {
    stem: Conv,
    blocks: Vec<InvertedResidual>,
    /// Made of the current weights, for inference.
    pub(super) fused: Option<FusedEncoder>,
}

impl Visit for Encoder {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        // `f` may change the weights.
        self.fused = None;
        self.stem.visit(f)?;
        self.blocks.visit(f)
    }
}

impl Encoder {
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        Self::of_stages(path, config, &STAGES)
    }

    /// Creates the part of the encoder for [`forward_fine`](Self::forward_fine).
    pub fn fine(path: &nn::Path, config: &Config) -> Self {
        Self::of_stages(path, config, &STAGES[..2])
    }

    fn of_stages(path: &nn::Path, config: &Config, stages: &[(i64, i64, usize, i64)]) -> Self {
        let path = path / "features";
        let mut inputs = config.channels(32);
        let stem = Conv::new(&(&path / 0 / 0), ConvSpec::square(3, inputs, 3).strided_same(2));
        let mut blocks = Vec::new();
        for (expansion, channels, repeats, stride) in stages {
            let outputs = config.channels(*channels);
            for repeat in 0..*repeats {
                let stride = if repeat == 0 { *stride } else { 1 };
                let path = &path / (blocks.len() as i64 + 1);
                blocks.push(InvertedResidual::new(&path, inputs, outputs, stride, *expansion));
                inputs = outputs;
            }
        }
        Self { stem, blocks, fused: None }
    }

    /// Packs the weights for faster inference, if device and kind allow it. They must not change afterwards. Returns
    /// whether they did.
    pub fn pack(&mut self, factors: Factors) -> Result<bool> {
        if packed::fits(&self.stem.weight) {
            let blocks = self.blocks.iter().map(InvertedResidual::layers);
            self.fused = Some(FusedEncoder::new(&self.stem, blocks, factors)?);
        }
        Ok(self.fused.is_some())
    }

    /// Encodes `image` (N, 3, H, W), RGB in [0, 1].
    pub fn forward(&self, image: &Tensor) -> Result<EncoderFeatures> {
        if let Some(fused) = &self.fused
            && let Some(features) = fused.forward(image)?
        {
            return Ok(features);
        }
        let [s2, s4] = self.fine_layers(image)?;
        let [_, s4_end, s8_end, s16_end] = FEATURE_BLOCKS;
        let s8 = self.run(s4.shallow_clone(), s4_end..s8_end)?;
        let s8_expanded = self.blocks[s8_end].expanded(&s8)?;
        let s16 = self.run(self.blocks[s8_end].rest(&s8, &s8_expanded)?, s8_end + 1..s16_end)?;
        Ok(EncoderFeatures { s2, s4, s8, s8_expanded, s16 })
    }

    /// Like [`forward`](Self::forward), for the features at strides 2 and 4.
    pub fn forward_fine(&self, image: &Tensor) -> Result<[Tensor; 2]> {
        if let Some(fused) = &self.fused
            && let Some(features) = fused.forward_fine(image)?
        {
            return Ok(features);
        }
        self.fine_layers(image)
    }

    fn fine_layers(&self, image: &Tensor) -> Result<[Tensor; 2]> {
        let image = image.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
        let [s2_end, s4_end, ..] = FEATURE_BLOCKS;
        let s2 = self.run(relu6(self.stem.forward(&image)?)?, 0..s2_end)?;
        let s4 = self.run(s2.shallow_clone(), s2_end..s4_end)?;
        Ok([s2, s4])
    }

    fn run(&self, x: Tensor, blocks: Range<usize>) -> Result<Tensor> {
        self.blocks[blocks].iter().try_fold(x, |x, block| block.forward(&x))
    }
}
