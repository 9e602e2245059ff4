// SPDX-License-Identifier: MPL-2.0

//! Vector instructions of x86-64 processors with AVX2 and FMA.

/// Whether the processor has AVX2 and FMA.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(target_arch = "x86_64")]
pub use self::avx2::{LANES, limited, load, store};

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_storeu_ps,
    };

    /// Values of a vector.
    pub const LANES: usize = 8;

    /// Limits to a range.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn limited(x: __m256, [low, high]: [f32; 2]) -> __m256 {
        _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(low)), _mm256_set1_ps(high))
    }

    /// Reads the first values of a slice.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn load(values: &[f32]) -> __m256 {
        // SAFETY: the slice has as many values as are read.
        unsafe { _mm256_loadu_ps(values[..LANES].as_ptr()) }
    }

    /// Writes the first values of a slice.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn store(to: &mut [f32], values: __m256) {
        // SAFETY: the slice has as many values as are written.
        unsafe { _mm256_storeu_ps(to[..LANES].as_mut_ptr(), values) }
    }
}

/// As [`available`], checked against the kernel's list: only the absence of AVX2 and FMA may skip a test.
#[cfg(test)]
pub fn checked_available() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    assert_eq!(available(), cfg!(target_arch = "x86_64") && has("avx2") && has("fma"));
    available()
}
