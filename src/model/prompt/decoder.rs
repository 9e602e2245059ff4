// SPDX-License-Identifier: MPL-2.0

//! SAM's mask decoder.

use tch::Tensor;

use super::encoder::EMBEDDING;
use super::layers::{LayerNorm, Mlp, gelu};
use super::transformer::Transformer;
use crate::Result;
use crate::model::store::Store;

/// Masks per prompt: one for unambiguous prompts, and three of different extent.
pub const MASKS: i64 = 4;
const EPSILON: f64 = 1e-6;
const LAYERS: [&str; 3] = ["layers.0", "layers.1", "layers.2"];

/// Transposed convolution that doubles height and width.
#[derive(Debug)]
struct Upscale {
    weight: Tensor,
    bias: Tensor,
}

impl Upscale {
    fn new(store: &Store, inputs: i64, outputs: i64) -> Result<Self> {
        Ok(Self {
            weight: store.tensor("weight", &[inputs, outputs, 2, 2])?,
            bias: store.tensor("bias", &[outputs])?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_conv_transpose2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])?)
    }
}

#[derive(Debug)]
pub struct MaskDecoder {
    transformer: Transformer,
    /// Token of the predicted IoU, then those of the masks, (1, 1 + [`MASKS`], C).
    tokens: Tensor,
    upscale: [Upscale; 2],
    upscale_norm: LayerNorm,
    kernels: Vec<Mlp>,
    iou: Mlp,
}

impl MaskDecoder {
    pub fn new(store: &Store) -> Result<Self> {
        let tokens = [
            store.at("iou_token").tensor("weight", &[1, EMBEDDING])?,
            store.at("mask_tokens").tensor("weight", &[MASKS, EMBEDDING])?,
        ];
        let upscale = store.at("output_upscaling");
        let (half, quarter) = (EMBEDDING / 4, EMBEDDING / 8);
        let kernels = store.at("output_hypernetworks_mlps");
        let sizes = |outputs| [EMBEDDING, EMBEDDING, EMBEDDING, outputs];
        Ok(Self {
            transformer: Transformer::new(&store.at("transformer"), EMBEDDING)?,
            tokens: Tensor::f_cat(&tokens, 0)?.f_unsqueeze(0)?,
            upscale: [
                Upscale::new(&upscale.at(0), EMBEDDING, half)?,
                Upscale::new(&upscale.at(3), half, quarter)?,
            ],
            upscale_norm: LayerNorm::new(&upscale.at(1), half, EPSILON)?,
            kernels: (0..MASKS)
                .map(|index| Mlp::new(&kernels.at(index), &LAYERS, &sizes(quarter)))
                .collect::<Result<_>>()?,
            iou: Mlp::new(&store.at("iou_prediction_head"), &LAYERS, &sizes(MASKS))?,
        })
    }

    /// Decodes an embedding (1, C, h, w), to which the embedding of the mask prompt is added, with its
    /// `positions` (1, hw, C) and the embeddings of the prompt (1, n, C). Returns logits ([`MASKS`], 4h, 4w) and
    /// predicted IoU ([`MASKS`]).
    pub fn forward(
        &self,
        embedding: &Tensor,
        positions: &Tensor,
        prompt: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (_, channels, height, width) = embedding.size4()?;
        let tokens = Tensor::f_cat(&[&self.tokens, prompt], 1)?;
        let pixels = embedding.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let (tokens, pixels) = self.transformer.forward(&tokens, &pixels, positions)?;
        // Channels last; transposed convolutions take a third of the time on it.
        let pixels = pixels.f_reshape([1, height, width, channels])?.f_permute([0, 3, 1, 2])?;
        let [first, second] = &self.upscale;
        let pixels = gelu(self.upscale_norm.forward_image(&first.forward(&pixels)?)?)?;
        let pixels = gelu(second.forward(&pixels)?)?.f_permute([0, 2, 3, 1])?.f_flatten(0, 2)?;
        let kernels = self.kernels.iter().zip(1i64..);
        let kernels = kernels
            .map(|(mlp, index)| mlp.forward(&tokens.f_select(1, index)?))
            .collect::<Result<Vec<_>>>()?;
        let logits = Tensor::f_cat(&kernels, 0)?.f_matmul(&pixels.f_transpose(0, 1)?)?;
        let iou = self.iou.forward(&tokens.f_select(1, 0)?)?.f_squeeze_dim(0)?;
        Ok((logits.f_reshape([MASKS, 4 * height, 4 * width])?, iou))
    }
}
