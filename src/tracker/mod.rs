// SPDX-License-Identifier: MPL-2.0

//! Tracks the objects of a reference mask from frame to frame.

mod build;
mod crop;
mod distractors;
mod frame_stats;
mod input_size;
mod interruption;
mod memory_gate;
mod object_stats;
mod options;
mod prefetch;
mod presence;
mod quality;
mod reference;
mod roi;
mod runner;
mod thumbnail;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use self::build::CacheReleaseGuard;
use self::crop::CropWindow;
use self::distractors::DistractorFilter;
use self::frame_stats::FrameStats;
use self::input_size::InputSizes;
use self::interruption::{Continuity, Interruptions};
use self::memory_gate::MemoryGate;
pub use self::object_stats::ObjectStats;
pub use self::options::{Launch, Options, Roi};
pub use self::presence::Presence;
use self::presence::PresenceDetector;
pub use self::quality::Quality;
use self::reference::ViewPlan;
pub use self::reference::{EncodedReference, ReferenceEncoder, ReferenceUse};
use self::roi::{Bounds, RoiPlanner};
pub use self::runner::MAX_ADDED_REFERENCES;
use self::runner::{ModelRunner, StepInput, StepOutput};
use self::thumbnail::Thumbnail;
use crate::cuda::{Memory, Shim, StreamGuard};
use crate::device::Precision;
use crate::gpu::{Gpu, Upload};
use crate::image::{FrameSource, Region};
use crate::mask::ReferenceMask;
use crate::matte::{DeviceEnlarger, Matte};
use crate::model::layers::copy_of;
use crate::model::{Config, Matching};
use crate::team::TeamGuard;
use crate::threads;
use crate::{Error, Result};

/// Maximum number of objects tracked at the same time.
pub const MAX_OBJECTS: usize = 16;

/// Masks of a step and their crop window.
struct CropMasks {
    masks: Tensor,
    crop: CropWindow,
}

/// Minimum size of each object, relative to its mean size, in a state that is worth saving.
const MIN_TRUSTED_SIZE: f64 = 0.3;
/// Minimum confidence at which objects are taken to be where they were in the reference from another frame.
const MIN_IN_PLACE: f64 = 0.85;

/// Network with its reference and recurrent state.
pub struct Tracker {
    runner: Box<dyn ModelRunner>,
    /// Identity of the network.
    network: Arc<()>,
    ids: Vec<u8>,
    /// Configuration of the model, at its own input size.
    model: Config,
    config: Config,
    device: Device,
    /// Kind of the network's tensors.
    kind: Kind,
    /// Whether libtorch needs no threads.
    packed: bool,
    precision: Precision,
    device_warning: Option<String>,
    roi: Roi,
    input_sizes: InputSizes,
    reference_crop: Option<CropWindow>,
    progress: Progress,
    interruptions: Interruptions,
    /// Duration of a step at the end of the warm-up.
    warm: Duration,
    /// `None` with [`Launch::Plain`].
    gpu: Option<Arc<Gpu>>,
    upload: Option<Upload>,
    /// `None` without CUDA.
    shim: Option<Shim>,
    launch_warning: Option<String>,
    /// Threads of libtorch for the prefetch thread; 0 keeps their number.
    prefetch_threads: Arc<AtomicU32>,
    /// Must be the last field, to be dropped after all tensors.
    _cache_release: CacheReleaseGuard,
}

/// State of a [`Tracker`] that changes from frame to frame.
#[derive(Debug)]
pub struct TrackerState {
    runner: runner::SavedState,
    progress: Progress,
}

/// What is learnt from the frames since the reference, outside of the network.
#[derive(Clone, Debug, Default)]
struct Progress {
    last_crop: Option<CropWindow>,
    next_crop: Option<CropWindow>,
    roi_planner: RoiPlanner,
    presence_detector: PresenceDetector,
    distractors: DistractorFilter,
    object_stats: Vec<ObjectStats>,
    memory_gate: MemoryGate,
}

