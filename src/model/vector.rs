// SPDX-License-Identifier: MPL-2.0

//! Vector instructions of x86-64 processors: AVX2 with FMA, and AVX-512 with bfloat16.
//!
//! Code that uses them is a [`Kernel`], generic over [`Vector`].

/// Whether the processor has AVX2 and FMA.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the processor has AVX-512 and its instructions for bfloat16, too.
pub fn has_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return available()
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Values of a vector of AVX2, which has the shortest vectors.
pub const MIN_LANES: usize = 8;
/// Values of a vector of AVX-512, which has the longest vectors.
pub const MAX_LANES: usize = 16;

/// Vector of float32. Slices must have at least as many values as the vector, or the call panics.
///
/// # Safety
/// All functions need the processor's instructions; see [`Kernel`].
pub trait Vector: Copy {
    const LANES: usize;

    /// Runs a part of a kernel as a function of its own, which the compiler optimises better than a long one.
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(values: &[f32]) -> Self;
    unsafe fn store(self, to: &mut [f32]);
    unsafe fn store_bfloat16(self, to: &mut [u16]);
    unsafe fn add(self, y: Self) -> Self;
    unsafe fn sub(self, y: Self) -> Self;
    unsafe fn mul(self, y: Self) -> Self;
    /// Returns self · y + z.
    unsafe fn mul_add(self, y: Self, z: Self) -> Self;
    /// Returns z − self · y.
    unsafe fn mul_sub_from(self, y: Self, z: Self) -> Self;
    /// Returns the larger values, or those of `y` if one is NaN.
    unsafe fn max(self, y: Self) -> Self;
    /// Returns the smaller values, or those of `y` if one is NaN.
    unsafe fn min(self, y: Self) -> Self;
    unsafe fn sum(self) -> f32;
    unsafe fn maximum(self) -> f32;
    /// Returns self · 2ⁿ, where n are the low bits of `shifted`, a sum with 1.5 · 2²³.
    unsafe fn scaled(self, shifted: Self) -> Self;
}

/// Number format in which a kernel writes its result: float32, or bfloat16 as `u16`.
pub trait Element: Copy + Default {
    /// Writes the first values of a slice.
    ///
    /// # Safety
    /// That of [`Vector`].
    unsafe fn store<V: Vector>(values: V, to: &mut [Self]);
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, to: &mut [Self]) {
        // SAFETY: that of this function.
        unsafe { values.store(to) }
    }
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, to: &mut [Self]) {
        // SAFETY: that of this function.
        unsafe { values.store_bfloat16(to) }
    }
}

/// Arithmetic that is compiled for each kind of vector.
pub trait Kernel {
    type Output;

    /// Computes. Implementations are always inlined, so that they are compiled with the vector's instructions.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel with the longest vectors of the processor that are not longer than `length`, at least [`MIN_LANES`]. Panics
/// on processors that are not [supported](available).
pub fn run<K: Kernel>(kernel: K, length: usize) -> K::Output {
    assert!(available() && length >= MIN_LANES);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor has the instructions.
    return unsafe {
        if length >= MAX_LANES && has_bfloat16() {
            lanes::run_avx512(kernel)
        } else {
            lanes::run_avx2(kernel)
        }
    };
    #[cfg(not(target_arch = "x86_64"))]
    {
        drop(kernel);
        unreachable!("not available")
    }
}

/// Returns the nearest value in bfloat16.
pub fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(target_arch = "x86_64")]
// All functions need the processor's instructions, and nothing else.
#[allow(unsafe_op_in_unsafe_fn)]
mod lanes {
    use super::{Kernel, Vector, rounded};
    use std::arch::x86_64::*;

