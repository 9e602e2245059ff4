//! Affinity matching: every position of the current frame looks for its like in the reference, the
//! memory and the previous frame, and reads there what the mask says.

use tch::{Kind, Tensor, nn};

use super::super::config::Config;
use super::super::layers::{Conv, ConvSpec, Part, channels_last, double, name_of, part_of};
use super::super::meter;
use super::super::tensor_slices::Unshared;
use super::super::zero_init::unless_zero_init;
use super::affinity_simd;
use super::backbone::{Channels, EncoderFeatures};
use super::memory::Tokens;
use crate::{Result, visit_fields};

/// Far below any logit: nothing is read from there.
const NEVER: f64 = -1e4;
/// Radius, in positions at stride 8, of local attention to the previous frame.
const RADIUS: i64 = 5;

/// Encoded frame: what the decoder takes, and normalised keys.
#[derive(Debug)]
pub struct Features {
    /// The encoder's features at stride 2.
    pub s2: Tensor,
    /// At stride 4.
    pub s4: Tensor,
    /// At stride 8.
    pub s8: Tensor,
    /// At stride 16.
    pub s16: Tensor,
    /// (N, key, positions at stride 16), unit length.
    pub key16: Tensor,
    /// (N, key, H/8, W/8), unit length.
    pub key8: Tensor,
}

impl Features {
    /// The same features for `n` objects, without a copy.
    pub fn expand(&self, n: i64) -> Result<Self> {
        self.map(|x| expand(x, n))
    }

    /// Items `start .. start + length` of the batch, without a copy.
    pub fn narrow(&self, start: i64, length: i64) -> Result<Self> {
        self.map(|x| Ok(x.f_narrow(0, start, length)?))
    }

    /// The same with `f` applied to every tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            s2: f(&self.s2)?,
            s4: f(&self.s4)?,
            s8: f(&self.s8)?,
            s16: f(&self.s16)?,
            key16: f(&self.key16)?,
            key8: f(&self.key8)?,
        })
    }

    /// Of a part of the frame in (height, width) pixels, what the next frame is compared with: between positions
    /// features are about what the encoder would give there. The others stay as they are.
    pub fn part(&self, part: Part, (height, width): (i64, i64)) -> Result<Self> {
        let (h, w) = (self.s16.size()[2], self.s16.size()[3]);
        let key16 = self.key16.f_reshape([self.key16.size()[0], -1, h, w])?;
        // In the layout of what the encoder gives, so that steps are recorded once for both.
        let see =
            |x: &Tensor, side: i64| channels_last(&part_of(x, part, (height / side, width / side), false)?);
        Ok(Self {
            s16: see(&self.s16, 16)?,
            key16: unit_length(&see(&key16, 16)?)?.f_flatten(2, 3)?,
            key8: unit_length(&see(&self.key8, 8)?)?,
            ..self.shallow_clone()
        })
    }

    /// Another handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self {
            s2: self.s2.shallow_clone(),
            s4: self.s4.shallow_clone(),
            s8: self.s8.shallow_clone(),
            s16: self.s16.shallow_clone(),
            key16: self.key16.shallow_clone(),
            key8: self.key8.shallow_clone(),
        }
    }
}

/// Position biases of one frame size; they depend on weights but not on the picture.
#[derive(Debug)]
pub struct Biases {
    /// (positions, positions) at stride 16: minus a learned multiple of the squared distance.
    previous16: Tensor,
    /// (H/8, W/8, (2 radius + 1) W/8): learned per offset, `NEVER` outside the window and the frame.
    local8: Tensor,
}

visit_fields!(Biases: previous16, local8);

impl Biases {
    /// Another handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self { previous16: self.previous16.shallow_clone(), local8: self.local8.shallow_clone() }
    }
}

/// What the memory says of a frame: for strides 16 and 8 what was read, (N, channels, positions), and the greatest
/// likeness to object and to background, (N, 2, positions).
#[derive(Debug)]
pub struct MemoryReadout {
    coarse: (Tensor, Tensor),
    fine: (Tensor, Tensor),
    /// Kept, so that no other can come to lie in its place.
    memory: Tokens,
}

impl MemoryReadout {
    /// Whether it is that memory which was asked, which never changes in place.
    pub fn is_of(&self, memory: &Tokens) -> bool {
        self.memory.is(memory)
    }
}

/// Keys, values and how sharply they are read.
#[derive(Debug)]
pub struct Matching {
    value: Conv,
    key16: Conv,
    key8: Conv,
    /// Logarithms of the sharpness of reading: reference, previous frame.
    sharpness16: Tensor,
    /// Logarithms of the sharpness of reading: reference, local.
    sharpness8: Tensor,
    distance: Tensor,
    offset: Tensor,
}

