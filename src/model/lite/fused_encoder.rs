// SPDX-License-Identifier: MPL-2.0

//! MobileNetV2 on the CPU with the layers of each block in one pass: a few rows of the expansion are in the cache at a
//! time, where libtorch writes and reads all of it several times.
//!
//! For float32 on x86-64 processors with AVX2 and FMA. Everything else takes the layers of [`encoder`](super::encoder),
//! which define the result.

use std::cell::RefCell;
use std::ops::Range;

use tch::Tensor;

use super::features::{EncoderFeatures, FEATURE_BLOCKS};
use crate::Result;
use crate::model::layers::Conv;
use crate::model::packed::{Dense, Factors, Map, PANEL, UNLIMITED, grown, padded_bias, share, values_mut};
use crate::model::tensor_slices::{floats, is_float, pixels, plain};
use crate::model::vector::{Element, Kernel, Vector, run};
use crate::team::in_parallel;

/// Side of depthwise kernels.
const SIDE: usize = 3;
/// Values of a row of the stem's kernel.
const PATCH_ROW: usize = 3 * SIDE;
/// Inputs of the stem with padding, an even number, which is converted to bfloat16 in one go.
const STEM_INPUTS: usize = SIDE * PATCH_ROW + 1;
/// Range of the activations.
const RANGE: [f32; 2] = [0.0, 6.0];

/// Stem and blocks with packed weights.
#[derive(Debug)]
pub struct FusedEncoder {
    stem: Dense,
    blocks: Vec<Block>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers::new()) };
}

/// Memory of one thread.
struct Buffers {
    /// Rows of the expansion, the last one zeros, (SIDE + 1, 1 + W + 1, hidden).
    ring: Vec<f32>,
    /// A row of the output of the depthwise convolution, (W, hidden).
    middle: Vec<f32>,
    /// The same in bfloat16, (W, pairs).
    pairs: Vec<u32>,
}

impl Buffers {
    const fn new() -> Self {
        Self { ring: Vec::new(), middle: Vec::new(), pairs: Vec::new() }
    }
}

#[derive(Debug)]
struct Block {
    expand: Option<Dense>,
    /// (SIDE², hidden).
    depthwise: Vec<f32>,
    depthwise_bias: Vec<f32>,
    project: Dense,
    /// Channels between the layers, a multiple of [`PANEL`].
    hidden: usize,
    stride: usize,
    residual: bool,
}

/// Layers of a block to be packed.
#[derive(Debug)]
pub struct BlockLayers<'a> {
    pub expand: Option<&'a Conv>,
    pub depthwise: &'a Conv,
    pub project: &'a Conv,
    /// Whether the input is added to the output.
    pub residual: bool,
}

impl FusedEncoder {
    /// Packs the weights of a network that [fits](crate::model::packed::fits).
    pub fn new<'a>(
        stem: &Conv,
        blocks: impl Iterator<Item = BlockLayers<'a>>,
        factors: Factors,
    ) -> Result<Self> {
        let blocks = blocks.map(|layers| Block::new(&layers, factors)).collect::<Result<_>>()?;
        Ok(Self { stem: dense(stem, Some(STEM_INPUTS), factors)?, blocks })
    }

    /// Encodes `image` (N, 3, H, W) float32 on the CPU, RGB in [0, 1], sides multiples of 16. Returns `None` for other
    /// images.
    pub fn forward(&self, image: &Tensor) -> Result<Option<EncoderFeatures>> {
        let Some((s2, s4)) = self.fine(image)? else { return Ok(None) };
        let [_, s4_end, s8_end, s16_end] = FEATURE_BLOCKS;
        let s8 = run_all(self.blocks[s4_end].map(&s4, None)?, &self.blocks[s4_end + 1..s8_end])?;
        let first = &self.blocks[s8_end];
        let mut expanded = Map::new(s8.items, s8.height, s8.width, first.expanded())?;
        let s16 = run_all(first.map(&s8, Some(&mut expanded))?, &self.blocks[s8_end + 1..s16_end])?;
        Ok(Some(EncoderFeatures {
            s2: s2.into_tensor()?,
            s4: s4.into_tensor()?,
            s8: s8.into_tensor()?,
            s8_expanded: expanded.into_tensor()?,
            s16: s16.into_tensor()?,
        }))
    }

    /// Like [`forward`](Self::forward), for the features at strides 2 and 4.
    pub fn forward_fine(&self, image: &Tensor) -> Result<Option<[Tensor; 2]>> {
        let Some((s2, s4)) = self.fine(image)? else { return Ok(None) };
        Ok(Some([s2.into_tensor()?, s4.into_tensor()?]))
    }

    fn fine(&self, image: &Tensor) -> Result<Option<(Map, Map)>> {
        let (_, channels, height, width) = image.size4()?;
        if !is_float(image) || image.numel() == 0 || channels != 3 || height % 16 != 0 || width % 16 != 0 {
            return Ok(None);
        }
        let [s2_end, s4_end, ..] = FEATURE_BLOCKS;
        let s2 = run_all(self.stem(image)?, &self.blocks[..s2_end])?;
        let s4 = run_all(self.blocks[s2_end].map(&s2, None)?, &self.blocks[s2_end + 1..s4_end])?;
        Ok(Some((s2, s4)))
    }

    /// Convolution of 3x3 and stride 2 of the image, with zeros below and to the right. Maps RGB to [-1, 1] first.
    fn stem(&self, image: &Tensor) -> Result<Map> {
        let (n, channels, height, width) = image.size4()?;
        let (height, width) = (height as usize, width as usize);
        let dense = &self.stem;
        let mut output = Map::new(n as usize, height / 2, width / 2, dense.padded())?;
        let image = pixels(image)?;
        let images = floats(&image).chunks_exact(height * width * channels as usize);
        let length = output.width * output.channels;
        let rows = share(output.height);
        for (item, image) in images.enumerate() {
            in_parallel(output.item(item).chunks_mut(rows * length).enumerate(), |(index, y)| {
                stem_rows(dense, image, (height, width), index * rows, y, width / 2 * dense.padded());
            });
        }
        Ok(output)
    }
}

