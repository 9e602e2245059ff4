// SPDX-License-Identifier: MPL-2.0

//! A training run from start to end.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gstfastganseg::device::Precision;
use gstfastganseg::torch::{self, model::weights};
use gstfastganseg::tracker::Options;
use indicatif::{ProgressBar, ProgressStyle};
use tch::{Device, Kind, Tensor, nn};

use super::adam::Adam;
use super::checkpoint::{self, CHECKPOINT, CONFIG, NetworkState, explain_divergence};
use super::config::TrainConfig;
use super::critics::Critics;
use super::distillation::Teacher;
use super::interrupt::Interrupt;
use super::record::{Recorder, window_panel};
use super::resume;
use super::step::{Network, StepLosses, Trainer};
use super::validate::{BEST, Validator};
use super::window::UnrollOptions;
use crate::clips::{Batch, Loader, Mix};
use crate::distributed::Ranks;
use crate::{Error, Result, files};

/// Metadata key of the configuration of the run, TOML.
pub const CONFIGURATION: &str = "training_config";
/// Messages of libtorch's allocators when memory runs out, on CUDA and on the CPU.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "not enough memory"];
/// File name of the latest weights.
pub const MODEL: &str = "model.safetensors";

/// Result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Whether the run reached its end.
    pub complete: bool,
    /// Number of completed steps.
    pub done: u64,
}

/// Trains with `config` until the end or until `interrupt` requests a stop. Resumes from the checkpoint in `out`
/// if there is one. Writes to `out`: `checkpoint.safetensors`, `model.safetensors`, `best.safetensors` if it
/// validates, `curve.csv` and its plot, TensorBoard's files and the effective `config.toml`.
///
/// With several ranks, each trains on its share of every batch, and rank 0 writes the files. A request to stop on any
/// rank stops all of them after the same step.
///
/// # Errors
/// If the data or the configuration is invalid, another run uses the folder, the checkpoint belongs to another run, a
/// loss diverges, memory runs out, or another rank has ended. The last checkpoint is kept.
pub fn run(config: &TrainConfig, out: &Path, interrupt: &Interrupt, ranks: &Ranks) -> Result<Outcome> {
    let mut session = Session::open(config, out, ranks)?;
    let end = session.end();
    if session.done > 0 {
        // The run may have been interrupted between its checkpoint and the validation of it.
        session.validate()?;
    }
    // With several ranks, all stop after the step in which one of them has asked for it.
    let mut stop = ranks.count() == 1 && interrupt.is_requested();
    while session.done < end && !stop {
        stop = session.step(interrupt.is_requested()).inspect_err(|error| session.rescue(error))?;
        stop |= ranks.count() == 1 && interrupt.is_requested();
        if session.done.is_multiple_of(config.checkpoint_every) || session.done == end || stop {
            session.save()?;
        }
        session.validate()?;
    }
    let done = session.done;
    let outcome = Outcome { complete: done >= end, done };
    session.close()?;
    if !outcome.complete && ranks.is_first() {
        eprintln!("stopped after {done} of {end} steps; run the same command to resume");
    }
    Ok(outcome)
}

#[derive(Debug)]
struct Session {
    config: TrainConfig,
    /// The configuration as TOML.
    config_text: String,
    out: PathBuf,
    device: Device,
    store: nn::VarStore,
    trainer: Trainer,
    /// Steps of the whole run.
    length: u64,
    loader: Loader,
    /// On rank 0 only.
    recorder: Option<Recorder>,
    validator: Option<Validator>,
    bar: ProgressBar,
    started: Instant,
    /// Seconds of the run before it was resumed.
    earlier_seconds: f64,
    /// Images, true masks and predicted masks of the first clip of the last step.
    preview: Option<[Tensor; 3]>,
    ranks: Ranks,
    /// Keeps other runs out of the folder; on rank 0 only.
    _lock: Option<File>,
    /// Time of waiting for clips, and of all steps of this process.
    waited: Duration,
    trained: Duration,
    /// Steps of this process.
    steps: u64,
    /// Step of the weights in [`MODEL`].
    saved: u64,
    /// Step and scores of the last validation, as metadata; on rank 0 only.
    scored: Option<(u64, BTreeMap<String, String>)>,
    /// Number of completed steps.
    done: u64,
}