visit_fields!(Matching: value, key16, key8, sharpness16, sharpness8, distance, offset);

/// Channels of the values at stride 16, without the 16 of the sub-mask.
fn value_channels(config: &Config) -> i64 {
    config.channels(48)
}

impl Matching {
    /// Channels that [`read16`](Self::read16) gives: two reads and two similarities.
    pub fn channels16(config: &Config) -> i64 {
        2 * (value_channels(config) + 16) + 2
    }

    /// Channels that [`read8`](Self::read8) gives: two reads of the 2x2 sub-mask and two similarities.
    pub const CHANNELS8: i64 = 2 * 4 + 2;

    /// Trainable, at random; keys are orthogonal.
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
            key8: key("key8", channels.s8_expanded + channels.s16, config.channels(48)),
            sharpness16: sharpness("sharpness16"),
            sharpness8: sharpness("sharpness8"),
            distance: path.var("distance", &[], nn::Init::Const(-3.0)),
            offset: path.var("offset", &[window, window], nn::Init::Const(0.0)),
        }
    }

    /// Adds the keys to what the encoder gave.
    pub fn features(&self, features: &EncoderFeatures) -> Result<Features> {
        let key16 = unit_length(&self.key16.forward(&features.s16)?)?.f_flatten(2, 3)?;
        // Of both levels side by side, the coarse one doubled; but a quarter of its positions are enough.
        let (fine, coarse) = self.key8.split(features.s8_expanded.size()[1])?;
        let key8 = fine.forward(&features.s8_expanded)?.f_add(&double(&coarse.forward(&features.s16)?)?)?;
        Ok(Features {
            s2: features.s2.shallow_clone(),
            s4: features.s4.shallow_clone(),
            s8: features.s8.shallow_clone(),
            s16: features.s16.shallow_clone(),
            key16,
            key8: unit_length(&key8)?,
        })
    }

    /// What is read at stride 16: features (1 or N, …) with the 4x4 sub-mask (N, 16, …).
    pub fn value(&self, s16: &Tensor, sub16: &Tensor) -> Result<Tensor> {
        let s16 = expand(s16, sub16.size()[0])?;
        self.value.forward(&Tensor::f_cat(&[&s16, sub16], 1)?)
    }

    /// The biases for frames of `height` x `width` positions at stride 8, in the given kind.
    pub fn biases(&self, height: i64, width: i64, kind: Kind) -> Result<Biases> {
        let device = self.distance.device();
        let range = |n: i64| Tensor::f_arange(n, (Kind::Float, device));

        let (h, w) = (height / 2, width / 2);
        let y = range(h)?.f_unsqueeze(1)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let x = range(w)?.f_unsqueeze(0)?.f_expand([h, w], false)?.f_reshape([-1])?;
        let squared =
            |p: &Tensor| -> Result<Tensor> { Ok(p.f_unsqueeze(1)?.f_sub(&p.f_unsqueeze(0)?)?.f_square()?) };
        let distance = squared(&y)?.f_add(&squared(&x)?)?;
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
            .f_masked_fill(&outside.f_unsqueeze(1)?, NEVER)?
            .f_reshape([1, width, window * width])?;
        let row = range(height)?.f_unsqueeze(1)?.f_add(&range(window)?.f_sub_scalar(RADIUS)?)?;
        let off_frame = row.f_lt(0.0)?.f_logical_or(&row.f_ge(height as f64)?)?;
        let by_row = row
            .f_zeros_like()?
            .f_masked_fill(&off_frame, NEVER)?
            .f_repeat_interleave_self_int(width, 1, None)?
            .f_unsqueeze(1)?;
        let local8 = by_column.f_add(&by_row)?.f_to_kind(kind)?;
        Ok(Biases { previous16, local8 })
    }

    /// What the memory says of a frame (1 or N, …), whatever the frame before it was like.
    pub fn readout(&self, now: &Features, memory: &Tokens) -> Result<MemoryReadout> {
        let n = memory.key16.size()[0];
        let reference = |sharpness: &Tensor, like: &Tensor| -> Result<Tensor> {
            Ok(sharpness.f_exp()?.f_to_kind(like.kind())?.f_select(0, 0)?)
        };
        let query = expand(&now.key16, n)?.f_transpose(1, 2)?;
        let likeness = likenesses(&query, &memory.key16)?;
        let sharpness = reference(&self.sharpness16, &query)?;
        let coarse = affinity(likeness, &sharpness, &memory.value16, &memory.mask16)?;
        let query = expand(&now.key8, n)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let likeness = likenesses(&query, &memory.key8)?;
        let sharpness = reference(&self.sharpness8, &query)?;
        let fine = affinity(likeness, &sharpness, &memory.value8, &memory.mask8.f_unsqueeze(1)?)?;
        Ok(MemoryReadout { coarse, fine, memory: memory.shallow_clone() })
    }

    /// Stride 16: reads of memory and of the previous frame, and the greatest likeness to object and
    /// to background; (N, [`channels16`](Self::channels16), H/16, W/16). `sub16` is the previous mask.
    pub fn read16(
        &self,
        now: &Features,
        previous: &Features,
        sub16: &Tensor,
        readout: &MemoryReadout,
        biases: &Biases,
    ) -> Result<Tensor> {
        let (n, h, w) = (now.s16.size()[0], now.s16.size()[2], now.s16.size()[3]);
        let query = now.key16.f_transpose(1, 2)?;
        let sharpness = self.sharpness16.f_exp()?.f_to_kind(query.kind())?;
        let (from_memory, best) = &readout.coarse;
        let value =
            Tensor::f_cat(&[self.value(&previous.s16, sub16)?, sub16.shallow_clone()], 1)?.f_flatten(2, 3)?;
        let likeness = likenesses(&query, &previous.key16)?;
        let from_previous = read(likeness, &sharpness.f_select(0, 1)?, &biases.previous16, &value)?;
        Ok(Tensor::f_cat(&[from_memory, &from_previous, best], 1)?.f_reshape([n, -1, h, w])?)
    }

    /// How much more like a token of the object than like one of the background each position at stride 16
    /// is, (N, 1, H/16, W/16).
    pub fn likeness(&self, now: &Features, memory: &Tokens) -> Result<Tensor> {
        let n = memory.key16.size()[0];
        let query = expand(&now.key16, n)?.f_transpose(1, 2)?;
        let best = best_likeness(&product(&query, &memory.key16)?, &memory.mask16)?;
        let more = best.f_narrow(1, 0, 1)?.f_sub(&best.f_narrow(1, 1, 1)?)?;
        Ok(more.f_reshape([n, 1, now.s16.size()[2], now.s16.size()[3]])?)
    }

    /// Stride 8: read of the memory's tokens, likeness to object and background, and a local read of
    /// the previous mask `sub8` (N, 4, …); (N, [`CHANNELS8`](Self::CHANNELS8), H/8, W/8).
    pub fn read8(
        &self,
        now: &Features,
        previous: &Features,
        sub8: &Tensor,
        readout: &MemoryReadout,
        biases: &Biases,
    ) -> Result<Tensor> {
        let (n, h, w) = (now.key8.size()[0], now.key8.size()[2], now.key8.size()[3]);
        let sharpness = self.sharpness8.f_exp()?.f_to_kind(now.key8.kind())?;
        let (from_memory, best) = &readout.fine;
        let global = Tensor::f_cat(&[from_memory, best], 1)?.f_reshape([n, 6, h, w])?;
        let local = local_read(&now.key8, &previous.key8, sub8, &sharpness.f_select(0, 1)?, &biases.local8)?;
        Ok(Tensor::f_cat(&[global, local], 1)?)
    }
}

