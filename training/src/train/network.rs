//! The regressor of a run: any architecture behind one face.

use std::path::Path;

use gstfastganseg::model::layers::channels_last;
use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::model::{Architecture, Lite, Matching, Resnet50};
use tch::{Tensor, nn};

use super::config::TrainConfig;
use super::window::{UnrollOptions, unroll};
use crate::Result;
use crate::clips::Batch;

/// The network that is trained, by the definitions that the element runs.
#[derive(Debug)]
pub enum Network {
    /// The built-in one.
    Lite(Box<Lite>),
    /// The paper's.
    Resnet50(Box<Resnet50>),
}

impl Network {
    /// Its variables under the root of `store`, with the weights that the configuration starts from.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn new(store: &nn::VarStore, config: &TrainConfig, options: &UnrollOptions) -> Result<Self> {
        let network = match config.model.matching {
            Matching::Affinity => Self::Lite(Box::new(Lite::new(&store.root(), &config.model)?)),
            Matching::GlobalConvolution => {
                let mut network = Resnet50::new(&store.root(), &config.model)?;
                network.compute_in(options.kind);
                Self::Resnet50(Box::new(network))
            }
        };
        match (&config.start_from, &config.backbone) {
            (Some(path), _) => Weights::open(path)?.fill(store)?,
            (None, Some(path)) => load_backbone(path, store, config.model.architecture)?,
            (None, None) => {}
        }
        kernels_channels_last(store)?;
        Ok(network)
    }

    /// Logits (K, B, 1, H, W), float32, of the predicted frames.
    ///
    /// # Errors
    /// Clips of a size that the network does not take, too little memory.
    pub fn unroll(&self, batch: &Batch, options: &UnrollOptions) -> Result<Tensor> {
        match self {
            Self::Lite(network) => unroll(&**network, batch, options),
            Self::Resnet50(network) => unroll(&**network, batch, options),
        }
    }
}

/// Lays kernels out as the pictures that they meet, so that convolutions need not do it at every step.
fn kernels_channels_last(store: &nn::VarStore) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    for mut variable in store.variables().into_values().filter(|variable| variable.dim() == 4) {
        let laid_out = channels_last(&variable.f_detach()?)?;
        variable.f_set_data(&laid_out)?;
    }
    Ok(())
}

/// ImageNet weights for the encoder. Those of `lite` must be complete; of a ResNet-50 the last layer may be
/// missing, and the convolution of the mask always is.
fn load_backbone(path: &Path, store: &nn::VarStore, architecture: Architecture) -> Result<()> {
    match architecture {
        Architecture::Lite => Ok(weights::load_backbone(path, store, "encoder")?),
        Architecture::Resnet50 => {
            let report = weights::load_partial(path, store, "encoder")?;
            let absent: Vec<_> =
                report.missing.iter().filter(|name| !name.starts_with("encoder.conv1_mask.")).collect();
            if let (Some(first), Some(last)) = (absent.first(), absent.last()) {
                eprintln!(
                    "{}: {} tensors of the encoder loaded; {} are not in it and start at random, {first} to {last}",
                    path.display(),
                    report.loaded.len(),
                    absent.len()
                );
            }
            Ok(())
        }
    }
}
