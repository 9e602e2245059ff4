// SPDX-License-Identifier: MPL-2.0

//! Memory bank: tokens of frames with a known mask.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use super::super::layers::average_pool;
use super::super::shuffle::unshuffle;
use super::features::Features;
use super::matching::Matching;
pub use super::tokens::Tokens;
use crate::Result;

/// Selection of the stride-8 positions to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Deterministic.
    Fixed,
    /// Random, for training.
    Random,
}

impl Tokens {
    /// Creates the tokens of a frame from its `features` (batch 1 or N) and soft `mask` (N, 1, H, W). `count` is
    /// the maximum number of tokens at stride 8.
    pub fn new(
        matching: &Matching,
        features: &Features,
        mask: &Tensor,
        count: i64,
        selection: Selection,
    ) -> Result<Self> {
        let n = mask.size()[0];
        let kind = features.s16.kind();
        let mask4 = average_pool(mask, 4)?;
        let sub16 = unshuffle(&mask4, 4)?.f_to_kind(kind)?;
        let value16 = Tensor::f_cat(&[matching.value(&features.s16, &sub16)?, sub16], 1)?.f_flatten(2, 3)?;
        let mask16 = average_pool(&mask4, 4)?.f_flatten(2, 3)?.f_to_kind(kind)?;

        let mask8 = average_pool(&mask4, 2)?;
        let chosen = select(&mask8, count, selection)?;
        let take = |x: &Tensor| -> Result<Tensor> {
            let x = x.f_flatten(2, 3)?;
            let channels = x.size()[1];
            let x = x.f_expand([n, channels, -1], false)?;
            Ok(x.f_gather(2, &chosen.f_unsqueeze(1)?.f_expand([-1, channels, -1], false)?, false)?)
        };
        let key8 = take(&features.key8)?;
        let value8 = take(&unshuffle(&mask4, 2)?)?.f_to_kind(kind)?;
        let mask8 = mask8.f_flatten(1, 3)?.f_gather(1, &chosen, false)?.f_to_kind(kind)?;

        let key16 = features.key16.f_expand([n, -1, -1], false)?;
        Ok(Self { key16, value16, mask16, key8, value8, mask8 })
    }
}

/// Adds a frame to the memory bank and drops the oldest beyond `limit`. Returns the tokens of the reference and of
/// the whole memory bank.
pub fn remember(
    reference: &Tokens,
    remembered: &mut VecDeque<Tokens>,
    tokens: Tokens,
    limit: usize,
) -> Result<Tokens> {
    remembered.push_back(tokens);
    if remembered.len() > limit {
        remembered.pop_front();
    }
    let frames: Vec<&Tokens> = std::iter::once(reference).chain(remembered.iter()).collect();
    Tokens::concatenate(&frames)
}

/// Returns indices (N, `count`) of positions of `mask8` (N, 1, h, w): half on the object, half elsewhere with
/// preference for its surroundings.
fn select(mask8: &Tensor, count: i64, selection: Selection) -> Result<Tensor> {
    tch::no_grad(|| {
        let mask8 = mask8.f_to_kind(Kind::Float)?;
        let inside = mask8.f_flatten(1, 3)?;
        let positions = inside.size()[1];
        let count = count.min(positions);
        let jitter = match selection {
            Selection::Random => inside.f_rand_like()?,
            Selection::Fixed => golden_sequence(positions, &inside)?.f_expand_as(&inside)?,
        };
        let near = mask8.f_max_pool2d([9, 9], [1, 1], [4, 4], [1, 1], false)?.f_flatten(1, 3)?;
        let (_, object) = inside.f_add(&jitter.f_mul_scalar(0.3)?)?.f_topk(count / 2, 1, true, true)?;
        let near = near.f_mul_scalar(0.5)?.f_add(&jitter)?.f_scatter_value(1, &object, -1.0)?;
        let (_, around) = near.f_topk(count - count / 2, 1, true, true)?;
        Ok(Tensor::f_cat(&[object, around], 1)?)
    })
}

/// Returns evenly spread values in [0, 1), one per position: the fractional parts of multiples of the golden
/// ratio.
fn golden_sequence(positions: i64, like: &Tensor) -> Result<Tensor> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    Ok(Tensor::f_arange(positions, (Kind::Double, like.device()))?
        .f_mul_scalar(GOLDEN)?
        .f_frac()?
        .f_to_kind(Kind::Float)?
        .f_unsqueeze(0)?)
}
