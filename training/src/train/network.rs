//! The regressor of a run: any architecture behind one face.

use std::path::Path;

use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::model::{Architecture, Lite, Resnet50};
use tch::{Tensor, nn};

use super::config::TrainConfig;
use super::window::{Manner, unroll};
use crate::Result;
use crate::clips::Batch;

/// The network that is trained, by the definitions that the element runs.
#[derive(Debug)]
pub enum Network {
    /// The built-in one.
    Lite(Lite),
    /// The paper's.
    Resnet50(Resnet50),
}

impl Network {
    /// Its variables under the root of `store`, with the weights that the configuration starts from.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn new(store: &nn::VarStore, config: &TrainConfig, manner: &Manner) -> Result<Self> {
        let network = match config.model.architecture {
            Architecture::Lite => Self::Lite(Lite::new(&store.root(), &config.model)?),
            Architecture::Resnet50 => {
                let mut network = Resnet50::new(&store.root(), &config.model)?;
                network.compute_in(manner.kind);
                Self::Resnet50(network)
            }
        };
        match (&config.start_from, &config.backbone) {
            (Some(path), _) => Weights::open(path)?.fill(store)?,
            (None, Some(path)) => load_backbone(path, store, config.model.architecture)?,
            (None, None) => {}
        }
        Ok(network)
    }

    /// Logits (K, B, 1, H, W), float32, of the predicted frames.
    ///
    /// # Errors
    /// Clips of a size that the network does not take, too little memory.
    pub fn unroll(&self, batch: &Batch, manner: &Manner) -> Result<Tensor> {
        match self {
            Self::Lite(network) => unroll(network, batch, manner),
            Self::Resnet50(network) => unroll(network, batch, manner),
        }
    }
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
