// SPDX-License-Identifier: MPL-2.0

//! Affinity matching: every position of the current frame is compared with the positions of the reference, the
//! memory and the previous frame, and reads their masks and features by a softmax over the similarities.

use tch::{Kind, Tensor, nn};

use super::super::config::Config;
use super::super::layers::{Conv, ConvSpec, Visit, double, name_of};
use super::super::packed::Factors;
use super::super::zero_init::unless_zero_init;
use super::attention::{self, LocalReadout, Readout};
use super::backbone::Channels;
use super::features::{EncoderFeatures, Features, expand, product, unit_length};
use super::tokens::Tokens;
use super::window::Window;
use crate::model::{ShallowClone, shallow_clone};
use crate::{Result, visit_fields};

/// Bias of excluded positions, far below any logit.
const EXCLUDED: f64 = -1e4;
/// Radius of local attention to the previous frame, in positions at stride 8.
const RADIUS: i64 = attention::RADIUS as i64;
/// Number of positions at stride 16 of a frame of 192x336. In larger frames, distances are relative to the size of the
/// frame, so that one learned factor serves every input size.
const UNIT_POSITIONS: f64 = 252.0;

/// Position biases of one frame size. They depend on the weights but not on the image.
#[derive(Debug)]
pub struct Biases {
    /// (positions, positions) at stride 16: minus a learned multiple of the squared distance.
    previous16: Tensor,
    /// (H/8, W/8, (2 radius + 1) W/8): learned per offset, `EXCLUDED` outside the window and the frame.
    local8: Tensor,
}

visit_fields!(Biases: previous16, local8);
shallow_clone!(Biases: previous16, local8);

impl Biases {
    /// Returns the biases of the positions in a window. Positions outside of it are not excluded, as readouts in the
    /// window do not reach them.
    pub(super) fn part(&self, window: &Window) -> Result<Self> {
        let of_queries = window.of_positions(&self.previous16.f_transpose(0, 1)?)?.f_transpose(0, 1)?;
        let (h, w, _) = self.local8.size3()?;
        // (rows of the square, H, W, columns)
        let local8 = self.local8.f_reshape([h, w, -1, w])?.f_permute([2, 3, 0, 1])?;
        let local8 = window.of(&local8)?.f_permute([2, 3, 0, 1])?;
        Ok(Self {
            previous16: window.of_positions(&of_queries)?,
            local8: window.of_columns(&local8)?.f_flatten(2, 3)?,
        })
    }
}

/// Memory readout of a frame, at strides 16 (`coarse`) and 8 (`fine`): the values read, (N, channels, positions),
/// and the maximum similarity to object and to background, (N, 2, positions).
#[derive(Debug)]
pub struct MemoryReadout {
    coarse: (Tensor, Tensor),
    fine: (Tensor, Tensor),
    /// Kept alive so that no other memory gets the same address, by which [`was_read_from`](Self::was_read_from) compares.
    memory: Tokens,
}

impl MemoryReadout {
    /// Whether this was read from `memory`. Memories are never modified in place.
    pub fn was_read_from(&self, memory: &Tokens) -> bool {
        self.memory.is(memory)
    }
}

/// Projection of features at strides 8 and 16 to keys at stride 8.
///
/// It equals one convolution of the fine level concatenated with the upsampled coarse one; convolving the coarse one
/// before upsampling takes a quarter of the operations.
#[derive(Debug)]
struct Key8 {
    whole: Conv,
    /// Its parts for stride 8 and for stride 16, packed for inference.
    parts: Option<(Conv, Conv)>,
}

impl Visit for Key8 {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor) -> Result<()>) -> Result<()> {
        // `f` may change the weights.
        self.parts = None;
        self.whole.visit(f)
    }
}

impl Key8 {
    /// Splits and packs the weights for inference. `fine` is the number of channels at stride 8.
    fn pack(&mut self, fine: i64, factors: Factors) -> Result<()> {
        let (mut fine, mut coarse) = self.whole.split(fine)?;
        fine.pack(factors)?;
        coarse.pack(factors)?;
        self.parts = Some((fine, coarse));
        Ok(())
    }

