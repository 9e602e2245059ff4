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

/// A tensor of which there is no other handle, so that its numbers may be written in place.
#[derive(Debug)]
pub struct Unshared(Tensor);

impl Unshared {
    /// # Safety
    /// Nobody else has a handle on the memory of `x`: no shallow clone, no view, no graph of gradients.
    pub unsafe fn new(x: Tensor) -> Self {
        Self(x)
    }

    /// Float32 on the CPU, one number after the other, of any values.
    pub fn empty(size: &[i64]) -> Result<Self> {
        Ok(Self(Tensor::f_empty(size, (Kind::Float, Device::Cpu))?))
    }

    /// Whether it can be [written](Self::floats_mut), and is not empty.
    pub fn is_plain(&self) -> bool {
        is_plain(&self.0) && self.0.numel() > 0 && !self.0.requires_grad()
    }

    /// Its three sides.
    pub fn size3(&self) -> Result<(i64, i64, i64)> {
        Ok(self.0.size3()?)
    }

    /// The numbers of a plain tensor.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        assert!(is_plain(&self.0), "float32 on the CPU, contiguous");
        // SAFETY: the tensor is so many floats, one after the other, in memory that it keeps alive while borrowed, and
        // there is no other handle by which anyone could reach them.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast(), self.0.numel()) }
    }

    /// The tensor, to be shared from now on.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_place_is_in_the_tensor() {
        let mut numbers = Unshared::empty(&[2, 1, 3]).unwrap();
        assert!(numbers.is_plain());
        assert_eq!(numbers.size3().unwrap(), (2, 1, 3));
        numbers.floats_mut().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(floats(&numbers.into_tensor()), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(!Unshared::empty(&[0, 1, 3]).unwrap().is_plain());
    }
}
