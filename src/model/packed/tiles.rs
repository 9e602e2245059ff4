// SPDX-License-Identifier: MPL-2.0

//! Tiles of a picture, so that only parts of it are computed.

use std::ops::Range;

/// Width and height of a tile in positions.
pub const TILE_SIDE: usize = 4;

/// Some of the tiles of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    columns: usize,
    /// Row by row.
    chosen: Vec<bool>,
}

/// Neighbouring tiles of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Row of tiles.
    pub row: usize,
    /// Columns of tiles.
    pub columns: Range<usize>,
}

impl Tiles {
    /// Returns the tiles of a picture of `rows` and `columns` of tiles for which `is_chosen`, given row and column, is true.
    pub fn new(rows: usize, columns: usize, is_chosen: impl Fn(usize, usize) -> bool) -> Self {
        let is_chosen = |at: usize| is_chosen(at / columns, at % columns);
        Self { columns, chosen: (0..rows * columns).map(is_chosen).collect() }
    }

    /// Returns the number of rows and of columns of the picture.
    pub fn size(&self) -> (usize, usize) {
        (self.chosen.len() / self.columns, self.columns)
    }

    /// Returns whether a tile is one of these.
    pub fn contains(&self, row: usize, column: usize) -> bool {
        self.chosen[row * self.columns + column]
    }

    /// Adds the eight neighbours of each tile.
    pub fn with_neighbours(&self) -> Self {
        let (rows, columns) = self.size();
        let around = |at: usize, end: usize| at.saturating_sub(1)..(at + 2).min(end);
        let mut chosen = vec![false; self.chosen.len()];
        for Run { row, columns: run } in self.runs() {
            for row in around(row, rows) {
                let run = around(run.start, columns).start..around(run.end - 1, columns).end;
                chosen[row * columns..][run].fill(true);
            }
        }
        Self { columns, chosen }
    }

    /// Returns the tiles row by row, from left to right.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (row, chosen) in self.chosen.chunks_exact(self.columns).enumerate() {
            let mut start = 0;
            for part in chosen.chunk_by(|a, b| a == b) {
                let columns = start..start + part.len();
                start = columns.end;
                if part[0] {
                    runs.push(Run { row, columns });
                }
            }
        }
        runs
    }

    /// Returns the rows and the columns that contain all of these tiles; `None` if there are none.
    pub fn bounds(&self) -> Option<(Range<usize>, Range<usize>)> {
        let runs = self.runs();
        let rows = runs.first()?.row..runs.last()?.row + 1;
        let start = runs.iter().map(|run| run.columns.start).min()?;
        let end = runs.iter().map(|run| run.columns.end).max()?;
        Some((rows, start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_stay_within_the_picture() {
        let tiles = Tiles::new(3, 5, |row, column| [(0, 0), (2, 3)].contains(&(row, column)));
        let run = |row, columns| Run { row, columns };
        assert_eq!(tiles.runs(), [run(0, 0..1), run(2, 3..4)]);
        assert_eq!(tiles.bounds(), Some((0..3, 0..4)));
        let around = tiles.with_neighbours();
        assert_eq!(around.runs(), [run(0, 0..2), run(1, 0..5), run(2, 2..5)]);
        assert!(around.contains(1, 4) && !around.contains(0, 4));
        let none = Tiles::new(3, 5, |_, _| false);
        assert_eq!((none.runs(), none.bounds(), none.with_neighbours()), (vec![], None, none.clone()));
    }
}
