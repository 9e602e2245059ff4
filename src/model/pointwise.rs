//! Convolutions of single positions on the CPU: what a 1x1 convolution is to features that are stored position by
//! position, a product of two matrices, one of which is very thin.
//!
//! oneDNN's general product reaches half the speed on processors with AVX2 that its other convolutions do, and
//! leaves bias and ReLU6 to passes of their own. This one is for float32 without gradients on one thread of x86-64
//! processors with AVX2 and without AVX-512; everything else takes libtorch's.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// What becomes of each sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// It is kept within 0 and 6.
    Relu6,
}

/// `x` (N, inputs, H, W), channels last, times `weight` (outputs, inputs, 1, 1), plus `bias` (outputs); nothing where
/// that is better left to libtorch.
///
/// # Errors
/// An error of libtorch.
pub fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Option<Tensor>> {
    let plain = |x: &Tensor| x.device() == Device::Cpu && x.kind() == Kind::Float && !x.requires_grad();
    if !plain(x) || !plain(weight) || !bias.is_none_or(plain) || tch::get_num_threads() != 1 {
        return Ok(None);
    }
    // Of one position each, weights channels last are stored as those channels first are.
    let weight = &weight.f_flatten(1, 3)?;
    if !lanes::available() || !weight.is_contiguous() {
        return Ok(None);
    }
    let positions = x.f_permute([0, 2, 3, 1])?;
    let (n, height, width, inputs) = positions.size4()?;
    let outputs = weight.size()[0];
    if !positions.is_contiguous() || positions.numel() == 0 || outputs == 0 {
        return Ok(None);
    }
    let mut sums = Tensor::f_empty([n, height, width, outputs], (Kind::Float, Device::Cpu))?;
    let bias = match bias {
        Some(bias) => Vec::try_from(&bias.f_contiguous()?)?,
        None => vec![0.0; outputs as usize],
    };
    let bounds = match activation {
        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
    };
    lanes::Layer::new(floats(weight), &bias, bounds).apply(floats(&positions), floats_mut(&mut sums));
    Ok(Some(sums.f_permute([0, 3, 1, 2])?))
}

fn floats(x: &Tensor) -> &[f32] {
    assert!(x.device() == Device::Cpu && x.kind() == Kind::Float && x.is_contiguous());
    // SAFETY: the tensor is so many floats, one after the other, in memory that it keeps alive while borrowed.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), x.numel()) }
}

fn floats_mut(x: &mut Tensor) -> &mut [f32] {
    assert!(x.device() == Device::Cpu && x.kind() == Kind::Float && x.is_contiguous());
    // SAFETY: as in `floats`; its one user has just made the tensor.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), x.numel()) }
}

