// SPDX-License-Identifier: MPL-2.0

//! Knowledge distillation (Hinton et al., 2015): a trained network, the teacher, supplies further targets for each window.
//! As in MobileVOS (Miles et al., 2023), these are its masks and the similarities of its features.

use std::path::PathBuf;

use gstfastganseg::torch::model::weights::Weights;
use gstfastganseg::torch::model::{Lite, Matching};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor, nn};

use super::window::{UnrollOptions, Unrolled, unroll_lite};
use crate::check::{Checked, not_negative};
use crate::clips::Batch;
use crate::{Error, Result};

/// Settings of the distillation, `[distillation]` in a training configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weights of the teacher, `.safetensors`, or `lite` or `large`: a network with affinity matching.
    pub teacher: PathBuf,
    /// Weight of the cross-entropy with the teacher's soft masks.
    pub mask_weight: f64,
    /// Weight of the mean squared difference of the similarities between the keys of all positions of a frame at stride 16.
    #[serde(default)]
    pub key_weight: f64,
}

impl Distillation {
    /// Checks every value.
    pub(crate) fn check(&self) -> Checked {
        not_negative("distillation.mask_weight", self.mask_weight)?;
        not_negative("distillation.key_weight", self.key_weight)
    }
}

/// The teacher of a run.
#[derive(Debug)]
pub struct Teacher {
    network: Lite,
    settings: Distillation,
}

impl Teacher {
    /// Loads the teacher for a student with `matching`.
    pub fn open(settings: &Distillation, matching: Matching, device: Device) -> Result<Self> {
        let weights = Weights::of_model(&settings.teacher)?;
        if [matching, weights.config().matching] != [Matching::Affinity; 2] {
            return Err(Error::Config(
                settings.teacher.clone(),
                "distillation: teacher and student must have affinity matching".to_owned(),
            ));
        }
        let mut store = nn::VarStore::new(device);
        let network = Lite::new(&store.root(), weights.config())?;
        weights.fill(&store)?;
        store.freeze();
        Ok(Self { network, settings: settings.clone() })
    }

    /// Returns the losses of a student's window: cross-entropy of the masks, difference of the keys, and their weighted sum.
    pub fn losses(&self, batch: &Batch, options: &UnrollOptions, student: &Unrolled) -> Result<[Tensor; 3]> {
        let options = UnrollOptions { frozen_encoder: true, ..*options };
        let teacher = tch::no_grad(|| unroll_lite(&self.network, batch, &options))?;
        let frames = teacher.logits.size()[0];
        let valid = batch.valid.f_narrow(0, 2, frames)?;
        let target = teacher.logits.f_sigmoid()?;
        let entropy = student.logits.f_binary_cross_entropy_with_logits(
            &target,
            None::<Tensor>,
            None::<Tensor>,
            Reduction::None,
        )?;
        let masks =
            entropy.f_mul(&valid)?.f_sum(Kind::Float)?.f_div(&valid.f_sum(Kind::Float)?.f_clamp_min(1.0)?)?;
        let keys = match (&teacher.keys, &student.keys) {
            (Some(teacher), Some(student)) => {
                similarities(teacher)?.f_mse_loss(&similarities(student)?, Reduction::Mean)?
            }
            _ => masks.f_zeros_like()?,
        };
        let weighted = masks
            .f_mul_scalar(self.settings.mask_weight)?
            .f_add(&keys.f_mul_scalar(self.settings.key_weight)?)?;
        Ok([masks, keys, weighted])
    }
}

/// Returns the cosines (N, positions, positions) between the unit vectors `keys` (N, key, positions).
fn similarities(keys: &Tensor) -> Result<Tensor> {
    let keys = keys.f_to_kind(Kind::Float)?;
    Ok(keys.f_transpose(1, 2)?.f_bmm(&keys)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use gstfastganseg::torch::model::{Config, TemporalSkip, weights};

    use super::super::window::tests::{OPTIONS, batch, config};
    use super::*;

    fn lite() -> (nn::VarStore, Lite, Config) {
        let store = nn::VarStore::new(Device::Cpu);
        let config = config(Config::lite(), TemporalSkip::Refine);
        let network = Lite::new(&store.root(), &config).unwrap();
        (store, network, config)
    }

    fn teacher(folder: &Path) -> Distillation {
        let path = folder.join("teacher.safetensors");
        let (store, _, config) = lite();
        weights::save(&path, &store, &config, &BTreeMap::new(), Kind::Float).unwrap();
        Distillation { teacher: path, mask_weight: 2.0, key_weight: 3.0 }
    }

    /// Losses of a student and their largest gradient in its weights.
    fn losses(settings: &Distillation, store: &nn::VarStore, student: &Lite) -> ([f64; 3], f64) {
        let teacher = Teacher::open(settings, Matching::Affinity, Device::Cpu).unwrap();
        let unrolled = unroll_lite(student, &batch(), &OPTIONS).unwrap();
        let losses = teacher.losses(&batch(), &OPTIONS, &unrolled).unwrap();
        losses[2].backward();
        let gradients = store.trainable_variables().into_iter().map(|variable| variable.grad());
        let gradients =
            gradients.filter(Tensor::defined).map(|gradient| gradient.abs().max().double_value(&[]));
        (losses.map(|loss| loss.double_value(&[])), gradients.fold(0.0, f64::max))
    }

    #[test]
    fn a_student_equal_to_its_teacher_learns_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let settings = teacher(folder.path());
        let (store, student, _) = lite();
        let ([masks, keys, weighted], gradient) = losses(&settings, &store, &student);
        assert!(keys > 1e-4 && gradient > 1e-3, "{keys} {gradient}");
        assert!((weighted - 2.0 * masks - 3.0 * keys).abs() < 1e-4);
        let (store, student, _) = lite();
        Weights::open(&settings.teacher).unwrap().fill(&store).unwrap();
        let ([_, keys, _], gradient) = losses(&settings, &store, &student);
        assert!(keys < 1e-9 && gradient < 1e-4, "{keys} {gradient}");
    }

    #[test]
    fn teachers_of_networks_without_affinity_matching_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let settings = teacher(folder.path());
        let error =
            Teacher::open(&settings, Matching::GlobalConvolution, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("teacher.safetensors") && error.contains("affinity"), "{error}");
    }
}
