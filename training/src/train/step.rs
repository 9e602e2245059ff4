// SPDX-License-Identifier: MPL-2.0

//! The regressor of a run, and one training step: the steps of each critic, then one step of the regressor on equation 5.

use std::path::Path;

use gstfastganseg::torch::model::layers::channels_last;
use gstfastganseg::torch::model::lite::refiner::Refiner;
use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Architecture, Lite, Matching, Resnet50};
use tch::{Kind, Tensor, nn};

use super::adam::{Adam, norm};
use super::config::TrainConfig;
use super::critics::Critics;
use super::distillation::Teacher;
use super::objective::Supervised;
use super::refinement::halved;
use super::window::{UnrollOptions, Unrolled, unroll_lite, unroll_resnet50};
use crate::Result;
use crate::clips::Batch;
use crate::distributed::{Ranks, Reducer};

/// The networks of a run and their optimisers.
#[derive(Debug)]
pub struct Trainer {
    pub network: Network,
    pub adam: Adam,
    /// Averages the gradients of the regressor over the ranks.
    pub reducer: Reducer,
    pub critics: Option<Critics>,
    pub teacher: Option<Teacher>,
    pub options: UnrollOptions,
    pub ranks: Ranks,
    /// Whether the step in progress, or the last one, has begun to change weights.
    pub has_changed: bool,
}

#[derive(Debug, Default)]
pub struct StepLosses {
    /// Scalars for the curve, by name; means over all ranks.
    pub scalars: Vec<(String, f64)>,
    /// The network whose loss or gradient diverged.
    pub diverged: Option<String>,
    /// Soft masks (K, B, 1, H, W) of the last batch.
    pub masks: Option<Tensor>,
    /// Whether a rank is to stop.
    pub stop: bool,
}

/// Name of a part of the objective, its value with its weight, and without.
type Part = (&'static str, Tensor, Tensor);

/// Limit of the Wasserstein estimates and penalties. A critic with gradients of norm about 1, which the penalty
/// enforces, stays far below it.
const MAX_VALUE: f64 = 1e6;

impl StepLosses {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.scalars.push((name.into(), value));
    }

    /// Averages the scalars over all ranks, then checks them: values must be finite, those of critics not excessive.
    fn share(&mut self, ranks: &Ranks, stop: bool) -> Result<()> {
        let mut numbers: Vec<f64> = self.scalars.iter().map(|(_, value)| *value).collect();
        numbers.push(f64::from(u8::from(stop)));
        ranks.average_numbers(&mut numbers)?;
        self.stop = numbers.pop().is_some_and(|stop| stop > 0.0);
        for ((_, value), mean) in self.scalars.iter_mut().zip(numbers) {
            *value = mean;
        }
        self.diverged = self.scalars.iter().find_map(|(name, value)| match name.split_once('/') {
            Some(("wasserstein" | "penalty", kind)) if value.is_nan() || value.abs() >= MAX_VALUE => {
                Some(format!("the {kind} critic"))
            }
            Some(("critic_gradient", kind)) if !value.is_finite() => Some(format!("the {kind} critic")),
            Some(("loss" | "gradient", "total")) if !value.is_finite() => {
                Some("the regressor's loss".to_owned())
            }
            _ => None,
        });
        Ok(())
    }
}

