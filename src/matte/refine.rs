// SPDX-License-Identifier: MPL-2.0

//! Refinement of edges: doubles the resolution of a small mask near its edges with a network that sees the luma of the frame.
//! The rest of the mask is doubled bilinearly.

use std::fmt::Debug;
use std::ops::Range;

use tch::Tensor;

use super::guide::Guide;
use super::{Enlarger, MaskView};
use crate::Result;
use crate::image::{PlaneMut, Region};
use crate::model::lite::refiner::Refiner;
use crate::model::{Map, Run, TILE_SIDE, Tiles, floats, pixels};

/// A network that refines edges.
pub(crate) trait RefinerNetwork: Debug + Send + Sync {
    fn extent(&self) -> Extent;

    /// Returns what is to be added to the 2x2 pixels of the doubled mask at the positions of `tiles`, (1, 4, H, W), float32, on
    /// the CPU. `input`, (1, 8, H, W), float32, has these pixels and those of luma in [−1, 1]; see [`Extent`].
    fn corrections(&self, input: &Tensor, tiles: &Tiles) -> Result<Tensor>;
}

/// What a network computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Tiles: the input has them and those next to them, and is zero next to these.
    Tiles,
    /// The bounds of all tiles with edges.
    Bounds,
    /// The whole mask, so that the size never changes.
    Whole,
}

/// Channels of the network's output.
const OUTPUTS: usize = 4;
/// Channels of the network's input.
const INPUTS: usize = Refiner::INPUTS as usize;
/// Range of the values of a tile and the pixels around it, 0 to 255, from which it has an edge.
const FLAT: u8 = 12;
/// Corrections up to this value, of 255, are noise.
const NOISE: f32 = 1.5;

/// Returns an input of a network for a whole mask, zeros, and its tiles.
pub(crate) fn refiner_input(height: usize, width: usize) -> Result<(Tensor, Tiles)> {
    let (rows, columns) = (height.div_ceil(TILE_SIDE) + 2, width.div_ceil(TILE_SIDE) + 2);
    let shape = [INPUTS, rows * TILE_SIDE, columns * TILE_SIDE].map(|length| length as i64);
    let input = Tensor::f_zeros([1, shape[0], shape[1], shape[2]], (tch::Kind::Float, tch::Device::Cpu))?;
    Ok((input, Tiles::new(rows, columns, |_, _| true)))
}

/// Refines edges; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct EdgeRefiner {
    enlarger: Enlarger,
    doubled: Vec<u8>,
    columns: Axis,
    rows: Axis,
    luma: Vec<f32>,
}

/// Part of a mask that a network refines at once.
struct Part {
    /// Row and column of the small mask where the part begins; it may begin beyond the mask.
    start: (isize, isize),
    /// The tiles that have edges.
    tiles: Tiles,
}