fn run_all(x: Map, blocks: &[Block]) -> Result<Map> {
    blocks.iter().try_fold(x, |x, block| block.map(&x, None))
}

/// Computes the rows `y`, of `length` values each, of the output of the stem; the first has the number `first`.
fn stem_rows(
    dense: &Dense,
    image: &[f32],
    (height, width): (usize, usize),
    first: usize,
    y: &mut [f32],
    length: usize,
) {
    let mut patches = vec![0.0; length / dense.padded() * dense.inputs];
    for (row, to) in (first..).zip(y.chunks_exact_mut(length)) {
        for dy in 0..SIDE {
            let y = 2 * row + dy;
            let from = if y < height { &image[3 * y * width..][..3 * width] } else { &[] };
            for (column, patch) in patches.chunks_exact_mut(dense.inputs).enumerate() {
                let part = &mut patch[dy * PATCH_ROW..][..PATCH_ROW];
                let from = from.get(6 * column..).unwrap_or_default();
                let (inner, outer) = part.split_at_mut(from.len().min(PATCH_ROW));
                inner.iter_mut().zip(from).for_each(|(to, from)| *to = 2.0 * from - 1.0);
                outer.fill(0.0);
            }
        }
        dense.forward(&patches, to, dense.padded(), RANGE);
    }
}

fn dense(conv: &Conv, inputs: Option<usize>, factors: Factors) -> Result<Dense> {
    Dense::of_conv(&conv.weight, conv.bias.as_ref(), inputs, factors)
}

impl Block {
    fn new(layers: &BlockLayers, factors: Factors) -> Result<Self> {
        let (channels, ..) = layers.depthwise.weight.size4()?;
        let channels = channels as usize;
        let hidden = channels.next_multiple_of(PANEL);
        let weight = plain(&layers.depthwise.weight)?;
        let mut depthwise = vec![0.0; SIDE * SIDE * hidden];
        for (channel, kernel) in floats(&weight).chunks_exact(SIDE * SIDE).enumerate() {
            for (at, value) in kernel.iter().enumerate() {
                depthwise[at * hidden + channel] = *value;
            }
        }
        Ok(Self {
            expand: layers.expand.map(|conv| dense(conv, None, factors)).transpose()?,
            depthwise,
            depthwise_bias: padded_bias(layers.depthwise.bias.as_ref(), hidden)?,
            project: dense(layers.project, Some(hidden), factors)?,
            hidden,
            stride: layers.depthwise.spec().stride as usize,
            residual: layers.residual,
        })
    }

    fn expanded(&self) -> usize {
        self.expand.as_ref().map_or(self.hidden, |expand| expand.outputs)
    }

    /// Returns the output for `x`. Writes the expansion to `expanded`, if given.
    fn map(&self, x: &Map, mut expanded: Option<&mut Map>) -> Result<Map> {
        let (height, width) = (x.height / self.stride, x.width / self.stride);
        let mut output = Map::new(x.items, height, width, self.project.outputs)?;
        let rows = share(height);
        let length = width * self.project.outputs;
        for (item, values) in x.items().enumerate() {
            let size = (x.height, x.width, x.channels);
            let mut expansions = Vec::new();
            if let Some(expanded) = &mut expanded {
                let length = rows * self.stride * expanded.width * expanded.channels;
                expansions.extend(expanded.item(item).chunks_mut(length).map(Some));
            }
            let expansions = expansions.into_iter().chain(std::iter::repeat_with(|| None));
            let bands = output.item(item).chunks_mut(rows * length).enumerate().zip(expansions);
            in_parallel(bands, |((index, y), expanded)| {
                let first = index * rows;
                let rows = first..first + y.len() / length;
                BUFFERS.with_borrow_mut(|buffers| self.rows(values, size, rows, expanded, y, buffers));
            });
        }
        Ok(output)
    }