    fn forward(&self, fine: &Tensor, coarse: &Tensor) -> Result<Tensor> {
        let split;
        let (fine_part, coarse_part) = match &self.parts {
            Some(parts) => parts,
            None => {
                split = self.whole.split(fine.size()[1])?;
                &split
            }
        };
        Ok(fine_part.forward(fine)?.f_add(&double(&coarse_part.forward(coarse)?)?)?)
    }
}

/// Projections to keys and values, and parameters of the softmax readouts.
#[derive(Debug)]
pub struct Matching {
    value: Conv,
    key16: Conv,
    key8: Key8,
    /// Logarithms of the softmax sharpness: memory, previous frame.
    sharpness16: Tensor,
    /// Logarithms of the softmax sharpness: memory, local attention.
    sharpness8: Tensor,
    distance: Tensor,
    offset: Tensor,
    /// Number format of query and keys in products of packed weights.
    factors: Factors,
}

visit_fields!(Matching: value, key16, key8, sharpness16, sharpness8, distance, offset);

/// Channels of the values at stride 16, without the 16 of the sub-mask.
fn value_channels(config: &Config) -> i64 {
    config.channels(48)
}

impl Matching {
    /// Output channels of [`read16`](Self::read16): two readouts and two similarities.
    pub fn channels16(config: &Config) -> i64 {
        2 * (value_channels(config) + 16) + 2
    }

    /// Output channels of [`read8`](Self::read8): two readouts of the 2x2 sub-mask and two similarities.
    pub const CHANNELS8: i64 = 2 * 4 + 2;

