//! Tensors as slices, for what is quicker by hand on the CPU.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// Whether it is float32 on the CPU, and nothing is to be learnt from it.
pub fn is_float(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float && !x.requires_grad()
}

/// Whether it is float32 on the CPU, one number after the other.
pub fn is_plain(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float && x.is_contiguous()
}

/// The same values as float32 one after the other.
pub fn plain(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_kind(Kind::Float)?.f_contiguous()?)
}

/// (N, H, W, C) one after the other, of `x` (N, C, H, W); no copy if that is how it is stored.
pub fn pixels(x: &Tensor) -> Result<Tensor> {
    plain(&x.f_permute([0, 2, 3, 1])?)
}

/// The numbers of a plain tensor.
pub fn floats(x: &Tensor) -> &[f32] {
    assert!(is_plain(x), "float32 on the CPU, contiguous");
    // SAFETY: the tensor is so many floats, one after the other, in memory that it keeps alive while borrowed.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), x.numel()) }
}

/// The numbers of a plain tensor of which there is no other handle.
pub fn floats_mut(x: &mut Tensor) -> &mut [f32] {
    assert!(is_plain(x), "float32 on the CPU, contiguous");
    // SAFETY: as in `floats`; its users have made the tensor themselves or got it by value.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), x.numel()) }
}
