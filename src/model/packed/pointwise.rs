// SPDX-License-Identifier: MPL-2.0

//! Convolution of 1x1.

use tch::Tensor;

use super::dense::{Dense, Factors};
use super::share;
use crate::Result;
use crate::team::in_parallel;

/// Packed convolution of 1x1.
#[derive(Debug)]
pub struct Pointwise(Dense);

impl Pointwise {
    /// Packs `weight` (outputs, inputs, 1, 1).
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, factors: Factors) -> Result<Self> {
        Ok(Self(Dense::of_conv(weight, bias, None, factors)?))
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.0.inputs
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.0.outputs
    }

    /// Maps pixels `x` (…, inputs) to `y` (…, outputs).
    pub fn forward(&self, x: &[f32], relu: bool, y: &mut [f32]) {
        let Self(dense) = self;
        let range = [if relu { 0.0 } else { f32::NEG_INFINITY }, f32::INFINITY];
        let pixels = share(y.len() / dense.outputs);
        let parts = x.chunks(pixels * dense.inputs).zip(y.chunks_mut(pixels * dense.outputs));
        in_parallel(parts, |(x, y)| dense.forward(x, y, dense.outputs, range));
    }
}