    /// Creates trainable layers with random weights; key projections are orthogonal.
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        let channels = Channels::new(config);
        let key = |name: &str, inputs: i64, outputs: i64| {
            let spec = ConvSpec::square(inputs, outputs, 1).without_bias();
            let path = path / name;
            let orthogonal = unless_zero_init(nn::Init::Orthogonal { gain: 1.0 });
            let rows = nn::init(orthogonal, &[outputs, inputs], path.device());
            let weight = path.var_copy("weight", &rows.reshape([outputs, inputs, 1, 1]));
            Conv::from_tensors(weight, None, spec).named(name_of(&path))
        };
        let sharpness = |name: &str| path.var(name, &[2], nn::Init::Const(2.6));
        let window = 2 * RADIUS + 1;
        Self {
            value: Conv::new(
                &(path / "value"),
                ConvSpec::square(channels.s16 + 16, value_channels(config), 1),
            ),
            key16: key("key16", channels.s16, config.channels(64)),
            key8: Key8 {
                whole: key("key8", channels.s8_expanded + channels.s16, config.channels(48)),
                parts: None,
            },
            sharpness16: sharpness("sharpness16"),
            sharpness8: sharpness("sharpness8"),
            distance: path.var("distance", &[], nn::Init::Const(-3.0)),
            offset: path.var("offset", &[window, window], nn::Init::Const(0.0)),
            factors: Factors::Float32,
        }
    }

    /// Packs the weights for faster inference; they must not change afterwards.
    pub fn pack(&mut self, factors: Factors) -> Result<()> {
        self.factors = factors;
        self.key8.pack(self.key8.whole.spec().inputs - self.key16.spec().inputs, factors)?;
        [&mut self.value, &mut self.key16].into_iter().try_for_each(|conv| conv.pack(factors))
    }

    /// Adds the keys to the encoder features.
    pub fn features(&self, features: &EncoderFeatures) -> Result<Features> {
        let key16 = unit_length(&self.key16.forward(&features.s16)?)?.f_flatten(2, 3)?;
        let key8 = self.key8.forward(&features.s8_expanded, &features.s16)?;
        Ok(Features {
            s2: features.s2.shallow_clone(),
            s4: features.s4.shallow_clone(),
            s8: features.s8.shallow_clone(),
            s16: features.s16.shallow_clone(),
            key16,
            key8: unit_length(&key8)?,
            detail: None,
        })
    }

    /// Returns the values at stride 16, from features (1 or N, …) and the 4x4 sub-mask (N, 16, …).
    pub fn value(&self, s16: &Tensor, sub16: &Tensor) -> Result<Tensor> {
        let s16 = expand(s16, sub16.size()[0])?;
        self.value.forward(&Tensor::f_cat(&[&s16, sub16], 1)?)
    }

    /// Returns the biases for frames of `height` x `width` positions at stride 8, in the given kind.
    pub fn biases(&self, height: i64, width: i64, kind: Kind) -> Result<Biases> {
        let device = self.distance.device();
        let range = |n: i64| Tensor::f_arange(n, (Kind::Float, device));

        let (h, w) = (height / 2, width / 2);
        let y = range(h)?.f_unsqueeze(1)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let x = range(w)?.f_unsqueeze(0)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let squared =
            |p: &Tensor| -> Result<Tensor> { Ok(p.f_unsqueeze(1)?.f_sub(&p.f_unsqueeze(0)?)?.f_square()?) };
        let distance =
            squared(&y)?.f_add(&squared(&x)?)?.f_mul_scalar((UNIT_POSITIONS / (h * w) as f64).min(1.0))?;
        let previous16 = distance.f_mul(&self.distance.f_softplus()?.f_neg()?)?.f_to_kind(kind)?;

        let window = 2 * RADIUS + 1;
        let columns = range(width)?;
        let dx = columns.f_unsqueeze(0)?.f_sub(&columns.f_unsqueeze(1)?)?;
        let outside = dx.f_abs()?.f_gt(RADIUS as f64)?;
        let index = dx.f_clamp(-RADIUS, RADIUS)?.f_add_scalar(RADIUS)?.f_to_kind(Kind::Int64)?;
        let by_column = self
            .offset
            .f_to_kind(Kind::Float)?
            .f_index_select(1, &index.f_reshape([-1])?)?
            .f_reshape([window, width, width])?
            .f_permute([1, 0, 2])?
            .f_masked_fill(&outside.f_unsqueeze(1)?, EXCLUDED)?
            .f_reshape([1, width, window * width])?;
        let row = range(height)?.f_unsqueeze(1)?.f_add(&range(window)?.f_sub_scalar(RADIUS)?)?;
        let off_frame = row.f_lt(0.0)?.f_logical_or(&row.f_ge(height as f64)?)?;
        let by_row = row
            .f_zeros_like()?
            .f_masked_fill(&off_frame, EXCLUDED)?
            .f_repeat_interleave_self_int(width, 1, None)?
            .f_unsqueeze(1)?;
        let local8 = by_column.f_add(&by_row)?.f_to_kind(kind)?;
        Ok(Biases { previous16, local8 })
    }

    /// Returns the memory readout of a frame (1 or N, …). It does not depend on the previous frame.
    pub fn readout(&self, now: &Features, memory: &Tokens) -> Result<MemoryReadout> {
        let n = memory.key16.size()[0];
        let read_memory =
            |query: &Tensor, sharpness: &Tensor, keys: &Tensor, value: &Tensor, mask: &Tensor| {
                let query = &expand(&query.f_transpose(1, 2)?, n)?;
                let sharpness = &sharpness.f_exp()?.f_to_kind(query.kind())?.f_select(0, 0)?;
                affinity(Readout { query, keys, sharpness, value, factors: self.factors }, mask)
            };
        let Tokens { key16, value16, mask16, key8, value8, mask8 } = memory;
        let coarse = read_memory(&now.key16, &self.sharpness16, key16, value16, mask16)?;
        let query8 = now.key8.f_flatten(2, 3)?;
        let fine = read_memory(&query8, &self.sharpness8, key8, value8, &mask8.f_unsqueeze(1)?)?;
        Ok(MemoryReadout { coarse, fine, memory: memory.shallow_clone() })
    }

    /// Returns the readouts of the memory and of the previous frame at stride 16, and the maximum similarity to
    /// object and to background, (N, [`channels16`](Self::channels16), H/16, W/16). `sub16` is the previous mask.
    pub fn read16(
        &self,
        now: &Features,
        previous: &Features,
        sub16: &Tensor,
        readout: &MemoryReadout,
        biases: &Biases,
    ) -> Result<Tensor> {
        let (n, h, w) = (now.s16.size()[0], now.s16.size()[2], now.s16.size()[3]);
        let query = &now.key16.f_transpose(1, 2)?;
        let sharpness = &self.sharpness16.f_exp()?.f_to_kind(query.kind())?.f_select(0, 1)?;
        let (from_memory, best) = &readout.coarse;
        let value = &Tensor::f_cat(&[self.value(&previous.s16, sub16)?, sub16.shallow_clone()], 1)?
            .f_flatten(2, 3)?;
        let (keys, factors) = (&previous.key16, self.factors);
        let from_previous = read(Readout { query, keys, sharpness, value, factors }, &biases.previous16)?;
        let parts = [from_memory, &from_previous, best].map(|x| x.f_reshape([n, -1, h, w]));
        Ok(Tensor::f_cat(&parts.into_iter().collect::<Result<Vec<_>, _>>()?, 1)?)
    }

    /// Returns the maximum similarity of each position at stride 16 to an object token minus that to a background
    /// token, (N, 1, H/16, W/16).
    pub fn likeness(&self, now: &Features, memory: &Tokens) -> Result<Tensor> {
        let n = memory.key16.size()[0];
        let query = expand(&now.key16, n)?.f_transpose(1, 2)?;
        let best = match attention::best_likeness(&query, &memory.key16, &memory.mask16, self.factors)? {
            Some(best) => best,
            None => best_likeness(&product(&query, &memory.key16)?, &memory.mask16)?,
        };
        let margin = best.f_narrow(1, 0, 1)?.f_sub(&best.f_narrow(1, 1, 1)?)?;
        Ok(margin.f_reshape([n, 1, now.s16.size()[2], now.s16.size()[3]])?)
    }

    /// Returns the readout of the memory at stride 8, the maximum similarity to object and to background, and a
    /// local readout of the previous mask `sub8` (N, 4, …), as (N, [`CHANNELS8`](Self::CHANNELS8), H/8, W/8).
    pub fn read8(
        &self,
        now: &Features,
        previous: &Features,
        sub8: &Tensor,
        readout: &MemoryReadout,
        biases: &Biases,
    ) -> Result<Tensor> {
        let (n, h, w) = (now.key8.size()[0], now.key8.size()[2], now.key8.size()[3]);
        let sharpness = &self.sharpness8.f_exp()?.f_to_kind(now.key8.kind())?.f_select(0, 1)?;
        let (from_memory, best) = &readout.fine;
        let (query, keys, bias) = (&now.key8, &previous.key8, &biases.local8);
        let factors = self.factors;
        let local = local_read(LocalReadout { query, keys, sharpness, bias, value: sub8, factors })?;
        let global = |x: &Tensor| x.f_reshape([n, -1, h, w]);
        Ok(Tensor::f_cat(&[global(from_memory)?, global(best)?, local], 1)?)
    }
}