impl Trainer {
    /// Trains one step at `schedule` times the maximum learning rates. The regressor uses the last batch, the
    /// critics all of them. `gradients` enables the gradient norm of each loss on the regressor. `stop` tells all
    /// ranks to stop after this step.
    pub fn step(
        &mut self,
        config: &TrainConfig,
        batches: &[Batch],
        schedule: f64,
        gradients: bool,
        stop: bool,
    ) -> Result<StepLosses> {
        self.has_changed = false;
        let mut losses = StepLosses::default();
        let Some((last, critic_batches)) = batches.split_last() else { return Ok(losses) };
        if let Some(critics) = &mut self.critics {
            for batch in critic_batches {
                let masks = tch::no_grad(|| self.network.unroll(batch, &self.options))?.logits.f_sigmoid()?;
                losses.scalars.extend(critics.step(&critics.critic_inputs(batch)?, &masks, schedule, 0)?);
                self.has_changed = true;
            }
        }
        let (parts, masks) = match &config.refinement {
            Some(settings) => {
                let masks = tch::no_grad(|| self.network.unroll(&halved(last)?, &self.options))?;
                let masks = masks.logits.f_sigmoid()?;
                let refined = settings.refine(self.network.refiner()?, &masks, last, self.options.kind)?;
                losses.add("loss/bilinear", refined.bilinear.double_value(&[]));
                (vec![("refined", refined.loss.shallow_clone(), refined.loss)], refined.masks)
            }
            None => self.objective(config, last, schedule, &mut losses)?,
        };
        if gradients {
            let parameters = self.adam.parameters();
            for (name, weighted, _) in &parts {
                let gradients = Tensor::f_run_backward(&[weighted], &parameters, true, false)?;
                losses.add(format!("gradient/{name}"), norm(&self.averaged(gradients)?)?);
            }
        }
        let weighted: Vec<&Tensor> = parts.iter().map(|(_, weighted, _)| weighted).collect();
        let total = Tensor::f_stack(&weighted, 0)?.f_sum(Kind::Float)?;
        self.adam.zero_gradients();
        self.reducer.prepare(&total)?;
        total.f_backward()?;
        self.has_changed = true;
        let norm = self.adam.step(schedule)?;

        let total = total.double_value(&[]);
        losses.add("loss/total", total);
        for (name, _, loss) in &parts {
            let name = if *name == "supervised" { "cross_entropy" } else { name };
            losses.add(format!("loss/{name}"), loss.double_value(&[]));
        }
        losses.add("gradient/total", norm);
        losses.share(&self.ranks, stop)?;
        losses.masks = Some(masks.f_detach()?);
        Ok(losses)
    }

    /// Returns the parts of the regressor's objective for a batch, after the critics' steps on it, and the soft masks.
    fn objective(
        &mut self,
        config: &TrainConfig,
        last: &Batch,
        schedule: f64,
        losses: &mut StepLosses,
    ) -> Result<(Vec<Part>, Tensor)> {
        let frames = last.images.size()[0] - 2;
        let unrolled = self.network.unroll(last, &self.options)?;
        let logits = &unrolled.logits;
        let (truth, valid) = (last.masks.f_narrow(0, 2, frames)?, last.valid.f_narrow(0, 2, frames)?);
        let supervised = Supervised::new(&config.loss, logits, &truth, &valid)?;
        let mut parts = vec![(
            "supervised",
            supervised.weighted(&config.loss)?,
            supervised.cross_entropy.shallow_clone(),
        )];
        let masks = logits.f_sigmoid()?;
        if let Some(critics) = &mut self.critics {
            let inputs = critics.critic_inputs(last)?;
            let steps = if critics.settings.fresh_batches { 1 } else { critics.settings.steps };
            for pass in 0..steps {
                losses.scalars.extend(critics.step(&inputs, &masks, schedule, pass)?);
                self.has_changed = true;
            }
            for (kind, weight, loss) in critics.regressor_losses(&inputs, &masks)? {
                parts.push((kind.name(), loss.f_mul_scalar(weight)?, loss));
            }
        }
        if let Some(teacher) = &self.teacher {
            let [masks, keys, weighted] = teacher.losses(last, &self.options, &unrolled)?;
            parts.push(("distillation", weighted, masks));
            losses.add("loss/distillation_keys", keys.double_value(&[]));
        }
        if let Some(matte) = &supervised.matte {
            losses.add("loss/matte", matte.double_value(&[]));
        }
        losses.add("region_similarity", supervised.region.double_value(&[]));
        Ok((parts, masks))
    }