impl Session {
    /// Starts a run in the folder `out`, or resumes from the checkpoint there. Only rank 0 reads and writes that
    /// folder; the other ranks receive the state from it.
    ///
    /// # Errors
    /// If the data or the configuration is invalid, the device is not available, another run uses the folder, or the
    /// checkpoint belongs to another run, whose checkpoint and configuration are left unchanged.
    fn open(config: &TrainConfig, out: &Path, ranks: &Ranks) -> Result<Self> {
        let first = ranks.is_first();
        check_batch(config.data.batch, ranks.count(), config.data.multi_object.clips())?;
        let checkpoint = out.join(CHECKPOINT);
        let mut resumes = false;
        let mut lock = None;
        if first {
            lock = Some(files::lock(out)?);
            resumes = checkpoint.exists();
            match resumes {
                true => resume::check(config, out)?,
                false => resume::check_new(out, &[MODEL, BEST])?,
            }
        }
        let choice = ranks.device(config.device.parse()?)?;
        let (device, warning) = gstfastganseg::torch::open_device(choice)?;
        if let Some(warning) = warning.filter(|_| first) {
            eprintln!("training on the CPU: {warning}");
        }
        ranks.use_device(device)?;
        tch::manual_seed(config.seed as i64);

        let frozen_encoder = config.optimiser.encoder_learning_rate == 0.0;
        let kind = if config.mixed_precision { mixed_kind(device, first)? } else { Kind::Float };
        let options = UnrollOptions { kind, frozen_encoder, remember: config.data.remember };
        let store = nn::VarStore::new(device);
        let network = Network::new(&store, config, &options, first)?;
        let mut trained = store.variables();
        trained.retain(|name, variable| {
            let of_refiner = name.starts_with("refiner.");
            let is_part = of_refiner == config.refinement.is_some();
            let trained =
                variable.requires_grad() && is_part && !(frozen_encoder && name.starts_with("encoder."));
            let _ = variable.set_requires_grad(trained);
            trained
        });
        let adam = Adam::new(trained, config.optimiser.rates())?;
        let critics = config.critics.as_ref();
        let critics =
            critics.map(|settings| Critics::new(settings, config.data.window, device, ranks)).transpose()?;
        let teacher = config.distillation.as_ref();
        let teacher =
            teacher.map(|settings| Teacher::open(settings, config.model.matching, device)).transpose()?;
        let reducer = ranks.reducer(&adam.parameters_in_backward_order())?;
        let ranks = ranks.clone();
        let mut trainer = Trainer {
            network,
            adam,
            reducer,
            critics,
            teacher,
            options,
            ranks: ranks.clone(),
            has_changed: false,
        };
        let mut parts = parts(&store, &mut trainer);
        let done = if resumes { checkpoint::load(&checkpoint, &mut parts)? } else { 0 };
        let mix = Mix::open(&config.data, config.seed, first)?.for_rank(ranks.rank(), ranks.count());
        let done = broadcast(&mut parts, done, mix.epoch(), &ranks)?;
        let config_text = config.to_toml()?;
        if first {
            files::replace_text(&out.join(CONFIG), config_text.as_bytes())?;
        }

        let steps = config.length(mix.epoch());
        let loader = Loader::start(mix, config.loader_threads, done * config.batches());
        tch::set_num_threads(config.threads);
        let recorder = first.then(|| Recorder::open(out, config.report_every, done)).transpose()?;
        let earlier_seconds = recorder.as_ref().and_then(|recorder| recorder.last("seconds")).unwrap_or(0.0);
        let options = Options { device: choice, ..Options::default() };
        let validator = config.validation.as_ref();
        let validator =
            validator.map(|settings| Validator::open(settings, &options, out, done > 0)).transpose()?;
        let style = "{bar:30} {pos}/{len} steps, {elapsed} elapsed, {eta} left, {msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = if first { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        let bar = bar.with_position(done).with_style(style);
        bar.reset_eta();
        Ok(Self {
            config: config.clone(),
            config_text,
            out: out.to_owned(),
            device,
            store,
            trainer,
            length: steps,
            loader,
            recorder,
            validator,
            bar,
            started: Instant::now(),
            earlier_seconds,
            preview: None,
            ranks,
            _lock: lock,
            waited: Duration::ZERO,
            trained: Duration::ZERO,
            steps: 0,
            saved: done,
            scored: None,
            done,
        })
    }

