// SPDX-License-Identifier: MPL-2.0

//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019), with state that checkpoints can store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;
use crate::check::{Checked, must};

const EPSILON: f64 = 1e-8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub learning_rate: f64,
    /// Maximum learning rate of variables whose names start with `encoder.`.
    pub encoder_learning_rate: f64,
    pub betas: Betas,
    /// Weight decay per step, relative to the learning rate.
    pub weight_decay: f64,
    /// Maximum norm of the gradient over all variables; infinite = no clipping.
    pub clip: f64,
}

/// Decay of the first and the second moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Betas(pub f64, pub f64);

impl Betas {
    pub(super) fn check(&self, key: &str) -> Checked {
        let decays = [self.0, self.1].iter().all(|beta| (0.0..1.0).contains(beta));
        must(decays, &format!("{key}: both from 0 to below 1"))
    }
}

/// One trained tensor and its moments.
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
    rates: Rates,
    /// Number of steps taken.
    pub steps: u64,
}

impl Adam {
    /// Creates an optimiser of `parameters`, given by name. Those of the encoder have their own learning rate.
    pub fn new(parameters: impl IntoIterator<Item = (String, Tensor)>, rates: Rates) -> Result<Self> {
        let mut slots = BTreeMap::new();
        for (name, parameter) in parameters {
            let encoder = name.starts_with("encoder.");
            let (first, second) = (parameter.f_zeros_like()?, parameter.f_zeros_like()?);
            slots.insert(name, Slot { parameter, first, second, encoder });
        }
        Ok(Self { slots, rates, steps: 0 })
    }

    /// The trained tensors, in the order of their names.
    pub fn parameters(&self) -> Vec<Tensor> {
        self.slots.values().map(|slot| slot.parameter.shallow_clone()).collect()
    }

    /// The trained tensors, roughly in the order in which a backward pass completes their gradients: the names of
    /// decoder layers follow those of the encoder, and layers are numbered.
    pub fn parameters_in_backward_order(&self) -> Vec<Tensor> {
        self.slots.values().rev().map(|slot| slot.parameter.shallow_clone()).collect()
    }

    pub fn zero_gradients(&mut self) {
        for slot in self.slots.values_mut() {
            slot.parameter.zero_grad();
        }
    }

    /// Enables or disables gradients of the trained tensors.
    pub fn set_requires_grad(&mut self, requires: bool) {
        for slot in self.slots.values() {
            let _ = slot.parameter.set_requires_grad(requires);
        }
    }

    /// Takes one step at `schedule` times the maximum learning rates and returns the norm of the gradient before
    /// clipping. If the norm is not finite, nothing changes.
    pub fn step(&mut self, schedule: f64) -> Result<f64> {
        let _no_grad = tch::no_grad_guard();
        let rates = self.rates;
        let Betas(beta1, beta2) = rates.betas;
        let norm = self.gradient_norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.steps += 1;
        let shrink = (norm > rates.clip).then(|| rates.clip / norm);
        let (unbias1, unbias2) = (1.0 - beta1.powi(self.steps as i32), 1.0 - beta2.powi(self.steps as i32));
        for slot in self.slots.values_mut() {
            let gradient = slot.parameter.grad();
            if !gradient.defined() {
                continue;
            }
            let gradient = match shrink {
                Some(shrink) => gradient.f_mul_scalar(shrink)?,
                None => gradient,
            };
            let maximum = if slot.encoder { rates.encoder_learning_rate } else { rates.learning_rate };
            let rate = maximum * schedule;
            let _ = slot.first.f_lerp_(&gradient, 1.0 - beta1)?;
            let scaled = gradient.f_mul_scalar(1.0 - beta2)?;
            let _ = slot.second.f_mul_scalar_(beta2)?.f_addcmul_(&gradient, &scaled)?;
            let mut divisor = slot.second.f_sqrt()?;
            let _ = divisor.f_mul_scalar_(1.0 / unbias2.sqrt())?.f_add_scalar_(EPSILON)?;
            if rates.weight_decay > 0.0 {
                let _ = slot.parameter.f_mul_scalar_(1.0 - rate * rates.weight_decay)?;
            }
            let change = slot.first.f_mul_scalar(-rate / unbias1)?;
            let _ = slot.parameter.f_addcdiv_(&change, &divisor)?;
        }
        Ok(norm)
    }

