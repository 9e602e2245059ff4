// SPDX-License-Identifier: MPL-2.0

//! Loss of the masks that the prompt network proposes.

use tch::{Kind, Reduction, Tensor};

use super::PromptConfig;
use crate::Result;

/// Index of the mask for prompts that define the object.
const DEFINED: i64 = 0;
/// Index of the mask of the largest extent.
const WHOLE: i64 = 3;
/// Weight of the best of the masks for ambiguous prompts.
const BEST: f64 = 0.5;

/// Losses of one prompt.
#[derive(Debug)]
pub struct PromptLoss {
    /// The weighted sum, a scalar.
    pub total: Tensor,
    /// Index of the mask that has to be the object.
    pub index: i64,
    /// Its IoU, 0 to 1.
    pub iou: f64,
}

/// Compares logits (4, H, W) and predicted IoU (4) with the share of the object `truth` (H, W). For prompts that define
/// the object, the mask 0 has to be the object; for one click, the mask of the largest extent. The best of the masks 1 to 3
/// learns as well, so that they stay alternatives (Kirillov et al., ICCV 2023, section 3).
///
/// # Errors
/// [`Error::Core`](crate::Error::Core) when memory runs out.
pub fn prompt_loss(
    (logits, predicted): (&Tensor, &Tensor),
    truth: &Tensor,
    one_click: bool,
    config: &PromptConfig,
) -> Result<PromptLoss> {
    let truth = truth.f_unsqueeze(0)?.f_expand_as(logits)?;
    let entropy =
        logits.f_binary_cross_entropy_with_logits(&truth, None::<Tensor>, None::<Tensor>, Reduction::None)?;
    let entropy = mean(&entropy)?;
    let share = logits.f_sigmoid()?;
    let (both, sum) = (mean(&share.f_mul(&truth)?)?, mean(&share.f_add(&truth)?)?);
    // 1 − Dice; the constant is one pixel of 256x256.
    let dice = both.f_mul_scalar(-2.0)?.f_div(&sum.f_add_scalar(1.0 / 65_536.0)?)?.f_add_scalar(1.0)?;
    let masks =
        entropy.f_mul_scalar(config.cross_entropy_weight)?.f_add(&dice.f_mul_scalar(config.dice_weight)?)?;
    let index = if one_click { WHOLE } else { DEFINED };
    let best = masks.f_narrow(0, 1, 3)?.f_min()?.f_mul_scalar(BEST)?;
    let iou = iou(logits, &truth)?;
    let errors = predicted.f_sub(&iou)?.f_square()?.f_mean(Kind::Float)?;
    let total = masks.f_get(index)?.f_add(&best)?.f_add(&errors.f_mul_scalar(config.iou_weight)?)?;
    Ok(PromptLoss { total, index, iou: iou.f_double_value(&[index])? })
}

/// IoU of each of the masks (4, H, W) with the truth of the same shape, without gradient.
fn iou(logits: &Tensor, truth: &Tensor) -> Result<Tensor> {
    let (mask, truth) = (logits.f_detach()?.f_gt(0.0)?, truth.f_gt(0.5)?);
    let count = |positions: Tensor| mean(&positions.f_to_kind(Kind::Float)?);
    let both = count(mask.f_logical_and(&truth)?)?;
    Ok(both.f_div(&count(mask.f_logical_or(&truth)?)?.f_clamp_min(1e-9)?)?)
}

fn mean(planes: &Tensor) -> Result<Tensor> {
    Ok(planes.f_mean_dim([1i64, 2].as_slice(), false, Kind::Float)?)
}
