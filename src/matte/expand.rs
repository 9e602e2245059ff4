// SPDX-License-Identifier: MPL-2.0

//! Growing and shrinking of mattes: contours move by the same distance in every direction. Each result is the
//! maximum (or minimum) within a disk of the linearly interpolated values, so edges keep their softness, and
//! distances may be fractions of a pixel.

use super::MaskView;
use super::blocks::{Blocks, Rect};
use crate::Result;
use crate::image::PlaneMut;

/// Maximum distance in pixels.
pub const MAX_EXPAND: f64 = 128.0;

/// Radius above which most chords have integer lengths, for speed; the error is a third of a pixel.
const LARGE_RADIUS: f64 = 24.0;

/// Grows or shrinks mattes; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct Expander {
    blocks: Blocks,
    disk: Disk,
    line: Vec<u8>,
    /// Maximum of the 1, 2, 4, ... values from each position on.
    powers: Vec<Vec<u8>>,
    chord: Vec<u8>,
    caps: Vec<Vec<u8>>,
    out: Vec<u8>,
}

/// A disk, composed of horizontal chords.
#[derive(Clone, Debug, Default, PartialEq)]
struct Disk {
    radius: f64,
    /// Half length of the chords 0, 1, 2, ... rows from the centre.
    chords: Vec<f64>,
    /// Chords between rows, at the top and at the bottom: half length and distance from the centre.
    caps: Vec<(usize, f64)>,
}

impl Disk {
    fn new(radius: f64) -> Self {
        let half = |distance: f64| (radius * radius - distance * distance).max(0.0).sqrt();
        let chord = |row: usize| match half(row as f64) {
            // In a large disk, fractions matter little but take most of the time.
            length if radius > LARGE_RADIUS && row as f64 > 3.0 * radius.sqrt() => length.floor(),
            length => length,
        };
        let chords: Vec<f64> = (0..=radius as usize).map(chord).collect();
        let caps = (0..=radius.sqrt() as usize).map(|column| (column, half(column as f64))).collect();
        Self { radius, chords, caps }
    }

    fn reach(&self) -> usize {
        self.radius as usize + 1
    }
}

impl Expander {
    /// Grows opaque areas by `distance` pixels; a negative distance shrinks them.
    pub fn expand(&mut self, from: MaskView, distance: f64, to: &mut PlaneMut) -> Result<()> {
        let radius = distance.abs().min(MAX_EXPAND);
        if self.disk.radius != radius || self.disk.chords.is_empty() {
            self.disk = Disk::new(radius);
        }
        let disk = std::mem::take(&mut self.disk);
        let mut blocks = std::mem::take(&mut self.blocks);
        let result = blocks.filter(from, to, disk.reach(), |rect, to| {
            // Shrinking an object is growing its background.
            if distance > 0.0 {
                self.grow::<0>(from, &disk, &rect, to);
            } else {
                self.grow::<255>(from, &disk, &rect, to);
            }
        });
        (self.disk, self.blocks) = (disk, blocks);
        result
    }