    fn gradient_norm(&self) -> Result<f64> {
        let gradients: Vec<Tensor> =
            self.slots.values().map(|slot| slot.parameter.grad()).filter(Tensor::defined).collect();
        norm(&gradients)
    }

    /// The moments by name, for a checkpoint.
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

    /// Restores the [`state`](Self::state) after `steps` steps. Removes the tensors that it uses from `moments`.
    pub fn restore(&mut self, steps: u64, moments: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        for (name, slot) in &mut self.slots {
            for (moment, target) in [("first", &mut slot.first), ("second", &mut slot.second)] {
                let key = format!("{moment}.{name}");
                let tensor = moments.remove(&key).ok_or_else(|| format!("{key} is missing"))?;
                if tensor.size() != target.size() {
                    return Err(format!("{key} is {:?}, expected {:?}", tensor.size(), target.size()));
                }
                target.f_copy_(&tensor).map_err(|error| error.to_string())?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// The Euclidean norm of all elements of `tensors`.
pub fn norm(tensors: &[Tensor]) -> Result<f64> {
    let mut squares = None::<Tensor>;
    for tensor in tensors {
        let square = tensor.f_norm()?.f_to_kind(Kind::Double)?.f_square()?;
        squares = Some(match squares {
            Some(sum) => sum.f_add(&square)?,
            None => square,
        });
    }
    Ok(squares.map_or(0.0, |squares| squares.double_value(&[]).sqrt()))
}

/// Rates for tests.
#[cfg(test)]
pub(super) const RATES: Rates = Rates {
    learning_rate: 0.1,
    encoder_learning_rate: 0.1,
    betas: Betas(0.9, 0.99),
    weight_decay: 0.0,
    clip: 1.0,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the equations of the paper for one scalar.
    #[test]
    fn steps_match_the_definition() {
        let rates = Rates { betas: Betas(0.5, 0.999), weight_decay: 0.01, clip: f64::INFINITY, ..RATES };
        let x = Tensor::from_slice(&[2.0f64]).set_requires_grad(true);
        let mut adam = Adam::new([("x".to_owned(), x.shallow_clone())], rates).unwrap();
        let (mut expected, mut m, mut v) = (2.0, 0.0, 0.0);
        for step in 1..=4 {
            adam.zero_gradients();
            (&x * &x * &x).sum(Kind::Double).backward();
            let schedule = 1.0 / f64::from(step);
            let norm = adam.step(schedule).unwrap();
            let gradient = 3.0 * expected * expected;
            assert!((norm - gradient).abs() < 1e-9);
            m = 0.5 * m + 0.5 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let (m_hat, v_hat) = (m / (1.0 - 0.5f64.powi(step)), v / (1.0 - 0.999f64.powi(step)));
            let rate = 0.1 * schedule;
            expected = expected * (1.0 - rate * 0.01) - rate * m_hat / (v_hat.sqrt() + EPSILON);
            assert!((x.double_value(&[0]) - expected).abs() < 1e-9, "{x} {expected}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let x = Tensor::from_slice(&[0.0f32, 1.0]).set_requires_grad(true);
        let mut adam = Adam::new([("x".to_owned(), x.shallow_clone())], RATES).unwrap();
        (&x / 0.0).log().sum(Kind::Float).backward();
        assert!(!adam.step(1.0).unwrap().is_finite());
        assert_eq!(Vec::<f32>::try_from(&x).unwrap(), [0.0, 1.0]);
        assert_eq!(adam.steps, 0);
    }
}
