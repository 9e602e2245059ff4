// SPDX-License-Identifier: MPL-2.0

//! Calibration of the tracker's confidence.

use std::path::Path;

use crate::Result;
use crate::report::write_rows;

/// Width of the bins of [`calibration_error`].
const BIN: f64 = 0.05;

/// One object in one scored frame.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConfidenceRow {
    /// Name of the sequence.
    pub sequence: String,
    /// Name of the frame.
    pub frame: String,
    /// Id of the object.
    pub object: u8,
    /// Expected region similarity, 0 to 1.
    pub confidence: f64,
    /// Similarity of the masked features to the reference.
    pub likeness: f64,
    /// Share of the crop window that the mask covers. 0 = no mask.
    pub area: f64,
    /// Region similarity J of mask and truth, 0 to 1.
    pub region: f64,
}

/// Expected calibration error of the rows with a mask: the mean distance of confidence and region similarity over bins
/// of equal width, weighted by their number of rows (Guo et al., *On Calibration of Modern Neural Networks*, 2017,
/// equation 3). 0 without rows.
pub fn calibration_error(rows: &[ConfidenceRow]) -> f64 {
    let mut bins = vec![(0.0, 0.0); (1.0 / BIN) as usize];
    let last = bins.len() - 1;
    let mut count = 0;
    for row in rows.iter().filter(|row| row.area > 0.0) {
        // The small addend compensates for rounding: 0.15 / 0.05 is less than 3.
        let bin = &mut bins[((row.confidence / BIN + 1e-9) as usize).min(last)];
        bin.0 += row.confidence;
        bin.1 += row.region;
        count += 1;
    }
    bins.iter().map(|(confidence, region)| (confidence - region).abs()).sum::<f64>() / f64::from(count.max(1))
}

/// Spearman's rank correlation of confidence and region similarity over the rows with a mask, −1 to 1. `None` if either
/// is constant.
pub fn rank_correlation(rows: &[ConfidenceRow]) -> Option<f64> {
    let masks = || rows.iter().filter(|row| row.area > 0.0);
    let a = ranks(&masks().map(|row| row.confidence).collect::<Vec<_>>());
    let b = ranks(&masks().map(|row| row.region).collect::<Vec<_>>());
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let spread = product(&a, &a) * product(&b, &b);
    (spread > 0.0).then(|| product(&a, &b) / spread.sqrt())
}

/// Rank of each value, from 0. Equal values share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let (below, equal) = values.iter().fold((0, 0), |(below, equal), other| {
            (below + usize::from(other < value), equal + usize::from(other == value))
        });
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Writes the rows as CSV.
///
/// # Errors
/// The file cannot be written.
pub fn write_confidence(path: &Path, rows: &[ConfidenceRow]) -> Result<()> {
    let header = ["sequence", "frame", "object", "confidence", "likeness", "area", "J"].map(str::to_owned);
    let fields = rows.iter().map(|row| {
        let ConfidenceRow { sequence, frame, object, confidence, likeness, area, region } = row;
        let [confidence, likeness, area, region] = [confidence, likeness, area, region].map(f64::to_string);
        [sequence.clone(), frame.clone(), object.to_string(), confidence, likeness, area, region]
    });
    write_rows(path, std::iter::once(header).chain(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(confidence: f64, region: f64) -> ConfidenceRow {
        let (sequence, frame) = ("s".into(), "00001".into());
        ConfidenceRow { sequence, frame, object: 1, confidence, likeness: 0.0, area: 0.1, region }
    }

    #[test]
    fn exact_confidence_has_no_error() {
        let rows = [0.55, 0.72, 0.9, 1.0].map(|value| row(value, value));
        assert!(calibration_error(&rows) < 1e-12);
        assert_eq!(rank_correlation(&rows), Some(1.0));
    }

    #[test]
    fn the_error_is_weighted_by_bin_size() {
        let rows = [(0.95, 0.75), (0.95, 0.85), (0.95, 0.8), (0.55, 0.15)].map(|(c, r)| row(c, r));
        assert!((calibration_error(&rows) - (3.0 * 0.15 + 0.4) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn rows_without_a_mask_do_not_count() {
        let empty = ConfidenceRow { area: 0.0, ..row(0.0, 0.0) };
        assert_eq!(calibration_error(&[row(0.9, 0.9), empty.clone()]), 0.0);
        assert_eq!(rank_correlation(&[row(0.9, 0.9), empty]), None);
        assert_eq!(calibration_error(&[]), 0.0);
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        let rows: Vec<_> =
            [5.0, 6.0, 7.0, 8.0, 7.0].iter().zip(1..).map(|(&r, c)| row(f64::from(c), r)).collect();
        let found = rank_correlation(&rows).unwrap();
        assert!((found - 0.820_782_681_668_123_3).abs() < 1e-12, "{found}");
    }
}
