// SPDX-License-Identifier: MPL-2.0

//! End of the decoder: the temporal skip connection and the two-class head.

use tch::{Kind, Tensor, nn};

use crate::Result;
use crate::model::layers::{Conv, ConvSpec, resize};
use crate::visit_fields;

/// Temporal skip connection: a 3x3 convolution of the previous frame's decoder features to one eighth of their
/// channels. It runs in the frame that computes the features, so that the state keeps only an eighth of them.
#[derive(Debug)]
pub struct Temporal {
    conv: Conv,
}

visit_fields!(Temporal: conv);

impl Temporal {
    pub fn new(path: &nn::Path, channels: i64, outputs: i64) -> Self {
        Self { conv: Conv::new(path, ConvSpec::square(channels, outputs, 3)) }
    }

    /// Maps (N, 256, H/4, W/4) to (N, 32, H/4, W/4), float32 in any compute kind.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.conv.forward(features)?.f_to_kind(Kind::Float)?)
    }

    /// Returns the output for features of zeros, which precede the first frame.
    pub fn zeros(&self, batch: i64, height: i64, width: i64) -> Result<Tensor> {
        let size = [batch, self.conv.spec().outputs, height, width];
        let column = match &self.conv.bias {
            Some(bias) => bias.f_to_kind(Kind::Float)?.f_reshape([1, -1, 1, 1])?,
            None => Tensor::f_zeros([1, 1, 1, 1], (Kind::Float, self.conv.weight.device()))?,
        };
        Ok(column.f_expand(size, false)?)
    }
}

/// 3x3 convolution to two classes, background and object, then upsampling by four. A softmax over two classes is
/// the sigmoid of their difference; the difference is taken before resizing and, after folding, in the weights.
#[derive(Debug)]
pub struct Head {
    conv: Conv,
}

visit_fields!(Head: conv);

impl Head {
    pub fn new(path: &nn::Path, channels: i64) -> Self {
        Self { conv: Conv::new(path, ConvSpec::square(channels, 2, 3)) }
    }

    /// Maps (N, C, H/4, W/4) to logits (N, 1, H, W), float32: sigmoid(logit) is the softmax's channel 1.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let classes = self.conv.forward(features)?.f_to_kind(Kind::Float)?;
        let logit =
            if self.conv.spec().outputs == 2 { object_minus_background(&classes, 1)? } else { classes };
        let size = logit.size();
        resize(&logit, 4 * size[2], 4 * size[3])
    }

    /// Reduces the convolution to one output channel, the difference of the two.
    pub fn fold(&mut self) -> Result<()> {
        if self.conv.spec().outputs == 2 {
            let weight = object_minus_background(&self.conv.weight.f_to_kind(Kind::Float)?, 0)?;
            let bias =
                self.conv.bias.as_ref().map(|bias| object_minus_background(&bias.f_to_kind(Kind::Float)?, 0));
            let bias = bias.transpose()?;
            let spec = ConvSpec { outputs: 1, ..*self.conv.spec() };
            self.conv = Conv::from_tensors(weight, bias, spec).named(self.conv.name());
        }
        Ok(())
    }
}

fn object_minus_background(x: &Tensor, dim: i64) -> Result<Tensor> {
    Ok(x.f_narrow(dim, 1, 1)?.f_sub(&x.f_narrow(dim, 0, 1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    #[test]
    fn sigmoid_of_the_logit_is_the_softmax_of_the_two_classes() {
        tch::manual_seed(5);
        let _guard = tch::no_grad_guard();
        let store = VarStore::new(Device::Cpu);
        let mut head = Head::new(&store.root(), 6);
        let x = Tensor::randn([2, 6, 4, 7], (Kind::Float, Device::Cpu));
        let classes = head.conv.forward(&x).unwrap();
        let expected = resize(&classes, 16, 28).unwrap().softmax(1, Kind::Float).narrow(1, 1, 1);
        for _ in 0..2 {
            let found = head.forward(&x).unwrap();
            assert_eq!(found.size(), [2, 1, 16, 28]);
            let difference = (found.sigmoid() - &expected).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{difference}");
            head.fold().unwrap();
        }
    }

    #[test]
    fn initial_temporal_skip_equals_that_of_zeros() {
        tch::manual_seed(6);
        let _guard = tch::no_grad_guard();
        let store = VarStore::new(Device::Cpu);
        let temporal = Temporal::new(&store.root(), 16, 2);
        let zeros = Tensor::zeros([3, 16, 5, 4], (Kind::Float, Device::Cpu));
        let expected = temporal.forward(&zeros).unwrap();
        assert!(temporal.zeros(3, 5, 4).unwrap().equal(&expected));
    }
}
