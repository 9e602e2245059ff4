// SPDX-License-Identifier: MPL-2.0

use crate::LabelMap;

/// Pixels of one object in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    pub width: usize,
    pub height: usize,
    pixels: Vec<bool>,
}

impl Bitmap {
    /// Creates a bitmap without set pixels.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![false; width * height] }
    }

    /// Returns the pixels of `map` that belong to `object`.
    pub fn of_object(map: &LabelMap, object: u8) -> Self {
        Self::of(map, |id| id == object)
    }

    /// Returns the pixels of `map` whose ids are `inside`.
    pub fn of(map: &LabelMap, inside: impl Fn(u8) -> bool) -> Self {
        let pixels = map.ids().iter().map(|&id| inside(id)).collect();
        Self { width: map.width(), height: map.height(), pixels }
    }

    pub fn at(&self, x: usize, y: usize) -> bool {
        self.pixels[y * self.width + x]
    }

    pub fn count(&self) -> usize {
        self.pixels.iter().filter(|&&pixel| pixel).count()
    }

    /// Returns the number of pixels set in both.
    pub fn intersection(&self, other: &Self) -> usize {
        self.pixels.iter().zip(&other.pixels).filter(|&(&a, &b)| a && b).count()
    }

    /// Returns the number of pixels set in either.
    pub fn union(&self, other: &Self) -> usize {
        self.pixels.iter().zip(&other.pixels).filter(|&(&a, &b)| a || b).count()
    }

    /// Returns the pixels that differ from their eastern, southern or south-eastern neighbour (DAVIS `seg2bmap`).
    /// In the last row, only the eastern neighbour counts, in the last column, only the southern one. The last
    /// pixel of the last row is never a boundary.
    pub fn boundary(&self) -> Self {
        let mut boundary = Self::new(self.width, self.height);
        for (y, row) in self.pixels.chunks_exact(self.width.max(1)).enumerate() {
            let below = if y + 1 < self.height { &self.pixels[(y + 1) * self.width..] } else { row };
            for x in 0..self.width {
                let (pixel, east) = (row[x], (x + 1).min(self.width - 1));
                boundary.pixels[y * self.width + x] =
                    pixel != row[east] || pixel != below[x] || pixel != below[east];
            }
        }
        boundary
    }

    /// Returns the pixels within the disk dx² + dy² ≤ `radius`² around a set pixel.
    pub fn dilated(&self, radius: usize) -> Self {
        let mut dilated = Self::new(self.width, self.height);
        let reach = disk(radius);
        for at in (0..self.pixels.len()).filter(|&at| self.pixels[at]) {
            let (x, y) = (at % self.width, at / self.width);
            for to in y.saturating_sub(radius)..=(y + radius).min(self.height - 1) {
                let reach = reach[to.abs_diff(y)];
                let (from, end) = (x.saturating_sub(reach), (x + reach + 1).min(self.width));
                dilated.pixels[to * self.width..][from..end].fill(true);
            }
        }
        dilated
    }
}

/// Returns the half width of the disk's rows at the vertical distances 0..=radius from its centre.
fn disk(radius: usize) -> Vec<usize> {
    (0..=radius).map(|dy| (radius * radius - dy * dy).isqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: &[&str]) -> Bitmap {
        let ids = rows.iter().flat_map(|row| row.bytes());
        let ids = ids.map(|byte| u8::from(byte == b'#')).collect();
        let map = LabelMap::new(rows[0].len(), rows.len(), ids).unwrap();
        Bitmap::of_object(&map, 1)
    }

    /// Mask of six pseudorandom rectangles.
    fn rectangles(width: usize, height: usize, seed: u64) -> Bitmap {
        let mut bitmap = Bitmap::new(width, height);
        let mut state = seed;
        for _ in 0..6 {
            let mut next = |limit: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % limit
            };
            let (y, x) = (next(height), next(width));
            let (tall, wide) = (next(height) / 3 + 1, next(width) / 3 + 1);
            for y in y..(y + tall).min(height) {
                bitmap.pixels[y * width..][x..(x + wide + 1).min(width)].fill(true);
            }
        }
        bitmap
    }

    #[test]
    fn boundary_compares_east_south_and_south_east() {
        let cases: [(&[&str], &[&str]); 7] = [
            (
                &["......", "..##..", "..##..", "......", "......"],
                &[".###..", ".#.#..", ".###..", "......", "......"],
            ),
            // The last row compares east only, the last column south only.
            (&["...", ".#."], &["##.", "##."]),
            (&["..", ".#", "..", ".."], &["##", "##", "..", ".."]),
            // The south-eastern neighbour of the last column is outside the frame.
            (&["#.", "#."], &["#.", "#."]),
            // The corner is never a boundary, and a full frame has none.
            (&["#"], &["."]),
            (&["..", ".#"], &["##", "#."]),
            (&["##", "##"], &["..", ".."]),
        ];
        for (mask, expected) in cases {
            assert_eq!(drawn(mask).boundary(), drawn(expected), "{mask:?}");
        }
    }

    #[test]
    fn boundary_equals_a_pixelwise_computation() {
        for (width, height) in [(1, 9), (9, 1), (63, 8), (64, 8), (65, 8), (128, 5), (131, 97)] {
            let seg = rectangles(width, height, (width * 1000 + height) as u64);
            let boundary = seg.boundary();
            for y in 0..height {
                for x in 0..width {
                    let differs = |dx, dy| seg.at(x, y) != seg.at(x + dx, y + dy);
                    let (last_column, last_row) = (x + 1 == width, y + 1 == height);
                    let expected = match (last_column, last_row) {
                        (true, true) => false,
                        (true, false) => differs(0, 1),
                        (false, true) => differs(1, 0),
                        (false, false) => differs(1, 0) || differs(0, 1) || differs(1, 1),
                    };
                    assert_eq!(boundary.at(x, y), expected, "{width}x{height} at {x},{y}");
                }
            }
        }
    }

    #[test]
    fn dilation_equals_a_pixelwise_computation() {
        for (width, height, radius) in [(1, 1, 3), (70, 9, 2), (131, 40, 8), (64, 64, 0), (200, 3, 70)] {
            let seg = rectangles(width, height, radius as u64 + 5).boundary();
            let dilated = seg.dilated(radius);
            for y in 0..height {
                for x in 0..width {
                    let near = (0..height).any(|v| {
                        (0..width).any(|u| {
                            let (dx, dy) = (u.abs_diff(x), v.abs_diff(y));
                            seg.at(u, v) && dx * dx + dy * dy <= radius * radius
                        })
                    });
                    assert_eq!(dilated.at(x, y), near, "{width}x{height} r {radius} at {x},{y}");
                }
            }
        }
    }

    #[test]
    fn counts_of_set_pixels() {
        let a = drawn(&["##..", "##.."]);
        let b = drawn(&[".##.", "...."]);
        assert_eq!((a.count(), b.count()), (4, 2));
        assert_eq!((a.intersection(&b), a.union(&b)), (1, 5));
        assert_eq!(Bitmap::new(0, 0).boundary().dilated(3).count(), 0);
    }
}
