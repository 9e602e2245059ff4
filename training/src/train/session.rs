// SPDX-License-Identifier: MPL-2.0

//! State of a run in progress.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gstfastganseg::device::Precision;
use gstfastganseg::torch::{self, model::weights};
use gstfastganseg::tracker::Options;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use super::checkpoint::{self, CHECKPOINT, CONFIG, NetworkState};
use super::config::TrainConfig;
use super::critics::Critics;
use super::network::Network;
use super::record::{Recorder, window_panel};
use super::remedy::explain_out_of_memory;
use super::resume;
use super::schedule::Schedule;
use super::step::{StepLosses, Trainer};
use super::validate::{FinalScores, Validator};
use super::window::{UnrollOptions, on_device};
use crate::clips::{Batch, Loader, Mix};
use crate::{Error, Result, files};

/// File name of the latest weights.
pub const MODEL: &str = "model.safetensors";

/// A run in progress.
#[derive(Debug)]
pub struct Session {
    config: TrainConfig,
    out: PathBuf,
    device: Device,
    store: nn::VarStore,
    trainer: Trainer,
    schedule: Schedule,
    loader: Loader,
    recorder: Recorder,
    validator: Option<Validator>,
    bar: ProgressBar,
    started: Instant,
    /// Seconds of the run before it was resumed.
    earlier_seconds: f64,
    /// Images, true masks and predicted masks of the first clip of the last step.
    preview: Option<[Tensor; 3]>,
    /// Number of completed steps.
    pub done: u64,
}

impl Session {
    /// Starts a run in the folder `out`, or resumes from the checkpoint there.
    ///
    /// # Errors
    /// If the data or the configuration is invalid, the device is not available, or the checkpoint belongs to
    /// another run, whose checkpoint and configuration are left unchanged.
    pub fn open(config: &TrainConfig, out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|source| Error::write(out, source))?;
        let checkpoint = out.join(CHECKPOINT);
        let resumes = checkpoint.exists();
        if resumes {
            resume::check(config, out)?;
        }
        let (device, warning) = gstfastganseg::torch::open_device(config.device.parse()?)?;
        if let Some(warning) = warning {
            eprintln!("training on the CPU: {warning}");
        }
        tch::manual_seed(config.seed as i64);

        let frozen_encoder = config.optimiser.encoder_learning_rate == 0.0;
        let kind = if config.mixed_precision { mixed_kind(device)? } else { Kind::Float };
        let options = UnrollOptions { kind, frozen_encoder, remember: config.data.remember };
        let store = nn::VarStore::new(device);
        let network = Network::new(&store, config, &options)?;
        let mut trained = store.variables();
        trained.retain(|name, variable| {
            let trained = variable.requires_grad() && !(frozen_encoder && name.starts_with("encoder."));
            let _ = variable.set_requires_grad(trained);
            trained
        });
        let adam = Adam::new(trained, config.optimiser.rates())?;
        let critics = match &config.critics {
            Some(settings) => Some(Critics::new(settings, config.data.window, device)?),
            None => None,
        };
        let mut trainer = Trainer { network, adam, critics, options };
        let done = if resumes { checkpoint::load(&checkpoint, &mut parts(&store, &mut trainer))? } else { 0 };
        let text = config.to_toml()?;
        files::replace(&out.join(CONFIG), |path| {
            std::fs::write(path, text).map_err(|source| Error::write(path, source))
        })?;

