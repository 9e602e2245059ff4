//! Follows the objects of a reference mask from picture to picture: what the element and evaluation
//! both drive.

mod build;
mod crop;
mod distractors;
mod frame_stats;
mod input_image;
mod input_size;
mod interruption;
mod object_stats;
mod options;
mod prefetch;
mod presence;
mod roi;
mod runner;
mod thumbnail;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use self::build::Freed;
use self::crop::CropWindow;
use self::distractors::DistractorFilter;
use self::frame_stats::FrameStats;
use self::input_size::InputSizes;
use self::interruption::{Continuity, Interruptions};
pub use self::object_stats::ObjectStats;
pub use self::options::{Launch, Options, Roi};
pub use self::presence::Presence;
use self::presence::PresenceDetector;
use self::roi::{Bounds, RoiPlanner};
use self::runner::{ModelRunner, StepInput, StepOutput};
use self::thumbnail::Thumbnail;
use crate::cuda::{Current, Memory};
use crate::device::Precision;
use crate::gpu::{Gpu, Upload};
use crate::image::{Region, Scene};
use crate::mask::ReferenceMask;
use crate::matte::{DeviceEnlarger, DeviceFrame, Matte, mask_planes, shrink};
use crate::model::Config;
use crate::model::layers::copy_of;
use crate::{Error, Result, threads};

/// Objects followed at the same time at the most.
pub const MAX_OBJECTS: usize = 16;

/// The masks of a step and where they are.
struct CropMasks {
    masks: Tensor,
    crop: CropWindow,
}

/// Share of its usual size that an object has at least in a state that is worth keeping.
const MIN_TRUSTED_SIZE: f64 = 0.3;

/// A regressor with its reference and recurrent state.
pub struct Tracker {
    runner: Box<dyn ModelRunner>,
    ids: Vec<u8>,
    config: Config,
    device: Device,
    kind: Kind,
    device_warning: Option<String>,
    roi: Roi,
    input_sizes: InputSizes,
    roi_planner: RoiPlanner,
    /// Of the reference, of the frame that was seen last, and of the next to be looked at.
    reference_crop: Option<CropWindow>,
    last_crop: Option<CropWindow>,
    next_crop: Option<CropWindow>,
    presence_detector: PresenceDetector,
    distractors: DistractorFilter,
    object_stats: Vec<ObjectStats>,
    interruptions: Interruptions,
    warm: Duration,
    /// Nothing where the network runs on the CPU as it comes.
    gpu: Option<Arc<Gpu>>,
    upload: Option<Upload>,
    launch_warning: Option<String>,
    /// Threads of libtorch for the prefetch thread; 0 leaves the number as it is.
    prefetch_threads: Arc<AtomicU32>,
    /// The last field: it is dropped when all tensors have been.
    _memory: Freed,
}

/// All of a [`Tracker`] that changes from frame to frame.
pub struct TrackerState {
    runner: runner::SavedState,
    last_crop: Option<CropWindow>,
    next_crop: Option<CropWindow>,
    roi_planner: RoiPlanner,
    presence_detector: PresenceDetector,
    distractors: DistractorFilter,
    object_stats: Vec<ObjectStats>,
}

impl std::fmt::Debug for TrackerState {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("TrackerState").field("crop", &self.next_crop).finish_non_exhaustive()
    }
}

/// A frame looked at before its turn, in the place where that was expected to be.
pub struct Prefetched {
    crop: CropWindow,
    encoding: runner::PrefetchedEncoding,
}

impl std::fmt::Debug for Prefetched {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Prefetched").field("crop", &self.crop).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Tracker")
            .field("config", &self.config)
            .field("device", &self.device)
            .field("kind", &self.kind)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

impl Tracker {
    /// Sets how many threads libtorch uses on the CPU for calls from this thread and for prefetching; 0 leaves the
    /// number as it is. Other threads of the process keep theirs.
    pub fn set_threads(&mut self, count: u32) {
        threads::set_for_this_thread(count);
        self.prefetch_threads.store(count, Ordering::Relaxed);
    }

