// SPDX-License-Identifier: MPL-2.0

//! Connected components.

/// Returns the positions of each 8-connected component of the `inside` positions of a grid. Positions are counted row
/// by row.
pub(crate) fn connected_components(
    (rows, columns): (usize, usize),
    inside: impl Fn(usize) -> bool,
) -> Vec<Vec<usize>> {
    let mut seen = vec![false; rows * columns];
    let mut components = Vec::new();
    for start in 0..rows * columns {
        if seen[start] || !inside(start) {
            continue;
        }
        let mut component = Vec::new();
        let mut open = vec![start];
        seen[start] = true;
        while let Some(position) = open.pop() {
            component.push(position);
            for next in neighbours(position, (rows, columns)) {
                if !seen[next] && inside(next) {
                    seen[next] = true;
                    open.push(next);
                }
            }
        }
        components.push(component);
    }
    components
}

/// Returns the positions next to `position`, diagonals and itself included.
pub(crate) fn neighbours(position: usize, (rows, columns): (usize, usize)) -> impl Iterator<Item = usize> {
    let (row, column) = (position / columns, position % columns);
    let near = |at: usize, end: usize| at.saturating_sub(1)..(at + 2).min(end);
    near(row, rows).flat_map(move |row| near(column, columns).map(move |column| row * columns + column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagonals_connect_and_row_ends_do_not() {
        let picture = "\
            ##..#\
            ..#..\
            #...#";
        let grid = picture.as_bytes();
        let mut components = connected_components((3, 5), |at| grid[at] == b'#');
        components.iter_mut().for_each(|component| component.sort_unstable());
        assert_eq!(components, [vec![0, 1, 7], vec![4], vec![10], vec![14]]);
        assert!(connected_components((0, 5), |_| true).is_empty());
    }
}
