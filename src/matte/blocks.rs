// SPDX-License-Identifier: MPL-2.0

//! Division of planes into blocks, so that filters skip those that they do not change.

use std::ops::Range;

use super::MaskView;
use crate::Result;
use crate::image::PlaneMut;

/// Minimum side of a block in pixels.
const MIN_SIDE: usize = 32;

impl MaskView<'_> {
    /// Reads `columns` of row `y`; beyond the borders, the value at the border is repeated.
    pub fn read(&self, y: isize, columns: Range<isize>, out: &mut Vec<u8>) {
        let y = y.clamp(0, self.height as isize - 1) as usize;
        let row = &self.values[y * self.width..][..self.width];
        let (begin, end) = (columns.start.max(0) as usize, (columns.end.max(0) as usize).min(self.width));
        out.clear();
        out.resize((-columns.start).max(0) as usize, row[0]);
        out.extend_from_slice(&row[begin.min(end)..end]);
        out.resize(columns.len(), row[self.width - 1]);
    }
}

/// A rectangle that a filter has to process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rect {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

/// Blocks of a plane, used to find those that have different values within the reach of a filter.
#[derive(Debug, Default)]
pub struct Blocks {
    side: usize,
    across: usize,
    /// The value of each flat block, `None` for other blocks.
    values: Vec<Option<u8>>,
}

impl Blocks {
    /// Finds the flat blocks. Their side is chosen so that a filter of this reach depends on adjacent blocks only.
    fn find_flat(&mut self, plane: MaskView, reach: usize) {
        self.side = MIN_SIDE.max(reach);
        self.across = plane.width.div_ceil(self.side);
        self.values.clear();
        for rows in plane.values.chunks(plane.width * self.side) {
            for begin in (0..plane.width).step_by(self.side) {
                let end = (begin + self.side).min(plane.width);
                let value = rows[begin];
                let is_flat = rows.chunks(plane.width).all(|row| all_are(&row[begin..end], value));
                self.values.push(is_flat.then_some(value));
            }
        }
    }

    /// Whether a filter can change the block: it and its neighbours do not all have the same value.
    fn is_affected(&self, block: usize) -> bool {
        let (x, y) = (block % self.across, block / self.across);
        let own = self.values[block];
        let down = self.values.len() / self.across;
        own.is_none()
            || (y.saturating_sub(1)..(y + 2).min(down)).any(|y| {
                let row = &self.values[y * self.across..][..self.across];
                row[x.saturating_sub(1)..(x + 2).min(self.across)].iter().any(|&other| other != own)
            })
    }

    /// Copies a plane, then calls `work` for each rectangle that a filter of this reach can change.
    pub fn filter(
        &mut self,
        from: MaskView,
        to: &mut PlaneMut,
        reach: usize,
        mut work: impl FnMut(Rect, &mut PlaneMut),
    ) -> Result<()> {
        to.copy(from.values)?;
        self.find_flat(from, reach);
        let down = self.values.len() / self.across;
        for y in 0..down {
            let mut x = 0;
            while x < self.across {
                let begin = x;
                while x < self.across && self.is_affected(y * self.across + x) {
                    x += 1;
                }
                if x > begin {
                    let columns = begin * self.side..(x * self.side).min(from.width);
                    let rows = y * self.side..((y + 1) * self.side).min(from.height);
                    work(Rect { columns, rows }, to);
                }
                x += 1;
            }
        }
        Ok(())
    }
}

fn all_are(values: &[u8], value: u8) -> bool {
    values.iter().fold(0, |difference, &it| difference | (it ^ value)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_near_an_edge_are_processed() {
        let (width, height) = (200, 100);
        let mut values = vec![0; width * height];
        values[40 * width + 100] = 1;
        let mut out = vec![9; width * height];
        let mut found = Vec::new();
        let mut to = PlaneMut { data: &mut out, width, height, stride: width };
        let from = MaskView { values: &values, width, height };
        Blocks::default().filter(from, &mut to, 5, |rect, _| found.push(rect)).unwrap();
        let rows = [0..32, 32..64, 64..96];
        assert_eq!(found, rows.map(|rows| Rect { columns: 64..160, rows }));
        assert_eq!(out, values);
        let mut found = 0;
        let mut to = PlaneMut { data: &mut out, width, height, stride: width };
        let from = MaskView { values: &vec![3; width * height], width, height };
        Blocks::default().filter(from, &mut to, 500, |_, _| found += 1).unwrap();
        assert_eq!(found, 0);
    }

    #[test]
    fn values_beyond_a_border_repeat_the_border() {
        let plane = MaskView { values: &[1, 2, 3, 4], width: 2, height: 2 };
        let mut out = Vec::new();
        plane.read(-5, -2..4, &mut out);
        assert_eq!(out, [1, 1, 1, 2, 2, 2]);
        plane.read(9, -3..0, &mut out);
        assert_eq!(out, [3, 3, 3]);
        plane.read(1, 2..4, &mut out);
        assert_eq!(out, [4, 4]);
    }
}