/// Reads the values with the softmax of the similarities, (N, channels, queries). Also returns the maximum similarity to
/// an object token and to a background token, (N, 2, queries).
fn affinity(readout: Readout, mask: &Tensor) -> Result<(Tensor, Tensor)> {
    if readout.fits() {
        return readout.with_best(mask);
    }
    let Readout { query, keys, sharpness, value, .. } = readout;
    let likeness = product(query, keys)?;
    let best = best_likeness(&likeness, mask)?;
    let weights = likeness.f_mul(sharpness)?.f_softmax(-1, None::<Kind>)?;
    Ok((product(value, &weights.f_transpose(1, 2)?)?, best))
}

/// Reads the values with the softmax of the similarities and `bias`, (N, channels, queries). `bias` (…, tokens) has the
/// rows of the whole batch, or those of one item that serve all.
fn read(readout: Readout, bias: &Tensor) -> Result<Tensor> {
    if readout.fits() {
        return readout.with_bias(bias);
    }
    let Readout { query, keys, sharpness, value, .. } = readout;
    let weights = product(query, keys)?.f_mul(sharpness)?.f_add(bias)?.f_softmax(-1, None::<Kind>)?;
    product(value, &weights.f_transpose(1, 2)?)
}

/// Returns the maximum similarity to an object token and to a background token, (N, 2, queries).
fn best_likeness(likeness: &Tensor, mask: &Tensor) -> Result<Tensor> {
    // 2 is the range of a cosine similarity, so that tokens of the other class never win.
    let shift = mask.f_mul_scalar(2.0)?;
    let object = likeness.f_add(&shift.f_sub_scalar(2.0)?)?.f_amax(-1, false)?;
    let background = likeness.f_sub(&shift)?.f_amax(-1, false)?;
    Ok(Tensor::f_stack(&[object, background], 1)?)
}