    /// The step at which to stop.
    fn end(&self) -> u64 {
        self.config.stop_after.map_or(self.length, |stop| stop.min(self.length))
    }

    /// Trains one step and records its scalars. Returns whether a rank has asked with `stop` to stop after it.
    fn step(&mut self, stop: bool) -> Result<bool> {
        let step = self.done;
        let begun = Instant::now();
        let to_device = |x: &Tensor| Ok(x.f_to_device(self.device)?);
        let batches = (0..self.config.batches())
            .map(|_| self.loader.batch()?.map(to_device))
            .collect::<Result<Vec<Batch>>>()
            .map_err(|error| explain_out_of_memory(error, step))?;
        self.waited += begun.elapsed();
        let rate = self.config.optimiser.schedule(step, self.length);
        let every = self.config.gradients_every;
        let gradients = every > 0 && step.is_multiple_of(every);
        let losses = self
            .trainer
            .step(&self.config, &batches, rate, gradients, stop)
            .map_err(|error| explain_out_of_memory(error, step))?;
        if let Some(what) = losses.diverged {
            return Err(diverged(&self.config, &self.out, self.done, what));
        }
        self.done += 1;
        self.steps += 1;
        self.trained += begun.elapsed();
        let Some(recorder) = &mut self.recorder else { return Ok(losses.stop) };
        self.preview = preview(&batches, &losses)?;
        for (name, value) in &losses.scalars {
            recorder.add(name, *value);
        }
        recorder.set("schedule", rate);
        recorder.set("seconds", self.earlier_seconds + self.started.elapsed().as_secs_f64());
        if recorder.end_step(self.done)? {
            self.bar.set_message(self.message());
        }
        self.bar.inc(1);
        Ok(losses.stop)
    }

    fn message(&self) -> String {
        let last = |name: &str| self.recorder.as_ref()?.last(name);
        let mut message = format!("loss {:.3}", last("loss/total").unwrap_or(f64::NAN));
        for (label, name) in [
            ("bilinear", "loss/bilinear"),
            ("region similarity", "region_similarity"),
            ("W_S", "wasserstein/spatial"),
            ("W_T", "wasserstein/temporal"),
        ] {
            if let Some(value) = last(name) {
                message.push_str(&format!(", {label} {value:.3}"));
            }
        }
        message
    }

    /// Saves after a failed step if another rank has ended before the step began to change weights, so that nothing
    /// is lost.
    fn rescue(&mut self, error: &Error) {
        let lost = matches!(error, Error::Torch(_) | Error::Ranks(_)) && self.ranks.count() > 1;
        if lost && self.ranks.is_first() && self.steps > 0 && !self.trainer.has_changed {
            match self.save() {
                Ok(()) => eprintln!("saved after step {}, since step {} failed", self.done, self.done + 1),
                Err(error) => eprintln!("cannot save: {error}"),
            }
        }
    }

