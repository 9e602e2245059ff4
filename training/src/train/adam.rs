//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019), its state open to checkpoints.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::config::Optimiser;
use crate::Result;

const EPSILON: f64 = 1e-8;

/// One trained tensor and its running moments.
#[derive(Debug)]
struct Slot {
    parameter: Tensor,
    first: Tensor,
    second: Tensor,
    encoder: bool,
}

#[derive(Debug)]
pub struct Adam {
    slots: BTreeMap<String, Slot>,
    settings: Optimiser,
    step: u64,
    steps: u64,
}

impl Adam {
    /// `parameters` by name; those of the encoder have a learning rate of their own.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        settings: Optimiser,
        steps: u64,
    ) -> Result<Self> {
        let mut slots = BTreeMap::new();
        for (name, parameter) in parameters {
            let encoder = name.starts_with("encoder.");
            let (first, second) = (parameter.f_zeros_like()?, parameter.f_zeros_like()?);
            slots.insert(name, Slot { parameter, first, second, encoder });
        }
        Ok(Self { slots, settings, step: 0, steps })
    }

    /// Learning rate at the present step as a share of the highest.
    pub fn schedule(&self) -> f64 {
        let progress = self.step as f64 / self.steps as f64;
        let warm_up = (self.step + 1) as f64 / self.settings.warm_up.max(1) as f64;
        warm_up.min(1.0) * (1.0 - progress).max(0.0).powf(self.settings.decay_power)
    }

    pub fn zero_gradients(&mut self) {
        for slot in self.slots.values_mut() {
            slot.parameter.zero_grad();
        }
    }

    /// One step down the gradients; returns their norm before clipping.
    pub fn step(&mut self) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let schedule = self.schedule();
        let [beta1, beta2] = self.settings.betas;
        let mut squares = 0.0;
        for slot in self.slots.values() {
            let gradient = slot.parameter.grad();
            if gradient.defined() {
                squares += gradient.f_square()?.f_sum(Kind::Double)?.double_value(&[]);
            }
        }
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.step += 1;
        let shrink = if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 };
        let (unbias1, unbias2) = (1.0 - beta1.powi(self.step as i32), 1.0 - beta2.powi(self.step as i32));
        for slot in self.slots.values_mut() {
            let gradient = slot.parameter.grad();
            if !gradient.defined() {
                continue;
            }
            let gradient = gradient.f_mul_scalar(shrink)?;
            let highest =
                if slot.encoder { self.settings.encoder_learning_rate } else { self.settings.learning_rate };
            let rate = highest * schedule;
            slot.first = slot.first.f_mul_scalar(beta1)?.f_add(&gradient.f_mul_scalar(1.0 - beta1)?)?;
            slot.second =
                slot.second.f_mul_scalar(beta2)?.f_add(&gradient.f_square()?.f_mul_scalar(1.0 - beta2)?)?;
            let divisor = slot.second.f_div_scalar(unbias2)?.f_sqrt()?.f_add_scalar(EPSILON)?;
            let change = slot.first.f_div_scalar(unbias1)?.f_div(&divisor)?;
            let decayed = slot.parameter.f_mul_scalar(1.0 - rate * self.settings.weight_decay)?;
            slot.parameter.f_copy_(&decayed.f_sub(&change.f_mul_scalar(rate)?)?).map(|_| ())?;
        }
        Ok(norm)
    }

    /// Moments by name, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots
            .iter()
            .flat_map(|(name, slot)| {
                [
                    (format!("first.{name}"), slot.first.shallow_clone()),
                    (format!("second.{name}"), slot.second.shallow_clone()),
                ]
            })
            .collect()
    }

    /// Puts back what [`state`](Self::state) gave at `step`.
    pub fn restore(&mut self, step: u64, mut moments: BTreeMap<String, Tensor>) -> Result<(), String> {
        for (name, slot) in &mut self.slots {
            for (moment, target) in [("first", &mut slot.first), ("second", &mut slot.second)] {
                let key = format!("{moment}.{name}");
                let tensor = moments.remove(&key).ok_or_else(|| format!("{key} is missing"))?;
                if tensor.size() != target.size() {
                    return Err(format!("{key} is {:?}, expected {:?}", tensor.size(), target.size()));
                }
                *target = tensor;
            }
        }
        self.step = step;
        Ok(())
    }
}