    /// Computes some `rows` of the output. `expanded` receives the rows of the expansion that belong to them.
    fn rows(
        &self,
        x: &[f32],
        (height, width, channels): (usize, usize, usize),
        rows: Range<usize>,
        mut expanded: Option<&mut [f32]>,
        y: &mut [f32],
        buffers: &mut Buffers,
    ) {
        // Rows of the expansion, with a column of zeros on either side; the last one is below or above the picture.
        let length = (width + 2) * self.hidden;
        let zeros = SIDE;
        let out_width = width / self.stride;
        let Buffers { ring, middle, pairs } = buffers;
        let ring = grown(ring, (SIDE + 1) * length);
        for row in ring.chunks_exact_mut(length) {
            row[..self.hidden].fill(0.0);
            row[length - self.hidden..].fill(0.0);
        }
        ring[zeros * length..].fill(0.0);
        let (floats, halves) = match self.project.factors() {
            Factors::Float32 => (out_width * self.hidden, 0),
            Factors::Bfloat16 => (0, out_width * self.hidden / 2),
        };
        let (middle, pairs) = (grown(middle, floats), grown(pairs, halves));
        // Zeros are above and to the left only at stride 1.
        let before = usize::from(self.stride == 1);
        let own = rows.start * self.stride..rows.end * self.stride;
        let mut ready = own.start.saturating_sub(before);
        for (row, to) in rows.zip(y.chunks_exact_mut(out_width * self.project.outputs)) {
            let first = (row * self.stride).wrapping_sub(before);
            let last = (row * self.stride + SIDE - 1 - before).min(height - 1);
            while ready <= last {
                let input = &x[ready * width * channels..][..width * channels];
                let slot = &mut ring[ready % SIDE * length..][self.hidden..][..width * self.hidden];
                match &self.expand {
                    Some(expand) => {
                        expand.forward(input, slot, self.hidden, RANGE);
                        if let Some(expanded) = &mut expanded
                            && own.contains(&ready)
                        {
                            let outputs = expand.outputs;
                            let to = &mut expanded[(ready - own.start) * width * outputs..];
                            for (to, from) in to.chunks_exact_mut(outputs).zip(slot.chunks_exact(self.hidden))
                            {
                                to.copy_from_slice(&from[..outputs]);
                            }
                        }
                    }
                    None => slot.copy_from_slice(input),
                }
                ready += 1;
            }
            let sources: [&[f32]; SIDE] = std::array::from_fn(|at| {
                let source = first.wrapping_add(at);
                let slot = if source < height { source % SIDE } else { zeros };
                &ring[slot * length..][..length]
            });
            let (offset, outputs) = (1 - before, self.project.outputs);
            match self.project.factors() {
                Factors::Float32 => {
                    run(Depthwise { block: self, rows: sources, offset, y: middle }, self.hidden);
                    self.project.forward(middle, to, outputs, UNLIMITED);
                }
                Factors::Bfloat16 => {
                    let y = values_mut(pairs);
                    run(Depthwise { block: self, rows: sources, offset, y }, self.hidden);
                    self.project.forward_pairs(pairs, to, outputs, UNLIMITED);
                }
            }
            if self.residual {
                let from = &x[row * width * channels..][..width * channels];
                // The input of the first block has more channels, which are zero.
                for (to, from) in to.chunks_exact_mut(self.project.outputs).zip(from.chunks_exact(channels)) {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

/// Convolves three rows of the expansion, from the column `offset` on, to one of the output `y`, limited to [`RANGE`].
struct Depthwise<'a, T> {
    block: &'a Block,
    rows: [&'a [f32]; SIDE],
    offset: usize,
    y: &'a mut [T],
}

impl<T: Element> Kernel for Depthwise<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { block, rows, offset, y } = self;
        let hidden = block.hidden;
        for first in (0..hidden).step_by(V::LANES) {
            // SAFETY: the caller has checked the instructions.
            unsafe {
                let mut weights = [V::splat(0.0); SIDE * SIDE];
                for (at, weights) in weights.iter_mut().enumerate() {
                    *weights = V::load(&block.depthwise[at * hidden + first..]);
                }
                let bias = V::load(&block.depthwise_bias[first..]);
                let (low, high) = (V::splat(RANGE[0]), V::splat(RANGE[1]));
                for (column, y) in y.chunks_exact_mut(hidden).enumerate() {
                    let start = (column * block.stride + offset) * hidden + first;
                    let mut sums = bias;
                    for (row, weights) in rows.iter().zip(weights.chunks_exact(SIDE)) {
                        let row = &row[start..][..(SIDE - 1) * hidden + V::LANES];
                        for (dx, weights) in weights.iter().enumerate() {
                            sums = V::load(&row[dx * hidden..]).mul_add(*weights, sums);
                        }
                    }
                    T::store(sums.max(low).min(high), &mut y[first..]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};

    use super::*;
    use crate::model::Config;
    use crate::model::layers::{Visit, channels_last};
    use crate::model::lite::encoder::Encoder;
    use crate::model::vector::{checked_available, checked_has_bfloat16};
    use crate::threads::with_threads;

    fn features(encoder: &Encoder, image: &Tensor) -> [Tensor; 5] {
        let EncoderFeatures { s2, s4, s8, s8_expanded, s16 } = encoder.forward(image).unwrap();
        [s2, s4, s8, s8_expanded, s16]
    }

    /// Widths of networks whose channels are and are not multiples of the panel; rows and columns that are and are not
    /// multiples of the tile and of the number of threads.
    #[test]
    fn features_equal_those_of_the_layers() {
        if !checked_available() {
            return;
        }
        let _guard = tch::no_grad_guard();
        tch::manual_seed(9);
        for (width, n, height, columns, threads) in [
            (0.125, 1, 48, 64, 1),
            (0.05, 2, 32, 48, 2),
            (0.3, 3, 32, 80, 2),
            (1.0, 1, 64, 112, 3),
            (1.0, 2, 16, 16, 8),
        ] {
            let store = nn::VarStore::new(Device::Cpu);
            let mut encoder = Encoder::new(&store.root(), &Config { width, ..Config::lite() });
            encoder
                .visit(&mut |tensor| {
                    let _ = tensor.f_mul_scalar_(1.3)?;
                    Ok(())
                })
                .unwrap();
            let image = Tensor::rand([n, 3, height, columns], (Kind::Float, Device::Cpu));
            let image = channels_last(&image).unwrap();
            let expected = features(&encoder, &image);
            let mut formats = vec![(Factors::Float32, 5, 1e-4)];
            if checked_has_bfloat16() {
                // Random weights multiply the rounding in deeper layers.
                formats.push((Factors::Bfloat16, 3, 0.05));
            }
            for (factors, count, tolerance) in formats {
                assert!(encoder.pack(factors).unwrap());
                let packed = with_threads(threads, || features(&encoder, &image));
                for (packed, expected) in packed.iter().zip(&expected).take(count) {
                    assert_eq!(packed.size(), expected.size());
                    assert!(packed.permute([0, 2, 3, 1]).is_contiguous());
                    let rms = |x: &Tensor| x.square().mean(Kind::Float).sqrt().double_value(&[]);
                    let (error, size) = (rms(&(packed - expected)), rms(expected));
                    assert!(size > 0.05 && error < tolerance * size, "{error} of {size}");
                }
            }
        }
    }

    #[test]
    fn other_images_take_the_layers() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let mut encoder = Encoder::new(&store.root(), &Config { width: 0.125, ..Config::lite() });
        encoder.pack(Factors::Float32).unwrap();
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
        let fused =
            |image: &Tensor| encoder.fused.as_ref().map(|fused| fused.forward(image).unwrap().is_some());
        for (image, expected) in [
            (ones(&[1, 3, 32, 48]), true),
            (ones(&[1, 3, 32, 40]), false),
            (ones(&[1, 4, 32, 48]), false),
            (ones(&[0, 3, 32, 48]), false),
            (ones(&[1, 3, 32, 48]).to_kind(Kind::BFloat16), false),
            (ones(&[1, 3, 32, 48]).set_requires_grad(true), false),
        ] {
            assert_eq!(fused(&image), checked_available().then_some(expected), "{:?}", image.size());
        }
    }

    #[test]
    fn weights_that_may_have_changed_are_not_used() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(10);
        let store = nn::VarStore::new(Device::Cpu);
        let mut encoder = Encoder::new(&store.root(), &Config { width: 0.125, ..Config::lite() });
        encoder.pack(Factors::Float32).unwrap();
        encoder.visit(&mut |tensor| Ok(tensor.f_zero_().map(drop)?)).unwrap();
        let image = Tensor::rand([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        assert_eq!(features(&encoder, &image)[4].abs().max().double_value(&[]), 0.0);
    }
}
