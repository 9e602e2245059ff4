// SPDX-License-Identifier: MPL-2.0

//! Training of the refiner alone: the network predicts masks from pictures of half the clips' size, and the refiner learns to
//! double the resolution of these masks in tiles about their edges.

use gstfastganseg::torch::model::layers::{average_pool, double};
use gstfastganseg::torch::model::lite::refiner::Refiner;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::objective::matte_loss;
use crate::Result;
use crate::check::{Checked, count};
use crate::clips::Batch;

/// Height and width of a tile, in pixels of the masks.
const TILE: i64 = 40;
/// Minimum height and width of clips: two tiles, in multiples of 32.
const MIN_SIDE: i64 = 96;
/// Range of the values around a pixel, 0 to 1, from which it belongs to an edge.
const EDGE: f64 = 0.05;
/// Purpose of the random numbers in [`Batch::draw`], beyond those of the regressor's frames.
const DRAWS: i64 = 1 << 19;
/// Random numbers of a clip: share of green in the guide, contrast, brightness, inversion.
const NUMBERS: i64 = 4;

/// Settings of the training of the refiner, `[refinement]` in a training configuration. The other weights are frozen, and
/// `[loss]` is not used. The clips have twice the size at which they enter the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refinement {
    /// Maximum number of tiles of a step on each rank, each through all predicted frames.
    pub tiles: u64,
}

/// Result of the refiner for a batch.
#[derive(Debug)]
pub struct Refined {
    /// The losses of mattes in the tiles.
    pub loss: Tensor,
    /// The same for the bilinearly doubled masks.
    pub bilinear: Tensor,
    /// The bilinearly doubled masks, (K, B, 1, H, W), for the preview.
    pub masks: Tensor,
}

impl Refinement {
    /// Checks every value, for clips of these sizes (H, W).
    pub(crate) fn check(&self, sizes: &[(i64, i64)]) -> Checked {
        let is_double = |side: i64| side % 32 == 0 && side >= MIN_SIDE;
        if !sizes.iter().all(|&(height, width)| is_double(height) && is_double(width)) {
            return Err(format!(
                "refinement: the sides of data.size and data.shapes must be multiples of 32, at least {MIN_SIDE}"
            ));
        }
        count("refinement.tiles", self.tiles, 10_000)
    }

    /// Refines the masks (K, B, 1, h, w) of the predicted frames of a batch, of half the size, in tiles. The refiner computes in
    /// `kind`.
    pub fn refine(&self, refiner: &Refiner, masks: &Tensor, batch: &Batch, kind: Kind) -> Result<Refined> {
        let frames = masks.size()[0];
        let guide = guide(batch, frames)?;
        let tiles = self.tiles(masks, batch)?;
        let of_tiles = |x: &Tensor, scale: i64| cut(x, &tiles, scale);
        let truth = of_tiles(&batch.masks.f_narrow(0, 2, frames)?, 2)?;
        let valid = of_tiles(&batch.valid.f_narrow(0, 2, frames)?, 2)?;
        let (doubled, input) =
            Refiner::input(&of_tiles(masks, 1)?.f_flatten(0, 1)?, &of_tiles(&guide, 2)?.f_flatten(0, 1)?)?;
        let correction = Refiner::in_place(&refiner.forward(&input.f_to_kind(kind)?)?)?;
        let inner = |x: &Tensor| -> Result<Tensor> {
            let border = 2 * Refiner::REACH as i64;
            let side = 2 * TILE - 2 * border;
            Ok(x.f_view_as(&truth)?.f_narrow(3, border, side)?.f_narrow(4, border, side)?)
        };
        let loss = |masks: &Tensor| matte_loss(&inner(masks)?, &inner(&truth)?, &inner(&valid)?);
        Ok(Refined {
            loss: loss(&doubled.f_add(&correction)?)?,
            bilinear: loss(&doubled)?,
            masks: double(&masks.f_flatten(0, 1)?)?.f_unflatten(0, [frames, -1])?,
        })
    }

