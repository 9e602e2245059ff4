// SPDX-License-Identifier: MPL-2.0

//! Tensor data as slices, for CPU code that is faster than libtorch's operations.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// Whether `x` is float32 on the CPU and requires no gradient.
pub fn is_float(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float && !x.requires_grad()
}

/// Whether `x` is contiguous float32 on the CPU.
pub fn is_plain(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float && x.is_contiguous()
}

/// Returns the values as contiguous float32.
pub fn plain(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_kind(Kind::Float)?.f_contiguous()?)
}

/// Returns `x` (N, C, H, W) as contiguous float32 (N, H, W, C); no copy if it is stored that way.
pub fn pixels(x: &Tensor) -> Result<Tensor> {
    plain(&x.f_permute([0, 2, 3, 1])?)
}

/// Returns the items of `x` (N, …) that are stored: one, if all objects share it.
pub fn stored_items(x: &Tensor) -> Result<Tensor> {
    Ok(if x.stride()[0] == 0 { x.f_narrow(0, 0, 1)? } else { x.shallow_clone() })
}

/// Returns the values of a plain tensor; panics on others.
pub fn floats(x: &Tensor) -> &[f32] {
    assert!(is_plain(x), "float32 on the CPU, contiguous");
    if x.numel() == 0 {
        // Its pointer may be null.
        return &[];
    }
    // SAFETY: the tensor is `numel` contiguous floats, in memory that it keeps alive while borrowed.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), x.numel()) }
}

/// A tensor without other handles on its memory, so that its values may be written in place.
#[derive(Debug)]
pub struct Unshared(Tensor);

impl Unshared {
    /// Returns an uninitialised contiguous float32 tensor on the CPU.
    pub fn empty(size: &[i64]) -> Result<Self> {
        Ok(Self(Tensor::f_empty(size, (Kind::Float, Device::Cpu))?))
    }

    /// Returns the values of a plain tensor; panics on others.
    pub fn floats(&self) -> &[f32] {
        floats(&self.0)
    }

    /// Returns the values of a plain tensor; panics on others.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        assert!(is_plain(&self.0), "float32 on the CPU, contiguous");
        if self.0.numel() == 0 {
            return &mut [];
        }
        // SAFETY: the tensor is `numel` contiguous floats, in memory that it keeps alive while borrowed, and there
        // is no other handle on that memory.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast(), self.0.numel()) }
    }

    /// Returns the tensor, which may be shared from now on.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_written_in_place_are_in_the_tensor() {
        let mut values = Unshared::empty(&[2, 1, 3]).unwrap();
        values.floats_mut().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(floats(&values.into_tensor()), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let mut empty = Unshared::empty(&[0, 3]).unwrap();
        assert!(empty.floats_mut().is_empty() && empty.floats().is_empty());
    }
}