/// A frame whose encoding has started ahead of time, in the crop window planned at that time.
#[derive(Debug)]
pub struct Prefetched {
    crop: CropWindow,
    encoding: runner::PrefetchedEncoding,
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Tracker")
            .field("config", &self.config)
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

impl Tracker {
    /// Sets how many threads libtorch uses on the CPU for calls from this thread and for prefetching; 0 keeps
    /// their number. Other threads of the process are not affected.
    pub fn set_threads(&mut self, count: u32) {
        threads::set_for_this_thread(count);
        self.prefetch_threads.store(count, Ordering::Relaxed);
    }

    /// Returns the network's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the device, "cpu" or "cuda:N".
    pub fn active_device(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        }
    }

    /// Returns the precision: float32, bfloat16 or float16.
    pub fn active_precision(&self) -> Precision {
        self.precision
    }

    /// Returns why `auto` selected the CPU, if it did.
    pub fn device_warning(&self) -> Option<&str> {
        self.device_warning.as_deref()
    }

    /// Returns why CUDA graphs are not used although they are enabled. Each reason is returned once.
    pub fn take_graph_warning(&mut self) -> Option<String> {
        self.launch_warning.take().or_else(|| self.runner.take_failure())
    }

    /// Returns the GPU memory that libtorch uses, or `None` on the CPU or without the CUDA shim.
    pub fn memory(&self) -> Option<Memory> {
        match (self.device, &self.shim) {
            (Device::Cuda(index), Some(shim)) => shim.memory(index).ok(),
            _ => None,
        }
    }

    /// Returns the duration of a step on an empty picture, measured during the warm-up.
    pub fn warm_step_time(&self) -> Duration {
        self.warm
    }

    /// Returns the network's own input width and height in pixels. Input sizes of other aspect ratios have about
    /// the same area.
    pub fn network_size(&self) -> (usize, usize) {
        let (height, width) = self.config.size();
        (width as usize, height as usize)
    }

    /// Returns whether [`set_quality`](Self::set_quality) is supported: with affinity matching on the CPU.
    pub fn can_change_quality(&self) -> bool {
        self.device == Device::Cpu && self.gpu.is_none() && self.config.matching == Matching::Affinity
    }

    /// Changes the input size from the next frame on and keeps tracking. Views of the reference keep the size at which
    /// they were encoded.
    ///
    /// # Errors
    /// [`Error::Config`] if changes are not supported, or the size is too large for the model.
    pub fn set_quality(&mut self, quality: Quality) -> Result<()> {
        if !self.can_change_quality() {
            return Err(Error::Config(
                "the input size changes only with affinity matching on the CPU: restart with another quality"
                    .into(),
            ));
        }
        let config = self.model.at_size(quality.network_size(&self.model));
        config.validate()?;
        self.runner.set_memory_tokens(config.memory.tokens);
        self.input_sizes = match self.roi {
            Roi::Auto => InputSizes::following(&config, &self.model),
            Roi::Frame | Roi::Off => InputSizes::fixed(&config),
        };
        self.config = config;
        self.progress.next_crop = self.at_present_size(self.progress.next_crop);
        Ok(())
    }

    fn at_present_size(&self, crop: Option<CropWindow>) -> Option<CropWindow> {
        let lost = self.progress.presence_detector.any_lost();
        let size =
            |region| if lost { self.input_sizes.for_search(region) } else { self.input_sizes.of(region) };
        crop.map(|crop| CropWindow { size: size(crop.region), ..crop })
    }

    /// Sets the reference, a picture and its mask, and starts tracking from it. The mask is scaled to the picture.
    ///
    /// # Errors
    /// [`Error::Config`] for more than [`MAX_OBJECTS`] objects; the old reference is kept. Also errors of libtorch
    /// and of the conversion of the picture.
    pub fn set_reference(&mut self, source: &mut dyn FrameSource, mask: &ReferenceMask) -> Result<()> {
        let encoded = self.encode_reference(source, mask, ReferenceUse::Set)?;
        self.use_encoded(encoded)
    }

