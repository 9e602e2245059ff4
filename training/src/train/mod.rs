// SPDX-License-Identifier: MPL-2.0

//! Training of the regressor, supervised or with the critics of the paper.

mod ablate;
mod adam;
mod checkpoint;
mod config;
mod critics;
mod distillation;
mod export;
mod interrupt;
mod objective;
mod record;
mod refinement;
pub(crate) mod resume;
mod session;
mod step;
pub mod validate;
mod window;

pub use ablate::ablate;
pub(crate) use adam::Adam;
pub use adam::Betas;
pub(crate) use checkpoint::{CHECKPOINT, CONFIG, NetworkState, explain_divergence, load, save};
pub use config::{Optimiser, TrainConfig};
pub use critics::CriticSettings;

pub use crate::critic::{Noise, Reduce, Shape};
pub use distillation::Distillation;
pub use export::{check_described, export};
pub use interrupt::Interrupt;
pub use objective::{CrossEntropy, Loss};
pub(crate) use record::Recorder;
pub use refinement::Refinement;
pub use resume::shared_settings;
pub(crate) use session::CONFIGURATION;
pub use session::{Outcome, run};
pub use validate::{Validation, Validator};
