// SPDX-License-Identifier: MPL-2.0

//! Refiner: doubles the resolution of masks near their edges, guided by the picture.
//!
//! Four convolutions at the resolution of the mask, each position of which stands for 2x2 pixels of the doubled mask. They
//! compute what is to be added to the bilinearly doubled mask.

use tch::{Device, Kind, Tensor, nn};

use super::super::config::Config;
use super::super::layers::{Conv, ConvSpec, Visit, double};
use super::super::packed::{Factors, TILE_SIDE, Tiles};
use super::super::shuffle::{shuffle, unshuffle};
use crate::{Result, visit_fields};

/// What the result depends on is in a tile and those next to it.
const _: () = assert!(Refiner::REACH <= TILE_SIDE);

/// Refiner of mattes. It is not recurrent: the tracker continues from masks that are not refined.
#[derive(Debug)]
pub struct Refiner {
    fuse: Conv,
    a: Conv,
    b: Conv,
    head: Conv,
    packed: bool,
}

visit_fields!(Refiner: fuse, a, b, head);

impl Refiner {
    /// Input channels: 2x2 pixels of the doubled mask, then of the guide.
    pub const INPUTS: i64 = 8;
    /// Pixels of the mask around a position on which the result depends.
    pub const REACH: usize = 4;

    /// Creates a trainable refiner, which has no effect yet. The other weights are random.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        let channels = config.channels(config.refiner_channels);
        let conv = |name: &str, inputs: i64, outputs: i64| {
            Conv::new(&(path / name), ConvSpec::square(inputs, outputs, 3))
        };
        let mut head = conv("head", channels, 4);
        tch::no_grad(|| head.visit(&mut |tensor| Ok(tensor.f_zero_().map(drop)?)))?;
        Ok(Self {
            fuse: conv("fuse", Self::INPUTS, channels),
            a: conv("a", channels, channels),
            b: conv("b", channels, channels),
            head,
            packed: false,
        })
    }

    /// Returns the bilinearly doubled mask (N, 1, 2H, 2W) of `masks` (N, 1, H, W), and the input (N, 8, H, W) of
    /// [`forward`](Self::forward). `guide` is the luma of the picture, (N, 1, 2H, 2W). All are in [0, 1], but the input is in
    /// [−1, 1].
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) if the sizes do not match.
    pub fn input(masks: &Tensor, guide: &Tensor) -> Result<(Tensor, Tensor)> {
        let doubled = double(masks)?;
        let input = Tensor::f_cat(&[unshuffle(&doubled, 2)?, unshuffle(guide, 2)?], 1)?;
        Ok((doubled, input.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?))
    }

    /// Returns what is to be added to the 2x2 pixels of the doubled mask at each position, (N, 4, H, W), float32, for an
    /// `input` (N, 8, H, W).
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let y = self.fuse.forward_relu(input)?;
        let y = self.b.forward_relu(&self.a.forward_relu(&y)?)?;
        Ok(self.head.forward(&y)?.f_to_kind(Kind::Float)?)
    }

    /// As [`forward`](Self::forward), for `tiles` of one mask; other positions of the result are undefined. The input is needed
    /// in these tiles and those next to them, and must be zero next to these.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn forward_tiles(&self, input: &Tensor, tiles: &Tiles) -> Result<Tensor> {
        let around = tiles.with_neighbours();
        let y = self.fuse.forward_tiles(input, &around, true)?;
        let y = self.a.forward_tiles(&y, &around, true)?;
        let y = self.b.forward_tiles(&y, &around, true)?;
        Ok(self.head.forward_tiles(&y, tiles, false)?.f_to_kind(Kind::Float)?)
    }

    /// Returns the pixels of [`forward`](Self::forward)'s result in their places, (N, 1, 2H, 2W).
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn in_place(correction: &Tensor) -> Result<Tensor> {
        shuffle(correction, 2)
    }

    /// Returns kind and device of the refiner's input.
    pub fn options(&self) -> (Kind, Device) {
        (self.head.weight.kind(), self.head.weight.device())
    }

    /// Returns whether the weights are packed.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// Packs the weights for faster inference; they must not change afterwards.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) when memory runs out.
    pub fn pack(&mut self, factors: Factors) -> Result<()> {
        let mut convolutions = [&mut self.fuse, &mut self.a, &mut self.b, &mut self.head];
        convolutions.iter_mut().try_for_each(|conv| conv.pack(factors))?;
        // Layers with few inputs are not packed.
        self.packed = convolutions.iter().all(|conv| conv.is_packed());
        Ok(())
    }
}