    /// Returns the means over all ranks of gradients of the regressor, of which some may be undefined.
    fn averaged(&self, gradients: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if self.ranks.count() == 1 {
            return Ok(gradients.into_iter().filter(Tensor::defined).collect());
        }
        let parameters = self.adam.parameters();
        let flat = gradients.iter().zip(&parameters).map(|(gradient, parameter)| match gradient.defined() {
            true => gradient.f_flatten(0, -1),
            false => parameter.f_detach()?.f_zeros_like()?.f_flatten(0, -1),
        });
        let mut all = Tensor::f_cat(&flat.collect::<Result<Vec<_>, _>>()?, 0)?;
        self.ranks.average(&mut all)?;
        Ok(vec![all])
    }
}

/// The trained network. The element runs the same definitions.
#[derive(Debug)]
pub enum Network {
    /// The network of `lite` and `large`.
    Lite(Box<Lite>),
    Resnet50(Box<Resnet50>),
}

impl Network {
    /// Creates the variables under the root of `store` and, if `load` is set, loads the initial weights of the
    /// configuration.
    pub fn new(
        store: &nn::VarStore,
        config: &TrainConfig,
        options: &UnrollOptions,
        load: bool,
    ) -> Result<Self> {
        let network = match config.model.matching {
            Matching::Affinity => Self::Lite(Box::new(Lite::new(&store.root(), &config.model)?)),
            Matching::GlobalConvolution => {
                let mut network = Resnet50::new(&store.root(), &config.model)?;
                network.compute_in(options.kind);
                Self::Resnet50(Box::new(network))
            }
        };
        match (&config.start_from, &config.backbone) {
            _ if !load => {}
            (Some(path), _) => Weights::of_model(path)?.fill_without_optional_parts(store)?,
            (None, Some(path)) => load_backbone(path, store, config.model.architecture)?,
            (None, None) => {}
        }
        kernels_channels_last(store)?;
        Ok(network)
    }

    pub fn refiner(&self) -> Result<&Refiner> {
        let refiner = match self {
            Self::Lite(network) => network.refiner.as_ref(),
            Self::Resnet50(_) => None,
        };
        Ok(refiner.ok_or_else(|| gstfastganseg::Error::Config("the network has no refiner".into()))?)
    }

    /// Predicts all frames of a batch.
    pub fn unroll(&self, batch: &Batch, options: &UnrollOptions) -> Result<Unrolled> {
        match self {
            Self::Lite(network) => unroll_lite(network, batch, options),
            Self::Resnet50(network) => unroll_resnet50(network, batch),
        }
    }
}

/// Stores kernels in the channels-last layout of the images, which saves a conversion in every step.
fn kernels_channels_last(store: &nn::VarStore) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    for mut variable in store.variables().into_values().filter(|variable| variable.dim() == 4) {
        let laid_out = channels_last(&variable.f_detach()?)?;
        variable.f_set_data(&laid_out)?;
    }
    Ok(())
}

/// Loads ImageNet weights into the encoder. The weights for `lite` must be complete. Those of a ResNet-50 may lack
/// the last layer and never have the mask convolution.
fn load_backbone(path: &Path, store: &nn::VarStore, architecture: Architecture) -> Result<()> {
    match architecture {
        Architecture::Lite => Ok(weights::load_backbone(path, store, "encoder")?),
        Architecture::Resnet50 => {
            let report = weights::load_partial(path, store, "encoder")?;
            let absent: Vec<_> =
                report.missing.iter().filter(|name| !name.starts_with("encoder.conv1_mask.")).collect();
            if let (Some(first), Some(last)) = (absent.first(), absent.last()) {
                eprintln!(
                    "{}: loaded {} tensors of the encoder; {} are missing and initialised at random, {first} to {last}",
                    path.display(),
                    report.loaded.len(),
                    absent.len()
                );
            }
            Ok(())
        }
    }
}
