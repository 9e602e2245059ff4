// SPDX-License-Identifier: MPL-2.0

//! SAM's prompt encoder: points, box corners and masks to embeddings.

use std::f64::consts::TAU;

use tch::{Device, Kind, Tensor};

use super::encoder::EMBEDDING;
use super::layers::{LayerNorm, gelu};
use crate::Result;
use crate::model::layers::{Conv, ConvSpec, Padding};
use crate::model::store::Store;

const EPSILON: f64 = 1e-6;

/// Role of a location in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Not of the object.
    Negative,
    /// Of the object.
    Positive,
    TopLeft,
    BottomRight,
    /// None; without a box, SAM appends one such location.
    Padding,
}

/// A location of a prompt, x and y in fractions of the side of the network's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    pub x: f64,
    pub y: f64,
    pub label: Label,
}

#[derive(Debug)]
pub struct PromptEncoder {
    /// Random frequencies of the positional encoding, (2, C / 2).
    frequencies: Tensor,
    labels: Tensor,
    masks: [Conv; 3],
    mask_norms: [LayerNorm; 2],
    no_mask: Tensor,
}

impl PromptEncoder {
    pub fn new(store: &Store) -> Result<Self> {
        let masks = store.at("mask_downscaling");
        let half =
            |inputs, outputs| ConvSpec::square(inputs, outputs, 2).stride(2).padding(Padding::Zeros(0, 0));
        let norm = |index, channels| LayerNorm::new(&masks.at(index), channels, EPSILON);
        let mut labels = (0..4)
            .map(|index| store.at("point_embeddings").at(index).tensor("weight", &[1, EMBEDDING]))
            .collect::<Result<Vec<_>>>()?;
        labels.push(store.at("not_a_point_embed").tensor("weight", &[1, EMBEDDING])?);
        Ok(Self {
            frequencies: store
                .at("pe_layer")
                .tensor("positional_encoding_gaussian_matrix", &[2, EMBEDDING / 2])?,
            labels: Tensor::f_cat(&labels, 0)?,
            masks: [
                masks.at(0).conv(half(1, 4))?,
                masks.at(3).conv(half(4, 16))?,
                masks.at(6).conv(ConvSpec::square(16, EMBEDDING, 1))?,
            ],
            mask_norms: [norm(1, 4)?, norm(4, 16)?],
            no_mask: store.at("no_mask_embed").tensor("weight", &[1, EMBEDDING])?,
        })
    }

    /// Encodes positions (…, 2), x and y in [0, 1], to (…, C).
    fn positions(&self, positions: &Tensor) -> Result<Tensor> {
        let phases = positions.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_matmul(&self.frequencies)?;
        let phases = phases.f_mul_scalar(TAU)?;
        Ok(Tensor::f_cat(&[phases.f_sin()?, phases.f_cos()?], -1)?)
    }

    /// Encodes the positions of a `side` x `side` embedding, (1, side², C), row by row.
    pub fn grid(&self, side: i64) -> Result<Tensor> {
        let options = (Kind::Float, self.frequencies.device());
        let axis = Tensor::f_arange(side, options)?.f_add_scalar(0.5)?.f_div_scalar(side as f64)?;
        let columns = axis.f_unsqueeze(0)?.f_expand([side, side], false)?;
        let rows = axis.f_unsqueeze(1)?.f_expand([side, side], false)?;
        self.positions(&Tensor::f_stack(&[columns, rows], -1)?.f_reshape([1, side * side, 2])?)
    }

    /// Encodes locations to (1, n, C).
    pub fn locations(&self, locations: &[Location]) -> Result<Tensor> {
        let device = self.frequencies.device();
        let on_device = |tensor: Tensor| tensor.f_to_device(device);
        let positions: Vec<f32> =
            locations.iter().flat_map(|location| [location.x as f32, location.y as f32]).collect();
        let positions = on_device(Tensor::f_from_slice(&positions)?.f_reshape([-1, 2])?)?;
        let labels: Vec<i64> = locations.iter().map(|location| location.label as i64).collect();
        let labels = self.labels.f_index_select(0, &on_device(Tensor::f_from_slice(&labels)?)?)?;
        let real: Vec<f32> =
            locations.iter().map(|location| f32::from(location.label != Label::Padding)).collect();
        let real = on_device(Tensor::f_from_slice(&real)?.f_reshape([-1, 1])?)?;
        Ok(self.positions(&positions)?.f_mul(&real)?.f_add(&labels)?.f_unsqueeze(0)?)
    }

    /// Encodes mask logits (1, 1, 4h, 4w) to (1, C, h, w).
    pub fn mask(&self, logits: &Tensor) -> Result<Tensor> {
        let mut x = logits.shallow_clone();
        let (last, convolutions) = (&self.masks[2], &self.masks[..2]);
        for (conv, norm) in convolutions.iter().zip(&self.mask_norms) {
            x = gelu(norm.forward_image(&conv.forward(&x)?)?)?;
        }
        last.forward(&x)
    }

    /// Embedding that stands for no mask, (1, C, 1, 1).
    pub fn no_mask(&self) -> Result<Tensor> {
        Ok(self.no_mask.f_reshape([1, -1, 1, 1])?)
    }

    pub fn device(&self) -> Device {
        self.frequencies.device()
    }
}
