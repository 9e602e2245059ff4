//! Shapes with known edges, and where their edges are.

/// 16 rows, transparent on the left, with the 50 % contour at `at` in pixels from the left border and a
/// ramp of `softness` pixels.
pub fn edge(width: usize, at: f64, softness: f64) -> Vec<u8> {
    let row = (0..width).map(|x| ramp((x as f64 + 0.5 - at) / softness));
    row.collect::<Vec<u8>>().repeat(16)
}

/// A disk in the middle of a square, with such a ramp.
pub fn disk(side: usize, radius: f64, softness: f64) -> Vec<u8> {
    let middle = side as f64 / 2.0 - 0.5;
    let inside =
        |i: usize| ramp((radius - ((i % side) as f64 - middle).hypot((i / side) as f64 - middle)) / softness);
    (0..side * side).map(inside).collect()
}

fn ramp(distance: f64) -> u8 {
    ((distance + 0.5) * 255.0).round().clamp(0.0, 255.0) as u8
}

/// Where values rise above one half, in pixels from the first one's centre.
pub fn contour(values: &[u8]) -> f64 {
    let index = values.windows(2).position(|pair| pair[0] < 128 && pair[1] >= 128).unwrap();
    let (a, b) = (f64::from(values[index]), f64::from(values[index + 1]));
    index as f64 + (127.5 - a) / (b - a)
}
