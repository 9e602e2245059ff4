// SPDX-License-Identifier: MPL-2.0

//! Image encoder of MobileSAM: TinyViT-5M (Wu et al., ECCV 2022) and SAM's neck. Batch normalisation is folded.

use tch::Tensor;

use super::layers::{LayerNorm, gelu};
use super::window::Block;
use crate::Result;
use crate::model::layers::{Conv, ConvSpec};
use crate::model::store::Store;

/// Channels, blocks and window side of the stages; the first stage is convolutional.
const STAGES: [(i64, usize, i64); 4] = [(64, 2, 0), (128, 2, 7), (160, 6, 14), (320, 2, 7)];
pub const EMBEDDING: i64 = 256;
/// Hidden channels of the convolutional blocks by input channel.
const EXPANSION: i64 = 4;
const EPSILON: f64 = 1e-6;

#[derive(Debug)]
pub struct ImageEncoder {
    patches: [Conv; 2],
    convolutional: Vec<ConvBlock>,
    stages: Vec<Stage>,
    neck: [Conv; 2],
    neck_norms: [LayerNorm; 2],
}

/// Inverted bottleneck: expansion, depthwise convolution, projection.
#[derive(Debug)]
struct ConvBlock([Conv; 3]);

/// Change of channels and resolution between stages, and the transformer blocks that follow.
#[derive(Debug)]
struct Stage {
    merging: ConvBlock,
    blocks: Vec<Block>,
}

impl ConvBlock {
    fn new(store: &Store, (inputs, hidden, outputs): (i64, i64, i64), stride: i64) -> Result<Self> {
        let conv = |name, spec| store.at(name).at("c").conv(spec);
        Ok(Self([
            conv("conv1", ConvSpec::square(inputs, hidden, 1))?,
            conv("conv2", ConvSpec::square(hidden, hidden, 3).depthwise().stride(stride))?,
            conv("conv3", ConvSpec::square(hidden, outputs, 1))?,
        ]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [expand, depthwise, project] = &self.0;
        let x = gelu(expand.forward(x)?)?;
        project.forward(&gelu(depthwise.forward(&x)?)?)
    }

    fn forward_residual(&self, x: &Tensor) -> Result<Tensor> {
        gelu(self.forward(x)?.f_add_(x)?)
    }
}

impl ImageEncoder {
    pub fn new(store: &Store) -> Result<Self> {
        let patches = store.at("patch_embed").at("seq");
        let half = |inputs, outputs| ConvSpec::square(inputs, outputs, 3).stride(2);
        let [(first, depth, _), .., (last, ..)] = STAGES;
        let layers = store.at("layers");
        let blocks = layers.at(0).at("blocks");
        let mut stages = Vec::new();
        for (index, pair) in STAGES.windows(2).enumerate() {
            let [(inputs, ..), (channels, depth, window)] = [pair[0], pair[1]];
            // The last stage keeps the resolution.
            let stride = if channels == last { 1 } else { 2 };
            let sizes = (inputs, channels, channels);
            let blocks = layers.at(index + 1).at("blocks");
            stages.push(Stage {
                merging: ConvBlock::new(&layers.at(index).at("downsample"), sizes, stride)?,
                blocks: (0..depth)
                    .map(|index| Block::new(&blocks.at(index), channels, window))
                    .collect::<Result<_>>()?,
            });
        }
        let neck = store.at("neck");
        let norm = |index| LayerNorm::new(&neck.at(index), EMBEDDING, EPSILON);
        let neck_conv = |index, inputs, side| {
            neck.at(index).conv(ConvSpec::square(inputs, EMBEDDING, side).without_bias())
        };
        Ok(Self {
            patches: [
                patches.at(0).at("c").conv(half(3, first / 2))?,
                patches.at(2).at("c").conv(half(first / 2, first))?,
            ],
            convolutional: (0..depth)
                .map(|index| ConvBlock::new(&blocks.at(index), (first, EXPANSION * first, first), 1))
                .collect::<Result<_>>()?,
            stages,
            neck: [neck_conv(0, last, 1)?, neck_conv(2, EMBEDDING, 3)?],
            neck_norms: [norm(1)?, norm(3)?],
        })
    }

    /// Encodes `image` (1, 3, H, W), normalised and channels last, to (1, [`EMBEDDING`], H/16, W/16).
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let mut x = self.patches[1].forward(&gelu(self.patches[0].forward(image)?)?)?;
        for block in &self.convolutional {
            x = block.forward_residual(&x)?;
        }
        for stage in &self.stages {
            x = stage.merging.forward(&x)?;
            for block in &stage.blocks {
                x = block.forward(&x)?;
            }
        }
        for (conv, norm) in self.neck.iter().zip(&self.neck_norms) {
            x = norm.forward_image(&conv.forward(&x)?)?;
        }
        Ok(x)
    }
}
