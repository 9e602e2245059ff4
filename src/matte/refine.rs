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

/// A network that refines edges.
pub(crate) trait RefinerNetwork: Debug + Send + Sync {
    /// Whether several parts of a mask are refined in less time than all of it.
    fn takes_parts(&self) -> bool {
        true
    }

    /// Returns what is to be added to parts of the doubled mask, each (1, 4, H, W), float32, on the CPU: 2x2 pixels for each
    /// position of its input, (1, 8, H, W), float32, which has those of the doubled mask and of luma in [−1, 1]. Results depend
    /// on up to [`REACH`] positions around them.
    fn corrections(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
}

/// Positions around a result on which it depends.
pub(crate) const REACH: usize = crate::model::lite::refiner::Refiner::REACH;
/// Width and height in pixels of the parts of the small mask that are refined or not.
const PART: (usize, usize) = (4, 24);
/// Number of parts without an edge between two others that are refined with them: their surroundings overlap.
const MAX_GAP: usize = 2;
/// Channels of the network's input and output.
const CHANNELS: (usize, usize) = (8, 4);
/// Range of the values of a part and the pixels around it, 0 to 255, from which it has an edge.
const FLAT: u8 = 12;
/// Corrections up to this value, of 255, are noise.
const NOISE: f32 = 1.5;

/// Shape of the network's input for a whole mask.
pub(crate) fn refiner_input(height: i64, width: i64) -> [i64; 4] {
    let border = 2 * REACH as i64;
    [1, CHANNELS.0 as i64, height + border, width + border]
}

/// Refines edges; reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct EdgeRefiner {
    enlarger: Enlarger,
    doubled: Vec<u8>,
    columns: Axis,
    rows: Axis,
    luma: Vec<f32>,
    input: Vec<f32>,
}