/// Arithmetic, eight numbers at a time.
#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::{
        __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps,
        _mm256_set1_ps, _mm256_storeu_ps,
    };

    /// Outputs that are summed at the same time: two registers.
    const PANEL: usize = 16;
    /// Positions that are, with two registers each: with what is read, all sixteen.
    const ROWS: usize = 6;
    /// Positions for which all outputs are made before the next are looked at, so that these stay in the cache.
    const BLOCK: usize = 16 * ROWS;

    pub fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && !std::arch::is_x86_feature_detected!("avx512f")
    }

    type Panel = [f32; PANEL];

    /// Weights as they are read.
    pub struct Layer {
        inputs: usize,
        outputs: usize,
        /// For every panel of outputs, for every input, the weights of the panel; zeros beyond the last output.
        weights: Vec<Panel>,
        bias: Vec<Panel>,
        bounds: (f32, f32),
    }

    impl Layer {
        /// Weights (outputs, inputs), as many as there are `bias`es; sums are kept within `bounds`.
        pub fn new(weights: &[f32], bias: &[f32], bounds: (f32, f32)) -> Self {
            let (outputs, inputs) = (bias.len(), weights.len() / bias.len().max(1));
            let panels = outputs.div_ceil(PANEL);
            let mut layer = Self {
                inputs,
                outputs,
                weights: vec![[0.0; PANEL]; panels * inputs],
                bias: vec![[0.0; PANEL]; panels],
                bounds,
            };
            for (output, (row, &bias)) in weights.chunks_exact(inputs.max(1)).zip(bias).enumerate() {
                let (panel, at) = (output / PANEL, output % PANEL);
                layer.bias[panel][at] = bias;
                let panel = &mut layer.weights[panel * inputs..][..inputs];
                panel.iter_mut().zip(row).for_each(|(panel, &weight)| panel[at] = weight);
            }
            layer
        }

        /// `sums` (positions, outputs) of `x` (positions, inputs).
        pub fn apply(&self, x: &[f32], sums: &mut [f32]) {
            let Self { inputs, outputs, .. } = *self;
            assert!(available() && inputs > 0 && outputs > 0);
            assert_eq!(x.len() / inputs * outputs, sums.len());
            for (x, sums) in x.chunks(BLOCK * inputs).zip(sums.chunks_mut(BLOCK * outputs)) {
                for panel in 0..self.bias.len() {
                    for (x, sums) in x.chunks(ROWS * inputs).zip(sums.chunks_mut(ROWS * outputs)) {
                        // SAFETY: the processor has what the function wants.
                        unsafe {
                            match x.len() / inputs {
                                ROWS => self.tile::<ROWS>(panel, x, sums),
                                5 => self.tile::<5>(panel, x, sums),
                                4 => self.tile::<4>(panel, x, sums),
                                3 => self.tile::<3>(panel, x, sums),
                                2 => self.tile::<2>(panel, x, sums),
                                _ => self.tile::<1>(panel, x, sums),
                            }
                        }
                    }
                }
            }
        }

        /// `R` positions by the outputs of a panel.
        #[target_feature(enable = "avx2,fma")]
        fn tile<const R: usize>(&self, panel: usize, x: &[f32], sums: &mut [f32]) {
            let Self { inputs, outputs, .. } = *self;
            let rows: [&[f32]; R] = std::array::from_fn(|row| &x[row * inputs..][..inputs]);
            let mut totals = [load(&self.bias[panel]); R];
            for (input, weights) in self.weights[panel * inputs..][..inputs].iter().enumerate() {
                let weights = load(weights);
                for (total, row) in totals.iter_mut().zip(&rows) {
                    let value = _mm256_broadcast_ss(&row[input]);
                    total.0 = _mm256_fmadd_ps(value, weights.0, total.0);
                    total.1 = _mm256_fmadd_ps(value, weights.1, total.1);
                }
            }
            let (least, most) = (_mm256_set1_ps(self.bounds.0), _mm256_set1_ps(self.bounds.1));
            let first = panel * PANEL;
            for (row, total) in totals.into_iter().enumerate() {
                let within = |x: __m256| _mm256_min_ps(_mm256_max_ps(x, least), most);
                let total = (within(total.0), within(total.1));
                let to = &mut sums[row * outputs + first..(row + 1) * outputs];
                match to.first_chunk_mut() {
                    Some(to) => store(total, to),
                    None => {
                        let mut all = [0.0; PANEL];
                        store(total, &mut all);
                        to.copy_from_slice(&all[..to.len()]);
                    }
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(from: &Panel) -> (__m256, __m256) {
        // SAFETY: there are so many floats.
        unsafe { (_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store(from: (__m256, __m256), to: &mut Panel) {
        // SAFETY: there is room for so many floats.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), from.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), from.1);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    pub fn available() -> bool {
        false
    }

    pub struct Layer;

    impl Layer {
        pub fn new(_: &[f32], _: &[f32], _: (f32, f32)) -> Self {
            unreachable!("not available")
        }

        pub fn apply(&self, _: &[f32], _: &mut [f32]) {
            unreachable!("not available")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::channels_last;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn random(size: &[i64]) -> Tensor {
        Tensor::rand(size, FLOAT) * 2.0 - 1.0
    }

    /// On the one thread of a test; others have theirs.
    fn on_one_thread<T>(f: impl FnOnce() -> T + Send) -> T
    where
        T: Send,
    {
        std::thread::scope(|scope| {
            let run = || {
                tch::set_num_threads(1);
                f()
            };
            scope.spawn(run).join().unwrap()
        })
    }

    /// Numbers of positions, inputs and outputs that do and do not fill tiles, panels and blocks.
    #[test]
    fn it_is_the_convolution() {
        on_one_thread(|| {
            for (n, height, width, inputs, outputs) in
                [(1, 1, 1, 1, 1), (1, 2, 3, 16, 16), (2, 5, 7, 24, 17), (1, 12, 21, 96, 33), (1, 9, 11, 3, 40)]
            {
                let x = channels_last(&random(&[n, inputs, height, width])).unwrap();
                let (weight, bias) = (random(&[outputs, inputs, 1, 1]), random(&[outputs]));
                for bias in [Some(&bias), None] {
                    let expected = x.conv2d(&weight, bias, [1, 1], [0, 0], [1, 1], 1);
                    for (activation, expected) in
                        [(Activation::None, expected.shallow_clone()), (Activation::Relu6, expected.clamp(0.0, 6.0))]
                    {
                        let Some(found) = forward(&x, &weight, bias, activation).unwrap() else {
                            assert!(!lanes::available());
                            return;
                        };
                        assert_eq!(found.size(), expected.size());
                        assert!((found - expected).abs().max().double_value(&[]) < 1e-4);
                    }
                }
            }
        });
    }

    #[test]
    fn what_it_is_not_made_for_is_left_to_libtorch() {
        on_one_thread(|| {
            let (x, weight) = (channels_last(&random(&[1, 4, 6, 6])).unwrap(), random(&[8, 4, 1, 1]));
            let given = |x: &Tensor, weight: &Tensor| forward(x, weight, None, Activation::None).unwrap().is_some();
            assert_eq!(given(&x, &weight), lanes::available());
            assert!(!given(&random(&[1, 4, 6, 6]), &weight), "channels first");
            assert!(!given(&x.to_kind(Kind::BFloat16), &weight.to_kind(Kind::BFloat16)));
            assert!(!given(&x.copy().set_requires_grad(true), &weight));
            assert!(!given(&x, &weight.copy().set_requires_grad(true)));
            assert!(!given(&channels_last(&random(&[0, 4, 6, 6])).unwrap(), &weight));
        });
    }
}
