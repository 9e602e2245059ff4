// SPDX-License-Identifier: MPL-2.0

//! Global convolution: large separable kernels compare the current frame with the reference. Their receptive field
//! covers the whole object however far it moves.

use tch::{Tensor, nn};

use crate::Result;
use crate::model::layers::{Conv, ConvSpec, Visit};
use crate::model::shallow_clone;
use crate::visit_fields;

const KERNEL: i64 = 7;

/// A convolution of cat[current, reference]. It is linear, so that each half is a separate convolution and that of
/// the reference is computed once.
#[derive(Debug)]
enum Halves {
    Whole(Conv),
    /// The reference half has no bias.
    Split {
        current: Conv,
        reference: Conv,
    },
}

impl Visit for Halves {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        match self {
            Self::Whole(conv) => conv.visit(f),
            Self::Split { current, reference } => {
                current.visit(f)?;
                reference.visit(f)
            }
        }
    }
}

impl Halves {
    fn current(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Whole(conv) => conv.split(conv.spec().inputs / 2)?.0.forward(x),
            Self::Split { current, .. } => current.forward(x),
        }
    }

    fn reference(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Whole(conv) => conv.split(conv.spec().inputs / 2)?.1.forward(x),
            Self::Split { reference, .. } => reference.forward(x),
        }
    }

    fn fold(&mut self) -> Result<()> {
        if let Self::Whole(conv) = self {
            let (mut current, mut reference) = conv.split(conv.spec().inputs / 2)?;
            current.weight = current.weight.f_contiguous()?;
            reference.weight = reference.weight.f_contiguous()?;
            *self = Self::Split { current, reference };
        }
        Ok(())
    }
}

/// Contribution of the reference to the two first convolutions, (N, 256, H/32, W/32) each.
#[derive(Debug)]
pub struct ReferenceHalf {
    left: Tensor,
    right: Tensor,
}

visit_fields!(ReferenceHalf: left, right);
shallow_clone!(ReferenceHalf: left, right);

/// (7x1 then 1x7) + (1x7 then 7x1) on cat[current, reference], without activations: (N, 256, H/32, W/32).
#[derive(Debug)]
pub struct GlobalConvolution {
    left1: Halves,
    left2: Conv,
    right1: Halves,
    right2: Conv,
}

visit_fields!(GlobalConvolution: left1, left2, right1, right2);

impl GlobalConvolution {
    /// Creates trainable layers with random weights, for `inputs` channels of each of the two frames.
    pub fn new(path: &nn::Path, inputs: i64, outputs: i64) -> Self {
        let column =
            |name: &str, inputs| Conv::new(&(path / name), ConvSpec::rectangular(inputs, outputs, KERNEL, 1));
        let row =
            |name: &str, inputs| Conv::new(&(path / name), ConvSpec::rectangular(inputs, outputs, 1, KERNEL));
        Self {
            left1: Halves::Whole(column("conv_l1", 2 * inputs)),
            left2: row("conv_l2", outputs),
            right1: Halves::Whole(row("conv_r1", 2 * inputs)),
            right2: column("conv_r2", outputs),
        }
    }

    /// Computes the contribution of the reference from its layer4 features (N, 2048, H/32, W/32).
    pub fn reference(&self, features: &Tensor) -> Result<ReferenceHalf> {
        Ok(ReferenceHalf { left: self.left1.reference(features)?, right: self.right1.reference(features)? })
    }

    /// Compares layer4 features of the current frame (N, 2048, H/32, W/32) with the reference.
    pub fn forward(&self, features: &Tensor, reference: &ReferenceHalf) -> Result<Tensor> {
        let left = self.left1.current(features)?.f_add_(&reference.left)?;
        let right = self.right1.current(features)?.f_add_(&reference.right)?;
        Ok(self.left2.forward(&left)?.f_add_(&self.right2.forward(&right)?)?)
    }

    /// Gives each half its own contiguous weights.
    pub fn fold(&mut self) -> Result<()> {
        self.left1.fold()?;
        self.right1.fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn::VarStore};

    #[test]
    fn halves_equal_the_convolution_of_the_concatenation() {
        tch::manual_seed(3);
        let _guard = tch::no_grad_guard();
        let store = VarStore::new(Device::Cpu);
        let mut matching = GlobalConvolution::new(&store.root(), 24, 6);
        let options = (Kind::Float, Device::Cpu);
        let current = Tensor::randn([2, 24, 5, 9], options);
        let reference = Tensor::randn([2, 24, 5, 9], options);

        let whole = |name: &str| {
            let root = store.root();
            let weight = (&root / name).get("weight").unwrap();
            let size = weight.size();
            let spec = ConvSpec::rectangular(size[1], size[0], size[2], size[3]);
            Conv::from_tensors(weight, (&root / name).get("bias"), spec)
        };
        let both = Tensor::cat(&[&current, &reference], 1);
        let left = whole("conv_l2").forward(&whole("conv_l1").forward(&both).unwrap()).unwrap();
        let right = whole("conv_r2").forward(&whole("conv_r1").forward(&both).unwrap()).unwrap();
        let expected = left + right;

        for _ in 0..2 {
            let half = matching.reference(&reference).unwrap();
            let found = matching.forward(&current, &half).unwrap();
            let difference = (&found - &expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "{difference}");
            // A frame does not modify the reference half.
            let again = matching.forward(&current, &half).unwrap();
            assert!(again.equal(&found));
            matching.fold().unwrap();
        }
    }
}