    /// # Safety
    /// The processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    /// # Safety
    /// The processor has AVX-512 and its instructions for bfloat16.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    #[derive(Clone, Copy)]
    pub struct Avx2(__m256);

    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    macro_rules! vector {
        ($name:ident, $lanes:literal, $run:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident,
         $fmadd:ident, $fnmadd:ident, $max:ident, $min:ident, $to_bits:ident, $from_bits:ident, $shift:ident,
         $add_bits:ident, $store_bfloat16:ident) => {
            // SAFETY: the caller has checked the instructions; slices are long enough.
            impl Vector for $name {
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
                    $run(kernel)
                }

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    Self($splat(value))
                }

                #[inline(always)]
                unsafe fn load(values: &[f32]) -> Self {
                    Self($load(values[..$lanes].as_ptr()))
                }

                #[inline(always)]
                unsafe fn store(self, to: &mut [f32]) {
                    $store(to[..$lanes].as_mut_ptr(), self.0)
                }

                #[inline(always)]
                unsafe fn store_bfloat16(self, to: &mut [u16]) {
                    $store_bfloat16(self.0, &mut to[..$lanes])
                }

                #[inline(always)]
                unsafe fn add(self, y: Self) -> Self {
                    Self($add(self.0, y.0))
                }

                #[inline(always)]
                unsafe fn sub(self, y: Self) -> Self {
                    Self($sub(self.0, y.0))
                }

                #[inline(always)]
                unsafe fn mul(self, y: Self) -> Self {
                    Self($mul(self.0, y.0))
                }

                #[inline(always)]
                unsafe fn mul_add(self, y: Self, z: Self) -> Self {
                    Self($fmadd(self.0, y.0, z.0))
                }

                #[inline(always)]
                unsafe fn mul_sub_from(self, y: Self, z: Self) -> Self {
                    Self($fnmadd(self.0, y.0, z.0))
                }

                #[inline(always)]
                unsafe fn max(self, y: Self) -> Self {
                    Self($max(self.0, y.0))
                }

                #[inline(always)]
                unsafe fn min(self, y: Self) -> Self {
                    Self($min(self.0, y.0))
                }

                #[inline(always)]
                unsafe fn sum(self) -> f32 {
                    let mut values = [0.0; $lanes];
                    self.store(&mut values);
                    values.iter().sum()
                }

                #[inline(always)]
                unsafe fn maximum(self) -> f32 {
                    let mut values = [0.0; $lanes];
                    self.store(&mut values);
                    values.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
                }

                #[inline(always)]
                unsafe fn scaled(self, shifted: Self) -> Self {
                    Self($from_bits($add_bits($to_bits(self.0), $shift::<23>($to_bits(shifted.0)))))
                }
            }
        };
    }

    /// AVX2 has no conversion.
    #[inline(always)]
    unsafe fn store_rounded(values: __m256, to: &mut [u16]) {
        let mut floats = [0.0; 8];
        _mm256_storeu_ps(floats.as_mut_ptr(), values);
        for (to, value) in to.iter_mut().zip(floats) {
            *to = rounded(value);
        }
    }

    #[inline(always)]
    unsafe fn store_converted(values: __m512, to: &mut [u16]) {
        debug_assert_eq!(to.len(), 16);
        let converted: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
        _mm256_storeu_si256(to.as_mut_ptr().cast(), converted);
    }

    vector!(
        Avx2,
        8,
        run_avx2,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_fnmadd_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_castps_si256,
        _mm256_castsi256_ps,
        _mm256_slli_epi32,
        _mm256_add_epi32,
        store_rounded
    );
    vector!(
        Avx512,
        16,
        run_avx512,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_fnmadd_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_castps_si512,
        _mm512_castsi512_ps,
        _mm512_slli_epi32,
        _mm512_add_epi32,
        store_converted
    );
}

/// As [`available`], checked against the kernel's list: only the absence of AVX2 and FMA may skip a test.
#[cfg(test)]
pub fn checked_available() -> bool {
    assert_eq!(available(), listed(&["avx2", "fma"]));
    available()
}

/// As [`has_bfloat16`], checked against the kernel's list.
#[cfg(test)]
pub fn checked_has_bfloat16() -> bool {
    let flags = ["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16"];
    assert_eq!(has_bfloat16(), listed(&flags));
    has_bfloat16()
}

#[cfg(test)]
fn listed(flags: &[&str]) -> bool {
    let list = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cfg!(target_arch = "x86_64") && flags.iter().all(|flag| list.split_whitespace().any(|word| word == *flag))
}
