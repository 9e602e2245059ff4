// SPDX-License-Identifier: MPL-2.0

//! Layers of a critic.

use gstfastganseg::torch::model::layers::{Conv, ConvSpec, Padding};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::Result;

/// Number of convolutions with stride 2.
const HALVINGS: u32 = 6;
/// Channels of the first convolution.
const FIRST_CHANNELS: i64 = 64;

/// Widths of a critic's layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Maximum number of channels of a layer; 2048 gives 44.7 M parameters, 512 gives 11.2 M.
    pub max_channels: i64,
    /// Factor on every channel count; 1 for real critics, less for tests.
    pub width: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { max_channels: 2048, width: 1.0 }
    }
}

impl Shape {
    /// Returns the output channels of each layer except the last.
    fn channels(self) -> impl Iterator<Item = i64> {
        (0..HALVINGS).map(move |i| {
            let full = (FIRST_CHANNELS << i).min(self.max_channels);
            ((full as f64 * self.width).round() as i64).max(1)
        })
    }
}

/// Wasserstein critic: six 4x4 convolutions with stride 2, padding 1 and bias, each followed by a LeakyReLU of
/// slope .01, then a 3x3 convolution without bias to a score map. There is no normalisation: it would couple the
/// samples of a batch, but the gradient penalty needs the gradient of each sample.
#[derive(Debug)]
pub struct Critic {
    layers: Vec<Conv>,
    scores: Conv,
}

impl Critic {
    /// Minimum height and width of the input, pixels.
    pub const MIN_SIDE: i64 = 1 << HALVINGS;

    /// Creates a critic of `inputs` channels with random trainable weights under `path`.
    pub fn new(path: &nn::Path, inputs: i64, shape: Shape) -> Self {
        let mut from = inputs;
        let mut layers = Vec::with_capacity(HALVINGS as usize);
        for (i, to) in shape.channels().enumerate() {
            let halving = ConvSpec { kernel: (4, 4), ..ConvSpec::square(from, to, 1) };
            let halving = halving.stride(2).padding(Padding::Zeros(1, 1));
            layers.push(Conv::new(&(path / format!("conv{}", i + 1)), halving));
            from = to;
        }
        let scores = Conv::new(&(path / "scores"), ConvSpec::square(from, 1, 3).without_bias());
        Self { layers, scores }
    }

    /// Returns the score map (N, 1, H/64, W/64) of masked pictures (N, C, H, W) in [-1, 1], float32. Real pictures
    /// have higher scores.
    pub fn map(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.shallow_clone();
        for layer in &self.layers {
            x = layer.forward(&x)?.f_leaky_relu()?;
        }
        Ok(self.scores.forward(&x)?)
    }

    /// Returns the mean of each sample's score map, (N).
    pub fn score(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.map(x)?.f_mean_dim([1i64, 2, 3].as_slice(), false, None::<Kind>)?)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn parameters(inputs: i64, shape: Shape) -> usize {
        let store = nn::VarStore::new(Device::Cpu);
        gstfastganseg::torch::model::zero_init(|| Critic::new(&store.root(), inputs, shape));
        store.variables().values().map(Tensor::numel).sum()
    }

    #[test]
    fn parameter_counts_are_those_of_the_layers() {
        assert_eq!(parameters(3, Shape::default()), 44_721_088);
        assert_eq!(parameters(12, Shape::default()), 44_721_088 + 9 * 16 * 64);
        assert_eq!(parameters(3, Shape { max_channels: 512, width: 1.0 }), 11_150_784);
    }

    #[test]
    fn all_layers_but_the_last_have_a_bias() {
        let store = nn::VarStore::new(Device::Cpu);
        let critic = Critic::new(&store.root(), 3, Shape { max_channels: 2048, width: 1.0 / 64.0 });
        let widths: Vec<i64> = critic.layers.iter().map(|layer| layer.spec().outputs).collect();
        assert_eq!(widths, [1, 2, 4, 8, 16, 32]);
        assert!(critic.layers.iter().all(|layer| layer.bias.is_some()));
        assert!(critic.scores.bias.is_none());
    }

    #[test]
    fn score_maps_have_a_64th_of_the_input_size() {
        let store = nn::VarStore::new(Device::Cpu);
        let critic = Critic::new(&store.root(), 6, Shape { max_channels: 64, width: 0.1 });
        let map = |height, width| {
            critic.map(&Tensor::zeros([2, 6, height, width], (Kind::Float, Device::Cpu))).unwrap().size()
        };
        assert_eq!(map(64, 64), [2, 1, 1, 1]);
        assert_eq!(map(128, 224), [2, 1, 2, 3]);
        assert_eq!(map(192, 512), [2, 1, 3, 8]);
        assert!(critic.map(&Tensor::zeros([1, 6, 32, 64], (Kind::Float, Device::Cpu))).is_err());
    }

    /// With unit weights, the ratio of the scores of an input and its negative is the product of the slopes.
    #[test]
    fn negative_slopes_are_one_hundredth() {
        let store = nn::VarStore::new(Device::Cpu);
        let critic = Critic::new(&store.root(), 1, Shape { max_channels: 1, width: 1.0 });
        tch::no_grad(|| {
            for (name, mut variable) in store.variables() {
                // The first layer inverts the sign, the others keep it.
                let value = match name.as_str() {
                    "conv1.weight" => -1.0,
                    name if name.ends_with("bias") => 0.0,
                    _ => 1.0,
                };
                let _ = variable.fill_(value);
            }
        });
        let x = Tensor::zeros([1, 1, 64, 64], (Kind::Float, Device::Cpu));
        let _ = x.narrow(2, 31, 1).narrow(3, 31, 1).fill_(1.0);
        let map = critic.map(&x).unwrap().double_value(&[0, 0, 0, 0]);
        assert!(map < 0.0, "{map}");
        let positive = critic.map(&(-&x)).unwrap().double_value(&[0, 0, 0, 0]);
        assert!((positive / -map - 1e12).abs() < 1e7, "{positive} and {map}: six slopes");
    }
}
