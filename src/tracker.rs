//! Follows the objects of a reference mask from picture to picture: what the element and evaluation
//! both drive.

mod ahead;
mod engine;
mod evidence;
mod focus;
mod gpu;
mod interruption;
mod matte;
mod planes;
mod presence;
mod report;
mod scene;
mod shape;
mod stray;
mod thumbnail;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, nn};

pub use self::evidence::Evidence;
pub use self::matte::Matte;
use self::matte::Shown;
pub use self::planes::{Colors, Component, PlaneFormat, Planes};
pub use self::presence::Presence;
pub use self::scene::{Region, Scene};
use crate::cuda::{Current, Memory, Shim};
use crate::device::{self, DeviceChoice, Precision};
use crate::heap;
use crate::mask::ReferenceMask;
use crate::model::layers::{Part, channels_last};
use crate::model::weights::Weights;
use crate::model::{Config, Lite, Matching, Regressor, Resnet50, blank, prepare};
use crate::replay::{Mode, copy_of};
use crate::{Error, Result, threads};
use ahead::Lookout;
use engine::{Engine, Found, Running, Seen};
use focus::{Bounds, Focus};
use gpu::Gpu;
use interruption::{Continuity, Interruptions};
use presence::Watch;
use report::Report;
use shape::Shapes;
use stray::Stray;
use thumbnail::Thumbnail;
use upload::Upload;

/// Objects followed at the same time at the most.
pub const MAX_OBJECTS: usize = 16;

/// Bytes of a GPU's memory, for every 512x512 pixels of network size, in which cuDNN may look for its fastest
/// algorithms while the network's features are there twice (see `docs/cuda.md`).
const WORKSPACE: u64 = 256 << 20;

/// Packed RGB, one byte a channel, rows `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// `height` rows, the last of which may lack its padding.
    pub data: &'a [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least 3 `width`.
    pub stride: usize,
}

impl Picture<'_> {
    fn check(&self) -> Result<()> {
        let Self { data, width, height, stride } = *self;
        let row = 3 * width;
        if width == 0 || height == 0 || stride < row || data.len() < stride * (height - 1) + row {
            return Err(Error::Config(format!(
                "a picture of {width}x{height} does not fit {} bytes in rows of {stride}",
                data.len()
            )));
        }
        Ok(())
    }
}

/// An 8-bit plane to be written; bytes beyond `width` in a row are left alone.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// `height` rows, the last of which may lack its padding.
    pub data: &'a mut [u8],
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, at least `width`.
    pub stride: usize,
}

/// What to run, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A `.safetensors` file; none is the built-in lite model.
    pub model: Option<PathBuf>,
    /// Where to run it.
    pub device: DeviceChoice,
    /// In what kind of number.
    pub precision: Precision,
    /// Width and height in pixels at which frames enter the network; 0 is the model's own.
    pub network_size: (u32, u32),
    /// Whether to look closely at the objects' surroundings.
    pub roi: Roi,
    /// How its work is handed to the device.
    pub launch: Launch,
    /// Whether [`Tracker::look_ahead`] is to do anything, on a thread of its own.
    pub frame_threading: bool,
}

impl Options {
    /// A model's configuration as it is run.
    fn config(&self, model: &Config) -> Config {
        let mut config = model.clone();
        let (width, height) = self.network_size;
        for (side, wanted) in config.network_size.iter_mut().zip([height, width]) {
            if wanted > 0 {
                *side = i64::from(wanted);
            }
        }
        config
    }
}

/// How work is handed to the device of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Launch {
    /// On a GPU frames go there as they are stored, and all that is done there is recorded once and replayed
    /// by CUDA graphs; on the CPU nothing of the kind.
    #[default]
    Auto,
    /// The same without graphs, on any device: for comparison, and where graphs make trouble.
    Eager,
    /// The same with what is recorded called anew in the place of graphs, on any device: for tests.
    Fixed,
}

impl std::str::FromStr for Launch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "eager" => Ok(Self::Eager),
            "fixed" => Ok(Self::Fixed),
            _ => Err(Error::Config(format!("launch {text:?}: use auto, eager or fixed"))),
        }
    }
}

