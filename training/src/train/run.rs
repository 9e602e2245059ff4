//! The training loop.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use gstfastganseg::model::weights::{self, Weights};
use gstfastganseg::model::{Architecture, Lite};
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use super::checkpoint;
use super::config::TrainConfig;
use super::lite::{StepSettings, step_loss};
use crate::clips::{Loader, Mix};
use crate::{Error, Result};

/// Steps between lines of the curve.
const REPORT: u64 = 25;

/// Trains as the configuration says, from the checkpoint in `out` if there is one. Leaves there
/// `checkpoint.safetensors`, `model.safetensors`, `curve.csv` and the effective `config.toml`.
///
/// # Errors
/// Bad data or configuration, a checkpoint of another network, a loss that is no number any more.
pub fn run(config: &TrainConfig, out: &Path) -> Result<()> {
    if config.model.architecture != Architecture::Lite {
        return Err(Error::Core(gstfastganseg::Error::Config(
            "only lite can be trained with cross-entropy alone".into(),
        )));
    }
    std::fs::create_dir_all(out).map_err(|source| Error::write(out, source))?;
    write_config(config, out)?;
    tch::manual_seed(config.seed as i64);

    let store = nn::VarStore::new(Device::Cpu);
    let model = Lite::new(&store.root(), &config.model)?;
    initialise(config, &store)?;
    let frozen_encoder = config.optimiser.encoder_learning_rate == 0.0;
    let trained: Vec<(String, Tensor)> = store
        .variables()
        .into_iter()
        .filter(|(name, variable)| {
            let trained = !(frozen_encoder && name.starts_with("encoder."));
            let _ = variable.set_requires_grad(trained);
            trained
        })
        .collect();
    let mut adam = Adam::new(trained, config.optimiser, config.steps)?;
    let saved = out.join("checkpoint.safetensors");
    let first = if saved.exists() { checkpoint::load(&saved, &store, &mut adam)? } else { 0 };

    let mut loader = Loader::start(Mix::open(&config.data, config.seed)?, config.loader_threads, first);
    tch::set_num_threads(config.threads);
    let settings = StepSettings {
        loss: config.loss,
        kind: if config.mixed_precision { Kind::BFloat16 } else { Kind::Float },
        frozen_encoder,
        remember: config.data.remember,
    };
    let bar = ProgressBar::new(config.steps)
        .with_position(first)
        .with_style(style("{bar:30} {pos}/{len} steps, {elapsed} gone, {eta} to go, {msg}"));
    let curve = out.join("curve.csv");
    cut_curve(&curve, first)?;
    let (mut loss_sum, mut region_sum, mut norm_sum, mut summed) = (0.0, 0.0, 0.0, 0.0);
    let begun = Instant::now();
    let end = config.stop_after.unwrap_or(config.steps).min(config.steps);
    for step in first..end {
        let batch = loader.batch()?;
        // A step's draws follow from its number, so that a resumed run is the same run.
        tch::manual_seed(config.seed.wrapping_add(step) as i64);
        let (loss, region) = step_loss(&model, &batch, &settings)?;
        adam.zero_gradients();
        loss.f_backward()?;
        let rate = adam.schedule();
        let norm = adam.step()?;
        let loss = loss.double_value(&[]);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(Error::Diverged { step, checkpoint: saved });
        }
        (loss_sum, region_sum, norm_sum) = (loss_sum + loss, region_sum + region, norm_sum + norm);
        summed += 1.0;
        let done = step + 1;
        if done % REPORT == 0 {
            let n: f64 = std::mem::take(&mut summed);
            let line = [loss_sum / n, region_sum / n, norm_sum / n, rate, begun.elapsed().as_secs_f64()];
            append_curve(&curve, done, line)?;
            bar.set_message(format!("loss {:.3}, region similarity {:.3}", line[0], line[1]));
            (loss_sum, region_sum, norm_sum) = (0.0, 0.0, 0.0);
        }
        bar.inc(1);
        if done % config.checkpoint_every == 0 || done == end {
            checkpoint::save(&saved, &store, &adam, done)?;
            let mut metadata = config.metadata.clone();
            metadata.insert("steps".to_owned(), done.to_string());
            weights::save(&out.join("model.safetensors"), &store, &config.model, &metadata, Kind::Half)?;
        }
    }
    bar.finish();
    Ok(())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn write_config(config: &TrainConfig, out: &Path) -> Result<()> {
    let path = out.join("config.toml");
    let text = toml::to_string(config)
        .map_err(|error| Error::Config { path: path.clone(), reason: error.to_string() })?;
    std::fs::write(&path, text).map_err(|source| Error::write(&path, source))
}

/// Weights of an earlier run, or the backbone's for the encoder, or neither.
fn initialise(config: &TrainConfig, store: &nn::VarStore) -> Result<()> {
    if let Some(path) = &config.start_from {
        return Ok(Weights::open(path)?.fill(store)?);
    }
    match &config.backbone {
        Some(path) => Ok(weights::load_backbone(path, store, "encoder")?),
        None => Ok(()),
    }
}

/// Drops what an interrupted run wrote after the checkpoint that is gone on from.
fn cut_curve(path: &Path, step: u64) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).map_err(|source| Error::read(path, source))?;
    let kept = text.lines().filter(|line| {
        let number = line.split(',').next().and_then(|field| field.parse::<u64>().ok());
        number.is_none_or(|number| number <= step)
    });
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    std::fs::write(path, kept).map_err(|source| Error::write(path, source))
}

fn append_curve(path: &Path, step: u64, values: [f64; 5]) -> Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| Error::write(path, source))?;
    let mut text = String::new();
    if new {
        text.push_str("step,loss,region_similarity,gradient_norm,schedule,seconds\n");
    }
    let [loss, region, norm, rate, seconds] = values;
    text.push_str(&format!("{step},{loss:.5},{region:.5},{norm:.4},{rate:.5},{seconds:.1}\n"));
    file.write_all(text.as_bytes()).map_err(|source| Error::write(path, source))
}