impl EdgeRefiner {
    /// Returns `small` at twice its size with refined edges; `region` is its place in `guide`. `None` if the region exceeds
    /// the guide or is smaller than the mask.
    pub fn refine<'a>(
        &'a mut self,
        network: &dyn RefinerNetwork,
        small: &MaskView,
        guide: &Guide,
        region: Region,
    ) -> Result<Option<MaskView<'a>>> {
        let fits = region.x + region.width <= guide.size().0 && region.y + region.height <= guide.size().1;
        if !fits || region.width < small.width || region.height < small.height {
            return Ok(None);
        }
        let (width, height) = (2 * small.width, 2 * small.height);
        self.doubled.resize(width * height, 0);
        let doubled = &mut PlaneMut { data: &mut self.doubled, width, height, stride: width };
        self.enlarger.enlarge(small, doubled)?;
        self.columns.set(region.width, width);
        self.rows.set(region.height, height);
        let extent = network.extent();
        if let Some(part) = Part::of(small, extent) {
            let input = self.input(&part, extent, small, guide, region)?;
            let correction = network.corrections(&input, &part.tiles)?;
            self.correct(&part, &correction, small)?;
        }
        Ok(Some(MaskView { values: &self.doubled, width, height }))
    }

    /// Returns the network's input for a part. Positions beyond the mask repeat its border.
    fn input(
        &mut self,
        part: &Part,
        extent: Extent,
        small: &MaskView,
        guide: &Guide,
        region: Region,
    ) -> Result<Tensor> {
        let (rows, columns) = part.tiles.size();
        let mut input = Map::new(1, rows * TILE_SIDE, columns * TILE_SIDE, INPUTS)?;
        let tiles = match extent {
            Extent::Tiles => part.tiles.with_neighbours(),
            Extent::Bounds | Extent::Whole => Tiles::new(rows, columns, |_, _| true),
        };
        input.clear_around(&tiles);
        let length = columns * TILE_SIDE * INPUTS;
        let within = |start: isize, of: usize| {
            move |at: usize| (2 * start + at as isize).clamp(0, 2 * of as isize - 1) as usize
        };
        let (row, column) = (within(part.start.0, small.height), within(part.start.1, small.width));
        let unit = |value: f32| value * (2.0 / 255.0) - 1.0;
        for Run { row: tile, columns } in tiles.runs() {
            let columns = columns.start * TILE_SIDE..columns.end * TILE_SIDE;
            let (first, last) = (column(2 * columns.start), column(2 * columns.end - 1));
            let span = self.columns.taps(first).start..self.columns.taps(last).end;
            for at_y in 2 * TILE_SIDE * tile..2 * TILE_SIDE * (tile + 1) {
                let row = row(at_y);
                self.luma.clear();
                self.luma.resize(span.len(), 0.0);
                for (y, &weight) in self.rows.taps(row).zip(self.rows.weights(row)) {
                    let values = guide.row(region.y + y, region.x + span.start..region.x + span.end);
                    self.luma
                        .iter_mut()
                        .zip(&*values)
                        .for_each(|(sum, &value)| *sum += weight * f32::from(value));
                }
                let doubled = &self.doubled[row * 2 * small.width..][..2 * small.width];
                let positions = &mut input.item(0)[at_y / 2 * length + columns.start * INPUTS..];
                for (at, position) in columns.clone().zip(positions.chunks_exact_mut(INPUTS)) {
                    for dx in 0..2 {
                        let column = column(2 * at + dx);
                        let luma = &self.luma[self.columns.taps(column).start - span.start..];
                        let weights = self.columns.weights(column);
                        let luma: f32 = luma.iter().zip(weights).map(|(a, b)| a * b).sum();
                        let part = at_y % 2 * 2 + dx;
                        position[part] = unit(f32::from(doubled[column]));
                        position[4 + part] = unit(luma);
                    }
                }
            }
        }
        input.into_tensor()
    }

    fn correct(&mut self, part: &Part, correction: &Tensor, small: &MaskView) -> Result<()> {
        let length = part.tiles.size().1 * TILE_SIDE * OUTPUTS;
        let correction = pixels(correction)?;
        let correction = floats(&correction);
        for Run { row, columns } in part.tiles.runs() {
            for at_y in row * TILE_SIDE..(row + 1) * TILE_SIDE {
                for at_x in columns.start * TILE_SIDE..columns.end * TILE_SIDE {
                    let place = (part.start.0 + at_y as isize, part.start.1 + at_x as isize);
                    let (y, x) = (place.0 as usize, place.1 as usize);
                    if place.0 < 0 || place.1 < 0 || y >= small.height || x >= small.width {
                        continue;
                    }
                    let values = &correction[at_y * length + at_x * OUTPUTS..][..OUTPUTS];
                    for (sub, value) in values.iter().enumerate() {
                        let added = 255.0 * value;
                        if added.abs() > NOISE {
                            let pixel =
                                &mut self.doubled[(2 * y + sub / 2) * 2 * small.width + 2 * x + sub % 2];
                            *pixel = (f32::from(*pixel) + added).round() as u8;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Part {
    /// Returns the part that contains all edges and what their corrections depend on; `None` without edges.
    fn of(small: &MaskView, extent: Extent) -> Option<Self> {
        let (rows, columns) = (small.height.div_ceil(TILE_SIDE), small.width.div_ceil(TILE_SIDE));
        let edges = Tiles::new(rows, columns, |row, column| has_edge(small, row, column));
        let bounds = edges.bounds()?;
        let (rows, columns) = match extent {
            Extent::Tiles | Extent::Bounds => bounds,
            Extent::Whole => (0..rows, 0..columns),
        };
        // One tile on each side.
        let tiles = Tiles::new(rows.len() + 2, columns.len() + 2, |row, column| {
            (1..=rows.len()).contains(&row)
                && (1..=columns.len()).contains(&column)
                && edges.contains(rows.start + row - 1, columns.start + column - 1)
        });
        let start = |range: Range<usize>| (range.start as isize - 1) * TILE_SIDE as isize;
        Some(Self { start: (start(rows), start(columns)), tiles })
    }
}

/// Whether a tile or the pixels around it have an edge.
fn has_edge(small: &MaskView, row: usize, column: usize) -> bool {
    let around =
        |tile: usize, of: usize| (tile * TILE_SIDE).saturating_sub(1)..((tile + 1) * TILE_SIDE + 1).min(of);
    let (mut lowest, mut highest) = (u8::MAX, u8::MIN);
    for y in around(row, small.height) {
        for &value in &small.values[y * small.width..][around(column, small.width)] {
            (lowest, highest) = (lowest.min(value), highest.max(value));
        }
    }
    highest.saturating_sub(lowest) >= FLAT
}

/// Resampling along one axis: each destination position is the mean over as much of the source as it covers, at least one
/// pixel. If the destination is longer, this is linear interpolation.
#[derive(Debug, Default)]
struct Axis {
    /// Length of the source and of the destination.
    size: (usize, usize),
    /// First source position of each destination position.
    first: Vec<usize>,
    /// Weights of the `taps` source positions from there on, one destination position after the other.
    weights: Vec<f32>,
    taps: usize,
}

impl Axis {
    fn set(&mut self, from: usize, to: usize) {
        if self.size == (from, to) {
            return;
        }
        let scale = from as f64 / to as f64;
        let half = scale.max(1.0) / 2.0;
        self.size = (from, to);
        self.taps = ((2.0 * half).ceil() as usize + 1).min(from);
        self.first.clear();
        self.weights.clear();
        for position in 0..to {
            let centre = (position as f64 + 0.5) * scale;
            let (start, end) = (centre - half, centre + half);
            let first = (start.floor().max(0.0) as usize).min(from - self.taps);
            // What lies beyond the ends belongs to the last pixel there.
            let clamped = |at: f64| at.clamp(0.0, from as f64);
            let beyond = [clamped(start) - start, end - clamped(end)];
            self.first.push(first);
            for tap in first..first + self.taps {
                let covered = (end.min(tap as f64 + 1.0) - start.max(tap as f64)).max(0.0);
                let outside = match tap {
                    0 if from == 1 => beyond[0] + beyond[1],
                    0 => beyond[0],
                    tap if tap + 1 == from => beyond[1],
                    _ => 0.0,
                };
                self.weights.push(((covered + outside) / (2.0 * half)) as f32);
            }
        }
    }

    fn taps(&self, position: usize) -> Range<usize> {
        let first = self.first[position];
        first..first + self.taps
    }

    fn weights(&self, position: usize) -> &[f32] {
        &self.weights[position * self.taps..][..self.taps]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Factors};

    /// Adds the guide to the mask, multiplied by a factor.
    #[derive(Debug)]
    struct Guided(Extent, f64);

    const SUM: Guided = Guided(Extent::Tiles, 0.5);
    const NOTHING: Guided = Guided(Extent::Bounds, 0.0);

    impl RefinerNetwork for Guided {
        fn extent(&self) -> Extent {
            self.0
        }

        fn corrections(&self, input: &Tensor, _: &Tiles) -> Result<Tensor> {
            Ok(input.f_narrow(1, 4, 4)?.f_mul_scalar(self.1)?)
        }
    }

    fn doubled(small: &MaskView) -> Vec<u8> {
        let (width, height) = (2 * small.width, 2 * small.height);
        let mut data = vec![0; width * height];
        let plane = &mut PlaneMut { data: &mut data, width, height, stride: width };
        Enlarger::default().enlarge(small, plane).unwrap();
        data
    }

    fn refined(
        network: &dyn RefinerNetwork,
        small: &MaskView,
        luma: &[u8],
        size: (usize, usize),
        region: Region,
    ) -> Option<Vec<u8>> {
        let guide = Guide::bytes(luma, size, size.0, 1).unwrap();
        let mut refiner = EdgeRefiner::default();
        let refined = refiner.refine(network, small, &guide, region).unwrap();
        refined.map(|refined| {
            assert_eq!((refined.width, refined.height), (2 * small.width, 2 * small.height));
            refined.values.to_vec()
        })
    }

    #[test]
    fn the_network_sees_the_luma_at_each_pixel_of_the_doubled_mask() {
        // Mid-grey adds nothing. Luma has twice the size of the mask, so that each pixel has a value of its own.
        let (width, height) = (40, 33);
        let values: Vec<u8> = (0..width * height).map(|i| 100 + (i % 2 * 50) as u8).collect();
        let small = MaskView { values: &values, width, height };
        let size = (2 * width + 3, 2 * height + 5);
        let region = Region { x: 2, y: 4, width: 2 * width, height: 2 * height };
        let value = |x: usize, y: usize| 90 + ((x * 7 + y * 13) % 80) as u8;
        let luma: Vec<u8> = (0..size.0 * size.1).map(|i| value(i % size.0, i / size.0)).collect();
        let found = refined(&SUM, &small, &luma, size, region).unwrap();
        for (i, (&found, before)) in found.iter().zip(doubled(&small)).enumerate() {
            let (x, y) = (i % (2 * width), i / (2 * width));
            let added = f32::from(value(x + 2, y + 4)) - 127.5;
            let expected = if added.abs() > NOISE { f32::from(before) + added } else { f32::from(before) };
            assert!(
                (f32::from(found) - expected.clamp(0.0, 255.0)).abs() <= 2.0,
                "({x}, {y}): {found}, {expected}"
            );
        }
    }

    #[test]
    fn parts_without_edges_do_not_change() {
        let (width, height) = (64, 48);
        // An edge between the seventh and the eighth column of parts.
        let values: Vec<u8> = (0..width * height).map(|i| if i % width < 28 { 0 } else { 255 }).collect();
        let small = MaskView { values: &values, width, height };
        let size = (3 * width, 3 * height);
        let found = refined(&SUM, &small, &vec![200; size.0 * size.1], size, Region::whole(size)).unwrap();
        let before = doubled(&small);
        for (i, (found, before)) in found.iter().zip(&before).enumerate() {
            let tile = i % (2 * width) / (2 * TILE_SIDE);
            assert_eq!(
                found != before,
                (6..8).contains(&tile) && *before < 255,
                "column {}",
                i % (2 * width)
            );
        }
        let nothing = refined(&NOTHING, &small, &vec![9; size.0 * size.1], size, Region::whole(size));
        assert_eq!(nothing.unwrap(), before);
    }

    #[test]
    fn edges_belong_to_all_tiles_that_they_touch() {
        let (width, height) = (82, 40);
        let edges = |edges: &[(usize, usize)], extent| {
            let mut values = vec![0; width * height];
            edges.iter().for_each(|&(x, y)| values[y * width + x] = 255);
            let part = Part::of(&MaskView { values: &values, width, height }, extent)?;
            let runs = part.tiles.runs().into_iter().map(|run| (run.row, run.columns));
            Some((part.start, part.tiles.size(), runs.collect::<Vec<_>>()))
        };
        assert_eq!(edges(&[], Extent::Tiles), None);
        assert_eq!(edges(&[], Extent::Whole), None);
        let places = [(13, 5), (81, 39), (4, 25)];
        let runs = |row, column| {
            vec![
                (row, column + 3..column + 4),
                (row + 5, column..column + 2),
                (row + 8, column + 20..column + 21),
            ]
        };
        assert_eq!(edges(&places, Extent::Bounds), Some(((0, -4), (11, 23), runs(1, 1))));
        assert_eq!(edges(&places, Extent::Whole), Some(((-4, -4), (12, 23), runs(2, 1))));
        assert_eq!(edges(&places[..1], Extent::Tiles), Some(((0, 8), (3, 3), vec![(1, 1..2)])));
    }

    #[test]
    fn regions_smaller_than_the_mask_and_those_beyond_the_guide_are_not_refined() {
        let values = vec![255; 16 * 16];
        let small = MaskView { values: &values, width: 16, height: 16 };
        let luma = vec![0; 64 * 64];
        for (region, is_refined) in [
            (Region { x: 0, y: 0, width: 64, height: 64 }, true),
            (Region { x: 10, y: 20, width: 20, height: 20 }, true),
            (Region { x: 1, y: 0, width: 64, height: 64 }, false),
            (Region { x: 0, y: 50, width: 20, height: 20 }, false),
            (Region { x: 0, y: 0, width: 15, height: 64 }, false),
            (Region { x: 0, y: 0, width: 16, height: 16 }, true),
        ] {
            assert_eq!(
                refined(&NOTHING, &small, &luma, (64, 64), region).is_some(),
                is_refined,
                "{region:?}"
            );
        }
    }

    #[test]
    fn masks_of_any_size_are_refined() {
        for (width, height, scale) in [(1, 1, 3), (3, 1, 2), (17, 16, 2), (5, 40, 7)] {
            let values: Vec<u8> = (0..width * height).map(|i| [0, 255, 90][i % 3]).collect();
            let small = MaskView { values: &values, width, height };
            let size = (scale * width, scale * height);
            let luma = vec![200; size.0 * size.1];
            let brighter: Vec<u8> = doubled(&small).iter().map(|value| value.saturating_add(73)).collect();
            let found = refined(&SUM, &small, &luma, size, Region::whole(size)).unwrap();
            let has_edges = width * height > 1;
            let expected = if has_edges { &brighter } else { &doubled(&small) };
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{width}x{height}");
        }
    }

    /// Trained weights and the code that trains them fit only if both give the network the same input.
    #[test]
    fn a_network_refines_as_in_training() {
        #[derive(Debug)]
        struct Random(Extent, std::sync::Mutex<Refiner>);

        impl RefinerNetwork for Random {
            fn extent(&self) -> Extent {
                self.0
            }

            fn corrections(&self, input: &Tensor, tiles: &Tiles) -> Result<Tensor> {
                self.1.lock().unwrap().forward_tiles(input, tiles)
            }
        }

        let _guard = tch::no_grad_guard();
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let network = Refiner::new(&store.root(), &Config { width: 0.25, ..Config::lite() }).unwrap();
        let mut network = Random(Extent::Whole, network.into());
        for (at, (_, mut tensor)) in (1..).zip(std::collections::BTreeMap::from_iter(store.variables())) {
            let count = tensor.numel() as i64;
            let values = (Tensor::arange(count, (tch::Kind::Float, tch::Device::Cpu)) * f64::from(at)).sin();
            tensor.copy_(&(values * 0.15).reshape_as(&tensor));
        }
        let (width, height) = (72, 56);
        let values: Vec<u8> = (0..width * height)
            .map(|i| {
                let (x, y) = ((i % width) as f64 - 34.0, (i / width) as f64 - 26.0);
                ((20.0 - x.hypot(y)) * 40.0 + 128.0).clamp(0.0, 255.0) as u8
            })
            .collect();
        let size = (2 * width, 2 * height);
        let luma: Vec<u8> = (0..size.0 * size.1).map(|i| (i * 31 % 199) as u8).collect();
        let small = MaskView { values: &values, width, height };
        let found = refined(&network, &small, &luma, size, Region::whole(size)).unwrap();
        for (extent, packed) in [(Extent::Bounds, false), (Extent::Bounds, true), (Extent::Tiles, true)] {
            network.0 = extent;
            if packed {
                network.1.get_mut().unwrap().pack(Factors::Float32).unwrap();
            }
            let same = refined(&network, &small, &luma, size, Region::whole(size)).unwrap();
            let differences = same.iter().zip(&found).filter(|(a, b)| a.abs_diff(**b) > 1);
            assert_eq!(differences.count(), 0, "{extent:?}, packed {packed}");
        }

        let tensor = |values: &[u8], (width, height): (usize, usize)| {
            let shape = [1, 1, height as i64, width as i64];
            Tensor::from_slice(values).to_kind(tch::Kind::Float).reshape(shape) / 255.0
        };
        let (doubled, input) =
            Refiner::input(&tensor(&values, (width, height)), &tensor(&luma, size)).unwrap();
        let correction = Refiner::in_place(&network.1.lock().unwrap().forward(&input).unwrap()).unwrap();
        let expected = ((doubled + correction).clamp(0.0, 1.0) * 255.0).reshape([-1]);
        let expected = Vec::<f32>::try_from(&expected).unwrap();
        let mut refined_pixels = 0;
        for Run { row, columns } in Part::of(&small, Extent::Whole).unwrap().tiles.runs() {
            // In training, positions near the border of a tile are not used.
            let reach = Refiner::REACH;
            let inner = |x: usize, y: usize| {
                (reach..width - reach).contains(&x) && (reach..height - reach).contains(&y)
            };
            let pixels = |tiles: Range<usize>| (tiles.start - 1) * TILE_SIDE..(tiles.end - 1) * TILE_SIDE;
            let places = pixels(row..row + 1).flat_map(|y| pixels(columns.clone()).map(move |x| (x, y)));
            for (x, y) in places.filter(|&(x, y)| inner(x, y)) {
                let at = 2 * y * size.0 + 2 * x;
                let difference = (f32::from(found[at]) - expected[at]).abs();
                assert!(difference <= 3.0, "({x}, {y}): {} and {}", found[at], expected[at]);
                refined_pixels += 1;
            }
        }
        assert!(refined_pixels > 500, "{refined_pixels}");
    }

    #[test]
    fn resampling_covers_every_source_position_once() {
        for (from, to) in [(1, 1), (1, 6), (5, 7), (64, 64), (100, 64), (719, 384), (3840, 672), (2, 32)] {
            let mut axis = Axis::default();
            axis.set(from, to);
            let mut shares = vec![0.0; from];
            for position in 0..to {
                let taps = || axis.taps(position).zip(axis.weights(position).iter().copied());
                let sum: f32 = taps().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-4, "{from} to {to}, {position}: {sum}");
                taps().for_each(|(at, weight)| shares[at] += weight);
                let mean: f32 = taps().map(|(at, weight)| at as f32 * weight).sum();
                let centre = (position as f32 + 0.5) * from as f32 / to as f32 - 0.5;
                let centre = centre.clamp(0.0, from as f32 - 1.0);
                assert!((mean - centre).abs() < 0.3, "{from} to {to}, {position}: {mean}, {centre}");
            }
            if from >= to {
                let expected = to as f32 / from as f32;
                assert!(shares.iter().all(|share| (share - expected).abs() < 1e-3), "{from} to {to}");
            }
        }
    }
}