    /// Writes the checkpoint, the weights, the plot of the curve and an image of the last window; on rank 0 only.
    fn save(&mut self) -> Result<()> {
        if self.recorder.is_none() {
            return Ok(());
        }
        let ranks = self.ranks.clone();
        let _saving = ranks.saving();
        let metadata = self.metadata();
        let path = self.out.join(MODEL);
        let weights = || Ok(weights::save(&path, &self.store, &self.config.model, &metadata, Kind::Half)?);
        let checkpoint = self.out.join(CHECKPOINT);
        let parts = parts(&self.store, &mut self.trainer);
        checkpoint::save(&checkpoint, &parts, self.done, weights).map_err(|error| {
            explain_divergence(error, |what| diverged(&self.config, &self.out, self.done, what))
        })?;
        self.saved = self.done;
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        if let Some([images, truth, masks]) = &self.preview {
            let panel = window_panel(&format!("step {}", self.done), images, truth, masks)?;
            recorder.picture(self.done, "window", &panel)?;
        }
        recorder.draw()
    }

    /// The metadata of the current weights, with the scores if they were validated.
    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.config.metadata.clone();
        let scored = self.scored.iter().filter(|(step, _)| *step == self.done);
        metadata.extend(scored.flat_map(|(_, scores)| scores.clone()));
        metadata.insert("steps".to_owned(), self.done.to_string());
        metadata.insert(CONFIGURATION.to_owned(), self.config_text.clone());
        metadata
    }

    /// Validates the weights if a validation is due, and adds the scores to [`MODEL`] if it has these weights. The ranks
    /// share the sequences.
    fn validate(&mut self) -> Result<()> {
        let (done, steps) = (self.done, self.length);
        if !self.validator.as_ref().is_some_and(|validator| validator.is_due(done, steps)) {
            return Ok(());
        }
        let metadata = self.metadata();
        let Some(validator) = &mut self.validator else { return Ok(()) };
        let validated =
            validator.run(&self.store, &self.config.model, &metadata, done, &self.ranks).map_err(
                |error| explain_divergence(error, |what| diverged(&self.config, &self.out, done, what)),
            )?;
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        recorder.put(done, &validated.scalars())?;
        let score = 100.0 * validated.scores.summary().region_and_contour();
        let best = if validated.is_best { " (best so far)" } else { "" };
        self.bar.suspend(|| eprintln!("step {done}: J&F {score:.1}{best}"));
        self.scored = Some((done, validated.metadata));
        if self.saved != done {
            return Ok(());
        }
        let _saving = self.ranks.saving();
        let path = self.out.join(MODEL);
        Ok(weights::save(&path, &self.store, &self.config.model, &self.metadata(), Kind::Half)?)
    }

    /// Draws the final curve, ends the progress bar and prints the speed.
    fn close(self) -> Result<()> {
        self.bar.abandon();
        let Some(recorder) = self.recorder else { return Ok(()) };
        if self.steps > 0 {
            let seconds = self.trained.as_secs_f64();
            let clips = self.steps * self.config.batches() * self.config.data.batch as u64;
            eprintln!(
                "{} steps in {seconds:.1} s, {:.2} clips/s on {} ranks, {:.1} % of the time waiting for clips",
                self.steps,
                clips as f64 / seconds,
                self.ranks.count(),
                100.0 * self.waited.as_secs_f64() / seconds
            );
        }
        recorder.draw()
    }
}

/// Returns the error of a run in the folder `out` whose loss, gradient or weights, `what`, diverged after `done` steps.
fn diverged(config: &TrainConfig, out: &Path, done: u64, what: String) -> Error {
    let checkpoint = out.join(CHECKPOINT);
    let critics = match config.critics {
        Some(_) => ", a lower critics.learning_rate, a higher critics.penalty_weight",
        None => "",
    };
    let settings = format!("a lower optimiser.learning_rate{critics} or mixed_precision = false");
    let remedy = match checkpoint.exists() {
        true => format!(
            "set {settings} and run the command again to resume from {}, or start again in another folder with --out",
            checkpoint.display()
        ),
        false => format!("there is no checkpoint to resume from; start again with {settings}"),
    };
    Error::Diverged { what, step: done, remedy }
}

