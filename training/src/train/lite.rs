//! One training step of `lite`: the window unrolled, with gradient through mask and temporal skip.

use std::collections::VecDeque;

use gstfastganseg::model::layers::channels_last;
use gstfastganseg::model::lite::matching::Features;
use gstfastganseg::model::lite::memory::{Selection, remember};
use gstfastganseg::model::{Lite, Regressor};
use tch::{Kind, Tensor};

use super::config::Loss;
use super::loss::frame_loss;
use crate::Result;
use crate::clips::Batch;

/// How a step is computed.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    pub loss: Loss,
    /// The kind of features and activations; weights and losses are float32.
    pub kind: Kind,
    pub frozen_encoder: bool,
    /// The chance of a frame to be remembered.
    pub remember: f64,
}

/// The mean loss over the window, and the mean soft region similarity.
pub fn step_loss(model: &Lite, batch: &Batch, settings: &StepSettings) -> Result<(Tensor, f64)> {
    let size = batch.images.size();
    let (frames, clips) = (size[0], size[1]);
    let images = channels_last(&batch.images.f_flatten(0, 1)?)?;
    let features = encode(model, &images, settings)?;
    let of = |frame: i64| -> Result<Features> { Ok(features.narrow(frame * clips, clips)?) };

    let reference = of(0)?;
    let tokens = model.tokens(&reference, &batch.masks.f_select(0, 0)?, Selection::Random)?;
    let mut memory = tokens.shallow_clone();
    let mut remembered = VecDeque::new();
    let biases = model.biases(&reference)?;
    let (mut previous, mut mask, mut skip) = (of(1)?, batch.previous.shallow_clone(), None::<Tensor>);
    let (mut total, mut similarity) = (None::<Tensor>, 0.0);
    let steps = frames - 2;
    for frame in 2..frames {
        let now = of(frame)?;
        let drawn = Tensor::f_rand([1], (Kind::Float, tch::Device::Cpu))?.double_value(&[0]);
        if drawn < settings.remember {
            let seen = model.tokens(&previous, &mask.f_detach()?, Selection::Random)?;
            memory = remember(&tokens, &mut remembered, seen, model.config().memory.frames)?;
        }
        let (logits, next) = model.decode(&now, &previous, &mask, skip.as_ref(), &memory, &biases)?;
        let (loss, region) = frame_loss(&logits, &batch.masks.f_select(0, frame)?, &settings.loss)?;
        let loss = loss.f_div_scalar(steps as f64)?;
        total = Some(match total {
            Some(total) => total.f_add(&loss)?,
            None => loss,
        });
        similarity += region / steps as f64;
        (previous, mask, skip) = (now, logits.f_sigmoid()?, Some(next));
    }
    let total = total.unwrap_or_else(|| Tensor::zeros([], (Kind::Float, tch::Device::Cpu)));
    Ok((total, similarity))
}

fn encode(model: &Lite, images: &Tensor, settings: &StepSettings) -> Result<Features> {
    if !settings.frozen_encoder {
        return Ok(model.encode(&images.f_to_kind(settings.kind)?)?);
    }
    let taps = tch::no_grad(|| model.encoder.forward(&images.f_to_kind(settings.kind)?))?;
    Ok(model.matching.features(&taps)?)
}
