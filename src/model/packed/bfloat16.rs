// SPDX-License-Identifier: MPL-2.0

//! Products in bfloat16 with sums in float32, on x86-64 processors with AVX-512 and its bfloat16 instructions.
//!
//! An instruction multiplies pairs of values and adds both products. Values are therefore stored in pairs, one number of 32
//! bits each, the first in the lower half.

use crate::model::vector::rounded;

fn pair(first: f32, second: f32) -> u32 {
    u32::from(rounded(first)) | u32::from(rounded(second)) << 16
}

/// Returns panels (…, inputs, `width`) with their inputs in pairs, (…, inputs / 2, `width`). An odd number of inputs is
/// padded with zero.
pub fn pairs_of_panels(panels: &[f32], inputs: usize, width: usize) -> Vec<u32> {
    let mut pairs = vec![0; panels.len() / inputs * inputs.div_ceil(2)];
    let length = inputs.div_ceil(2) * width;
    for (panel, pairs) in panels.chunks_exact(inputs * width).zip(pairs.chunks_exact_mut(length)) {
        for (rows, pairs) in panel.chunks(2 * width).zip(pairs.chunks_exact_mut(width)) {
            let (first, second) = rows.split_at(width);
            if second.is_empty() {
                pairs.iter_mut().zip(first).for_each(|(to, first)| *to = pair(*first, 0.0));
            } else {
                let both = first.iter().zip(second);
                pairs.iter_mut().zip(both).for_each(|(to, (first, second))| *to = pair(*first, *second));
            }
        }
    }
    pairs
}

/// Returns pairs as values, the first and the second of each pair in turn.
pub fn values_mut(pairs: &mut [u32]) -> &mut [u16] {
    // SAFETY: a pair is two values, and x86-64 has the lower half first.
    unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), 2 * pairs.len()) }
}

pub use self::lanes::{convert, panels};

