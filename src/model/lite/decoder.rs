// SPDX-License-Identifier: MPL-2.0

//! Decoder: slim refine blocks from stride 16 to stride 2, with the paper's temporal skip at stride 4, and an optional
//! stage at full resolution.

use tch::{Kind, Tensor, nn};

use super::super::config::{Config, TemporalSkip};
use super::super::layers::{Conv, ConvSpec, Visit, double};
use super::super::packed::{self, Factors};
use super::super::shuffle::shuffle;
use super::backbone::Channels;
use super::matching::Matching;
use super::upsample_concat::{concat, upsample_concat};
use crate::{Result, visit_fields};

/// Channels of the temporal skip.
const SKIP_CHANNELS: i64 = 8;

/// Objects that packed layers decode together. The features of more do not fit in the cache.
const OBJECTS_AT_ONCE: i64 = 2;

/// Decoder from encoder features and readouts to the mask.
#[derive(Debug)]
pub struct Decoder {
    fuse16: Conv,
    residual16a: Conv,
    residual16b: Conv,
    up8: Conv,
    fuse8: Conv,
    residual8: Conv,
    up4: Conv,
    temporal_skip: Option<Conv>,
    fuse4: Conv,
    residual4: Conv,
    up2: Conv,
    fuse2: Conv,
    head: Conv,
    edge: Option<EdgeStage>,
    skip_channels: i64,
    packed: bool,
}

visit_fields!(Decoder:
    fuse16, residual16a, residual16b, up8, fuse8, residual8, up4, temporal_skip, fuse4, residual4,
    up2, fuse2, head, edge);

/// Stage at the input's full resolution: a correction of the logits from the picture and the features at stride 2. It
/// computes four sub-pixels at each position of stride 2.
#[derive(Debug)]
struct EdgeStage {
    fuse: Conv,
    residual: Option<Conv>,
    head: Conv,
}

visit_fields!(EdgeStage: fuse, residual, head);

impl EdgeStage {
    /// The correction and the residual start at zero.
    fn new(path: &nn::Path, inputs: i64, channels: i64, has_residual: bool) -> Result<Self> {
        let fuse = Conv::new(&(path / "fuse"), ConvSpec::square(inputs + 12, channels, 3));
        let zero = |name: &str, outputs: i64| -> Result<Conv> {
            let mut conv = Conv::new(&(path / name), ConvSpec::square(channels, outputs, 3));
            tch::no_grad(|| conv.visit(&mut |tensor| Ok(tensor.f_zero_().map(drop)?)))?;
            Ok(conv)
        };
        let residual = has_residual.then(|| zero("residual", channels)).transpose()?;
        Ok(Self { fuse, residual, head: zero("head", 4)? })
    }

    /// Returns the correction (N, 1, H, W), float32.
    fn forward(&self, features: &Tensor, detail: &Tensor) -> Result<Tensor> {
        let mut y = self.fuse.forward_relu(&concat(&[features, detail])?)?;
        if let Some(residual) = &self.residual {
            y = residual.forward_added(&y, &y, true)?;
        }
        shuffle(&self.head.forward(&y)?.f_to_kind(Kind::Float)?, 2)
    }
}

/// Decoder inputs of one frame, (N, …, H/s, W/s) at stride s: features of the encoder, readouts of the matching, and the
/// previous mask with one channel, or as sub-masks of 2x2 or 4x4.
pub struct Inputs<'a> {
    /// The image as 2x2 sub-images, (N, 12, H/2, W/2), for the edge stage.
    pub detail: Option<&'a Tensor>,
    pub s2: &'a Tensor,
    pub s4: &'a Tensor,
    pub s8: &'a Tensor,
    pub s16: &'a Tensor,
    pub mask4: &'a Tensor,
    pub sub8: &'a Tensor,
    pub sub16: &'a Tensor,
    pub read8: &'a Tensor,
    pub read16: &'a Tensor,
    /// Decoder features of the previous frame at stride 4; absent at the start.
    pub skip: Option<&'a Tensor>,
}

impl Decoder {
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self> {
        let from = Channels::new(config);
        let (d16, d8, d4, d2) =
            (config.channels(96), config.channels(64), config.channels(32), config.channels(16));
        let conv = |name: &str, inputs: i64, outputs: i64, side: i64| {
            Conv::new(&(path / name), ConvSpec::square(inputs, outputs, side))
        };
        let skip = match config.temporal_skip {
            TemporalSkip::Off => 0,
            _ => SKIP_CHANNELS,
        };
        Ok(Self {
            fuse16: conv("fuse16", from.s16 + 16 + Matching::channels16(config), d16, 3),
            residual16a: conv("residual16a", d16, d16, 3),
            residual16b: conv("residual16b", d16, d16, 3),
            up8: conv("up8", d16, d8, 1),
            fuse8: conv("fuse8", d8 + from.s8 + 4 + Matching::CHANNELS8, d8, 3),
            residual8: conv("residual8", d8, d8, 3),
            up4: conv("up4", d8, d4, 1),
            temporal_skip: (skip > 0).then(|| conv("temporal_skip", d4, skip, 3)),
            fuse4: conv("fuse4", d4 + from.s4 + 1 + skip, d4, 3),
            residual4: conv("residual4", d4, d4, 3),
            up2: conv("up2", d4, d2, 1),
            fuse2: conv("fuse2", d2 + from.s2, d2, 3),
            head: conv("head", d2, 1, 3),
            edge: match config.edge_channels {
                0 => None,
                channels => {
                    let channels = config.channels(channels);
                    Some(EdgeStage::new(&(path / "edge"), d2, channels, config.edge_residual)?)
                }
            },
            skip_channels: d4,
            packed: false,
        })
    }

