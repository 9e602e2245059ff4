//! Training of the regressor.

mod adam;
mod checkpoint;
mod config;
mod export;
mod lite;
mod loss;
mod run;

pub use config::TrainConfig;
pub use export::export;
pub use run::run;