        let mix = Mix::open(&config.data, config.seed)?;
        let steps = config.length(mix.epoch());
        let loader = Loader::start(mix, config.loader_threads, done * config.batches());
        tch::set_num_threads(config.threads);
        let recorder = Recorder::open(out, config.report_every, done)?;
        let earlier_seconds = recorder.last("seconds").unwrap_or(0.0);
        let validator = match &config.validation {
            Some(settings) => {
                let options = Options { device: config.device.parse()?, ..Options::default() };
                Some(Validator::open(settings, &options, out)?)
            }
            None => None,
        };
        let style = "{bar:30} {pos}/{len} steps, {elapsed} elapsed, {eta} left, {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps).with_position(done).with_style(style);
        bar.reset_eta();
        Ok(Self {
            config: config.clone(),
            out: out.to_owned(),
            device,
            store,
            trainer,
            schedule: config.optimiser.schedule(steps),
            loader,
            recorder,
            validator,
            bar,
            started: Instant::now(),
            earlier_seconds,
            preview: None,
            done,
        })
    }

    /// The step at which to stop.
    pub fn end(&self) -> u64 {
        self.config.stop_after.map_or(self.schedule.steps, |stop| stop.min(self.schedule.steps))
    }

    /// Trains one step and records its scalars.
    ///
    /// # Errors
    /// If the data are broken, a loss diverges, memory runs out, or a file cannot be written.
    pub fn step(&mut self) -> Result<()> {
        let step = self.done;
        let batches = (0..self.config.batches())
            .map(|_| on_device(self.loader.batch()?, self.device))
            .collect::<Result<Vec<Batch>>>()
            .map_err(|error| explain_out_of_memory(error, step))?;
        // Random numbers depend on the step only, so a resumed run equals an uninterrupted one.
        tch::manual_seed(self.config.seed.wrapping_add(step) as i64);
        let rate = self.schedule.at(step);
        let every = self.config.gradients_every;
        let gradients = every > 0 && step.is_multiple_of(every);
        let losses = self
            .trainer
            .step(&self.config, &batches, rate, gradients)
            .map_err(|error| explain_out_of_memory(error, step))?;
        if let Some(what) = losses.diverged {
            return Err(self.diverged(what));
        }
        self.done += 1;
        self.preview = preview(&batches, &losses)?;
        for (name, value) in &losses.scalars {
            self.recorder.add(name, *value);
        }
        self.recorder.set("schedule", rate);
        self.recorder.set("seconds", self.earlier_seconds + self.started.elapsed().as_secs_f64());
        if self.recorder.end_step(self.done)? {
            self.bar.set_message(self.message());
        }
        self.bar.inc(1);
        Ok(())
    }

    fn message(&self) -> String {
        let last = |name: &str| self.recorder.last(name);
        let mut message = format!(
            "loss {:.3}, region similarity {:.3}",
            last("loss/total").unwrap_or(f64::NAN),
            last("region_similarity").unwrap_or(f64::NAN)
        );
        for (letter, name) in [("S", "wasserstein/spatial"), ("T", "wasserstein/temporal")] {
            if let Some(value) = last(name) {
                message.push_str(&format!(", W_{letter} {value:.3}"));
            }
        }
        message
    }

    fn diverged(&self, what: String) -> Error {
        let checkpoint = self.out.join(CHECKPOINT);
        let remedy = match checkpoint.exists() {
            true => format!("run the same command to resume from {}", checkpoint.display()),
            false => "there is no checkpoint to resume from".to_owned(),
        };
        Error::Diverged { what, step: self.done, remedy }
    }

    /// Returns whether a checkpoint is due.
    pub fn checkpoint_is_due(&self) -> bool {
        self.done.is_multiple_of(self.config.checkpoint_every)
    }

    /// Writes the checkpoint, the weights, the plot of the curve and an image of the last window.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&mut self) -> Result<()> {
        checkpoint::save(&self.out.join(CHECKPOINT), &parts(&self.store, &mut self.trainer), self.done)?;
        let metadata = self.metadata()?;
        let path = self.out.join(MODEL);
        weights::save(&path, &self.store, &self.config.model, &metadata, Kind::Half)?;
        if let Some([images, truth, masks]) = &self.preview {
            let panel = window_panel(&format!("step {}", self.done), images, truth, masks)?;
            self.recorder.picture(self.done, "window", &panel)?;
        }
        self.recorder.draw()
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let mut metadata = self.config.metadata.clone();
        metadata.insert("steps".to_owned(), self.done.to_string());
        metadata.insert("training_config".to_owned(), self.config.to_toml()?);
        Ok(metadata)
    }

    /// Validates the weights if a validation is due.
    ///
    /// # Errors
    /// If the data are broken, or a file cannot be written.
    pub fn validate(&mut self) -> Result<()> {
        let (done, metadata) = (self.done, self.metadata()?);
        let steps = self.schedule.steps;
        let Some(validator) = self.validator.as_mut().filter(|validator| validator.is_due(done, steps))
        else {
            return Ok(());
        };
        let validated = validator.run(&self.store, &self.config.model, &metadata, done)?;
        self.recorder.put(done, &validated.scalars())?;
        let score = 100.0 * validated.scores.summary().region_and_contour();
        let best = if validated.is_best { " (best so far)" } else { "" };
        self.bar.suspend(|| eprintln!("step {done}: J&F {score:.1}{best}"));
        Ok(())
    }

    /// The scores of the last validation.
    pub fn scores(&self) -> Option<FinalScores> {
        let last = |name: &str| self.recorder.last(name);
        Some(FinalScores { region: last("score/J")?, contour: last("score/F")?, both: last("score/J&F")? })
    }

    /// Draws the final curve and ends the progress bar.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn close(self) -> Result<()> {
        self.bar.abandon();
        self.recorder.draw()
    }
}

/// The kind of mixed precision: bfloat16, or float32 on a processor without bfloat16 instructions, where libtorch
/// takes a hundred times as long.
fn mixed_kind(device: Device) -> Result<Kind> {
    let native = device.is_cuda() || torch::kind(Precision::Auto, device)? == Kind::BFloat16;
    if !native {
        eprintln!("training in float32: this processor has no bfloat16 instructions");
    }
    Ok(if native { Kind::BFloat16 } else { Kind::Float })
}

/// The networks of a run with their optimisers.
fn parts<'a>(store: &'a nn::VarStore, trainer: &'a mut Trainer) -> Vec<NetworkState<'a>> {
    let mut parts = vec![NetworkState { name: "regressor", store, adam: &mut trainer.adam }];
    for state in trainer.critics.iter_mut().flat_map(|critics| &mut critics.states) {
        parts.push(NetworkState { name: state.kind.name(), store: &state.store, adam: &mut state.adam });
    }
    parts
}

/// Images, true masks and predicted masks of the first clip of the last batch.
fn preview(batches: &[Batch], losses: &StepLosses) -> Result<Option<[Tensor; 3]>> {
    let (Some(batch), Some(masks)) = (batches.last(), &losses.masks) else { return Ok(None) };
    let frames = masks.size()[0];
    let first = |x: &Tensor| x.f_narrow(0, 2, frames)?.f_select(1, 0);
    Ok(Some([first(&batch.images)?, first(&batch.masks)?, masks.f_select(1, 0)?]))
}
