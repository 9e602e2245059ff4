// SPDX-License-Identifier: MPL-2.0

//! Training of the prompt network's decoder, which turns boxes and clicks into masks. The image encoder is frozen.

mod config;
mod loss;
mod view;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use gstfastganseg::torch::model::prompt::{ENCODER, Prompt, built_in};
use gstfastganseg::torch::model::prompt::{Embedding, PromptNetwork};
use gstfastganseg::torch::model::weights::{Tensors, open_tensors, save_tensors};
use tch::{Device, Kind, Tensor, nn};

pub use self::config::PromptConfig;
use self::loss::prompt_loss;
use self::view::{MIN_PIXELS, View};
use crate::clips::{Random, Reading, Sources, TRIES};
use crate::train::{
    Adam, CHECKPOINT, CONFIG, Interrupt, NetworkState, Recorder, explain_divergence, load, resume, save,
};
use crate::{Error, Result, config_file, files};

/// Size of the cache of decoded frames in MiB.
const CACHE: u64 = 1024;
/// Broken files that are skipped.
const BROKEN_LIMIT: usize = 20;
/// Smallest share of a picture that an object of a video covers.
const MIN_SHARE: f64 = 0.004;
/// Tensor of random frequencies, which is not trained.
const FREQUENCIES: &str = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix";
/// File name of the weights.
const MODEL: &str = "model.safetensors";
/// Keys that may change when a run is resumed.
const MAY_CHANGE: [&str; 3] = ["threads", "checkpoint_every", "report_every"];
/// Name in the checkpoint.
const NETWORK: &str = "decoder";

/// Trains with `config` until the end or until `interrupt` requests a stop. Resumes from the checkpoint in `out` if there
/// is one. Writes to `out`: `checkpoint.safetensors`, `model.safetensors`, `curve.csv` and its plot, TensorBoard's files and
/// the effective `config.toml`.
///
/// # Errors
/// If the data or the configuration is invalid, another run uses the folder, the checkpoint belongs to another run, or the
/// loss diverges. The last checkpoint is kept.
pub fn run(config: &PromptConfig, out: &Path, interrupt: &Interrupt) -> Result<()> {
    tch::set_num_threads(config.threads);
    let mut session = Session::open(config, out)?;
    let sources = Sources::open(&config.sources, MIN_SHARE, Reading::new(CACHE, BROKEN_LIMIT), true)?;
    let mut recorder = Recorder::open(out, config.report_every, session.done)?;
    while session.done < config.steps && !interrupt.is_requested() {
        session.step(&sources, &mut recorder)?;
        if recorder.end_step(session.done)? {
            let last = |name| recorder.last(name).unwrap_or(f64::NAN);
            eprintln!(
                "step {} of {}: loss {:.3}, IoU box {:.3}, first click {:.3}, later clicks {:.3}",
                session.done,
                config.steps,
                last("loss"),
                last("iou_box"),
                last("iou_first_click"),
                last("iou_later_clicks")
            );
        }
        if session.done.is_multiple_of(config.checkpoint_every) {
            session.save(out)?;
        }
    }
    session.save(out)?;
    recorder.draw()?;
    if session.done < config.steps {
        eprintln!("stopped after {} of {} steps; run the same command to resume", session.done, config.steps);
    }
    Ok(())
}

/// Returns the error of a run whose gradient or weights, `what`, diverged after `step` steps.
fn diverged(what: String, step: u64) -> Error {
    let remedy = "start again in another folder with --out and a lower optimiser.learning_rate".to_owned();
    Error::Diverged { what, step, remedy }
}

/// State of a run.
struct Session<'a> {
    config: &'a PromptConfig,
    network: PromptNetwork,
    /// All tensors but those that are trained, float32.
    constant: Tensors,
    store: nn::VarStore,
    adam: Adam,
    done: u64,
    /// Keeps other runs out of the folder.
    _lock: File,
}

impl<'a> Session<'a> {
    fn open(config: &'a PromptConfig, out: &Path) -> Result<Self> {
        let lock = files::lock(out)?;
        let mut constant = match &config.start_from {
            Some(path) => open_tensors(path)?.0,
            None => built_in()?,
        };
        let origin = config.start_from.as_deref().unwrap_or(Path::new("(built-in prompt network)"));
        let network = PromptNetwork::from_tensors(&constant, origin, Device::Cpu, Kind::Float)?;
        let store = nn::VarStore::new(Device::Cpu);
        let is_trained = |name: &str| !name.starts_with(ENCODER) && name != FREQUENCIES;
        let names: Vec<String> = constant.keys().filter(|name| is_trained(name)).cloned().collect();
        for name in names {
            let Some(tensor) = constant.remove(&name) else { continue };
            let mut parts: Vec<&str> = name.split('.').collect();
            let Some(last) = parts.pop() else { continue };
            let path = parts.into_iter().fold(store.root(), |path, part| path / part);
            let mut variable = path.f_zeros(last, &tensor.size())?;
            tch::no_grad(|| variable.f_copy_(&tensor).map(drop))?;
        }
        let adam = Adam::new(store.variables(), config.optimiser.rates())?;
        let mut session = Self { config, network, constant, store, adam, done: 0, _lock: lock };
        let (checkpoint, file) = (out.join(CHECKPOINT), out.join(CONFIG));
        let text = toml::to_string(config).map_err(config_file::no_toml)?;
        if checkpoint.exists() {
            let may_change = |key: &str, _: &PromptConfig, _: &PromptConfig| MAY_CHANGE.contains(&key);
            resume::check_values(config, out, may_change, &MAY_CHANGE.join(", "))?;
            session.done = load(&checkpoint, &mut session.networks())?;
        } else {
            resume::check_new(out, &[MODEL])?;
            fs::write(&file, text).map_err(|source| Error::write(&file, source))?;
        }
        Ok(session)
    }