/// Batched matrix product.
pub(super) fn product(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    meter::product("matching.products", x, y)
}

/// The same as a tensor that may be used up.
fn likenesses(queries: &Tensor, tokens: &Tensor) -> Result<Unshared> {
    let likeness = product(queries, tokens)?;
    // SAFETY: libtorch allocates the result of a product, and it has not been given to anyone.
    Ok(unsafe { Unshared::new(likeness) })
}

/// Softmax over `sharpness · likeness` (N, queries, tokens) reads `value` (N, channels, tokens); with it the
/// greatest likeness to a token of the object and of the background, (N, 2, queries).
fn affinity(
    likeness: Unshared,
    sharpness: &Tensor,
    value: &Tensor,
    mask: &Tensor,
) -> Result<(Tensor, Tensor)> {
    if affinity_simd::fits(&likeness) {
        let (weighed, best) = affinity_simd::softmax_readout_with_best(likeness, sharpness, mask)?;
        return Ok((weighed.read(value)?, best));
    }
    let likeness = likeness.into_tensor();
    let best = best_likeness(&likeness, mask)?;
    let weights = likeness.f_mul(sharpness)?.f_softmax(-1, None::<Kind>)?;
    Ok((product(value, &weights.f_transpose(1, 2)?)?, best))
}

/// Softmax over `sharpness · likeness + bias` (N, queries, tokens) reads `value` (N, channels, tokens). The rows
/// of `bias` are as many as those of the likenesses, or of one item of theirs.
fn read(likeness: Unshared, sharpness: &Tensor, bias: &Tensor, value: &Tensor) -> Result<Tensor> {
    if affinity_simd::fits(&likeness) {
        return affinity_simd::softmax_readout(likeness, sharpness, bias)?.read(value);
    }
    let weights = likeness.into_tensor().f_mul(sharpness)?.f_add(bias)?.f_softmax(-1, None::<Kind>)?;
    product(value, &weights.f_transpose(1, 2)?)
}