/// Checks that `batch` clips can be shared evenly, as the mean of all ranks' gradients requires. Clips are drawn
/// `together` at a time.
fn check_batch(batch: usize, ranks: usize, together: usize) -> Result<()> {
    if batch.is_multiple_of(ranks * together) {
        return Ok(());
    }
    let objects =
        if together > 1 { format!(" times the {together} objects of a window") } else { String::new() };
    let reason = format!(
        "data.batch = {batch}: the clips of a step on all ranks must be a multiple of the {ranks} ranks{objects}, such \
         as data.batch = {}",
        batch.next_multiple_of(ranks * together)
    );
    Err(gstfastganseg::Error::Config(reason).into())
}

/// Gives all ranks the state of rank 0 after its `done` steps, which this returns. `epoch` is the number of frames and
/// stills, which must be equal on all ranks.
fn broadcast(parts: &mut [NetworkState], done: u64, epoch: u64, ranks: &Ranks) -> Result<u64> {
    if ranks.count() == 1 {
        return Ok(done);
    }
    let mut tensors = Vec::new();
    let mut numbers = vec![done as i64, epoch as i64];
    for NetworkState { store, adam, .. } in &*parts {
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        tensors.extend(variables.into_values());
        tensors.extend(adam.state().into_iter().map(|(_, moment)| moment));
        numbers.push(adam.steps as i64);
    }
    let numbers = Tensor::f_from_slice(&numbers)?;
    ranks.broadcast(&[numbers.shallow_clone()])?;
    ranks.broadcast(&tensors)?;
    let numbers: Vec<u64> = Vec::<i64>::try_from(&numbers)?.into_iter().map(|number| number as u64).collect();
    for (part, steps) in parts.iter_mut().zip(&numbers[2..]) {
        part.adam.steps = *steps;
    }
    if epoch == numbers[1] {
        return Ok(numbers[0]);
    }
    Err(Error::Ranks(format!(
        "rank {}: data.sources have {epoch} annotated frames and stills, those of rank 0 {}; give all ranks the same data",
        ranks.rank(),
        numbers[1]
    )))
}

/// The kind of mixed precision: bfloat16, or float32 on a processor without bfloat16 instructions, where libtorch
/// takes a hundred times as long.
fn mixed_kind(device: Device, report: bool) -> Result<Kind> {
    let native = device.is_cuda() || torch::kind(Precision::Auto, device)? == Kind::BFloat16;
    if !native && report {
        eprintln!("training in float32: this processor has no bfloat16 instructions");
    }
    Ok(if native { Kind::BFloat16 } else { Kind::Float })
}

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

/// Converts an out-of-memory error at `step` to [`Error::OutOfMemory`], which names the settings to lower. Returns
/// other errors unchanged.
fn explain_out_of_memory(error: Error, step: u64) -> Error {
    let text = match &error {
        Error::Torch(inner) => inner.to_string(),
        Error::Core(gstfastganseg::Error::Torch(message)) => message.clone(),
        _ => return error,
    };
    match text.lines().find(|line| OUT_OF_MEMORY.iter().any(|words| line.contains(words))) {
        Some(line) => Error::OutOfMemory { step, reason: line.trim().to_owned() },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, TchError, Tensor};

    use super::*;

    #[test]
    fn out_of_memory_errors_name_the_settings_to_lower() {
        let error = Tensor::f_empty([1 << 50], (Kind::Float, Device::Cpu)).unwrap_err();
        let message = explain_out_of_memory(error.into(), 7).to_string();
        for words in ["step 7", "allocate", "data.batch", "data.size", "critics.shape.max_channels"] {
            assert!(message.contains(words), "{message}");
        }
        let cuda = TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.\nat ...".into());
        let message = explain_out_of_memory(gstfastganseg::Error::from(cuda).into(), 3).to_string();
        assert!(message.contains("2.00 GiB") && !message.contains("at ..."), "{message}");
    }

    #[test]
    fn other_errors_are_unchanged() {
        let error = Tensor::f_zeros([2], (Kind::Float, Device::Cpu)).unwrap().f_reshape([3]).unwrap_err();
        assert!(matches!(explain_out_of_memory(error.into(), 0), Error::Torch(_)));
    }
}