    /// Packs the weights for faster inference; they must not change afterwards.
    pub fn pack(&mut self, factors: Factors) -> Result<()> {
        self.packed = packed::fits(&self.head.weight);
        let convolutions = [
            &mut self.fuse16,
            &mut self.residual16a,
            &mut self.residual16b,
            &mut self.up8,
            &mut self.fuse8,
            &mut self.residual8,
            &mut self.up4,
            &mut self.fuse4,
            &mut self.residual4,
            &mut self.up2,
            &mut self.fuse2,
            &mut self.head,
        ];
        let optional = self.temporal_skip.iter_mut();
        let edge = self.edge.iter_mut().flat_map(|edge| {
            let ends = [&mut edge.fuse, &mut edge.head];
            ends.into_iter().chain(&mut edge.residual)
        });
        convolutions.into_iter().chain(optional).chain(edge).try_for_each(|conv| conv.pack(factors))
    }

    pub fn kind(&self) -> Kind {
        self.head.weight.kind()
    }

    pub fn is_packed(&self) -> bool {
        self.packed
    }

    pub fn has_edge_stage(&self) -> bool {
        self.edge.is_some()
    }

    /// Returns logits (N, 1, H, W) in float32 and the stride-4 features (N, 32, H/4, W/4) for the next frame.
    pub fn forward(&self, inputs: &Inputs) -> Result<(Tensor, Tensor)> {
        let n = inputs.mask4.size()[0];
        if !self.packed || n <= OBJECTS_AT_ONCE {
            return self.decode(inputs);
        }
        let (mut logits, mut features) = (Vec::new(), Vec::new());
        for first in (0..n).step_by(OBJECTS_AT_ONCE as usize) {
            let part = |x: &Tensor| x.f_narrow(0, first, OBJECTS_AT_ONCE.min(n - first));
            let decoded = self.decode(&Inputs {
                detail: inputs.detail.map(part).transpose()?.as_ref(),
                s2: &part(inputs.s2)?,
                s4: &part(inputs.s4)?,
                s8: &part(inputs.s8)?,
                s16: &part(inputs.s16)?,
                mask4: &part(inputs.mask4)?,
                sub8: &part(inputs.sub8)?,
                sub16: &part(inputs.sub16)?,
                read8: &part(inputs.read8)?,
                read16: &part(inputs.read16)?,
                skip: inputs.skip.map(part).transpose()?.as_ref(),
            })?;
            logits.push(decoded.0);
            features.push(decoded.1);
        }
        Ok((Tensor::f_cat(&logits, 0)?, Tensor::f_cat(&features, 0)?))
    }

    fn decode(&self, inputs: &Inputs) -> Result<(Tensor, Tensor)> {
        let y = self.fuse16.forward_relu(&concat(&[inputs.s16, inputs.sub16, inputs.read16])?)?;
        let y = self.residual16b.forward_added(&self.residual16a.forward_relu(&y)?, &y, false)?;

        let y = upsample_concat(&self.up8.forward(&y)?, &[inputs.s8, inputs.sub8, inputs.read8])?;
        let y = self.fuse8.forward_relu(&y)?;
        let y = self.residual8.forward_added(&y, &y, true)?;

        let up = self.up4.forward(&y)?;
        let y = match &self.temporal_skip {
            Some(conv) => {
                let skip = match inputs.skip {
                    Some(skip) => skip.f_to_kind(up.kind())?,
                    None => {
                        let (n, _, h, w) = up.size4()?;
                        let size = [n, self.skip_channels, 2 * h, 2 * w];
                        Tensor::f_zeros(size, (up.kind(), up.device()))?
                    }
                };
                let skip = conv.forward(&skip.f_relu()?)?;
                upsample_concat(&up, &[inputs.s4, inputs.mask4, &skip])?
            }
            None => upsample_concat(&up, &[inputs.s4, inputs.mask4])?,
        };
        let y = self.fuse4.forward_relu(&y)?;
        let features = self.residual4.forward_added(&y, &y, false)?;

        let y = upsample_concat(&self.up2.forward(&features.f_relu()?)?, &[inputs.s2])?;
        let y = self.fuse2.forward_relu(&y)?;
        let mut logits = double(&self.head.forward(&y)?.f_to_kind(Kind::Float)?)?;
        if let (Some(edge), Some(detail)) = (&self.edge, inputs.detail) {
            logits = logits.f_add(&edge.forward(&y, detail)?)?;
        }
        Ok((logits, features.f_to_kind(Kind::Float)?))
    }
}
