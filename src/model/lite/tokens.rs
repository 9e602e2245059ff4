// SPDX-License-Identifier: MPL-2.0

//! Memory tokens: keys for matching, values for reading.

use tch::Tensor;

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

impl Tokens {
    /// Concatenates the tokens of several frames.
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

    /// Whether both have the same number of tokens.
    pub fn same_length(&self, other: &Self) -> bool {
        let length = |tokens: &Self| (tokens.mask16.size()[2], tokens.mask8.size()[1]);
        length(self) == length(other)
    }

    /// Returns these tokens for the objects that are `present` (N, 1, 1, 1), and those of `other` for the rest.
    pub fn where_present(&self, present: &Tensor, other: &Self) -> Result<Self> {
        let n = present.size()[0];
        let pick = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let shape: Vec<i64> = (0..x.dim()).map(|axis| if axis == 0 { n } else { 1 }).collect();
            Ok(x.f_where_self(&present.f_reshape(&shape)?, y)?)
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

    /// Returns another handle on the same tensors.
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