    /// Adds another picture and its mask to the reference, and continues tracking from that picture. Objects without
    /// pixels in the mask are not in the picture. The first reference and the newest [`MAX_ADDED_REFERENCES`] others
    /// are kept; the paper's network compares with the newest only.
    ///
    /// # Errors
    /// [`Error::NoReference`] before [`set_reference`](Self::set_reference), [`Error::Config`] for an object that the
    /// reference does not have, and errors of libtorch and of the conversion of the picture.
    pub fn add_reference(&mut self, source: &mut dyn FrameSource, mask: &ReferenceMask) -> Result<()> {
        let encoded = self.encode_reference(source, mask, ReferenceUse::Add)?;
        self.use_encoded(encoded)
    }

    /// Returns an encoder of references for another thread; `None` on a GPU and with a [`Launch`] other than `Plain`.
    pub fn reference_encoder(&self) -> Option<ReferenceEncoder> {
        (self.device == Device::Cpu && self.gpu.is_none()).then(|| ReferenceEncoder {
            network: self.network.clone(),
            encode: self.runner.reference_encoder(),
            plan: self.view_plan(),
            kind: self.kind,
            packed: self.packed,
            ids: self.ids.clone(),
        })
    }

    /// Returns whether an encoded reference can be used: it was encoded for this tracker, at its present input size, and
    /// if it is to be added, with its present objects.
    pub fn accepts(&self, encoded: &EncodedReference) -> bool {
        let has_objects = match encoded.purpose {
            ReferenceUse::Set => true,
            ReferenceUse::Add => encoded.ids == self.ids && self.has_reference(),
        };
        let size = self.input_sizes.of(encoded.crop.region);
        has_objects && Arc::ptr_eq(&encoded.network, &self.network) && encoded.crop.size == size
    }

    /// Sets or adds an encoded reference and starts tracking from it.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not [accepted](Self::accepts), and errors of libtorch.
    pub fn use_encoded(&mut self, encoded: EncodedReference) -> Result<()> {
        if !self.accepts(&encoded) {
            let reason = "the reference was encoded for another tracker, other objects or another input size";
            return Err(Error::Config(reason.into()));
        }
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        match encoded.purpose {
            ReferenceUse::Set => {
                self.runner.set_reference(encoded.views)?;
                self.ids = encoded.ids;
                self.reference_crop = Some(encoded.crop);
                self.reset();
            }
            ReferenceUse::Add => {
                self.runner.add_reference(encoded.views)?;
                self.reset();
                (self.progress.last_crop, self.progress.next_crop) = (Some(encoded.crop), Some(encoded.crop));
            }
        }
        Ok(())
    }

    fn view_plan(&self) -> ViewPlan {
        ViewPlan { roi: self.roi, sizes: self.input_sizes.clone() }
    }