/// Neighbouring parts, in pixels of the small mask.
#[derive(Debug, PartialEq)]
struct Strip {
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Strip {
    /// Width and height with the surroundings.
    fn size(&self) -> (usize, usize) {
        (self.columns.len() + 2 * REACH, self.rows.len() + 2 * REACH)
    }
}

/// The small mask and the luma of its frame.
struct Frame<'a> {
    small: MaskView<'a>,
    guide: Guide<'a>,
    /// Place of the mask in the guide.
    region: Region,
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
        let frame = Frame { small: *small, guide: *guide, region };
        let strips = match network.takes_parts() {
            true => strips(small),
            false => vec![Strip { columns: 0..small.width, rows: 0..small.height }],
        };
        let inputs = strips.iter().map(|strip| self.input(strip, &frame)).collect::<Result<Vec<_>>>()?;
        for (strip, correction) in strips.iter().zip(network.corrections(&inputs)?) {
            self.correct(strip, &correction, small.width)?;
        }
        Ok(Some(MaskView { values: &self.doubled, width, height }))
    }

    /// Returns the network's input for a strip and its surroundings. Positions beyond the mask repeat its border.
    fn input(&mut self, strip: &Strip, frame: &Frame) -> Result<Tensor> {
        let Frame { small, guide, region } = frame;
        let (width, height) = strip.size();
        self.input.resize(width * height * CHANNELS.0, 0.0);
        let within = |start: usize, of: usize| {
            move |at: usize| (2 * start + at).saturating_sub(2 * REACH).min(2 * of - 1)
        };
        let column = within(strip.columns.start, small.width);
        let row = within(strip.rows.start, small.height);
        let unit = |value: f32| value * (2.0 / 255.0) - 1.0;
        let span = self.columns.taps(column(0)).start..self.columns.taps(column(2 * width - 1)).end;
        for at_y in 0..2 * height {
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
            let positions = &mut self.input[at_y / 2 * width * CHANNELS.0..][..width * CHANNELS.0];
            for (at, position) in positions.chunks_exact_mut(CHANNELS.0).enumerate() {
                for dx in 0..2 {
                    let column = column(2 * at + dx);
                    let luma = &self.luma[self.columns.taps(column).start - span.start..];
                    let luma: f32 = luma.iter().zip(self.columns.weights(column)).map(|(a, b)| a * b).sum();
                    let part = at_y % 2 * 2 + dx;
                    position[part] = unit(f32::from(doubled[column]));
                    position[4 + part] = unit(luma);
                }
            }
        }
        let shape = [1, height, width, CHANNELS.0].map(|length| length as i64);
        Ok(Tensor::f_from_slice(&self.input)?.f_reshape(shape)?.f_permute([0, 3, 1, 2])?)
    }

    /// Adds the network's correction to a strip of the doubled mask; the small mask has `width` columns.
    fn correct(&mut self, strip: &Strip, correction: &Tensor, width: usize) -> Result<()> {
        let size = strip.size();
        let correction = correction.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let correction = Vec::<f32>::try_from(&correction.f_reshape([-1])?)?;
        for (y, row) in strip.rows.clone().enumerate() {
            let from = ((y + REACH) * size.0 + REACH) * CHANNELS.1;
            let values = correction[from..].chunks_exact(CHANNELS.1);
            for (column, values) in strip.columns.clone().zip(values) {
                for (part, value) in values.iter().enumerate() {
                    let added = 255.0 * value;
                    if added.abs() > NOISE {
                        let pixel =
                            &mut self.doubled[(2 * row + part / 2) * 2 * width + 2 * column + part % 2];
                        *pixel = (f32::from(*pixel) + added).round() as u8;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The parts of the mask that have edges.
fn strips(small: &MaskView) -> Vec<Strip> {
    let mut strips: Vec<Strip> = Vec::new();
    for y in (0..small.height).step_by(PART.1) {
        let rows = y..(y + PART.1).min(small.height);
        for x in (0..small.width).step_by(PART.0) {
            let columns = x..(x + PART.0).min(small.width);
            if !has_edge(small, &columns, &rows) {
                continue;
            }
            match strips.last_mut() {
                Some(last) if last.rows == rows && x <= last.columns.end + MAX_GAP * PART.0 => {
                    last.columns.end = columns.end;
                }
                _ => strips.push(Strip { columns, rows: rows.clone() }),
            }
        }
    }
    strips
}

/// Whether a part or the pixels around it have an edge.
fn has_edge(small: &MaskView, columns: &Range<usize>, rows: &Range<usize>) -> bool {
    let around = |range: &Range<usize>, of: usize| range.start.saturating_sub(1)..(range.end + 1).min(of);
    let (mut lowest, mut highest) = (u8::MAX, u8::MIN);
    for y in around(rows, small.height) {
        for &value in &small.values[y * small.width..][around(columns, small.width)] {
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

    /// The source positions of a destination position.
    fn taps(&self, position: usize) -> Range<usize> {
        let first = self.first[position];
        first..first + self.taps
    }

    /// The weights of these positions.
    fn weights(&self, position: usize) -> &[f32] {
        &self.weights[position * self.taps..][..self.taps]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Config;
    use crate::model::lite::refiner::Refiner;

    /// Adds the guide to the mask.
    #[derive(Debug)]
    struct Sum;

    impl RefinerNetwork for Sum {
        fn corrections(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            inputs.iter().map(|input| Ok(input.f_narrow(1, 4, 4)?.f_div_scalar(2.0)?)).collect()
        }
    }

    /// Changes nothing.
    #[derive(Debug)]
    struct Nothing;

    impl RefinerNetwork for Nothing {
        fn corrections(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            inputs.iter().map(|input| Ok(input.f_narrow(1, 4, 4)?.f_zeros_like()?)).collect()
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
        let found = refined(&Sum, &small, &luma, size, region).unwrap();
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
        let found = refined(&Sum, &small, &vec![200; size.0 * size.1], size, Region::whole(size)).unwrap();
        let before = doubled(&small);
        for (i, (found, before)) in found.iter().zip(&before).enumerate() {
            let part = i % (2 * width) / (2 * PART.0);
            assert_eq!(
                found != before,
                (6..8).contains(&part) && *before < 255,
                "column {}",
                i % (2 * width)
            );
        }
        let nothing = refined(&Nothing, &small, &vec![9; size.0 * size.1], size, Region::whole(size));
        assert_eq!(nothing.unwrap(), before);
    }

    #[test]
    fn close_parts_are_one_strip() {
        let (width, height) = (80, 40);
        let strips_of = |edges: &[(usize, usize)]| {
            let mut values = vec![0; width * height];
            edges.iter().for_each(|&(x, y)| values[y * width + x] = 255);
            let strips = strips(&MaskView { values: &values, width, height });
            strips.into_iter().map(|strip| (strip.columns, strip.rows)).collect::<Vec<_>>()
        };
        assert_eq!(strips_of(&[]), []);
        assert_eq!(strips_of(&[(12, 5), (28, 5), (60, 5)]), [(8..32, 0..24), (56..64, 0..24)]);
        // Edges belong to all parts that they touch.
        assert_eq!(strips_of(&[(79, 39)]), [(76..80, 24..40)]);
        assert_eq!(strips_of(&[(4, 24)]), [(0..8, 0..24), (0..8, 24..40)]);
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
                refined(&Nothing, &small, &luma, (64, 64), region).is_some(),
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
            let found = refined(&Sum, &small, &luma, size, Region::whole(size)).unwrap();
            let has_edges = width * height > 1;
            let expected = if has_edges { &brighter } else { &doubled(&small) };
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{width}x{height}");
        }
    }

    /// Trained weights and the code that trains them fit only if both give the network the same input.
    #[test]
    fn a_network_refines_as_in_training() {
        #[derive(Debug)]
        struct Random(std::sync::Mutex<Refiner>);

        impl RefinerNetwork for Random {
            fn corrections(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
                inputs.iter().map(|input| self.0.lock().unwrap().forward(input)).collect()
            }
        }

        let _guard = tch::no_grad_guard();
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let network = Refiner::new(&store.root(), &Config { width: 0.25, ..Config::lite() }).unwrap();
        let network = Random(network.into());
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

        let tensor = |values: &[u8], (width, height): (usize, usize)| {
            let shape = [1, 1, height as i64, width as i64];
            Tensor::from_slice(values).to_kind(tch::Kind::Float).reshape(shape) / 255.0
        };
        let (doubled, input) =
            Refiner::input(&tensor(&values, (width, height)), &tensor(&luma, size)).unwrap();
        let correction = Refiner::in_place(&network.0.lock().unwrap().forward(&input).unwrap()).unwrap();
        let expected = ((doubled + correction).clamp(0.0, 1.0) * 255.0).reshape([-1]);
        let expected = Vec::<f32>::try_from(&expected).unwrap();
        let mut refined_pixels = 0;
        for strip in strips(&small) {
            // In training, positions near the border of a tile are not used.
            let inner = |x: usize, y: usize| {
                (REACH..width - REACH).contains(&x) && (REACH..height - REACH).contains(&y)
            };
            let places = strip.rows.flat_map(|y| strip.columns.clone().map(move |x| (x, y)));
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