    /// Grows the values within a rectangle; with `FLIP` 255 it grows their inverse.
    fn grow<const FLIP: u8>(&mut self, from: MaskView, disk: &Disk, rect: &Rect, to: &mut PlaneMut) {
        let width = rect.columns.len();
        let reach = disk.reach();
        let columns = rect.columns.start as isize - reach as isize..(rect.columns.end + reach) as isize;
        self.out.clear();
        self.out.resize(width * rect.rows.len(), 0);
        self.caps.iter_mut().for_each(Vec::clear);
        self.caps.resize(disk.caps.len(), Vec::new());
        let first = rect.rows.start as isize - reach as isize;
        for y in first..(rect.rows.end + reach) as isize {
            from.read(y, columns.clone(), &mut self.line);
            if FLIP != 0 {
                self.line.iter_mut().for_each(|value| *value ^= FLIP);
            }
            self.fill_powers(2 * reach);
            let y = y - rect.rows.start as isize;
            let wanted = 0..rect.rows.len() as isize;
            for (row, &half) in disk.chords.iter().enumerate() {
                if !wanted.contains(&(y - row as isize)) && !wanted.contains(&(y + row as isize)) {
                    continue;
                }
                self.set_chord(reach, width, half);
                merge(&mut self.out, width, y - row as isize, &self.chord);
                if row > 0 {
                    merge(&mut self.out, width, y + row as isize, &self.chord);
                }
            }
            for (index, &(half, distance)) in disk.caps.iter().enumerate() {
                self.set_chord(reach, width, half as f64);
                let before = &mut self.caps[index];
                if !before.is_empty() {
                    let rows = distance as isize;
                    let share = share(distance.fract());
                    merge_between(&mut self.out, width, y - 1 - rows, (before, &self.chord), share);
                    merge_between(&mut self.out, width, y + rows, (&self.chord, before), share);
                }
                before.clone_from(&self.chord);
            }
        }
        let rows = rect.rows.clone().zip(self.out.chunks_exact(width));
        for (y, values) in rows {
            let start = y * to.stride + rect.columns.start;
            let Some(out) = to.data.get_mut(start..start + width) else { continue };
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value ^ FLIP);
        }
    }

    /// Fills `powers` for runs of up to `longest` + 1 values.
    fn fill_powers(&mut self, longest: usize) {
        let count = (longest + 1).ilog2() as usize + 1;
        self.powers.resize(count.max(self.powers.len()), Vec::new());
        self.powers[0].clone_from(&self.line);
        for n in 1..count {
            let step = 1 << (n - 1);
            let (lower, upper) = self.powers.split_at_mut(n);
            let (below, power) = (&lower[n - 1], &mut upper[0]);
            power.clone_from(below);
            if step < below.len() {
                power.iter_mut().zip(&below[step..]).for_each(|(a, &b)| *a = (*a).max(b));
            }
        }
    }

    /// Sets `chord` to the maximum up to `half` to the left and right of each of `width` values, the first of
    /// which is `reach` from the start of the line.
    fn set_chord(&mut self, reach: usize, width: usize, half: f64) {
        let whole = half as usize;
        let length = 2 * whole + 1;
        let power = length.ilog2() as usize;
        let first = &self.powers[power][reach - whole..][..width];
        let second = &self.powers[power][reach + whole + 1 - (1 << power)..][..width];
        self.chord.clear();
        self.chord.extend(first.iter().zip(second).map(|(&a, &b)| a.max(b)));
        let share = share(half.fract());
        if share > 0 {
            let at = |place: usize| &self.line[place..][..width];
            raise(&mut self.chord, at(reach - whole), at(reach - whole - 1), share);
            raise(&mut self.chord, at(reach + whole), at(reach + whole + 1), share);
        }
    }
}

/// A fraction in units of 1 / 256.
fn share(fraction: f64) -> u16 {
    (fraction * 256.0).round() as u16
}

/// Raises `out` to at least the interpolation of two lines, in which the second has a weight of `share` of 256.
fn raise(out: &mut [u8], first: &[u8], second: &[u8], share: u16) {
    for (out, (&a, &b)) in out.iter_mut().zip(first.iter().zip(second)) {
        let between = (u16::from(a) * (256 - share) + u16::from(b) * share + 128) >> 8;
        *out = (*out).max(between as u8);
    }
}

fn row_of(out: &mut [u8], width: usize, y: isize) -> Option<&mut [u8]> {
    let start = usize::try_from(y).ok()? * width;
    out.get_mut(start..start + width)
}

fn merge(out: &mut [u8], width: usize, y: isize, line: &[u8]) {
    if let Some(row) = row_of(out, width, y) {
        row.iter_mut().zip(line).for_each(|(out, &value)| *out = (*out).max(value));
    }
}