/// Where the network looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roi {
    /// At the objects' surroundings where that shows more of them, in the shape that suits them; on a GPU, where
    /// shapes must stay as they are, as [`Frame`](Self::Frame).
    #[default]
    Auto,
    /// The same in the shape of the picture.
    Frame,
    /// Always at the whole picture.
    Off,
}

/// The masks of a step and where they are.
struct StepOutput {
    masks: Tensor,
    gaze: Gaze,
}

/// Share of its usual size that an object has at least in a state that is worth keeping.
const MIN_TRUSTED_SIZE: f64 = 0.3;

/// A regressor with its reference and recurrent state.
pub struct Tracker {
    engine: Box<dyn Engine>,
    ids: Vec<u8>,
    config: Config,
    device: Device,
    kind: Kind,
    device_warning: Option<String>,
    roi: Roi,
    shapes: Shapes,
    focus: Focus,
    /// Of the reference, of the frame that was seen last, and of the next to be looked at.
    home: Option<Gaze>,
    seen: Option<Gaze>,
    gaze: Option<Gaze>,
    watch: Watch,
    stray: Stray,
    evidence: Vec<Evidence>,
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

/// Gives back the device's memory when dropped.
struct Freed(Option<Shim>);

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(shim) = &self.0 {
            // What fails now fails for whoever uses the device next.
            let _ = shim.empty_cache();
        }
    }
}

/// All of a [`Tracker`] that changes from frame to frame.
pub struct TrackerState {
    engine: engine::SavedState,
    seen: Option<Gaze>,
    gaze: Option<Gaze>,
    focus: Focus,
    watch: Watch,
    stray: Stray,
    evidence: Vec<Evidence>,
}

impl std::fmt::Debug for TrackerState {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("TrackerState").field("gaze", &self.gaze).finish_non_exhaustive()
    }
}

/// Where the network looks in frames of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gaze {
    region: Region,
    frame: (usize, usize),
    /// Height and width at which the region enters the network.
    size: (i64, i64),
}

impl Gaze {
    /// The same part of frames of another size.
    fn of(self, frame: (usize, usize)) -> Self {
        Self { region: self.region.scaled(self.frame, frame), frame, ..self }
    }

    /// `region` of the same frames in parts of this.
    fn part(&self, region: Region) -> Part {
        let along = |start: usize, length: usize, from: usize, of: usize| {
            ((start as f64 - from as f64) / of as f64, length as f64 / of as f64)
        };
        let (x, width) = along(region.x, region.width, self.region.x, self.region.width);
        let (y, height) = along(region.y, region.height, self.region.y, self.region.height);
        Part { x, y, width, height }
    }
}

/// A frame looked at before its turn, in the place where that was expected to be.
pub struct Ahead {
    gaze: Gaze,
    seen: engine::Ahead,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Ahead").field("gaze", &self.gaze).finish_non_exhaustive()
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
    /// Loads the weights, prepares the network for its device and precision, and runs it once.
    ///
    /// # Errors
    /// A bad weights file, a device that cannot be had, a precision that the device lacks.
    pub fn new(options: &Options) -> Result<Self> {
        let weights = match &options.model {
            Some(path) => Weights::open(path)?,
            None => Weights::built_in()?,
        };
        Self::from_weights(&weights, options)
    }

