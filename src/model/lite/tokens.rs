// SPDX-License-Identifier: MPL-2.0

//! Memory tokens: keys for matching, values for reading.

use tch::{Kind, Tensor};

use crate::model::{ShallowClone, shallow_clone};
use crate::{Result, visit_fields};

/// Tokens of the reference and of predicted frames. Tokens of several frames are concatenated.
#[derive(Debug)]
pub struct Tokens {
    /// Keys at stride 16, all positions, (N, key, n).
    pub key16: Tensor,
    /// Values at stride 16 with the 4x4 sub-mask, (N, value + 16, n).
    pub value16: Tensor,
    /// Object fraction of each position at stride 16, (N, 1, n).
    pub mask16: Tensor,
    /// Keys at stride 8, selected positions, (N, key, m).
    pub key8: Tensor,
    /// Values at stride 8: the 2x2 sub-mask, (N, 4, m).
    pub value8: Tensor,
    /// Object fraction of each position at stride 8, (N, m).
    pub mask8: Tensor,
}

visit_fields!(Tokens: key16, value16, mask16, key8, value8, mask8);
shallow_clone!(Tokens: key16, value16, mask16, key8, value8, mask8);

impl Tokens {
    fn fields(&self) -> [&Tensor; 6] {
        [&self.key16, &self.value16, &self.mask16, &self.key8, &self.value8, &self.mask8]
    }

    /// Applies `f` to each field of all items of `tokens`.
    ///
    /// # Errors
    /// That of `f`.
    pub fn combine(tokens: &[&Self], f: impl Fn(&[&Tensor]) -> Result<Tensor>) -> Result<Self> {
        let fields: Vec<[&Tensor; 6]> = tokens.iter().map(|tokens| tokens.fields()).collect();
        let field = |index: usize| f(&fields.iter().map(|fields| fields[index]).collect::<Vec<_>>());
        Ok(Self {
            key16: field(0)?,
            value16: field(1)?,
            mask16: field(2)?,
            key8: field(3)?,
            value8: field(4)?,
            mask8: field(5)?,
        })
    }

    /// Concatenates the tokens of several frames.
    pub fn concatenate(frames: &[&Self]) -> Result<Self> {
        Self::combine(frames, |parts| Ok(Tensor::f_cat(parts, -1)?))
    }

    /// Appends the stride-16 tokens of `other`. They are few, and enough to match its content.
    pub fn with_coarse(&self, other: &Self) -> Result<Self> {
        let join = |a: &Tensor, b: &Tensor| -> Result<Tensor> { Ok(Tensor::f_cat(&[a, b], -1)?) };
        Ok(Self {
            key16: join(&self.key16, &other.key16)?,
            value16: join(&self.value16, &other.value16)?,
            mask16: join(&self.mask16, &other.mask16)?,
            ..self.shallow_clone()
        })
    }

    /// Returns as many tokens as those of `other`: some of these, or some of them repeatedly, at even intervals.
    pub fn resampled_to_length_of(&self, other: &Self) -> Result<Self> {
        Self::combine(&[self, other], |pair| {
            let length = |x: &Tensor| x.size()[x.dim() - 1];
            let (own, wanted) = (length(pair[0]), length(pair[1]));
            if own == wanted {
                return Ok(pair[0].shallow_clone());
            }
            let index = Tensor::f_arange(wanted, (Kind::Int64, pair[0].device()))?;
            let index = index.f_mul_scalar(own)?.f_floor_divide_scalar(wanted)?;
            Ok(pair[0].f_index_select(-1, &index)?)
        })
    }

    /// Returns these tokens for the objects that are `present` (N, 1, 1, 1), and those of `other` for the rest.
    pub fn where_present(&self, present: &Tensor, other: &Self) -> Result<Self> {
        let n = present.size()[0];
        Self::combine(&[self, other], |pair| {
            let shape: Vec<i64> = (0..pair[0].dim()).map(|axis| if axis == 0 { n } else { 1 }).collect();
            Ok(pair[0].f_where_self(&present.f_reshape(&shape)?, pair[1])?)
        })
    }

    /// Whether both are handles on the same tensors.
    pub fn is(&self, other: &Self) -> bool {
        let same = |a: &Tensor, b: &Tensor| a.data_ptr() == b.data_ptr() && a.size() == b.size();
        self.fields().into_iter().zip(other.fields()).all(|(a, b)| same(a, b))
    }
}
