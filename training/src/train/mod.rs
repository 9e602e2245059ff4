//! Training of the regressor.

mod adam;
mod checkpoint;
mod config;
mod export;
mod lite;
mod loss;
mod preview;
mod run;

pub use config::TrainConfig;
pub use export::export;
pub use preview::preview;
pub use run::run;
