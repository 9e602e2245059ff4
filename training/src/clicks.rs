// SPDX-License-Identifier: MPL-2.0

//! Clicks of a simulated user, by the usual protocol of interactive segmentation: each click is the point of the
//! largest error that is farthest from the border of that error.

use gstfastganseg::image::Region;
use gstfastganseg::torch::model::prompt::{Point, Rect};

/// Returns the click that corrects `mask` best, or `None` if it equals `truth`. Both have rows of `width` pixels.
pub fn click(mask: &[bool], truth: &[bool], width: usize) -> Option<Point> {
    let errors = |missing: bool| -> Vec<bool> {
        let is_error =
            |(&mask, &truth): (&bool, &bool)| if missing { truth && !mask } else { mask && !truth };
        mask.iter().zip(truth).map(is_error).collect()
    };
    let (missing, surplus) = (largest_region(&errors(true), width), largest_region(&errors(false), width));
    let positive = missing.1 >= surplus.1;
    let (region, size) = if positive { missing } else { surplus };
    let (x, y) = farthest(&region, width);
    (size > 0).then_some(Point { x, y, positive })
}

/// Returns where alpha is above one half.
pub fn is_inside(alpha: &[u8]) -> Vec<bool> {
    alpha.iter().map(|&value| value > 127).collect()
}

/// Returns the bounding box of a mask with rows of `width` pixels.
pub fn bounds(mask: &[bool], width: usize) -> Option<Rect> {
    Region::bounding(mask, width, |&inside| inside).map(Rect::from)
}

/// Squared distance of each position to the nearest one with `value` 0 along a line (Felzenszwalb and Huttenlocher,
/// Distance Transforms of Sampled Functions, 2012).
fn distances_along(values: &[f64]) -> Vec<f64> {
    let crossing = |p: usize, q: usize| {
        let (a, b) = (p as f64, q as f64);
        (values[q] + b * b - values[p] - a * a) / (2.0 * (b - a))
    };
    // Parabolas of the lower envelope and where each begins.
    let mut hull: Vec<(usize, f64)> = vec![(0, f64::NEG_INFINITY)];
    for q in 1..values.len() {
        while hull.last().is_some_and(|&(p, start)| crossing(p, q) <= start) {
            hull.pop();
        }
        let start = hull.last().map_or(f64::NEG_INFINITY, |&(p, _)| crossing(p, q));
        hull.push((q, start));
    }
    let mut at = 0;
    let position = |x: usize| {
        while at + 1 < hull.len() && hull[at + 1].1 < x as f64 {
            at += 1;
        }
        let p = hull[at].0;
        (x as f64 - p as f64).powi(2) + values[p]
    };
    (0..values.len()).map(position).collect()
}

/// Returns the centre of the pixel of `region` that is farthest from its border or that of the picture.
fn farthest(region: &[bool], width: usize) -> (f64, f64) {
    const FAR: f64 = 1e9;
    let height = region.len() / width;
    // A border of one pixel around the picture.
    let (columns, rows) = (width + 2, height + 2);
    let mut squares = vec![0.0; columns * rows];
    for (index, _) in region.iter().enumerate().filter(|(_, inside)| **inside) {
        squares[(index / width + 1) * columns + index % width + 1] = FAR;
    }
    for x in 0..columns {
        let line: Vec<f64> = (0..rows).map(|y| squares[y * columns + x]).collect();
        distances_along(&line).into_iter().enumerate().for_each(|(y, d)| squares[y * columns + x] = d);
    }
    let (mut best, mut most) = ((0, 0), -1.0);
    for (y, line) in squares.chunks_exact(columns).map(distances_along).enumerate() {
        for (x, distance) in line.into_iter().enumerate() {
            if distance > most {
                (best, most) = ((x, y), distance);
            }
        }
    }
    (best.0 as f64 - 0.5, best.1 as f64 - 0.5)
}

/// Returns the largest 4-connected region of `mask`, the first in reading order if several have the same size, and its number
/// of pixels.
pub fn largest_region(mask: &[bool], width: usize) -> (Vec<bool>, usize) {
    let mut left = mask.to_vec();
    let mut best = Vec::new();
    for start in 0..mask.len() {
        if !std::mem::replace(&mut left[start], false) {
            continue;
        }
        let mut region = vec![start];
        let mut next = 0;
        while let Some(&at) = region.get(next) {
            next += 1;
            let x = at % width;
            let neighbours = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then_some(at + 1),
                at.checked_sub(width),
                (at + width < mask.len()).then_some(at + width),
            ];
            for near in neighbours.into_iter().flatten() {
                if std::mem::replace(&mut left[near], false) {
                    region.push(near);
                }
            }
        }
        if region.len() > best.len() {
            best = region;
        }
    }
    let mut region = vec![false; mask.len()];
    best.iter().for_each(|&at| region[at] = true);
    (region, best.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mask from rows of text: `#` is inside.
    fn mask(rows: &[&str]) -> Vec<bool> {
        rows.concat().bytes().map(|byte| byte == b'#').collect()
    }

    #[test]
    fn clicks_are_in_the_middle_of_the_largest_error() {
        let truth = mask(&["#....", "..###", "..###", "..###"]);
        let nothing = vec![false; truth.len()];
        assert_eq!(click(&nothing, &truth, 5), Some(Point { x: 3.5, y: 2.5, positive: true }));
        let all = vec![true; truth.len()];
        let surplus = click(&all, &truth, 5).unwrap();
        assert!(!surplus.positive && !truth[surplus.y as usize * 5 + surplus.x as usize], "{surplus:?}");
        assert_eq!(click(&truth, &truth, 5), None);
    }

    #[test]
    fn bounds_have_all_pixels() {
        let rect = bounds(&mask(&[".....", ".#...", "...#."]), 5);
        assert_eq!(rect, Some(Rect { x: 1.0, y: 1.0, width: 3.0, height: 2.0 }));
        assert_eq!(bounds(&[false; 4], 2), None);
    }
}