    /// The network's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// "cpu" or "cuda:N".
    pub fn active_device(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".into(),
        }
    }

    /// float32, bfloat16 or float16.
    pub fn active_precision(&self) -> Precision {
        match self.kind {
            Kind::BFloat16 => Precision::Bfloat16,
            Kind::Half => Precision::Float16,
            _ => Precision::Float32,
        }
    }

    /// Why `auto` took the CPU, if it did.
    pub fn device_warning(&self) -> Option<&str> {
        self.device_warning.as_deref()
    }

    /// Why work is handed to the GPU bit by bit, though it should be recorded and replayed; said once.
    pub fn take_launch_warning(&mut self) -> Option<String> {
        self.launch_warning.take().or_else(|| self.runner.take_failure())
    }

    /// What libtorch has of a GPU's memory, where that can be told.
    pub fn memory(&self) -> Option<Memory> {
        match (self.device, self.gpu.as_ref()?.shim()?) {
            (Device::Cuda(index), shim) => shim.memory(index).ok(),
            _ => None,
        }
    }

    /// How long a step took on an empty picture, before there was any other.
    pub fn expected_time(&self) -> Duration {
        self.warm
    }

    /// Width and height in pixels of the network; where it looks in another shape, in about as many pixels.
    pub fn network_size(&self) -> (usize, usize) {
        let (height, width) = self.config.size();
        (width as usize, height as usize)
    }

    /// Sets the reference: a picture and the mask drawn on it, scaled to the picture if it is of another
    /// size. Tracking starts anew from there.
    ///
    /// # Errors
    /// [`Error::Config`] for more than [`MAX_OBJECTS`] objects; the old reference then stays.
    pub fn set_reference(&mut self, scene: &mut dyn Scene, mask: &ReferenceMask) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let objects = mask.objects();
        if objects.len() > MAX_OBJECTS {
            return Err(Error::Config(format!(
                "the mask has {} objects; at most {MAX_OBJECTS} can be followed",
                objects.len()
            )));
        }
        let masks = mask_planes(mask)?;
        let drawn_on = (mask.width(), mask.height());
        let frame = scene.size();
        let bounds = bounds(&object_stats::gather(&masks, &masks.f_zeros_like()?)?);
        let region = match self.roi {
            Roi::Auto | Roi::Frame => self.roi_planner.begin(bounds, frame),
            Roi::Off => Region::whole(frame),
        };
        let mut regions = vec![region];
        if region != Region::whole(frame) {
            // What is outside of the region now may come into it later, and is no object.
            regions.push(Region::whole(frame));
        }
        let mut views = Vec::with_capacity(regions.len());
        self.begin_frame();
        for region in regions {
            let part = region.scaled(frame, drawn_on);
            let masks = masks.f_narrow(2, part.y as i64, part.height as i64)?.f_narrow(
                3,
                part.x as i64,
                part.width as i64,
            )?;
            let size @ (height, width) = self.input_sizes.of(region);
            let masks = shrink(&masks, height, width)?.f_to_device(self.device)?;
            let image = self.input_image(scene, region, size)?;
            // The next look may be in the same place.
            views.push((if self.runner.reuses_memory() { copy_of(&image)? } else { image }, masks));
        }
        self.runner.set_reference(&views)?;
        self.ids = objects.iter().map(|object| object.id).collect();
        self.reference_crop = Some(CropWindow { region, frame, size: self.input_sizes.of(region) });
        self.object_stats.clear();
        self.begin_anew();
        Ok(())
    }

    /// Whether there is something to follow.
    pub fn has_reference(&self) -> bool {
        !self.ids.is_empty()
    }

    /// Ids of the objects followed, as the mask has them.
    pub fn object_ids(&self) -> &[u8] {
        &self.ids
    }

    /// Tracking starts again from the reference, as after a seek.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn restart(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.begin_anew();
        self.runner.restart()
    }

    /// Forgets the reference.
    pub fn clear(&mut self) {
        self.runner.clear();
        self.ids.clear();
        self.object_stats.clear();
        self.reference_crop = None;
        self.begin_anew();
    }

    /// All that was learnt from the frames since the reference is forgotten.
    fn begin_anew(&mut self) {
        (self.last_crop, self.next_crop) = (self.reference_crop, self.reference_crop);
        self.roi_planner = RoiPlanner::new(self.input_sizes.follow());
        self.presence_detector = PresenceDetector::new(self.ids.len());
        self.distractors = DistractorFilter::new(self.ids.len());
        self.interruptions = Interruptions::default();
        self.object_stats.clear();
    }

    /// The state that changes from frame to frame, for [`restore_state`](Self::restore_state); nothing without a
    /// reference.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn save_state(&self) -> Result<Option<TrackerState>> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let Some(runner) = self.runner.save()? else { return Ok(None) };
        Ok(Some(TrackerState {
            runner,
            last_crop: self.last_crop,
            next_crop: self.next_crop,
            roi_planner: self.roi_planner.clone(),
            presence_detector: self.presence_detector.clone(),
            distractors: self.distractors.clone(),
            object_stats: self.object_stats.clone(),
        }))
    }

    /// Goes on from a saved state of the present reference.
    ///
    /// # Errors
    /// An error of libtorch, and [`Error::NoReference`] without a reference.
    pub fn restore_state(&mut self, state: &TrackerState) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.runner.restore(&state.runner)?;
        (self.last_crop, self.next_crop) = (state.last_crop, state.next_crop);
        self.roi_planner = state.roi_planner.clone();
        self.presence_detector = state.presence_detector.clone();
        self.distractors = state.distractors.clone();
        self.object_stats = state.object_stats.clone();
        Ok(())
    }

    /// The whole of the next picture is looked at, whose width and height are `frame`: the objects may be far from where
    /// they were last.
    pub fn look_everywhere(&mut self, frame: (usize, usize)) {
        let region = Region::whole(frame);
        if self.has_reference() {
            self.next_crop = Some(CropWindow { region, frame, size: self.input_sizes.of(region) });
        }
    }

    /// Whether [`prefetch`](Self::prefetch) is of any use.
    pub fn can_prefetch(&self) -> bool {
        self.runner.can_prefetch()
    }

    /// Begins with the picture after the next on another thread: all of it that does not depend on the next. Nothing
    /// without [`Options::frame_threading`], on a GPU, for the paper's network, and as long as there is no reference.
    ///
    /// # Errors
    /// A picture that cannot be converted.
    pub fn prefetch(&mut self, scene: &mut dyn Scene) -> Result<Option<Prefetched>> {
        let frame = scene.size();
        let Some(crop) = self.next_crop.filter(|_| self.can_prefetch()) else { return Ok(None) };
        let crop = crop.of(frame);
        let _no_grad = tch::no_grad_guard();
        let image = self.input_image(scene, crop.region, crop.size)?;
        Ok(self.runner.prefetch(image).map(|encoding| Prefetched { crop, encoding }))
    }

    /// The masks of the next picture. A change of size is no matter.
    ///
    /// # Errors
    /// [`Error::NoReference`] before [`set_reference`](Self::set_reference).
    pub fn step(&mut self, scene: &mut dyn Scene) -> Result<Matte> {
        self.step_from(scene, None)
    }

    /// As [`step`](Self::step), with what [`prefetch`](Self::prefetch) gave for the same picture. It is seen where
    /// the objects were expected before anything was known of the picture in between, unless they have come to the
    /// border there; then that look was in vain.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn step_from(&mut self, scene: &mut dyn Scene, prefetched: Option<Prefetched>) -> Result<Matte> {
        let _no_grad = tch::no_grad_guard();
        let crop = self.next_crop.ok_or(Error::NoReference)?;
        let frame = scene.size();
        let _current = self.enter()?;
        self.begin_frame();
        let thumbnail = Thumbnail::of(scene)?;
        let mut before = if self.is_trusted() { self.save_state()? } else { None };
        let mut interruptions = std::mem::take(&mut self.interruptions);
        let continuity = interruptions.update(&thumbnail, &mut before);
        let step = match continuity {
            Continuity::Blank => self.skip(crop.of(frame)),
            Continuity::Same | Continuity::Cut => {
                self.recover(scene, prefetched, continuity, &mut interruptions)
            }
        };
        if let Some(before) = before.filter(|_| continuity == Continuity::Same && !self.is_trusted()) {
            interruptions.vanished(before);
        }
        self.interruptions = interruptions;
        let CropMasks { masks, crop } = step?;
        let matte = self.matte(&masks, crop)?;
        self.plan_roi(crop);
        Ok(matte)
    }

    /// Whether every object was found in the last frame, about as large as it usually is.
    fn is_trusted(&self) -> bool {
        let area = |crop: CropWindow| {
            let pixels = |(width, height): (usize, usize)| (width * height).max(1) as f64;
            pixels((crop.region.width, crop.region.height)) / pixels(crop.frame)
        };
        let share = self.last_crop.map_or(1.0, area);
        let mut objects = self.object_stats.iter().zip(self.distractors.sizes());
        !self.object_stats.is_empty()
            && objects.all(|(objects, size)| {
                objects.bounds.is_some()
                    && size.is_none_or(|size| objects.area * share >= MIN_TRUSTED_SIZE * size)
            })
    }

    /// A step on a frame that may follow an interruption: of the ways to go on, the one that finds the objects.
    fn recover(
        &mut self,
        scene: &mut dyn Scene,
        prefetched: Option<Prefetched>,
        continuity: Continuity,
        interruptions: &mut Interruptions,
    ) -> Result<CropMasks> {
        let candidates = interruptions.candidates();
        if candidates.is_empty() {
            return self.attempt(scene, prefetched);
        }
        drop(prefetched);
        let unrelated = interruptions.is_unrelated();
        let Some(present) = self.save_state()? else { return Err(Error::NoReference) };
        let mut best: Option<(f64, CropMasks, TrackerState)> = None;
        for candidate in candidates {
            for search in [false, true] {
                self.restore_state(candidate)?;
                self.distractors.distrust(unrelated);
                if search {
                    self.runner.forget_masks()?;
                    self.next_crop = self.next_crop.map(|crop| self.whole(crop));
                }
                let output = self.attempt(scene, None)?;
                let score = if self.is_trusted() { self.confidence() } else { 0.0 };
                if score > 0.0
                    && best.as_ref().is_none_or(|(best, ..)| score > *best)
                    && let Some(state) = self.save_state()?
                {
                    // The next attempt may write into the same memory.
                    let masks =
                        if self.runner.reuses_memory() { copy_of(&output.masks)? } else { output.masks };
                    best = Some((score, CropMasks { masks, ..output }, state));
                }
            }
        }
        if let Some((_, output, state)) = best {
            self.restore_state(&state)?;
            self.distractors.trust();
            interruptions.settle();
            return Ok(output);
        }
        self.restore_state(&present)?;
        if continuity == Continuity::Cut {
            self.distractors.distrust(unrelated);
            self.runner.forget_masks()?;
            self.next_crop = self.next_crop.map(|crop| self.whole(crop));
        }
        self.attempt(scene, None)
    }

    /// The whole of the frame that `crop` is part of.
    fn whole(&self, crop: CropWindow) -> CropWindow {
        let region = Region::whole(crop.frame);
        CropWindow { region, size: self.input_sizes.of(region), ..crop }
    }

    /// A frame that shows nothing: no object is in it, and nothing is learnt from it.
    fn skip(&mut self, crop: CropWindow) -> Result<CropMasks> {
        let objects = self.ids.len();
        let (height, width) = crop.size;
        let masks = Tensor::f_zeros([objects as i64, 1, height, width], (Kind::Float, self.device))?;
        self.object_stats = vec![ObjectStats::default(); objects];
        self.presence_detector.update(&mut self.object_stats);
        Ok(CropMasks { masks, crop })
    }

    /// A step from the present state.
    fn attempt(&mut self, scene: &mut dyn Scene, prefetched: Option<Prefetched>) -> Result<CropMasks> {
        let frame = scene.size();
        let of = |crop: Option<CropWindow>| crop.map(|crop| crop.of(frame)).ok_or(Error::NoReference);
        let (before, wanted) = (of(self.last_crop)?, of(self.next_crop)?);
        let prefetched = prefetched.filter(|prefetched| {
            prefetched.crop == wanted || self.roi_planner.accepts(prefetched.crop.region, frame)
        });
        let (crop, input) = match prefetched {
            Some(Prefetched { crop, encoding }) => (crop, StepInput::Prefetched(encoding)),
            None => (wanted, StepInput::Image(self.input_image(scene, wanted.region, wanted.size)?)),
        };
        if crop != before {
            self.runner.reframe(before.part(crop.region), crop.size)?;
        }
        self.last_crop = Some(crop);
        let StepOutput { masks, likeness, stats } = self.runner.step(input)?;
        // The one wait for the device, unless parts are taken out.
        let stats = FrameStats::read(&stats, &masks, &likeness)?;
        if let Some(upload) = &mut self.upload {
            upload.arrived();
        }
        let masks = match self.distractors.filter_components(&stats, crop) {
            None => {
                self.object_stats = stats.objects();
                masks
            }
            Some(keep) => {
                let masks = DistractorFilter::remove_components(&masks, &keep)?;
                self.object_stats = object_stats::gather(&masks, &likeness)?;
                masks
            }
        };
        let found: Vec<bool> = self.object_stats.iter().map(|objects| objects.area > 0.0).collect();
        let (masks, seen) = match self.presence_detector.update(&mut self.object_stats) {
            None => (masks, found),
            Some(share) => {
                let seen = found.iter().zip(&share).map(|(&found, &share)| found && share > 0.0).collect();
                let share = Tensor::f_from_slice(&share)?.f_reshape([-1, 1, 1, 1])?;
                (masks.f_mul(&share.f_to_device(self.device)?)?, seen)
            }
        };
        self.runner.observe(&masks, &seen)?;
        Ok(CropMasks { masks, crop })
    }

    /// A matte of its own memory.
    fn matte(&self, masks: &Tensor, crop: CropWindow) -> Result<Matte> {
        let masks = if self.runner.reuses_memory() { &copy_of(masks)? } else { masks };
        let matte = Matte::new(masks, &self.ids, crop.region, crop.frame)?;
        let (Some(gpu), Some(upload)) = (&self.gpu, &self.upload) else { return Ok(matte) };
        Ok(matte.with_device_frame(DeviceFrame { gpu: gpu.clone(), guide: upload.guide()? }))
    }

    fn enter(&self) -> Result<Option<Current>> {
        self.gpu.as_ref().map_or(Ok(None), |gpu| gpu.enter())
    }

    fn begin_frame(&mut self) {
        if let Some(upload) = &mut self.upload {
            upload.begin();
        }
    }

    /// Whether the objects are to be seen, as far as the last [`step`](Self::step) tells.
    pub fn presence(&self) -> Presence {
        self.presence_detector.presence()
    }

    /// Whether each object is in the picture, in the order of [`object_ids`](Self::object_ids).
    pub fn present(&self) -> impl Iterator<Item = bool> + '_ {
        self.presence_detector.present()
    }

    /// What the last [`step`](Self::step) found of each object, in the order of
    /// [`object_ids`](Self::object_ids).
    pub fn object_stats(&self) -> &[ObjectStats] {
        &self.object_stats
    }

    /// The region similarity (intersection over union) to be expected of the last [`step`](Self::step)'s masks, 0 to 1,
    /// their mean; 0 where there are none.
    pub fn confidence(&self) -> f64 {
        let (sum, count) = self
            .object_stats
            .iter()
            .filter(|object| object.bounds.is_some())
            .fold((0.0, 0), |(sum, count), object| (sum + object.confidence, count + 1));
        sum / f64::from(count.max(1))
    }

    /// Chooses where to look in pictures to come, after one that was seen with `crop`.
    fn plan_roi(&mut self, crop: CropWindow) {
        let current = self.next_crop.map_or(crop, |next| next.of(crop.frame));
        let region = match self.roi {
            Roi::Auto | Roi::Frame => {
                // A lost object may be anywhere.
                let bounds =
                    if self.presence_detector.any_lost() { None } else { bounds(&self.object_stats) };
                let bounds = bounds.map(|bounds| bounds.of_frame(crop.region, crop.frame));
                self.roi_planner.next(current.region, bounds, crop.frame)
            }
            Roi::Off => Region::whole(crop.frame),
        };
        self.next_crop = Some(CropWindow { region, size: self.input_sizes.of(region), ..crop });
    }

    fn input_image(&mut self, scene: &mut dyn Scene, region: Region, size: (i64, i64)) -> Result<Tensor> {
        if let (Some(gpu), Some(upload)) = (&self.gpu, &mut self.upload)
            && let Some(planes) = scene.planes()
        {
            return upload.image(&planes, region, size, self.kind, gpu);
        }
        let picture = scene.view(region, (size.1 as usize, size.0 as usize))?;
        input_image::input_image(&picture, size, (self.kind, self.device))
    }
}

/// Where the objects are that are seen.
fn bounds(objects: &[ObjectStats]) -> Option<Bounds> {
    objects.iter().filter_map(|objects| objects.bounds).reduce(Bounds::join)
}