fn merge_between(out: &mut [u8], width: usize, y: isize, lines: (&[u8], &[u8]), share: u16) {
    if let Some(row) = row_of(out, width, y) {
        raise(row, lines.0, lines.1, share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matte::testing::{contour, disk, edge};

    fn expanded(values: &[u8], width: usize, distance: f64) -> Vec<u8> {
        let height = values.len() / width;
        let mut out = vec![0; values.len()];
        let mut plane = PlaneMut { data: &mut out, width, height, stride: width };
        Expander::default().expand(MaskView { values, width, height }, distance, &mut plane).unwrap();
        out
    }

    #[test]
    fn straight_edges_move_by_the_distance() {
        // Linear interpolation itself misplaces hard edges slightly.
        for (softness, tolerance) in [(1.0, 0.15), (4.0, 0.03)] {
            for distance in [-9.3, -2.0, -0.4, 0.3, 0.5, 1.0, 3.7, 12.0] {
                let before = edge(96, 40.2, softness);
                let row = &expanded(&before, 96, distance)[5 * 96..6 * 96];
                let moved = contour(&before[..96]) - contour(row);
                assert!((moved - distance).abs() < tolerance, "{distance} at {softness}: {moved}");
            }
        }
    }

    #[test]
    fn disks_grow_and_shrink_by_the_distance_in_every_direction() {
        let side = 121;
        for (radius, softness, tolerance) in [(20.0, 1.0, 0.35), (20.0, 3.0, 0.25), (30.5, 4.0, 0.25)] {
            for distance in [-7.4, -3.0, -0.6, 0.4, 1.5, 5.0, 10.0, 21.3] {
                let after = expanded(&disk(side, radius, softness), side, distance);
                for step in 0..90 {
                    let angle = f64::from(step) * std::f64::consts::PI / 45.0;
                    // Values along a ray, interpolated linearly, from the outside to the centre.
                    let ray: Vec<u8> = (0..240)
                        .rev()
                        .map(|i| {
                            let r = f64::from(i) * 0.25;
                            let (x, y) = (60.0 + r * angle.cos(), 60.0 + r * angle.sin());
                            let pick = |x: f64, y: f64| f64::from(after[y as usize * side + x as usize]);
                            let (u, v) = (x.fract(), y.fract());
                            let row = |y: f64| pick(x, y) * (1.0 - u) + pick((x + 1.0).min(120.0), y) * u;
                            (row(y) * (1.0 - v) + row((y + 1.0).min(120.0)) * v).round() as u8
                        })
                        .collect();
                    let found = (239.0 - contour(&ray)) * 0.25;
                    let wanted = radius + distance;
                    assert!((found - wanted).abs() < tolerance, "{radius} {distance} {step}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_larger_distance_never_reduces_alpha() {
        let before = disk(64, 11.3, 1.0);
        let mut last = expanded(&before, 64, -8.0);
        for step in -31..32 {
            let after = expanded(&before, 64, f64::from(step) / 4.0);
            let grown = last.iter().zip(&after).all(|(a, b)| a <= b);
            assert!(grown, "{step}");
            last = after;
        }
    }

    #[test]
    fn distance_0_and_flat_masks_change_nothing() {
        let before = disk(50, 17.0, 1.0);
        assert_eq!(expanded(&before, 50, 0.0), before);
        for value in [0, 90, 255] {
            assert_eq!(expanded(&[value; 30], 5, 7.5), [value; 30]);
            assert_eq!(expanded(&[value; 30], 5, -300.0), [value; 30]);
        }
        assert_eq!(expanded(&[9], 1, 2.5), [9]);
    }

    #[test]
    fn objects_continue_beyond_the_border() {
        let mut before = vec![255; 40 * 40];
        before.iter_mut().enumerate().filter(|(i, _)| i % 40 >= 20).for_each(|(_, value)| *value = 0);
        let after = expanded(&before, 40, -3.0);
        for row in after.chunks(40) {
            assert_eq!(row[..17], [255; 17]);
            assert_eq!(row[17..], [0; 23]);
        }
    }

    #[test]
    fn everything_within_the_distance_becomes_opaque() {
        let mut before = vec![0; 33 * 77];
        before[40 * 33 + 16] = 255;
        assert_eq!(expanded(&before, 33, 1e9), vec![255; 33 * 77]);
    }
}
