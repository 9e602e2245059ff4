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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Device;

    use super::*;

    #[test]
    fn one_click_trains_the_whole_and_other_prompts_the_defined_mask() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/prompt.toml");
        let config = PromptConfig::open(&path, &[]).unwrap();
        let truth = Tensor::zeros([8, 8], (Kind::Float, Device::Cpu));
        let _ = truth.narrow(0, 2, 4).fill_(1.0);
        let right = &truth * 12.0 - 6.0;
        let wrong = -&right;
        let predicted = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0]);
        let loss = |masks: [&Tensor; 4], one_click| {
            prompt_loss((&Tensor::stack(&masks, 0), &predicted), &truth, one_click, &config).unwrap()
        };
        let defined = [&right, &wrong, &wrong, &wrong];
        let whole = [&wrong, &wrong, &wrong, &right];
        for (masks, one_click, index, iou) in
            [(defined, false, DEFINED, 1.0), (defined, true, WHOLE, 0.0), (whole, true, WHOLE, 1.0)]
        {
            let loss = loss(masks, one_click);
            assert_eq!((loss.index, loss.iou), (index, iou));
        }
        let total = |masks, one_click| loss(masks, one_click).total.double_value(&[]);
        assert!(total(whole, true) < total(defined, true));
        // Another right mask among the alternatives lowers the loss.
        let both = [&right, &wrong, &right, &wrong];
        assert!(total(both, false) < total(defined, false));
        assert!(total(both, false) < 0.2, "only the predicted IoU of one mask is wrong");
    }
}
