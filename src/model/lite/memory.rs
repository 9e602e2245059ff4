//! What is remembered of a frame whose mask is known: keys to be matched against, values to be read.

use std::collections::VecDeque;

use tch::{Kind, Tensor};

use super::super::layers::average_pool;
use super::matching::{Features, Matching};
use crate::{Result, visit_fields};

/// Reference, and predicted frames after it, as tokens. Tokens of several frames are concatenated.
#[derive(Debug)]
pub struct Tokens {
    /// Stride 16, all positions: keys (N, key, n), values (N, value + 16, n), mask (N, 1, n).
    pub key16: Tensor,
    /// What is read there: value and sub-mask.
    pub value16: Tensor,
    /// How much of each position is object.
    pub mask16: Tensor,
    /// Stride 8, selected positions: keys (N, key, m), values (N, 4, m), mask (N, m).
    pub key8: Tensor,
    /// The 2x2 sub-mask.
    pub value8: Tensor,
    /// How much of each position is object.
    pub mask8: Tensor,
}

visit_fields!(Tokens: key16, value16, mask16, key8, value8, mask8);

/// Which stride-8 positions to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The same ones every time.
    Fixed,
    /// Drawn anew each time, for training.
    Random,
}

impl Tokens {
    /// `features` of the frame (batch 1 or N), `mask` its soft mask (N, 1, H, W).
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
        let sub16 = mask4.f_pixel_unshuffle(4)?.f_to_kind(kind)?;
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
        let value8 = take(&mask4.f_pixel_unshuffle(2)?)?.f_to_kind(kind)?;
        let mask8 = mask8.f_flatten(1, 3)?.f_gather(1, &chosen, false)?.f_to_kind(kind)?;

        let key16 = features.key16.f_expand([n, -1, -1], false)?;
        Ok(Self { key16, value16, mask16, key8, value8, mask8 })
    }

    /// The tokens of all the frames together.
    pub fn concatenate(frames: &[&Tokens]) -> Result<Self> {
        let cat = |field: fn(&Tokens) -> &Tensor| -> Result<Tensor> {
            let parts: Vec<&Tensor> = frames.iter().map(|tokens| field(tokens)).collect();
            Ok(Tensor::f_cat(&parts, -1)?)
        };
        Ok(Self {
            key16: cat(|tokens| &tokens.key16)?,
            value16: cat(|tokens| &tokens.value16)?,
            mask16: cat(|tokens| &tokens.mask16)?,
            key8: cat(|tokens| &tokens.key8)?,
            value8: cat(|tokens| &tokens.value8)?,
            mask8: cat(|tokens| &tokens.mask8)?,
        })
    }

    /// These tokens with those of `other` at stride 16 only, where there are few: enough to know what is to be
    /// seen there.
    pub fn with_coarse(&self, other: &Self) -> Result<Self> {
        let join = |a: &Tensor, b: &Tensor| -> Result<Tensor> { Ok(Tensor::f_cat(&[a, b], -1)?) };
        Ok(Self {
            key16: join(&self.key16, &other.key16)?,
            value16: join(&self.value16, &other.value16)?,
            mask16: join(&self.mask16, &other.mask16)?,
            ..self.shallow_clone()
        })
    }

    /// Whether they are of as many positions.
    pub fn is_as_long_as(&self, other: &Self) -> bool {
        let length = |tokens: &Self| (tokens.mask16.size()[2], tokens.mask8.size()[1]);
        length(self) == length(other)
    }

    /// These tokens for the objects that are `seen` (N, 1, 1, 1), those of `other` for the rest.
    pub fn where_seen(&self, seen: &Tensor, other: &Self) -> Result<Self> {
        let n = seen.size()[0];
        let pick = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let shape: Vec<i64> = (0..x.dim()).map(|axis| if axis == 0 { n } else { 1 }).collect();
            Ok(x.f_where_self(&seen.f_reshape(&shape)?, y)?)
        };
        Ok(Self {
            key16: pick(&self.key16, &other.key16)?,
            value16: pick(&self.value16, &other.value16)?,
            mask16: pick(&self.mask16, &other.mask16)?,
            key8: pick(&self.key8, &other.key8)?,
            value8: pick(&self.value8, &other.value8)?,
            mask8: pick(&self.mask8, &other.mask8)?,
        })
    }

    /// Whether both are handles on the same tensors.
    pub fn is(&self, other: &Self) -> bool {
        let same = |a: &Tensor, b: &Tensor| a.data_ptr() == b.data_ptr() && a.size() == b.size();
        same(&self.key16, &other.key16)
            && same(&self.value16, &other.value16)
            && same(&self.mask16, &other.mask16)
            && same(&self.key8, &other.key8)
            && same(&self.value8, &other.value8)
            && same(&self.mask8, &other.mask8)
    }

    /// Another handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self {
            key16: self.key16.shallow_clone(),
            value16: self.value16.shallow_clone(),
            mask16: self.mask16.shallow_clone(),
            key8: self.key8.shallow_clone(),
            value8: self.value8.shallow_clone(),
            mask8: self.mask8.shallow_clone(),
        }
    }
}

/// Adds a frame to those remembered, of which the oldest beyond `limit` is forgotten; the tokens of the
/// reference and of all that is remembered then.
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

/// Indices (N, `count`) into the positions of `mask8` (N, 1, h, w): half where the object is, half
/// elsewhere with preference for its surroundings.
fn select(mask8: &Tensor, count: i64, selection: Selection) -> Result<Tensor> {
    tch::no_grad(|| {
        let mask8 = mask8.f_to_kind(Kind::Float)?;
        let inside = mask8.f_flatten(1, 3)?;
        let positions = inside.size()[1];
        let count = count.min(positions);
        let chance = match selection {
            Selection::Random => inside.f_rand_like()?,
            Selection::Fixed => scatter(positions, &inside)?.f_expand_as(&inside)?,
        };
        let near = mask8.f_max_pool2d([9, 9], [1, 1], [4, 4], [1, 1], false)?.f_flatten(1, 3)?;
        let (_, object) = inside.f_add(&chance.f_mul_scalar(0.3)?)?.f_topk(count / 2, 1, true, true)?;
        let (_, around) = near.f_mul_scalar(0.5)?.f_add(&chance)?.f_scatter_value(1, &object, -1.0)?.f_topk(
            count - count / 2,
            1,
            true,
            true,
        )?;
        Ok(Tensor::f_cat(&[object, around], 1)?)
    })
}

/// Evenly spread values in [0, 1), one a position: multiples of the golden ratio without their integers.
fn scatter(positions: i64, like: &Tensor) -> Result<Tensor> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    Ok(Tensor::f_arange(positions, (Kind::Double, like.device()))?
        .f_mul_scalar(GOLDEN)?
        .f_frac()?
        .f_to_kind(Kind::Float)?
        .f_unsqueeze(0)?)
}
