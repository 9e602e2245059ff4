//! Training of the regressor.

mod adam;
mod checkpoint;
mod config;
mod export;
mod lite;
mod loss;
pub mod record;
mod run;
pub mod validate;

pub use config::TrainConfig;
pub use export::export;
pub use record::Recorder;
pub use run::run;
pub use validate::{Validation, Validator};
