//! All that a run has open while it goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gstfastganseg::device::{self, Precision};
use gstfastganseg::model::weights;
use gstfastganseg::tracker::Options;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use super::checkpoint::{self, Part};
use super::config::TrainConfig;
use super::critics::Critics;
use super::network::Network;
use super::record::{Recorder, window_panel};
use super::remedy::with_remedy;
use super::resume;
use super::run::FinalScores;
use super::schedule::Schedule;
use super::step::{StepLosses, Trainer};
use super::validate::Validator;
use super::window::{UnrollOptions, on_device};
use crate::clips::{Batch, Loader, Mix};
use crate::{Error, Result, files};

/// The state that a run goes on from.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The weights as they are.
pub const MODEL: &str = "model.safetensors";
/// The configuration as it was used.
pub const CONFIG: &str = "config.toml";

/// An open run.
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
    begun: Instant,
    /// Seconds of earlier parts of the run.
    before: f64,
    /// The predicted frames of the last step's first clip, their truth and their masks.
    seen: Option<[Tensor; 3]>,
    /// Steps done.
    pub done: u64,
}

impl Session {
    /// Begins a run in the folder `out`, or goes on from the checkpoint there.
    ///
    /// # Errors
    /// Bad data or configuration, a checkpoint of another run, which is left as it is with the configuration beside
    /// it, a device that cannot be had.
    pub fn open(config: &TrainConfig, out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|source| Error::write(out, source))?;
        let saved = out.join(CHECKPOINT);
        let resumes = saved.exists();
        if resumes {
            resume::check(config, out)?;
        }
        let (device, warning) = device::open(config.device.parse()?)?;
        if let Some(warning) = warning {
            eprintln!("trains on the CPU: {warning}");
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
        let done = if resumes { checkpoint::load(&saved, &mut parts(&store, &mut trainer))? } else { 0 };
        let text = config.to_toml()?;
        files::replace(&out.join(CONFIG), |path| {
            std::fs::write(path, text).map_err(|source| Error::write(path, source))
        })?;

        let mix = Mix::open(&config.data, config.seed)?;
        let steps = config.length(mix.epoch());
        let loader = Loader::start(mix, config.loader_threads, done * config.batches());
        tch::set_num_threads(config.threads);
        let recorder = Recorder::open(out, config.report_every, done)?;
        let before = recorder.last("seconds").unwrap_or(0.0);
        let validator = match &config.validation {
            Some(settings) => {
                let options = Options { device: config.device.parse()?, ..Options::default() };
                Some(Validator::open(settings, &options, out)?)
            }
            None => None,
        };
        let style = "{bar:30} {pos}/{len} steps, {elapsed} gone, {eta} to go, {msg}";
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
            begun: Instant::now(),
            before,
            seen: None,
            done,
        })
    }

    /// The step at which to stop.
    pub fn end(&self) -> u64 {
        self.config.stop_after.map_or(self.schedule.steps, |stop| stop.min(self.schedule.steps))
    }

    /// One step, in the curve too.
    ///
    /// # Errors
    /// Broken data, a loss that is no number any more, too little memory, a file that cannot be written.
    pub fn step(&mut self) -> Result<()> {
        let step = self.done;
        let batches = (0..self.config.batches())
            .map(|_| on_device(self.loader.batch()?, self.device))
            .collect::<Result<Vec<Batch>>>()
            .map_err(|error| with_remedy(error, step))?;
        // A step's draws follow from its number, so that a resumed run is the same run.
        tch::manual_seed(self.config.seed.wrapping_add(step) as i64);
        let rate = self.schedule.at(step);
        let every = self.config.gradients_every;
        let gradients = every > 0 && step.is_multiple_of(every);
        let found = self
            .trainer
            .step(&self.config, &batches, rate, gradients)
            .map_err(|error| with_remedy(error, step))?;
        if let Some(what) = found.diverged {
            return Err(self.diverged(what));
        }
        self.done += 1;
        self.seen = window(&batches, &found)?;
        for (name, value) in &found.scalars {
            self.recorder.add(name, *value);
        }
        self.recorder.set("schedule", rate);
        self.recorder.set("seconds", self.before + self.begun.elapsed().as_secs_f64());
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
        let saved = self.out.join(CHECKPOINT);
        let remedy = match saved.exists() {
            true => {
                format!("the last good state is {}, which the same command goes on from", saved.display())
            }
            false => "there is no checkpoint yet".to_owned(),
        };
        Error::Diverged { what, step: self.done, remedy }
    }

    /// Whether the state is to be saved now.
    pub fn checkpoint_is_due(&self) -> bool {
        self.done.is_multiple_of(self.config.checkpoint_every)
    }

    /// Writes state, weights, curve and a picture of the last window.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&mut self) -> Result<()> {
        checkpoint::save(&self.out.join(CHECKPOINT), &parts(&self.store, &mut self.trainer), self.done)?;
        let metadata = self.metadata()?;
        let path = self.out.join(MODEL);
        weights::save(&path, &self.store, &self.config.model, &metadata, Kind::Half)?;
        if let Some([images, truth, masks]) = &self.seen {
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

    /// Scores the weights where that is due.
    ///
    /// # Errors
    /// Broken data, a file that cannot be written.
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
        let best = if validated.is_best { ", the best so far" } else { "" };
        self.bar.suspend(|| eprintln!("step {done}: J&F {score:.1}{best}"));
        Ok(())
    }

    /// What the last validation found.
    pub fn scores(&self) -> Option<FinalScores> {
        let last = |name: &str| self.recorder.last(name);
        Some(FinalScores { region: last("score/J")?, contour: last("score/F")?, both: last("score/J&F")? })
    }

    /// Draws the curve as it is in the end, and ends the display.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn close(self) -> Result<()> {
        self.bar.abandon();
        self.recorder.draw()
    }
}

/// What mixed precision computes in: bfloat16, but not on processors without instructions for it, where libtorch
/// takes a hundred times as long.
fn mixed_kind(device: Device) -> Result<Kind> {
    let native = device.is_cuda() || Precision::Auto.kind(device)? == Kind::BFloat16;
    if !native {
        eprintln!("trains in float32: this processor has no instructions for bfloat16");
    }
    Ok(if native { Kind::BFloat16 } else { Kind::Float })
}

/// All networks of a run with their optimisers.
fn parts<'a>(store: &'a nn::VarStore, trainer: &'a mut Trainer) -> Vec<Part<'a>> {
    let mut parts = vec![Part { name: "regressor", store, adam: &mut trainer.adam }];
    for state in trainer.critics.iter_mut().flat_map(|critics| &mut critics.states) {
        parts.push(Part { name: state.kind.name(), store: &state.store, adam: &mut state.adam });
    }
    parts
}

/// The predicted frames of the first clip, their truth and their masks.
fn window(batches: &[Batch], found: &StepLosses) -> Result<Option<[Tensor; 3]>> {
    let (Some(batch), Some(masks)) = (batches.last(), &found.masks) else { return Ok(None) };
    let frames = masks.size()[0];
    let first = |x: &Tensor| x.f_narrow(0, 2, frames)?.f_select(1, 0);
    Ok(Some([first(&batch.images)?, first(&batch.masks)?, masks.f_select(1, 0)?]))
}