    fn networks(&mut self) -> [NetworkState<'_>; 1] {
        [NetworkState { name: NETWORK, store: &self.store, adam: &mut self.adam }]
    }

    /// Trains with the pictures of one step.
    fn step(&mut self, sources: &Sources, recorder: &mut Recorder) -> Result<()> {
        self.adam.zero_gradients();
        for index in 0..self.config.batch as u64 {
            let mut random = Random::new(self.config.seed, self.done * self.config.batch as u64 + index);
            let mut drawn = (0..TRIES).map(|_| View::draw(sources, self.config, &mut random));
            let view = drawn.find_map(Result::transpose).transpose()?;
            let Some(view) = view else {
                let reason = format!("no object has {MIN_PIXELS} pixels; use other sources or a larger size");
                return Err(Error::Clips(reason));
            };
            self.train_view(&view, &mut random, recorder)?;
        }
        let norm = self.adam.step(self.config.optimiser.schedule(self.done, self.config.steps))?;
        if !norm.is_finite() {
            return Err(diverged("gradient".into(), self.done));
        }
        recorder.add("gradient_norm", norm);
        self.done += 1;
        Ok(())
    }

    /// Adds the gradients of one picture: a box, and clicks one after the other, each with the trained mask of those
    /// before.
    fn train_view(&mut self, view: &View, random: &mut Random, recorder: &mut Recorder) -> Result<()> {
        let embedding = self.network.encode(&view.picture())?;
        let rect = view.draw_box(self.config.box_noise, random);
        let prompt = Prompt { rect: Some(rect), ..Prompt::default() };
        let (_, iou) = self.train_prompt(&embedding, view, &prompt, recorder)?;
        recorder.add("iou_box", iou);

        let mut points = Vec::from_iter(view.first_click(random));
        let mut mask = None;
        for count in 1..=self.config.clicks {
            let prompt = Prompt { points: points.clone(), rect: None, mask: mask.take() };
            let (logits, iou) = self.train_prompt(&embedding, view, &prompt, recorder)?;
            recorder.add(if count == 1 { "iou_first_click" } else { "iou_later_clicks" }, iou);
            let Some(next) = view.next_click(&embedding.alpha(&logits)?) else { break };
            points.push(next);
            mask = Some(logits);
        }
        Ok(())
    }

    /// Adds the gradients of one prompt. Returns the logits of the trained mask, without gradient, and its IoU.
    fn train_prompt(
        &mut self,
        embedding: &Embedding,
        view: &View,
        prompt: &Prompt,
        recorder: &mut Recorder,
    ) -> Result<(Tensor, f64)> {
        let mut tensors: Tensors = self.store.variables().into_iter().collect();
        let frequencies = self.constant.get(FREQUENCIES).map(Tensor::shallow_clone);
        tensors.extend(frequencies.map(|tensor| (FREQUENCIES.to_owned(), tensor)));
        // Joined tensors belong to the graph of one backward pass.
        self.network.set_decoder(&tensors, Path::new(MODEL))?;
        let (all, predicted) = self.network.logits(embedding, prompt)?;
        let logits = embedding.valid(&all)?;
        let (_, rows, columns) = logits.size3()?;
        let truth = view.mask.f_internal_upsample_bilinear2d_aa([rows, columns], false, None, None)?;
        let one_click = prompt.rect.is_none() && prompt.points.len() == 1 && prompt.mask.is_none();
        let truth = truth.f_reshape([rows, columns])?.f_clamp(0.0, 1.0)?;
        let loss = prompt_loss((&logits, &predicted), &truth, one_click, self.config)?;
        recorder.add("loss", loss.total.f_double_value(&[])?);
        loss.total.f_div_scalar(self.config.batch as f64)?.f_backward()?;
        Ok((all.f_get(loss.index)?.f_detach()?, loss.iou))
    }

    fn save(&mut self, out: &Path) -> Result<()> {
        let done = self.done;
        let mut tensors: Tensors = self.store.variables().into_iter().collect();
        tensors.extend(self.constant.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
        let mut metadata = self.config.metadata.clone();
        metadata.extend(BTreeMap::from([("format".into(), "1".into()), ("network".into(), "prompt".into())]));
        let weights = || Ok(save_tensors(&out.join(MODEL), tensors, metadata, Kind::Half)?);
        save(&out.join(CHECKPOINT), &self.networks(), done, weights)
            .map_err(|error| explain_divergence(error, |what| diverged(what, done)))
    }
}
