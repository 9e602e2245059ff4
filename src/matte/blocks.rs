//! Which parts of a plane there is anything to do in.

use std::ops::Range;

use super::MaskView;
use crate::Result;
use crate::image::PlaneMut;

/// The least side of a block in pixels.
const SIDE: usize = 32;

impl MaskView<'_> {
    /// Some of a row's values; what lies beyond the borders continues as at the border.
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

/// A rectangle that needs work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rect {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

/// Blocks of a plane that have another value within reach.
#[derive(Debug, Default)]
pub struct Blocks {
    side: usize,
    across: usize,
    /// The only value of a block, or none.
    values: Vec<Option<u8>>,
}

impl Blocks {
    /// Finds the blocks to work on when every pixel depends on those `reach` pixels around it.
    fn survey(&mut self, plane: MaskView, reach: usize) {
        self.side = SIDE.max(reach);
        self.across = plane.width.div_ceil(self.side);
        self.values.clear();
        for rows in plane.values.chunks(plane.width * self.side) {
            for begin in (0..plane.width).step_by(self.side) {
                let end = (begin + self.side).min(plane.width);
                let value = rows[begin];
                let only = rows.chunks(plane.width).all(|row| all_are(&row[begin..end], value));
                self.values.push(only.then_some(value));
            }
        }
    }

    fn is_busy(&self, block: usize) -> bool {
        let (x, y) = (block % self.across, block / self.across);
        let own = self.values[block];
        let down = self.values.len() / self.across;
        own.is_none()
            || (y.saturating_sub(1)..(y + 2).min(down)).any(|y| {
                let row = &self.values[y * self.across..][..self.across];
                row[x.saturating_sub(1)..(x + 2).min(self.across)].iter().any(|&other| other != own)
            })
    }

    /// Copies a plane, and gives the rectangles of it where a filter of this reach changes anything to
    /// `work`.
    pub fn filter(
        &mut self,
        from: MaskView,
        to: &mut PlaneMut,
        reach: usize,
        mut work: impl FnMut(Rect, &mut PlaneMut),
    ) -> Result<()> {
        to.copy(from.values)?;
        self.survey(from, reach);
        let down = self.values.len() / self.across;
        for y in 0..down {
            let mut x = 0;
            while x < self.across {
                let begin = x;
                while x < self.across && self.is_busy(y * self.across + x) {
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
    fn only_what_is_near_an_edge_is_worked_on() {
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
    fn borders_continue() {
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
