// SPDX-License-Identifier: MPL-2.0

//! Features of a frame, and what is computed from them.

use tch::Tensor;

use super::super::layers::{RelativeRect, channels_last, resample_part};
use super::super::meter;
use crate::Result;
use crate::model::{ShallowClone, shallow_clone};

/// Numbers of blocks of MobileNetV2 up to the features at strides 2, 4, 8 and 16. The expansion of the block after those of
/// stride 8 is a feature as well.
pub const FEATURE_BLOCKS: [usize; 4] = [1, 3, 6, 13];

/// Encoder features; blocks are those of MobileNetV2. In `large`, the features at strides 8 and 16 are those of a
/// ResNet-50 after its second and third stage.
#[derive(Debug)]
pub struct EncoderFeatures {
    /// Block 1, stride 2.
    pub s2: Tensor,
    /// Block 3, stride 4.
    pub s4: Tensor,
    /// Block 6, stride 8.
    pub s8: Tensor,
    /// Expansion of block 7, stride 8: six times as many channels; of ResNet-50 the same as `s8`.
    pub s8_expanded: Tensor,
    /// Block 13, stride 16.
    pub s16: Tensor,
}

/// Encoded frame: encoder features for the decoder, and normalised keys.
#[derive(Debug)]
pub struct Features {
    /// Encoder features at stride 2.
    pub s2: Tensor,
    /// Encoder features at stride 4.
    pub s4: Tensor,
    /// Encoder features at stride 8.
    pub s8: Tensor,
    /// Encoder features at stride 16.
    pub s16: Tensor,
    /// Keys (N, key, positions at stride 16), unit length.
    pub key16: Tensor,
    /// Keys (N, key, H/8, W/8), unit length.
    pub key8: Tensor,
    /// The image as 2x2 sub-images, (N, 12, H/2, W/2); only for a decoder with an edge stage.
    pub detail: Option<Tensor>,
}

shallow_clone!(Features: s2, s4, s8, s16, key16, key8, detail);

impl Features {
    /// Returns the same features for `n` objects, without a copy.
    pub fn expand(&self, n: i64) -> Result<Self> {
        self.map(|x| expand(x, n))
    }

    /// Returns items `start .. start + length` of the batch, without a copy.
    pub fn narrow(&self, start: i64, length: i64) -> Result<Self> {
        self.map(|x| Ok(x.f_narrow(0, start, length)?))
    }

    /// Applies `f` to every tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            s2: f(&self.s2)?,
            s4: f(&self.s4)?,
            s8: f(&self.s8)?,
            s16: f(&self.s16)?,
            key16: f(&self.key16)?,
            key8: f(&self.key8)?,
            detail: self.detail.as_ref().map(f).transpose()?,
        })
    }

    /// Resamples the features that the next frame is matched with to a part of the frame, (height, width) in
    /// pixels. The interpolated features approximate the encoder's output for that part. The other features are
    /// unchanged.
    pub fn part(&self, part: RelativeRect, (height, width): (i64, i64)) -> Result<Self> {
        let (h, w) = (self.s16.size()[2], self.s16.size()[3]);
        let key16 = self.key16.f_reshape([self.key16.size()[0], -1, h, w])?;
        // In the layout of the encoder's output, so that one CUDA graph serves both.
        let resample = |x: &Tensor, stride: i64| {
            channels_last(&resample_part(x, part, (height / stride, width / stride), false)?)
        };
        Ok(Self {
            s16: resample(&self.s16, 16)?,
            key16: unit_length(&resample(&key16, 16)?)?.f_flatten(2, 3)?,
            key8: unit_length(&resample(&self.key8, 8)?)?,
            ..self.shallow_clone()
        })
    }
}

pub(super) fn unit_length(x: &Tensor) -> Result<Tensor> {
    let length = x.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(1e-12)?;
    Ok(x.f_div(&length)?)
}

pub(super) fn expand(x: &Tensor, n: i64) -> Result<Tensor> {
    let mut size = x.size();
    size[0] = n;
    Ok(x.f_expand(size, false)?)
}

pub(super) fn product(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    meter::product("matching.products", x, y)
}
