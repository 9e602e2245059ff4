// SPDX-License-Identifier: MPL-2.0

//! Alpha at the resolution of subsampled components.

use super::MaskView;

/// Writes the means of 2^x x 2^y pixels of `alpha`, `subsampling` being (x, y); groups at the right and lower borders
/// may be smaller. Returns the view of `out`.
pub fn subsample<'a>(alpha: MaskView, subsampling: (u32, u32), out: &'a mut Vec<u8>) -> MaskView<'a> {
    let side = (1 << subsampling.0, 1 << subsampling.1);
    let (width, height) = (alpha.width.div_ceil(side.0), alpha.height.div_ceil(side.1));
    out.resize(width * height, 0);
    let groups = alpha.values.chunks(alpha.width * side.1);
    for (out, rows) in out.chunks_exact_mut(width).zip(groups) {
        let whole = alpha.width / side.0;
        match (side.0, rows.len() / alpha.width) {
            (2, 2) => {
                let (upper, lower) = rows.split_at(alpha.width);
                let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
                for (out, (a, b)) in out.iter_mut().zip(pairs) {
                    let sum = u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1]);
                    *out = ((sum + 2) >> 2) as u8;
                }
            }
            (2, 1) => {
                for (out, pair) in out.iter_mut().zip(rows.chunks_exact(2)) {
                    *out = (u16::from(pair[0]) + u16::from(pair[1])).div_ceil(2) as u8;
                }
            }
            _ => (0..whole).for_each(|x| out[x] = mean(rows, alpha.width, x * side.0, side.0)),
        }
        (whole..width).for_each(|x| out[x] = mean(rows, alpha.width, x * side.0, side.0));
    }
    MaskView { values: out, width, height }
}

/// Mean of a group that begins at column `first` of `rows`.
fn mean(rows: &[u8], width: usize, first: usize, side: usize) -> u8 {
    let group = rows.chunks_exact(width).flat_map(|row| &row[first..(first + side).min(width)]);
    let (sum, count) = group.fold((0, 0), |(sum, count), &alpha| (sum + u32::from(alpha), count + 1));
    ((sum + count / 2) / count.max(1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_averaged_at_every_size() {
        for (width, height) in [(1, 1), (2, 2), (7, 5), (8, 3), (40, 9)] {
            let values: Vec<u8> = (0..width * height).map(|i| (i * i * 31) as u8).collect();
            let alpha = MaskView { values: &values, width, height };
            for subsampling in [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2), (0, 1)] {
                let mut out = Vec::new();
                let after = subsample(alpha, subsampling, &mut out);
                let (x_side, y_side) = (1 << subsampling.0, 1 << subsampling.1);
                assert_eq!((after.width, after.height), (width.div_ceil(x_side), height.div_ceil(y_side)));
                for (i, &value) in after.values.iter().enumerate() {
                    let (x, y) = (i % after.width * x_side, i / after.width * y_side);
                    let group: Vec<f64> = (y..(y + y_side).min(height))
                        .flat_map(|y| (x..(x + x_side).min(width)).map(move |x| (x, y)))
                        .map(|(x, y)| f64::from(values[y * width + x]))
                        .collect();
                    let expected = (group.iter().sum::<f64>() / group.len() as f64 + 0.5).floor();
                    assert_eq!(f64::from(value), expected, "{width}x{height}, {subsampling:?}, {i}");
                }
            }
        }
    }
}
