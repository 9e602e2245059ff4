//! Training of the regressor.

mod adam;
mod checkpoint;
mod config;
mod lite;
mod loss;
mod run;

pub use config::TrainConfig;
pub use run::run;