/// The greatest likeness to a token of the object and to one of the background, (N, 2, queries).
fn best_likeness(likeness: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let away = mask.f_mul_scalar(2.0)?;
    let object = likeness.f_add(&away.f_sub_scalar(2.0)?)?.f_amax(-1, false)?;
    let background = likeness.f_sub(&away)?.f_amax(-1, false)?;
    Ok(Tensor::f_stack(&[object, background], 1)?)
}

/// Attention of each position to a square of the previous frame around it, one matrix product a row:
/// a row of queries against the band of 2 radius + 1 rows about it.
fn local_read(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    sharpness: &Tensor,
    bias: &Tensor,
) -> Result<Tensor> {
    let (n, c, h, w) = query.size4()?;
    let window = 2 * RADIUS + 1;
    // A row's columns stay together, (N h, channels, window w), as the product wants.
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
    let read = read(likenesses(&query, &key)?, sharpness, &bias, &value)?;
    Ok(read.f_reshape([n, h, -1, w])?.f_permute([0, 2, 1, 3])?)
}

/// Divides by the length along the channels.
fn unit_length(x: &Tensor) -> Result<Tensor> {
    let length = x.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(1e-12)?;
    Ok(x.f_div(&length)?)
}

/// The same for `n` objects, without a copy.
fn expand(x: &Tensor, n: i64) -> Result<Tensor> {
    let mut size = x.size();
    size[0] = n;
    Ok(x.f_expand(size, false)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn features_of_a_part_are_those_of_the_frame_moved() {
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
        };
        let close = |a: &Tensor, b: &Tensor| {
            assert_eq!(a.size(), b.size());
            assert!((a - b).abs().max().double_value(&[]) < 1e-5);
        };
        let whole = Part { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let same = features.part(whole, (64, 96)).unwrap();
        close(&same.s16, &features.s16);
        close(&same.key16, &features.key16);
        close(&same.key8, &features.key8);

        // Half as wide, so half as many columns of the same features.
        let middle = Part { x: 0.25, width: 0.5, ..whole };
        let part = features.part(middle, (64, 48)).unwrap();
        close(&part.key8, &features.key8.narrow(3, 3, 6));
        // Twice as large: between positions, still of unit length.
        let near = features.part(middle, (128, 96)).unwrap();
        assert_eq!((near.s16.size(), near.key16.size()), (vec![1, 5, 8, 6], vec![1, 6, 48]));
        close(
            &near.key8.square().sum_dim_intlist([1i64].as_slice(), false, None),
            &Tensor::ones([1, 16, 12], float),
        );
    }

    /// Attention to the window around each position, as one would write it down.
    #[test]
    fn local_reading_equals_its_definition() {
        let _guard = tch::no_grad_guard();
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let config = Config { width: 0.125, ..Config::lite() };
        let matching = Matching::new(&store.root(), &config);
        let _ = matching.offset.shallow_clone().uniform_(-1.0, 1.0);
        let float = (Kind::Float, Device::Cpu);
        let (h, w) = (8, 14);
        let query = Tensor::randn([1, 6, h, w], float);
        let key = Tensor::randn([1, 6, h, w], float);
        let value = Tensor::rand([1, 4, h, w], float);
        let sharpness = Tensor::from(1.7f32);
        let biases = matching.biases(h, w, Kind::Float).unwrap();
        let read = local_read(&query, &key, &value, &sharpness, &biases.local8).unwrap();
        for (y, x) in [(0, 0), (3, 7), (7, 13), (1, 12)] {
            let (mut weights, mut sums) = (0.0, [0.0; 4]);
            for v in (y - RADIUS).max(0)..(y + RADIUS + 1).min(h) {
                for u in (x - RADIUS).max(0)..(x + RADIUS + 1).min(w) {
                    let dot: f64 = (0..6)
                        .map(|c| query.double_value(&[0, c, y, x]) * key.double_value(&[0, c, v, u]))
                        .sum();
                    let offset = matching.offset.double_value(&[v - y + RADIUS, u - x + RADIUS]);
                    let weight = (1.7 * dot + offset).exp();
                    weights += weight;
                    for (c, sum) in sums.iter_mut().enumerate() {
                        *sum += weight * value.double_value(&[0, c as i64, v, u]);
                    }
                }
            }
            for (c, sum) in sums.iter().enumerate() {
                let difference = read.double_value(&[0, c as i64, y, x]) - sum / weights;
                assert!(difference.abs() < 1e-5, "({y}, {x}) channel {c}: {difference}");
            }
        }
    }
}