#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, __mmask16, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_si512,
    };

    use crate::model::vector::{MAX_LANES as PANEL, has_bfloat16};

    /// Pixels that are computed together.
    const TILE: usize = 12;

    /// Converts pixels (…, inputs) to pairs (…, inputs / 2). An odd number of inputs is padded with zero.
    pub fn convert(x: &[f32], inputs: usize, pairs: &mut [u32]) {
        assert!(has_bfloat16());
        // SAFETY: the processor has the instructions.
        unsafe {
            if inputs.is_multiple_of(2) {
                convert_row(x, pairs);
            } else {
                for (x, pairs) in x.chunks_exact(inputs).zip(pairs.chunks_exact_mut(inputs.div_ceil(2))) {
                    convert_row(x, pairs);
                }
            }
        }
    }

    /// Returns a mask of the first `count` values.
    fn first(count: usize) -> __mmask16 {
        ((1u32 << count.min(16)) - 1) as __mmask16
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn convert_row(x: &[f32], pairs: &mut [u32]) {
        // With an odd number of values, the last pair may complete a vector although its second value is missing.
        let whole = x.len() / (2 * PANEL);
        let (x, x_rest) = x.split_at(whole * 2 * PANEL);
        let (pairs, pairs_rest) = pairs.split_at_mut(whole * PANEL);
        for (x, pairs) in x.chunks_exact(2 * PANEL).zip(pairs.chunks_exact_mut(PANEL)) {
            // SAFETY: the chunks have as many values as are read and written. Both types are 64 bytes.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(PANEL)));
                let values: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(pairs.as_mut_ptr().cast(), values);
            }
        }
        if !pairs_rest.is_empty() {
            let mut rest = [0u32; PANEL];
            let (low, high) = (first(x_rest.len()), first(x_rest.len().saturating_sub(PANEL)));
            // SAFETY: masked values are not read. Both types are 64 bytes.
            unsafe {
                let low = _mm512_maskz_loadu_ps(low, x_rest.as_ptr());
                let high = _mm512_maskz_loadu_ps(high, x_rest.as_ptr().wrapping_add(PANEL));
                let values: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(rest.as_mut_ptr().cast(), values);
            }
            pairs_rest.copy_from_slice(&rest[..pairs_rest.len()]);
        }
    }

    /// Computes products of pixels `x` (…, pairs) with `weights` (panels, pairs, PANEL), adds `bias` (panels, PANEL), and
    /// writes them, limited to `range`, to `y` (…, width). Channels from `width` on are not written.
    pub fn panels(
        x: &[u32],
        pairs: usize,
        (weights, bias): (&[u32], &[f32]),
        range: [f32; 2],
        y: &mut [f32],
        width: usize,
    ) {
        assert!(has_bfloat16());
        let length = pairs * PANEL;
        let mut done = 0;
        for (weights, bias) in weights.chunks(2 * length).zip(bias.chunks(2 * PANEL)) {
            let place = (width, done, (width - done).min(bias.len()));
            // SAFETY: the processor has the instructions.
            unsafe {
                match weights.len() / length {
                    2 => pixels::<2>(x, pairs, weights, bias, range, y, place),
                    _ => pixels::<1>(x, pairs, weights, bias, range, y, place),
                }
            }
            done += bias.len();
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn pixels<const P: usize>(
        x: &[u32],
        pairs: usize,
        weights: &[u32],
        bias: &[f32],
        range: [f32; 2],
        y: &mut [f32],
        place: (usize, usize, usize),
    ) {
        let mut tiles = x.chunks_exact(TILE * pairs);
        let mut outputs = y.chunks_exact_mut(TILE * place.0);
        for (x, y) in tiles.by_ref().zip(outputs.by_ref()) {
            tile::<TILE, P>(x, pairs, weights, bias, range, y, place);
        }
        let (x, y) = (tiles.remainder(), outputs.into_remainder());
        match x.len() / pairs {
            1 => tile::<1, P>(x, pairs, weights, bias, range, y, place),
            2 => tile::<2, P>(x, pairs, weights, bias, range, y, place),
            3 => tile::<3, P>(x, pairs, weights, bias, range, y, place),
            4 => tile::<4, P>(x, pairs, weights, bias, range, y, place),
            5 => tile::<5, P>(x, pairs, weights, bias, range, y, place),
            6 => tile::<6, P>(x, pairs, weights, bias, range, y, place),
            7 => tile::<7, P>(x, pairs, weights, bias, range, y, place),
            8 => tile::<8, P>(x, pairs, weights, bias, range, y, place),
            9 => tile::<9, P>(x, pairs, weights, bias, range, y, place),
            10 => tile::<10, P>(x, pairs, weights, bias, range, y, place),
            11 => tile::<11, P>(x, pairs, weights, bias, range, y, place),
            _ => (),
        }
    }

    /// Computes `P` panels of `M` pixels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[inline]
    fn tile<const M: usize, const P: usize>(
        x: &[u32],
        pairs: usize,
        weights: &[u32],
        bias: &[f32],
        range: [f32; 2],
        y: &mut [f32],
        (width, first_channel, count): (usize, usize, usize),
    ) {
        assert!(x.len() >= M * pairs && weights.len() >= P * pairs * PANEL && bias.len() >= P * PANEL);
        assert!(y.len() >= (M - 1) * width + first_channel + count && count <= P * PANEL);
        // SAFETY: the lengths asserted are those that the indices below reach; masked values are not written. Both types of
        // a vector are 64 bytes.
        unsafe {
            let start: [__m512; P] =
                std::array::from_fn(|panel| _mm512_loadu_ps(bias.as_ptr().add(panel * PANEL)));
            let mut sums = [start; M];
            for at in 0..pairs {
                let weights: [__m512bh; P] = std::array::from_fn(|panel| {
                    let values =
                        _mm512_loadu_si512(weights.as_ptr().add((panel * pairs + at) * PANEL).cast());
                    std::mem::transmute::<__m512i, __m512bh>(values)
                });
                for (pixel, sums) in sums.iter_mut().enumerate() {
                    let value = _mm512_set1_epi32(*x.get_unchecked(pixel * pairs + at) as i32);
                    let value = std::mem::transmute::<__m512i, __m512bh>(value);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbf16_ps(*sum, weights, value);
                    }
                }
            }
            let [low, high] = range.map(|limit| _mm512_set1_ps(limit));
            for (pixel, sums) in sums.into_iter().enumerate() {
                let y = y.as_mut_ptr().add(pixel * width + first_channel);
                for (panel, sum) in sums.into_iter().enumerate() {
                    let channel = panel * PANEL;
                    let mask = first(count.saturating_sub(channel));
                    _mm512_mask_storeu_ps(
                        y.wrapping_add(channel),
                        mask,
                        _mm512_min_ps(_mm512_max_ps(sum, low), high),
                    );
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod lanes {
    pub fn convert(_: &[f32], _: usize, _: &mut [u32]) {
        unreachable!("not available")
    }

    pub fn panels(_: &[u32], _: usize, _: (&[u32], &[f32]), _: [f32; 2], _: &mut [f32], _: usize) {
        unreachable!("not available")
    }
}
