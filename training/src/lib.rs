// SPDX-License-Identifier: MPL-2.0

//! Training and evaluation of the `fastganseg` regressor.
//!
//! Evaluation follows the DAVIS benchmark (Pont-Tuset et al., *The 2017 DAVIS Challenge on Video
//! Object Segmentation*) and gives the official tool's numbers: [`dataset`] finds the frames,
//! [`eval`] runs a [`Propagator`](method::Propagator) over them, [`score`] compares the masks with
//! the ground truth, and [`report`] prints, saves and plots the result.
//!
//! For training, [`clips`] makes clips from real video and from still pictures, and [`train`] trains the regressor
//! on them.

#![warn(missing_docs)]

pub mod card;
mod check;
mod clicks;
pub mod clips;
pub mod confidence;
mod config_file;
mod critic;
pub mod dataset;
pub mod distributed;
mod error;
pub mod eval;
mod files;
pub mod info;
mod label_map;
pub mod matte;
pub mod method;
pub mod occlusion;
pub mod prompt;
pub mod report;
pub mod score;
pub mod simulated_user;
pub mod train;

pub use error::{Error, Result};
pub use label_map::LabelMap;
