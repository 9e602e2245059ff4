// SPDX-License-Identifier: MPL-2.0

//! Test shapes with known edges, and the position of edges in results.

/// 16 rows with a vertical edge, transparent on its left. The 50 % contour is `at` pixels from the left border,
/// and the ramp is `softness` pixels wide.
pub fn edge(width: usize, at: f64, softness: f64) -> Vec<u8> {
    let row = (0..width).map(|x| ramp((x as f64 + 0.5 - at) / softness));
    row.collect::<Vec<u8>>().repeat(16)
}

/// An opaque disk in the middle of a square, with a ramp of `softness` pixels.
pub fn disk(side: usize, radius: f64, softness: f64) -> Vec<u8> {
    let middle = side as f64 / 2.0 - 0.5;
    let inside =
        |i: usize| ramp((radius - ((i % side) as f64 - middle).hypot((i / side) as f64 - middle)) / softness);
    (0..side * side).map(inside).collect()
}

fn ramp(distance: f64) -> u8 {
    ((distance + 0.5) * 255.0).round().clamp(0.0, 255.0) as u8
}

/// Position where values rise above one half, in pixels from the centre of the first value.
pub fn contour(values: &[u8]) -> f64 {
    let index = values.windows(2).position(|pair| pair[0] < 128 && pair[1] >= 128).unwrap();
    let (a, b) = (f64::from(values[index]), f64::from(values[index + 1]));
    index as f64 + (127.5 - a) / (b - a)
}
