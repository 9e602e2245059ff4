// SPDX-License-Identifier: MPL-2.0

use crate::LabelMap;

/// Pixels of one object in one frame, one bit each. Rows are padded to whole words; bits beyond the width are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    pub width: usize,
    pub height: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Bitmap {
    /// Creates a bitmap without set pixels.
    pub fn new(width: usize, height: usize) -> Self {
        let words = width.div_ceil(64);
        Self { width, height, words, bits: vec![0; words * height] }
    }

    /// Returns the pixels of `map` that belong to `object`.
    pub fn of_object(map: &LabelMap, object: u8) -> Self {
        Self::of(map, |id| id == object)
    }

    /// Returns the pixels of `map` whose ids are `inside`.
    pub fn of(map: &LabelMap, inside: impl Fn(u8) -> bool) -> Self {
        let mut bitmap = Self::new(map.width(), map.height());
        if bitmap.words == 0 {
            return bitmap;
        }
        let rows = map.ids().chunks_exact(map.width());
        for (row, words) in rows.zip(bitmap.bits.chunks_exact_mut(bitmap.words)) {
            for (ids, word) in row.chunks(64).zip(words) {
                let bits = ids.iter().enumerate();
                *word = bits.fold(0, |word, (i, &id)| word | u64::from(inside(id)) << i);
            }
        }
        bitmap
    }

    #[cfg(test)]
    pub fn at(&self, x: usize, y: usize) -> bool {
        self.bits[y * self.words + x / 64] >> (x % 64) & 1 == 1
    }

    pub fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns the number of pixels set in both.
    pub fn intersection(&self, other: &Self) -> u64 {
        let pairs = self.bits.iter().zip(&other.bits);
        pairs.map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }

    /// Returns the number of pixels set in either.
    pub fn union(&self, other: &Self) -> u64 {
        let pairs = self.bits.iter().zip(&other.bits);
        pairs.map(|(a, b)| u64::from((a | b).count_ones())).sum()
    }

    /// Returns the pixels that differ from their eastern, southern or south-eastern neighbour (DAVIS `seg2bmap`).
    /// In the last row, only the eastern neighbour counts, in the last column, only the southern one. The last
    /// pixel of the last row is never a boundary.
    pub fn boundary(&self) -> Self {
        let mut boundary = Self::new(self.width, self.height);
        if self.words == 0 {
            return boundary;
        }
        let last_word = self.words - 1;
        let last_column = 1 << ((self.width - 1) % 64);
        let east = |row: &[u64], i: usize| {
            let carry = row.get(i + 1).map_or(0, |next| next << 63);
            row[i] >> 1 | carry
        };
        for y in 0..self.height {
            let row = self.row(y);
            let below = (y + 1 < self.height).then(|| self.row(y + 1));
            let out = &mut boundary.bits[y * self.words..(y + 1) * self.words];
            for i in 0..self.words {
                let mut word = row[i] ^ east(row, i);
                let south = below.map_or(0, |below| row[i] ^ below[i]);
                if let Some(below) = below {
                    word |= south | (row[i] ^ east(below, i));
                }
                if i == last_word {
                    word = word & !last_column | south & last_column;
                }
                out[i] = word;
            }
        }
        boundary
    }

    /// Returns the pixels within the disk dx² + dy² ≤ `radius`² around a set pixel.
    pub fn dilated(&self, radius: usize) -> Self {
        let mut dilated = Self::new(self.width, self.height);
        let reach = disk(radius);
        for y in 0..self.height {
            let first = y.saturating_sub(radius);
            let last = (y + radius).min(self.height - 1);
            for (i, &word) in self.row(y).iter().enumerate() {
                let mut rest = word;
                while rest != 0 {
                    let x = 64 * i + rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    for to in first..=last {
                        let reach = reach[to.abs_diff(y)];
                        dilated.set_span(to, x.saturating_sub(reach), (x + reach).min(self.width - 1));
                    }
                }
            }
        }
        dilated
    }

    fn row(&self, y: usize) -> &[u64] {
        &self.bits[y * self.words..(y + 1) * self.words]
    }

    /// Sets the columns `from..=to` of row `y`.
    fn set_span(&mut self, y: usize, from: usize, to: usize) {
        let row = &mut self.bits[y * self.words..(y + 1) * self.words];
        let (first, last) = (from / 64, to / 64);
        let head = !0 << (from % 64);
        let tail = !0 >> (63 - to % 64);
        if first == last {
            row[first] |= head & tail;
        } else {
            row[first] |= head;
            row[first + 1..last].fill(!0);
            row[last] |= tail;
        }
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
                bitmap.set_span(y, x, (x + wide).min(width - 1));
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