/// Attention of each position to a square of the previous frame around it.
fn local_read(readout: LocalReadout) -> Result<Tensor> {
    if readout.fits() {
        return readout.read();
    }
    let LocalReadout { query, keys: key, sharpness, bias, value, factors } = readout;
    // Each row of queries takes one matrix product, with the band of rows around it.
    let (n, c, h, w) = query.size4()?;
    let window = 2 * RADIUS + 1;
    // Keeps the columns of a row adjacent, (N h, channels, window w), as the product requires.
    let bands = |x: &Tensor| -> Result<Tensor> {
        let x = x.f_permute([0, 2, 3, 1])?.f_constant_pad_nd([0, 0, 0, 0, RADIUS, RADIUS])?;
        // unfold gives (N, h, w, channels, window)
        let x = x.f_unfold(1, window, 1)?.f_permute([0, 1, 3, 4, 2])?;
        let channels = x.size()[2];
        Ok(x.f_reshape([-1, channels, window * w])?)
    };
    let query = query.f_permute([0, 2, 3, 1])?.f_reshape([n * h, w, c])?;
    let (key, value) = (bands(key)?, bands(value)?);
    let key = if key.size()[0] == n * h { key } else { key.f_repeat([n, 1, 1])? };
    let bias = if n == 1 { bias.shallow_clone() } else { bias.f_repeat([n, 1, 1])? };
    let readout = Readout { query: &query, keys: &key, sharpness, value: &value, factors };
    let read = read(readout, &bias)?;
    Ok(read.f_reshape([n, h, -1, w])?.f_permute([0, 2, 1, 3])?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::layers::RelativeRect;

    #[test]
    fn features_of_a_part_are_resampled() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(4);
        let float = (Kind::Float, Device::Cpu);
        let random = |channels: i64, side: i64| Tensor::randn([1, channels, 64 / side, 96 / side], float);
        let features = Features {
            s2: random(2, 2),
            s4: random(2, 4),
            s8: random(2, 8),
            s16: random(5, 16),
            key16: unit_length(&random(6, 16)).unwrap().flatten(2, 3),
            key8: unit_length(&random(6, 8)).unwrap(),
            detail: None,
        };
        let close = |a: &Tensor, b: &Tensor| {
            assert_eq!(a.size(), b.size());
            assert!((a - b).abs().max().double_value(&[]) < 1e-5);
        };
        let whole = RelativeRect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let same = features.part(whole, (64, 96)).unwrap();
        close(&same.s16, &features.s16);
        close(&same.key16, &features.key16);
        close(&same.key8, &features.key8);

        // Half the width at the same scale: the middle half of the columns.
        let middle = RelativeRect { x: 0.25, width: 0.5, ..whole };
        let part = features.part(middle, (64, 48)).unwrap();
        close(&part.key8, &features.key8.narrow(3, 3, 6));
        // Twice the scale: interpolated keys keep unit length.
        let enlarged = features.part(middle, (128, 96)).unwrap();
        assert_eq!((enlarged.s16.size(), enlarged.key16.size()), (vec![1, 5, 8, 6], vec![1, 6, 48]));
        close(
            &enlarged.key8.square().sum_dim_intlist([1i64].as_slice(), false, None),
            &Tensor::ones([1, 16, 12], float),
        );
    }

    #[test]
    fn biases_of_a_part_are_those_of_its_positions() {
        let _guard = tch::no_grad_guard();
        let store = nn::VarStore::new(Device::Cpu);
        let matching = Matching::new(&store.root(), &Config { width: 0.125, ..Config::lite() });
        let _ = matching.offset.shallow_clone().uniform_(-1.0, 1.0);
        let all = matching.biases(24, 42, Kind::Float).unwrap();
        let mask = Tensor::zeros([1, 1, 192, 336], (Kind::Float, Device::Cpu));
        // Rows 3 to 9 and columns 7 to 13 at stride 16.
        let _ = mask.narrow(2, 96, 1).narrow(3, 160, 1).fill_(1.0);
        let part = all.part(&Window::around(&mask).unwrap()).unwrap();
        let own = matching.biases(14, 14, Kind::Float).unwrap();
        assert!((&part.previous16 - &own.previous16).abs().max().double_value(&[]) < 1e-6);
        // In the middle of the part, no square reaches its border.
        let middle = |x: &Tensor| x.narrow(0, 5, 4).narrow(1, 5, 4).copy();
        assert!((middle(&part.local8) - middle(&own.local8)).abs().max().double_value(&[]) < 1e-6);
    }

    /// Compares with attention to the window around each position, written as loops, for two objects.
    #[test]
    fn local_readout_equals_its_definition() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let config = Config { width: 0.125, ..Config::lite() };
        let matching = Matching::new(&store.root(), &config);
        let _ = matching.offset.shallow_clone().uniform_(-1.0, 1.0);
        let float = (Kind::Float, Device::Cpu);
        let (h, w) = (8, 14);
        let query = Tensor::randn([1, 6, h, w], float);
        let key = Tensor::randn([1, 6, h, w], float).expand([2, 6, h, w], false);
        let value = Tensor::rand([2, 4, h, w], float);
        let sharpness = Tensor::from(1.7f32);
        let biases = matching.biases(h, w, Kind::Float).unwrap();
        let read = |query: &Tensor, value: &Tensor| {
            let query = query.expand([2, 6, h, w], false);
            let (query, keys, sharpness, bias) = (&query, &key, &sharpness, &biases.local8);
            let factors = Factors::Float32;
            local_read(LocalReadout { query, keys, sharpness, bias, value, factors }).unwrap()
        };
        // Gradients take libtorch's operations.
        let reads = [read(&query, &value), read(&query, &value.copy().set_requires_grad(true))];
        let object = |tensor: &Tensor, at: [i64; 4]| tensor.double_value(&at);
        for (n, y, x) in [(0, 0, 0), (1, 3, 7), (0, 7, 13), (1, 1, 12), (0, 4, 5)] {
            let (mut weights, mut sums) = (0.0, [0.0; 4]);
            for v in (y - RADIUS).max(0)..(y + RADIUS + 1).min(h) {
                for u in (x - RADIUS).max(0)..(x + RADIUS + 1).min(w) {
                    let dot: f64 =
                        (0..6).map(|c| object(&query, [0, c, y, x]) * object(&key, [0, c, v, u])).sum();
                    let offset = matching.offset.double_value(&[v - y + RADIUS, u - x + RADIUS]);
                    let weight = (1.7 * dot + offset).exp();
                    weights += weight;
                    for (c, sum) in (0..).zip(&mut sums) {
                        *sum += weight * object(&value, [n, c, v, u]);
                    }
                }
            }
            for (read, (c, sum)) in reads.iter().flat_map(|read| (0..).zip(&sums).map(move |sum| (read, sum)))
            {
                let difference = object(read, [n, c, y, x]) - sum / weights;
                assert!(difference.abs() < 1e-5, "object {n}, ({y}, {x}) channel {c}: {difference}");
            }
        }
    }
}