    /// Returns clip, row and column of tiles in which the masks (K, B, 1, h, w) have edges; at least one tile.
    fn tiles(&self, masks: &Tensor, batch: &Batch) -> Result<Vec<[i64; 3]>> {
        let size = masks.size();
        let (height, width) = (size[3], size[4]);
        let (rows, columns) = (height / TILE, width / TILE);
        let spread = masks.f_amax(0, false)?.f_sub(&masks.f_amin(0, false)?)?;
        let edges = range(&masks.f_flatten(0, 1)?)?.f_unflatten(0, [size[0], -1])?.f_amax(0, false)?;
        let is_edge = edges.f_maximum(&spread)?.f_gt(EDGE)?.f_to_kind(Kind::Float)?;
        let numbers = batch.draw(DRAWS + 1, 0, |_| {
            Ok(Tensor::f_rand([1, rows * columns + 2], (Kind::Float, masks.device()))?)
        })?;
        let offset = |at: i64, rest: i64| -> Result<i64> {
            Ok((numbers.f_get(0)?.f_get(at)?.f_double_value(&[])? * (rest + 1) as f64) as i64)
        };
        let (y, x) = (offset(0, height - rows * TILE)?, offset(1, width - columns * TILE)?);
        let shares = is_edge.f_narrow(2, y, rows * TILE)?.f_narrow(3, x, columns * TILE)?.f_avg_pool2d(
            [TILE, TILE],
            [TILE, TILE],
            [0, 0],
            false,
            true,
            None,
        )?;
        let order = shares.f_gt(0.01)?.f_to_kind(Kind::Float)?.f_flatten(1, -1)?;
        let order = order.f_add(&numbers.f_narrow(1, 2, rows * columns)?)?.f_flatten(0, -1)?;
        // Tiles without edges come last, so that they are used only if there is no other.
        let with_edges = order.f_ge(1.0)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        let (_, best) = order.f_topk(with_edges.clamp(1, self.tiles as i64), 0, true, true)?;
        let best = Vec::<i64>::try_from(&best)?;
        let tiles = rows * columns;
        let place = |at: i64| [at / tiles, y + at % tiles / columns * TILE, x + at % columns * TILE];
        Ok(best.into_iter().map(place).collect())
    }
}

/// Returns the batch at half of its size.
pub fn halved(batch: &Batch) -> Result<Batch> {
    batch.map(|x| {
        let size = x.size();
        Ok(average_pool(&x.f_flatten(0, -4)?, 2)?.f_unflatten(0, &size[..size.len() - 3])?)
    })
}

/// Returns the guide of the predicted frames, (K, B, 1, H, W) in [0, 1]: a mixture of luma and green, which the element has
/// for RGB formats, with random contrast and brightness, and sometimes inverted.
fn guide(batch: &Batch, frames: i64) -> Result<Tensor> {
    let images = batch.images.f_narrow(0, 2, frames)?;
    let options = (Kind::Float, images.device());
    let numbers = batch.draw(DRAWS, 1, |_| Ok(Tensor::f_rand([1, 1, NUMBERS, 1, 1], options)?))?;
    let number = |at: i64| numbers.f_narrow(2, at, 1);
    let channel = |at: i64| images.f_narrow(2, at, 1);
    let luma = channel(0)?
        .f_mul_scalar(0.299)?
        .f_add(&channel(1)?.f_mul_scalar(0.587)?)?
        .f_add(&channel(2)?.f_mul_scalar(0.114)?)?;
    let mixed = luma.f_add(&channel(1)?.f_sub(&luma)?.f_mul(&number(0)?)?)?;
    let contrast = number(1)?.f_mul_scalar(0.6)?.f_add_scalar(0.6)?;
    let brightness = number(2)?.f_mul_scalar(0.4)?.f_sub_scalar(0.2)?;
    let guide = mixed.f_mul(&contrast)?.f_add(&brightness)?.f_clamp(0.0, 1.0)?;
    let inverted = guide.f_neg()?.f_add_scalar(1.0)?;
    Ok(inverted.f_where_self(&number(3)?.f_lt(0.2)?, &guide)?)
}

/// Returns the range of the values in each neighbourhood of 3x3 pixels.
fn range(x: &Tensor) -> Result<Tensor> {
    let highest = |x: &Tensor| x.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
    Ok(highest(x)?.f_add(&highest(&x.f_neg()?)?)?)
}

/// Returns the tiles of `x` (K, B, 1, H, W), (K, N, 1, side, side). `x` has `scale` times the size of the masks.
fn cut(x: &Tensor, tiles: &[[i64; 3]], scale: i64) -> Result<Tensor> {
    let side = scale * TILE;
    let tile = |[clip, y, x0]: &[i64; 3]| -> Result<Tensor> {
        Ok(x.f_select(1, *clip)?.f_narrow(2, scale * y, side)?.f_narrow(3, scale * x0, side)?)
    };
    Ok(Tensor::f_stack(&tiles.iter().map(tile).collect::<Result<Vec<_>>>()?, 1)?)
}
