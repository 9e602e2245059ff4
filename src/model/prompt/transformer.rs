// SPDX-License-Identifier: MPL-2.0

//! SAM's two-way transformer: prompt tokens attend to the image and the image to the tokens.

use tch::Tensor;

use super::layers::{LayerNorm, Linear, Mlp, attention, split_heads};
use crate::Result;
use crate::model::store::Store;

const HEADS: i64 = 8;
const LAYERS: i64 = 2;
const EPSILON: f64 = 1e-5;
/// Hidden channels of the MLP.
const HIDDEN: i64 = 2048;

#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Attention {
    fn new(store: &Store, channels: i64, inner: i64) -> Result<Self> {
        let input = |name| Linear::new(&store.at(name), channels, inner);
        Ok(Self {
            query: input("q_proj")?,
            key: input("k_proj")?,
            value: input("v_proj")?,
            output: Linear::new(&store.at("out_proj"), inner, channels)?,
        })
    }

    fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let heads = |layer: &Linear, x: &Tensor| split_heads(&layer.forward(x)?, HEADS);
        let (query, key) = (heads(&self.query, query)?, heads(&self.key, key)?);
        self.output.forward(&attention(&query, &key, &heads(&self.value, value)?, None)?)
    }
}

#[derive(Debug)]
struct Layer {
    to_tokens: Attention,
    to_image: Attention,
    to_pixels: Attention,
    mlp: Mlp,
    norms: [LayerNorm; 4],
    /// Whether it is the first layer, whose self-attention has no positions and replaces its input.
    first: bool,
}

impl Layer {
    fn new(store: &Store, channels: i64, first: bool) -> Result<Self> {
        let norm = |name| LayerNorm::new(&store.at(name), channels, EPSILON);
        let cross = |name| Attention::new(&store.at(name), channels, channels / 2);
        Ok(Self {
            to_tokens: Attention::new(&store.at("self_attn"), channels, channels)?,
            to_image: cross("cross_attn_token_to_image")?,
            to_pixels: cross("cross_attn_image_to_token")?,
            mlp: Mlp::new(&store.at("mlp"), &["lin1", "lin2"], &[channels, HIDDEN, channels])?,
            norms: [norm("norm1")?, norm("norm2")?, norm("norm3")?, norm("norm4")?],
            first,
        })
    }

    /// Updates tokens (1, T, C) and pixels (1, HW, C); `prompt` and `positions` are their encodings.
    fn forward(
        &self,
        tokens: Tensor,
        pixels: Tensor,
        prompt: &Tensor,
        positions: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let [norm1, norm2, norm3, norm4] = &self.norms;
        let attended = if self.first {
            self.to_tokens.forward(&tokens, &tokens, &tokens)?
        } else {
            let query = tokens.f_add(prompt)?;
            self.to_tokens.forward(&query, &query, &tokens)?.f_add(&tokens)?
        };
        let tokens = norm1.forward(&attended)?;
        let key = pixels.f_add(positions)?;
        let attended = self.to_image.forward(&tokens.f_add(prompt)?, &key, &pixels)?;
        let tokens = norm2.forward(&attended.f_add(&tokens)?)?;
        let tokens = norm3.forward(&self.mlp.forward(&tokens)?.f_add(&tokens)?)?;
        let attended = self.to_pixels.forward(&key, &tokens.f_add(prompt)?, &tokens)?;
        let pixels = norm4.forward(&attended.f_add(&pixels)?)?;
        Ok((tokens, pixels))
    }
}

#[derive(Debug)]
pub struct Transformer {
    layers: Vec<Layer>,
    last: Attention,
    norm: LayerNorm,
}

impl Transformer {
    pub fn new(store: &Store, channels: i64) -> Result<Self> {
        let layers = store.at("layers");
        Ok(Self {
            layers: (0..LAYERS)
                .map(|index| Layer::new(&layers.at(index), channels, index == 0))
                .collect::<Result<_>>()?,
            last: Attention::new(&store.at("final_attn_token_to_image"), channels, channels / 2)?,
            norm: LayerNorm::new(&store.at("norm_final_attn"), channels, EPSILON)?,
        })
    }

    /// Returns the updated tokens (1, T, C) and pixels (1, HW, C). `positions` (1, HW, C) encodes those of the
    /// pixels.
    pub fn forward(&self, prompt: &Tensor, pixels: &Tensor, positions: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut tokens, mut pixels) = (prompt.shallow_clone(), pixels.shallow_clone());
        for layer in &self.layers {
            (tokens, pixels) = layer.forward(tokens, pixels, prompt, positions)?;
        }
        let attended = self.last.forward(&tokens.f_add(prompt)?, &pixels.f_add(positions)?, &pixels)?;
        Ok((self.norm.forward(&attended.f_add(&tokens)?)?, pixels))
    }
}