    fn encode_reference(
        &mut self,
        source: &mut dyn FrameSource,
        mask: &ReferenceMask,
        purpose: ReferenceUse,
    ) -> Result<EncodedReference> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let (ids, planes) = reference::planes(mask, purpose, &self.ids)?;
        self.begin_frame();
        let copies = self.runner.reuses_memory();
        let (views, crop) = self.view_plan().views(source.size(), &planes, |region, size| {
            let image = self.input_image(source, region, size)?;
            // The image of the next view may overwrite this one.
            if copies { copy_of(&image) } else { Ok(image) }
        })?;
        let views = (self.runner.reference_encoder())(&views)?;
        Ok(EncodedReference { network: self.network.clone(), purpose, ids, views, crop })
    }

    /// Returns whether a reference with at least one object is set.
    pub fn has_reference(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Returns the ids of the tracked objects in the mask.
    pub fn object_ids(&self) -> &[u8] {
        &self.ids
    }

    /// Restarts tracking from the first reference, as after a seek. References that were added stay in use.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn restart(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.reset();
        self.runner.restart()
    }

    /// Removes the reference.
    pub fn clear(&mut self) {
        self.runner.clear();
        self.ids.clear();
        self.reference_crop = None;
        self.reset();
    }

    /// Discards everything learnt from the frames since the reference.
    fn reset(&mut self) {
        let objects = self.ids.len();
        self.progress = Progress {
            last_crop: self.reference_crop,
            next_crop: None,
            roi_planner: RoiPlanner::new(self.input_sizes.follows_region()),
            presence_detector: PresenceDetector::new(objects),
            distractors: DistractorFilter::new(objects),
            object_stats: Vec::new(),
            memory_gate: MemoryGate::new(objects),
        };
        self.progress.next_crop = self.at_present_size(self.reference_crop);
        self.interruptions = Interruptions::default();
    }

    /// Returns the current state for [`restore_state`](Self::restore_state), or `None` without a reference.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn save_state(&self) -> Result<Option<TrackerState>> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let Some(runner) = self.runner.save()? else { return Ok(None) };
        Ok(Some(TrackerState { runner, progress: self.progress.clone() }))
    }

    /// Restores a saved state of the present reference. Scenes before earlier interruptions are forgotten.
    ///
    /// # Errors
    /// [`Error::NoReference`] without a reference, and errors of libtorch.
    pub fn restore_state(&mut self, state: &TrackerState) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.runner.restore(&state.runner)?;
        self.progress = state.progress.clone();
        self.progress.next_crop = self.at_present_size(self.progress.next_crop);
        self.interruptions = Interruptions::default();
        Ok(())
    }

    /// Searches the whole of the next frame, of width and height `frame`, because the objects may be anywhere in
    /// it.
    pub fn search_whole_frame(&mut self, frame: (usize, usize)) {
        if self.has_reference() {
            self.progress.next_crop = Some(self.whole(frame));
        }
    }

    /// Prepares for the first frame after a reference from another one, in which the objects may be anywhere. If they are not
    /// where they were, the next step with this frame starts from the places that resemble them.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn relocate(&mut self, source: &mut dyn FrameSource) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        match self.finds_in_place(source)? {
            true => Ok(()),
            false => self.start_from_likeness(source),
        }
    }

    /// Starts again from the places of a frame that resemble the objects.
    fn start_from_likeness(&mut self, source: &mut dyn FrameSource) -> Result<()> {
        let frame = source.size();
        self.reset();
        self.runner.restart()?;
        self.search_whole_frame(frame);
        self.begin_frame();
        self.attempt(source, None)?;
        self.runner.relocate()?;
        let crop = self.progress.last_crop;
        self.reset();
        self.progress.last_crop = crop;
        self.search_whole_frame(frame);
        Ok(())
    }

    /// As [`relocate`](Self::relocate), after a reference that was added. If an object is not found, the next step starts from the
    /// added mask and searches the whole frame.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn relocate_added(&mut self, source: &mut dyn FrameSource) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let before = self.save_state()?;
        if self.finds_in_place(source)? {
            return Ok(());
        }
        if self.progress.object_stats.iter().all(|object| object.bounds.is_some()) {
            return self.start_from_likeness(source);
        }
        if let Some(before) = before {
            self.restore_state(&before)?;
        }
        self.search_whole_frame(source.size());
        Ok(())
    }

    /// Tracks a frame and returns whether all objects are certainly found in the region where they were.
    fn finds_in_place(&mut self, source: &mut dyn FrameSource) -> Result<bool> {
        let frame = source.size();
        self.begin_frame();
        let CropMasks { crop, .. } = self.attempt(source, None)?;
        self.plan_roi(crop);
        let is_inside =
            crop.region == Region::whole(frame) || self.progress.roi_planner.accepts(crop.region, frame);
        Ok(is_inside && self.is_trusted() && self.confidence() >= MIN_IN_PLACE)
    }

    /// Returns whether [`prefetch`](Self::prefetch) is supported and enabled.
    pub fn can_prefetch(&self) -> bool {
        self.runner.can_prefetch()
    }

    /// Starts to encode the frame after the next on another thread.
    ///
    /// Returns `None` without [`Options::frame_threading`], on a GPU, for the paper's network, and without a
    /// reference.
    ///
    /// # Errors
    /// The frame cannot be converted.
    pub fn prefetch(&mut self, source: &mut dyn FrameSource) -> Result<Option<Prefetched>> {
        let frame = source.size();
        let Some(crop) = self.progress.next_crop.filter(|_| self.can_prefetch()) else { return Ok(None) };
        let crop = crop.of(frame);
        let _no_grad = tch::no_grad_guard();
        let _team = self.packed.then(TeamGuard::new);
        let image = self.input_image(source, crop.region, crop.size)?;
        Ok(self.runner.prefetch(image).map(|encoding| Prefetched { crop, encoding }))
    }

    /// Returns the matte of the next frame. The size of frames may change.
    ///
    /// # Errors
    /// [`Error::NoReference`] before [`set_reference`](Self::set_reference), and errors of libtorch and of the
    /// conversion of the frame.
    pub fn step(&mut self, source: &mut dyn FrameSource) -> Result<Matte> {
        self.step_from(source, None)
    }

    /// Like [`step`](Self::step), with the result of [`prefetch`](Self::prefetch) for the same frame.
    ///
    /// Its crop window was planned before the previous frame was processed. If the objects have reached the border
    /// of that window since, the prefetched encoding is discarded.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn step_from(
        &mut self,
        source: &mut dyn FrameSource,
        prefetched: Option<Prefetched>,
    ) -> Result<Matte> {
        let _no_grad = tch::no_grad_guard();
        let crop = self.progress.next_crop.ok_or(Error::NoReference)?;
        let frame = source.size();
        let _current = self.enter()?;
        self.begin_frame();
        let thumbnail = Thumbnail::of(source)?;
        let mut before = if self.is_trusted() { self.save_state()? } else { None };
        let mut interruptions = std::mem::take(&mut self.interruptions);
        let continuity = interruptions.update(&thumbnail, &mut before);
        let step = match continuity {
            Continuity::Blank => self.skip(crop.of(frame)),
            Continuity::Same | Continuity::Cut => {
                self.recover(source, prefetched, continuity, &mut interruptions)
            }
        };
        if let Some(before) = before.filter(|_| continuity == Continuity::Same && !self.is_trusted()) {
            interruptions.save_vanished(before);
        }
        self.interruptions = interruptions;
        let CropMasks { masks, crop } = step?;
        let matte = self.matte(&masks, crop)?;
        self.plan_roi(crop);
        Ok(matte)
    }

    /// Returns whether every object was found in the last frame with about its mean size.
    fn is_trusted(&self) -> bool {
        let area = |crop: CropWindow| {
            let pixels = |(width, height): (usize, usize)| (width * height).max(1) as f64;
            pixels((crop.region.width, crop.region.height)) / pixels(crop.frame)
        };
        let share = self.progress.last_crop.map_or(1.0, area);
        let mut objects = self.progress.object_stats.iter().zip(self.progress.distractors.sizes());
        !self.progress.object_stats.is_empty()
            && objects.all(|(object, size)| {
                object.bounds.is_some()
                    && size.is_none_or(|size| object.area * share >= MIN_TRUSTED_SIZE * size)
            })
    }

    /// Processes a frame that may follow an interruption: tries the saved states and continues with the most
    /// confident one, or with the present state if none finds the objects. States of other scenes are tried only if
    /// those of the present one find nothing, because they may find look-alikes.
    fn recover(
        &mut self,
        source: &mut dyn FrameSource,
        prefetched: Option<Prefetched>,
        continuity: Continuity,
        interruptions: &mut Interruptions,
    ) -> Result<CropMasks> {
        let candidates = interruptions.candidates();
        if candidates.is_empty() {
            return self.attempt(source, prefetched);
        }
        drop(prefetched);
        let unrelated = interruptions.is_unrelated();
        let Some(present) = self.save_state()? else { return Err(Error::NoReference) };
        let mut best: Option<(f64, CropMasks, TrackerState, bool)> = None;
        for (candidate, same_scene) in candidates {
            if !same_scene && best.as_ref().is_some_and(|(.., same_scene)| *same_scene) {
                break;
            }
            for search in [false, true] {
                self.restore_state(candidate)?;
                self.progress.distractors.distrust(unrelated);
                if search {
                    self.runner.forget_masks()?;
                    self.progress.next_crop = self.progress.next_crop.map(|crop| self.whole(crop.frame));
                }
                let output = self.attempt(source, None)?;
                let score = if self.is_trusted() { self.confidence() } else { 0.0 };
                if score > 0.0
                    && best.as_ref().is_none_or(|(best, ..)| score > *best)
                    && let Some(state) = self.save_state()?
                {
                    // The next attempt may overwrite the masks.
                    let masks =
                        if self.runner.reuses_memory() { copy_of(&output.masks)? } else { output.masks };
                    best = Some((score, CropMasks { masks, ..output }, state, same_scene));
                }
            }
        }
        if let Some((_, output, state, _)) = best {
            self.restore_state(&state)?;
            self.progress.distractors.trust();
            interruptions.settle();
            return Ok(output);
        }
        self.restore_state(&present)?;
        if continuity == Continuity::Cut {
            self.progress.distractors.distrust(unrelated);
            self.runner.forget_masks()?;
            self.progress.next_crop = self.progress.next_crop.map(|crop| self.whole(crop.frame));
        }
        self.attempt(source, None)
    }

    /// Returns the crop window of a whole frame, in which objects are searched.
    fn whole(&self, frame: (usize, usize)) -> CropWindow {
        let region = Region::whole(frame);
        CropWindow { region, frame, size: self.input_sizes.for_search(region) }
    }

    /// Returns empty masks for a blank frame, without running the network.
    fn skip(&mut self, crop: CropWindow) -> Result<CropMasks> {
        let objects = self.ids.len();
        let (height, width) = crop.size;
        let masks = Tensor::f_zeros([objects as i64, 1, height, width], (Kind::Float, self.device))?;
        self.progress.object_stats = vec![ObjectStats::default(); objects];
        self.progress.presence_detector.update(&mut self.progress.object_stats);
        Ok(CropMasks { masks, crop })
    }

    /// Runs a step from the present state.
    fn attempt(&mut self, source: &mut dyn FrameSource, prefetched: Option<Prefetched>) -> Result<CropMasks> {
        let frame = source.size();
        let of = |crop: Option<CropWindow>| crop.map(|crop| crop.of(frame)).ok_or(Error::NoReference);
        let (before, wanted) = (of(self.progress.last_crop)?, of(self.progress.next_crop)?);
        let prefetched = prefetched.filter(|prefetched| {
            prefetched.crop == wanted || self.progress.roi_planner.accepts(prefetched.crop.region, frame)
        });
        let (crop, input) = match prefetched {
            Some(Prefetched { crop, encoding }) => (crop, StepInput::Prefetched(encoding)),
            None => (wanted, StepInput::Image(self.input_image(source, wanted.region, wanted.size)?)),
        };
        if crop != before {
            self.runner.move_crop_window(before.part(crop.region), crop.size)?;
        }
        self.progress.last_crop = Some(crop);
        let StepOutput { masks, likeness, stats } = self.runner.step(input)?;
        // The only wait for the device, unless components are removed.
        let stats = FrameStats::read(&stats, &masks, &likeness)?;
        if let Some(upload) = &mut self.upload {
            upload.mark_synchronised();
        }
        let masks = match self.progress.distractors.filter_components(&stats, crop) {
            None => {
                self.progress.object_stats = stats.objects();
                masks
            }
            Some(keep) => {
                let masks = DistractorFilter::remove_components(&masks, &keep)?;
                self.progress.object_stats = object_stats::gather(&masks, &likeness)?;
                masks
            }
        };
        let found: Vec<bool> = self.progress.object_stats.iter().map(|object| object.area > 0.0).collect();
        let (masks, seen) = match self.progress.presence_detector.update(&mut self.progress.object_stats) {
            None => (masks, found),
            Some(share) => {
                let seen = found.iter().zip(&share).map(|(&found, &share)| found && share > 0.0).collect();
                let share = Tensor::f_from_slice(&share)?.f_reshape([-1, 1, 1, 1])?;
                (masks.f_mul(&share.f_to_device(self.device)?)?, seen)
            }
        };
        let sights = self.progress.memory_gate.update(&self.progress.object_stats, &seen);
        self.runner.observe(&masks, &sights)?;
        Ok(CropMasks { masks, crop })
    }

    /// Returns a matte that owns its memory.
    fn matte(&self, masks: &Tensor, crop: CropWindow) -> Result<Matte> {
        let masks = match &self.gpu {
            _ if self.runner.reuses_memory() => &copy_of(masks)?,
            None => &masks.f_to_device(Device::Cpu)?,
            Some(_) => masks,
        };
        let enlarger = self.gpu.clone().map(|gpu| gpu as Arc<dyn DeviceEnlarger>);
        let matte = Matte::new(masks, &self.ids, crop.region, crop.frame)?;
        Ok(matte.with_enlarger(enlarger).with_refiner(self.runner.refiner()))
    }

    fn enter(&self) -> Result<(Option<StreamGuard>, Option<TeamGuard>)> {
        let stream = self.gpu.as_ref().map_or(Ok(None), |gpu| gpu.enter())?;
        Ok((stream, self.packed.then(TeamGuard::new)))
    }

    fn begin_frame(&mut self) {
        if let Some(upload) = &mut self.upload {
            upload.begin();
        }
    }

    /// Returns the presence of the objects in the last frame.
    pub fn presence(&self) -> Presence {
        self.progress.presence_detector.presence()
    }

    /// Returns for each object whether it is in the picture, in the order of [`object_ids`](Self::object_ids).
    pub fn present(&self) -> impl Iterator<Item = bool> + '_ {
        self.progress.presence_detector.present()
    }

    /// Returns the statistics of each object in the last frame, in the order of [`object_ids`](Self::object_ids).
    pub fn object_stats(&self) -> &[ObjectStats] {
        &self.progress.object_stats
    }

    /// Bounding box of each object in the last frame, in pixels, in the order of [`object_ids`](Self::object_ids). `None`
    /// for an object that is not visible. Empty before the first step.
    pub fn object_regions(&self) -> Vec<Option<Region>> {
        let Some(CropWindow { region, frame: (width, height), .. }) = self.progress.last_crop else {
            return Vec::new();
        };
        let pixels = |bounds: Bounds| {
            let bounds = bounds.to_frame(region, (width, height));
            // At least one pixel.
            let axis = |from: f64, to: f64, length: usize| {
                let at = |position: f64| (position * length as f64).round().max(0.0) as usize;
                let first = at(from).min(length - 1);
                (first, at(to).clamp(first + 1, length) - first)
            };
            let ((x, width), (y, height)) =
                (axis(bounds.left, bounds.right, width), axis(bounds.top, bounds.bottom, height));
            Region { x, y, width, height }
        };
        self.progress.object_stats.iter().map(|object| object.bounds.map(pixels)).collect()
    }

    /// Returns the mean expected region similarity (intersection over union) of the masks of the last frame, 0 to
    /// 1; 0 without masks.
    pub fn confidence(&self) -> f64 {
        let (sum, count) = self
            .progress
            .object_stats
            .iter()
            .filter(|object| object.bounds.is_some())
            .fold((0.0, 0), |(sum, count), object| (sum + object.confidence, count + 1));
        sum / f64::from(count.max(1))
    }

    /// Plans the crop window of the next frame after one processed with `crop`.
    fn plan_roi(&mut self, crop: CropWindow) {
        let current = self.progress.next_crop.map_or(crop, |next| next.of(crop.frame));
        // A lost object may be anywhere.
        let visible =
            self.progress.object_stats.iter().filter_map(|object| object.bounds).reduce(Bounds::join);
        let visible = visible.filter(|_| !self.progress.presence_detector.any_lost());
        let bounds = visible.map(|bounds| bounds.to_frame(crop.region, crop.frame));
        let region = match self.roi {
            Roi::Auto | Roi::Frame => self.progress.roi_planner.next(current.region, bounds, crop.frame),
            Roi::Off => Region::whole(crop.frame),
        };
        let size = match bounds {
            Some(_) => self.input_sizes.of(region),
            None => self.input_sizes.for_search(region),
        };
        self.progress.next_crop = Some(CropWindow { region, size, ..crop });
    }

    fn input_image(
        &mut self,
        source: &mut dyn FrameSource,
        region: Region,
        size: (i64, i64),
    ) -> Result<Tensor> {
        if let (Some(gpu), Some(upload)) = (&self.gpu, &mut self.upload)
            && let Some(planes) = source.planes()
        {
            return upload.image(&planes, region, size, self.kind, gpu);
        }
        let picture = source.crop(region, (size.1 as usize, size.0 as usize))?;
        reference::input_image(&picture, size, (self.kind, self.device))
    }
}
