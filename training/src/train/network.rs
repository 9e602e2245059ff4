// SPDX-License-Identifier: MPL-2.0

//! The regressor of a run, of either architecture.

use std::path::Path;

use gstfastganseg::torch::model::layers::channels_last;
use gstfastganseg::torch::model::lite::refiner::Refiner;
use gstfastganseg::torch::model::weights::{self, Weights};
use gstfastganseg::torch::model::{Architecture, Lite, Matching, Resnet50};
use tch::nn;

use super::config::TrainConfig;
use super::window::{UnrollOptions, Unrolled, unroll_lite, unroll_resnet50};
use crate::Result;
use crate::clips::Batch;

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
