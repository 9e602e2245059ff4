// SPDX-License-Identifier: MPL-2.0

//! Refine blocks: bring the matching result to higher resolution along the skip connections of the encoder.

use tch::{Tensor, nn};

use crate::Result;
use crate::model::layers::{Conv, ConvSpec, double};
use crate::visit_fields;

/// Residual unit x + conv2(relu(conv1(relu x))), 3x3.
#[derive(Debug)]
pub struct Residual {
    conv1: Conv,
    conv2: Conv,
}

visit_fields!(Residual: conv1, conv2);

impl Residual {
    /// Creates the two convolutions `names` under `path`. `extra` additional channels enter the first.
    pub fn new(path: &nn::Path, names: [&str; 2], channels: i64, extra: i64) -> Self {
        let conv = |name: &str, inputs| Conv::new(&(path / name), ConvSpec::square(inputs, channels, 3));
        Self { conv1: conv(names[0], channels + extra), conv2: conv(names[1], channels) }
    }

    /// Maps `x` (N, C, H, W) to the same shape; `extra` (N, C', H, W) enters the first convolution only.
    pub fn forward(&self, x: &Tensor, extra: Option<&Tensor>) -> Result<Tensor> {
        let inner = match extra {
            Some(extra) => Tensor::f_cat(&[x, extra], 1)?.f_relu_()?,
            None => x.f_relu()?,
        };
        let inner = self.conv1.forward(&inner)?.f_relu_()?;
        Ok(self.conv2.forward(&inner)?.f_add_(x)?)
    }
}

/// Refine block: s = f1(skip); s += f3(relu(f2(relu s))); m = s + up2(previous);
/// m += g2(relu(g1(relu m))).
#[derive(Debug)]
pub struct Refine {
    f1: Conv,
    skip: Residual,
    merge: Residual,
}

visit_fields!(Refine: f1, skip, merge);

impl Refine {
    /// Creates a block for `skips` channels from the encoder. `extra` additional channels, those of the temporal
    /// skip, enter g1.
    pub fn new(path: &nn::Path, skips: i64, channels: i64, extra: i64) -> Self {
        Self {
            f1: Conv::new(&(path / "f1"), ConvSpec::square(skips, channels, 3)),
            skip: Residual::new(path, ["f2", "f3"], channels, 0),
            merge: Residual::new(path, ["g1", "g2"], channels, extra),
        }
    }

    /// Merges `skip` (N, C, 2H, 2W) from the encoder with `previous` (N, 256, H, W) from the preceding block to
    /// (N, 256, 2H, 2W).
    pub fn forward(&self, skip: &Tensor, previous: &Tensor, extra: Option<&Tensor>) -> Result<Tensor> {
        let mut merged = self.skip.forward(&self.f1.forward(skip)?, None)?;
        let merged = merged.f_add_(&double(previous)?)?;
        self.merge.forward(&merged, extra)
    }
}
