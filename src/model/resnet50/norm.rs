// SPDX-License-Identifier: MPL-2.0

//! Batch normalisation with frozen statistics, and its folding into the preceding convolution.

use tch::{Kind, Tensor, nn};

use crate::Result;
use crate::model::layers::{Conv, ConvSpec};
use crate::visit_fields;

/// As in torchvision.
const EPSILON: f64 = 1e-5;

/// Batch normalisation with the stored statistics, also in training: the pretrained ones are better than those of
/// a few frames. Weight and bias are trained. Tensor names are those of torchvision.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

visit_fields!(BatchNorm: weight, bias, running_mean, running_var);

impl BatchNorm {
    /// Creates the identity, up to the epsilon.
    pub fn new(path: &nn::Path, channels: i64) -> Result<Self> {
        Ok(Self {
            weight: path.f_ones("weight", &[channels])?,
            bias: path.f_zeros("bias", &[channels])?,
            running_mean: path.f_zeros_no_train("running_mean", &[channels])?,
            running_var: path.f_ones_no_train("running_var", &[channels])?,
        })
    }

    /// Normalises `x` (N, C, H, W) in its own kind; the parameters are used in float32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_batch_norm(
            Some(self.weight.f_to_kind(Kind::Float)?),
            Some(self.bias.f_to_kind(Kind::Float)?),
            Some(self.running_mean.f_to_kind(Kind::Float)?),
            Some(self.running_var.f_to_kind(Kind::Float)?),
            false,
            0.0,
            EPSILON,
            true,
        )?)
    }

    /// Returns the float32 vectors (C) of the equivalent `scale * x + shift`.
    pub fn scale_shift(&self) -> Result<(Tensor, Tensor)> {
        let variance = self.running_var.f_to_kind(Kind::Float)?;
        let scale = self.weight.f_to_kind(Kind::Float)?.f_mul(&variance.f_add_scalar(EPSILON)?.f_rsqrt()?)?;
        let mean = self.running_mean.f_to_kind(Kind::Float)?.f_mul(&scale)?;
        let shift = self.bias.f_to_kind(Kind::Float)?.f_sub(&mean)?;
        Ok((scale, shift))
    }
}

/// Multiplies the output channels of convolution weights (O, I, Kh, Kw) by `scale` (O).
pub(super) fn scale_outputs(weight: &Tensor, scale: &Tensor) -> Result<Tensor> {
    Ok(weight.f_to_kind(Kind::Float)?.f_mul(&scale.f_reshape([-1, 1, 1, 1])?)?)
}

/// Convolution without bias, and batch normalisation of its output.
#[derive(Debug)]
pub struct ConvNorm {
    conv: Conv,
    norm: Option<BatchNorm>,
}

visit_fields!(ConvNorm: conv, norm);

impl ConvNorm {
    /// Creates both. torchvision names them side by side (`conv1`, `bn1`), hence two paths.
    pub fn new(conv: &nn::Path, norm: &nn::Path, spec: ConvSpec) -> Result<Self> {
        Ok(Self {
            conv: Conv::new(conv, spec.without_bias()),
            norm: Some(BatchNorm::new(norm, spec.outputs)?),
        })
    }

    /// Maps (N, C, H, W) to (N, C', H', W').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.conv.forward(x)?;
        match &self.norm {
            Some(norm) => norm.forward(&y),
            None => Ok(y),
        }
    }

    /// Folds both into one convolution with bias. A second call has no effect.
    pub fn fold(&mut self) -> Result<()> {
        if let Some(norm) = self.norm.take() {
            let (scale, shift) = norm.scale_shift()?;
            let weight = scale_outputs(&self.conv.weight, &scale)?;
            let spec = ConvSpec { bias: true, ..*self.conv.spec() };
            self.conv = Conv::from_tensors(weight, Some(shift), spec).named(self.conv.name());
        }
        Ok(())
    }
}