    /// As [`new`](Self::new), from weights in memory.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn from_weights(weights: &Weights, options: &Options) -> Result<Self> {
        let opened = device::open(options.device)?;
        let device = opened.0;
        Self::on_device(weights, options, opened).map_err(|error| device::with_remedy(error, device))
    }

    fn on_device(
        weights: &Weights,
        options: &Options,
        (device, device_warning): (Device, Option<String>),
    ) -> Result<Self> {
        let Options { precision, roi, launch, .. } = *options;
        let _no_grad = tch::no_grad_guard();
        let config = options.config(weights.config());
        let kind = precision.kind(device)?;
        let mut launch_warning = None;
        let mode = match (launch, device) {
            (Launch::Auto, Device::Cuda(_)) => match Shim::load() {
                Ok(shim) => Mode::Graphs(shim),
                Err(reason) => {
                    launch_warning = Some(format!("no CUDA graphs: {reason}"));
                    Mode::Direct
                }
            },
            (Launch::Auto | Launch::Eager, _) => Mode::Direct,
            (Launch::Fixed, _) => Mode::Fixed,
        };
        let on_cpu = device == Device::Cpu && launch == Launch::Auto;
        let gpu = if on_cpu { None } else { Some(Gpu::new(device, mode.clone())?) };
        let shapes = match (roi, &gpu) {
            (Roi::Auto, None) => Shapes::following(&config),
            _ => Shapes::fixed(&config),
        };
        let upload = gpu.as_ref().map(|_| Upload::new(device, mode.clone()));
        let shim = gpu.as_ref().and_then(|gpu| gpu.shim().cloned());
        let _current = gpu.as_ref().map_or(Ok(None), |gpu| gpu.enter())?;
        if let Device::Cuda(_) = device {
            // Sizes stay the same from frame to frame.
            tch::Cuda::cudnn_set_benchmark(true);
        }
        let prefetch_threads = Arc::new(AtomicU32::new(0));
        let mut store = nn::VarStore::new(Device::Cpu);
        let engine = match config.matching {
            Matching::Affinity => {
                let mut model = blank(|| Lite::new(&store.root(), &config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                let lookout = match options.frame_threading && on_cpu {
                    true => Some(model.handle()?),
                    false => None,
                };
                let running = Running::new(model, mode);
                Box::new(match lookout {
                    Some(model) => running.with_lookout(Lookout::new(
                        move |(image, known)| model.look(&image, &known),
                        prefetch_threads.clone(),
                    )?),
                    None => running,
                }) as Box<dyn Engine>
            }
            Matching::GlobalConvolution => {
                let mut model = blank(|| Resnet50::new(&store.root(), &config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                Box::new(Running::new(model, mode))
            }
        };
        store.freeze();
        let mut tracker = Self {
            engine,
            ids: Vec::new(),
            config,
            device,
            kind,
            device_warning,
            roi,
            focus: Focus::new(shapes.follow()),
            shapes,
            home: None,
            seen: None,
            gaze: None,
            watch: Watch::default(),
            stray: Stray::default(),
            evidence: Vec::new(),
            interruptions: Interruptions::default(),
            warm: Duration::ZERO,
            gpu,
            upload,
            launch_warning,
            prefetch_threads,
            _memory: Freed(shim),
        };
        tracker.warm = tracker.warm_up_frugally()?;
        Ok(tracker)
    }

    /// Warms up with little memory to try out algorithms in, or with all there is if that is too little.
    fn warm_up_frugally(&mut self) -> Result<Duration> {
        let shim = self.gpu.as_ref().and_then(|gpu| gpu.shim().cloned());
        let (Some(shim), Device::Cuda(index)) = (shim, self.device) else { return self.warm_up() };
        let area: i64 = self.config.network_size.iter().product();
        shim.limit(index, Some(WORKSPACE * (area as u64).div_ceil(512 * 512)))?;
        let warm = self.warm_up();
        shim.limit(index, None)?;
        if self.engine.retry() || warm.is_err() { self.warm_up() } else { warm }
    }

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
        self.launch_warning.take().or_else(|| self.engine.take_failure())
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
        let masks = matte::planes(mask)?;
        let drawn_on = (mask.width(), mask.height());
        let frame = scene.size();
        let bounds = bounds(&evidence::gather(&masks, &masks.f_zeros_like()?)?);
        let region = match self.roi {
            Roi::Auto | Roi::Frame => self.focus.begin(bounds, frame),
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
            let size @ (height, width) = self.shapes.of(region);
            let masks = matte::shrink(&masks, height, width)?.f_to_device(self.device)?;
            let image = self.look(scene, region, size)?;
            // The next look may be in the same place.
            views.push((if self.engine.reuses_memory() { copy_of(&image)? } else { image }, masks));
        }
        self.engine.set_reference(&views)?;
        self.ids = objects.iter().map(|object| object.id).collect();
        self.home = Some(Gaze { region, frame, size: self.shapes.of(region) });
        self.evidence.clear();
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
        self.engine.restart()
    }

    /// Forgets the reference.
    pub fn clear(&mut self) {
        self.engine.clear();
        self.ids.clear();
        self.evidence.clear();
        self.home = None;
        self.begin_anew();
    }

    /// All that was learnt from the frames since the reference is forgotten.
    fn begin_anew(&mut self) {
        (self.seen, self.gaze) = (self.home, self.home);
        self.focus = Focus::new(self.shapes.follow());
        self.watch = Watch::new(self.ids.len());
        self.stray = Stray::new(self.ids.len());
        self.interruptions = Interruptions::default();
        self.evidence.clear();
    }

    /// The state that changes from frame to frame, for [`restore_state`](Self::restore_state); nothing without a
    /// reference.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn save_state(&self) -> Result<Option<TrackerState>> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        let Some(engine) = self.engine.save()? else { return Ok(None) };
        Ok(Some(TrackerState {
            engine,
            seen: self.seen,
            gaze: self.gaze,
            focus: self.focus.clone(),
            watch: self.watch.clone(),
            stray: self.stray.clone(),
            evidence: self.evidence.clone(),
        }))
    }

    /// Goes on from a saved state of the present reference.
    ///
    /// # Errors
    /// An error of libtorch, and [`Error::NoReference`] without a reference.
    pub fn restore_state(&mut self, state: &TrackerState) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.engine.restore(&state.engine)?;
        (self.seen, self.gaze) = (state.seen, state.gaze);
        self.focus = state.focus.clone();
        self.watch = state.watch.clone();
        self.stray = state.stray.clone();
        self.evidence = state.evidence.clone();
        Ok(())
    }

    /// The whole of the next picture is looked at, whose width and height are `frame`: the objects may be far from where
    /// they were last.
    pub fn look_everywhere(&mut self, frame: (usize, usize)) {
        let region = Region::whole(frame);
        if self.has_reference() {
            self.gaze = Some(Gaze { region, frame, size: self.shapes.of(region) });
        }
    }

    /// Whether [`look_ahead`](Self::look_ahead) is of any use.
    pub fn looks_ahead(&self) -> bool {
        self.engine.looks_ahead()
    }

    /// Begins with the picture after the next on another thread: all of it that does not depend on the next. Nothing
    /// without [`Options::frame_threading`], on a GPU, for the paper's network, and as long as there is no reference.
    ///
    /// # Errors
    /// A picture that cannot be converted.
    pub fn look_ahead(&mut self, scene: &mut dyn Scene) -> Result<Option<Ahead>> {
        let frame = scene.size();
        let Some(gaze) = self.gaze.filter(|_| self.looks_ahead()) else { return Ok(None) };
        let gaze = gaze.of(frame);
        let _no_grad = tch::no_grad_guard();
        let image = self.look(scene, gaze.region, gaze.size)?;
        Ok(self.engine.look_ahead(image).map(|seen| Ahead { gaze, seen }))
    }

    /// The masks of the next picture. A change of size is no matter.
    ///
    /// # Errors
    /// [`Error::NoReference`] before [`set_reference`](Self::set_reference).
    pub fn step(&mut self, scene: &mut dyn Scene) -> Result<Matte> {
        self.step_from(scene, None)
    }

    /// As [`step`](Self::step), with what [`look_ahead`](Self::look_ahead) gave for the same picture. It is seen where
    /// the objects were expected before anything was known of the picture in between, unless they have come to the
    /// border there; then that look was in vain.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub fn step_from(&mut self, scene: &mut dyn Scene, ahead: Option<Ahead>) -> Result<Matte> {
        let _no_grad = tch::no_grad_guard();
        let gaze = self.gaze.ok_or(Error::NoReference)?;
        let frame = scene.size();
        let _current = self.enter()?;
        self.begin_frame();
        let thumbnail = Thumbnail::of(scene)?;
        let mut before = if self.is_trusted() { self.save_state()? } else { None };
        let mut interruptions = std::mem::take(&mut self.interruptions);
        let continuity = interruptions.update(&thumbnail, &mut before);
        let step = match continuity {
            Continuity::Blank => self.skip(gaze.of(frame)),
            Continuity::Same | Continuity::Cut => self.recover(scene, ahead, continuity, &mut interruptions),
        };
        if let Some(before) = before.filter(|_| continuity == Continuity::Same && !self.is_trusted()) {
            interruptions.vanished(before);
        }
        self.interruptions = interruptions;
        let StepOutput { masks, gaze } = step?;
        let matte = self.matte(&masks, gaze)?;
        self.look_on(gaze);
        Ok(matte)
    }

    /// Whether every object was found in the last frame, about as large as it usually is.
    fn is_trusted(&self) -> bool {
        let area = |gaze: Gaze| {
            let pixels = |(width, height): (usize, usize)| (width * height).max(1) as f64;
            pixels((gaze.region.width, gaze.region.height)) / pixels(gaze.frame)
        };
        let share = self.seen.map_or(1.0, area);
        let mut objects = self.evidence.iter().zip(self.stray.sizes());
        !self.evidence.is_empty()
            && objects.all(|(evidence, size)| {
                evidence.bounds.is_some()
                    && size.is_none_or(|size| evidence.area * share >= MIN_TRUSTED_SIZE * size)
            })
    }

    /// A step on a frame that may follow an interruption: of the ways to go on, the one that finds the objects.
    fn recover(
        &mut self,
        scene: &mut dyn Scene,
        ahead: Option<Ahead>,
        continuity: Continuity,
        interruptions: &mut Interruptions,
    ) -> Result<StepOutput> {
        let candidates = interruptions.candidates();
        if candidates.is_empty() {
            return self.attempt(scene, ahead);
        }
        drop(ahead);
        let unrelated = interruptions.is_unrelated();
        let Some(present) = self.save_state()? else { return Err(Error::NoReference) };
        let mut best: Option<(f64, StepOutput, TrackerState)> = None;
        for candidate in candidates {
            for search in [false, true] {
                self.restore_state(candidate)?;
                self.stray.distrust(unrelated);
                if search {
                    self.engine.forget_masks()?;
                    self.gaze = self.gaze.map(|gaze| self.whole(gaze));
                }
                let output = self.attempt(scene, None)?;
                let score = if self.is_trusted() { self.confidence() } else { 0.0 };
                if score > 0.0
                    && best.as_ref().is_none_or(|(best, ..)| score > *best)
                    && let Some(state) = self.save_state()?
                {
                    // The next attempt may write into the same memory.
                    let masks =
                        if self.engine.reuses_memory() { copy_of(&output.masks)? } else { output.masks };
                    best = Some((score, StepOutput { masks, ..output }, state));
                }
            }
        }
        if let Some((_, output, state)) = best {
            self.restore_state(&state)?;
            self.stray.trust();
            interruptions.settle();
            return Ok(output);
        }
        self.restore_state(&present)?;
        if continuity == Continuity::Cut {
            self.stray.distrust(unrelated);
            self.engine.forget_masks()?;
            self.gaze = self.gaze.map(|gaze| self.whole(gaze));
        }
        self.attempt(scene, None)
    }

    /// The whole of the frame that `gaze` is part of.
    fn whole(&self, gaze: Gaze) -> Gaze {
        let region = Region::whole(gaze.frame);
        Gaze { region, size: self.shapes.of(region), ..gaze }
    }

    /// A frame that shows nothing: no object is in it, and nothing is learnt from it.
    fn skip(&mut self, gaze: Gaze) -> Result<StepOutput> {
        let objects = self.ids.len();
        let (height, width) = gaze.size;
        let masks = Tensor::f_zeros([objects as i64, 1, height, width], (Kind::Float, self.device))?;
        self.evidence = vec![Evidence::default(); objects];
        self.watch.judge(&mut self.evidence);
        Ok(StepOutput { masks, gaze })
    }

    /// A step from the present state.
    fn attempt(&mut self, scene: &mut dyn Scene, ahead: Option<Ahead>) -> Result<StepOutput> {
        let frame = scene.size();
        let of = |gaze: Option<Gaze>| gaze.map(|gaze| gaze.of(frame)).ok_or(Error::NoReference);
        let (before, wanted) = (of(self.seen)?, of(self.gaze)?);
        let ahead = ahead.filter(|ahead| ahead.gaze == wanted || self.focus.bears(ahead.gaze.region, frame));
        let (gaze, seen) = match ahead {
            Some(Ahead { gaze, seen }) => (gaze, Seen::Ahead(seen)),
            None => (wanted, Seen::Image(self.look(scene, wanted.region, wanted.size)?)),
        };
        if gaze != before {
            self.engine.reframe(before.part(gaze.region), gaze.size)?;
        }
        self.seen = Some(gaze);
        let Found { masks, likeness, report } = self.engine.step(seen)?;
        // The one wait for the device, unless parts are taken out.
        let report = Report::read(&report, &masks, &likeness)?;
        if let Some(upload) = &mut self.upload {
            upload.arrived();
        }
        let masks = match self.stray.sift(&report, gaze) {
            None => {
                self.evidence = report.evidence();
                masks
            }
            Some(keep) => {
                let masks = Stray::strip(&masks, &keep)?;
                self.evidence = evidence::gather(&masks, &likeness)?;
                masks
            }
        };
        let found: Vec<bool> = self.evidence.iter().map(|evidence| evidence.area > 0.0).collect();
        let (masks, seen) = match self.watch.judge(&mut self.evidence) {
            None => (masks, found),
            Some(share) => {
                let seen = found.iter().zip(&share).map(|(&found, &share)| found && share > 0.0).collect();
                let share = Tensor::f_from_slice(&share)?.f_reshape([-1, 1, 1, 1])?;
                (masks.f_mul(&share.f_to_device(self.device)?)?, seen)
            }
        };
        self.engine.observe(&masks, &seen)?;
        Ok(StepOutput { masks, gaze })
    }

    /// A matte of its own memory.
    fn matte(&self, masks: &Tensor, gaze: Gaze) -> Result<Matte> {
        let masks = if self.engine.reuses_memory() { &copy_of(masks)? } else { masks };
        let matte = Matte::new(masks, &self.ids, gaze.region, gaze.frame)?;
        let (Some(gpu), Some(upload)) = (&self.gpu, &self.upload) else { return Ok(matte) };
        Ok(matte.with_shown(Shown { gpu: gpu.clone(), guide: upload.guide()? }))
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
        self.watch.presence()
    }

    /// Whether each object is in the picture, in the order of [`object_ids`](Self::object_ids).
    pub fn present(&self) -> impl Iterator<Item = bool> + '_ {
        self.watch.present()
    }

    /// What the last [`step`](Self::step) found of each object, in the order of
    /// [`object_ids`](Self::object_ids).
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// The region similarity (intersection over union) to be expected of the last [`step`](Self::step)'s masks, 0 to 1,
    /// their mean; 0 where there are none.
    pub fn confidence(&self) -> f64 {
        let (sum, count) = self
            .evidence
            .iter()
            .filter(|evidence| evidence.bounds.is_some())
            .fold((0.0, 0), |(sum, count), evidence| (sum + evidence.confidence, count + 1));
        sum / f64::from(count.max(1))
    }

    /// Chooses where to look in pictures to come, after one that was seen with `gaze`.
    fn look_on(&mut self, gaze: Gaze) {
        let current = self.gaze.map_or(gaze, |next| next.of(gaze.frame));
        let region = match self.roi {
            Roi::Auto | Roi::Frame => {
                // A lost object may be anywhere.
                let bounds = if self.watch.any_lost() { None } else { bounds(&self.evidence) };
                let bounds = bounds.map(|bounds| bounds.of_frame(gaze.region, gaze.frame));
                self.focus.next(current.region, bounds, gaze.frame)
            }
            Roi::Off => Region::whole(gaze.frame),
        };
        self.gaze = Some(Gaze { region, size: self.shapes.of(region), ..gaze });
    }

    fn look(&mut self, scene: &mut dyn Scene, region: Region, size: (i64, i64)) -> Result<Tensor> {
        if let (Some(gpu), Some(upload)) = (&self.gpu, &mut self.upload)
            && let Some(planes) = scene.planes()
        {
            return upload.image(&planes, region, size, self.kind, gpu);
        }
        let picture = scene.view(region, (size.1 as usize, size.0 as usize))?;
        self.image(&picture, size)
    }

    /// (1, 3, H, W) of that size, RGB in [0, 1], in the network's kind, channels last.
    fn image(&self, picture: &Picture, size: (i64, i64)) -> Result<Tensor> {
        picture.check()?;
        let Picture { data, width, height, stride } = *picture;
        let row = 3 * width;
        let rows = if stride == row {
            Tensor::f_from_data_size(&data[..row * height], &[row as i64 * height as i64], Kind::Uint8)?
        } else {
            let packed: Vec<u8> =
                data.chunks(stride).take(height).flat_map(|line| &line[..row]).copied().collect();
            Tensor::f_from_data_size(&packed, &[packed.len() as i64], Kind::Uint8)?
        };
        let image = rows
            .f_to_device(self.device)?
            .f_reshape([1, height as i64, width as i64, 3])?
            .f_permute([0, 3, 1, 2])?
            .f_to_kind(Kind::Float)?
            .f_div_scalar(255.0)?;
        channels_last(&matte::shrink(&image, size.0, size.1)?.f_to_kind(self.kind)?)
    }

    /// The first run of a network builds kernels and fills caches; better here than on the first frame. Where
    /// runs are recorded, those of one object are, for every length of the memory.
    /// Returns how long a run takes after that.
    fn warm_up(&mut self) -> Result<Duration> {
        heap::keep_freed_memory();
        let (height, width) = self.config.size();
        let image = channels_last(&Tensor::f_zeros([1, 3, height, width], (self.kind, self.device))?)?;
        let mask = Tensor::f_zeros([1, 1, height, width], (Kind::Float, self.device))?;
        let view = || (image.shallow_clone(), mask.shallow_clone());
        let memory = self.config.memory;
        let (steps, views): (usize, &[usize]) = match (self.engine.reuses_memory(), self.roi) {
            (false, _) => (2, &[1]),
            (true, Roi::Off) => (memory.frames * memory.every + 3, &[1]),
            (true, _) => (memory.frames * memory.every + 3, &[1, 2]),
        };
        let mut time = Duration::ZERO;
        for &count in views {
            let views: Vec<_> = (0..count).map(|_| view()).collect();
            self.engine.set_reference(&views)?;
            // Only where steps are recorded must the memory fill, for each of its lengths is recorded by itself.
            let times = self.run_on(&image, &mask, steps, self.engine.reuses_memory())?;
            time = times.last().copied().unwrap_or_default();
        }
        self.engine.clear();
        Ok(time)
    }

    /// Runs the network alone, so many times with so many objects on an empty picture, waiting each time. For
    /// measurements; tracking begins anew with the next reference.
    ///
    /// # Errors
    /// [`Error::Config`] for more than [`MAX_OBJECTS`] objects or none, and errors of libtorch.
    pub fn time_network(&mut self, objects: usize, runs: usize) -> Result<Vec<Duration>> {
        if !(1..=MAX_OBJECTS).contains(&objects) {
            return Err(Error::Config(format!("{objects} objects: 1 to {MAX_OBJECTS} can be followed")));
        }
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.clear();
        let (height, width) = self.config.size();
        let image = channels_last(&Tensor::f_zeros([1, 3, height, width], (self.kind, self.device))?)?;
        let masks = Tensor::f_ones([objects as i64, 1, height, width], (Kind::Float, self.device))?;
        let masks = masks.f_div_scalar(objects as f64 + 1.0)?;
        self.engine.set_reference(&[(image.shallow_clone(), masks.shallow_clone())])?;
        let times = self.run_on(&image, &masks, runs, true);
        self.engine.clear();
        times
    }

    fn run_on(&mut self, image: &Tensor, masks: &Tensor, runs: usize, seen: bool) -> Result<Vec<Duration>> {
        let seen = vec![seen; masks.size()[0] as usize];
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let begun = Instant::now();
            let found = self.engine.step(Seen::Image(image.shallow_clone()))?;
            // Waits for the device.
            let _ = found.report.f_to_device(Device::Cpu)?;
            self.engine.observe(masks, &seen)?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}

/// Where the objects are that are seen.
fn bounds(evidence: &[Evidence]) -> Option<Bounds> {
    evidence.iter().filter_map(|evidence| evidence.bounds).reduce(Bounds::join)
}

/// What a network of `size` (width, height) is shown of a frame's planes where it does not run on the CPU,
/// (1, 3, height, width) float32.
#[cfg(all(test, feature = "plugin"))]
pub(crate) fn picture_of_planes(planes: &Planes, region: Region, size: (usize, usize)) -> Result<Tensor> {
    let mut upload = Upload::new(Device::Cpu, Mode::Direct);
    let gpu = Gpu::new(Device::Cpu, Mode::Direct)?;
    upload.image(planes, region, (size.1 as i64, size.0 as i64), Kind::Float, &gpu)
}
