//! From weights to a tracker that is ready to run.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, nn};

use super::distractors::DistractorFilter;
use super::input_size::InputSizes;
use super::interruption::Interruptions;
use super::options::{Launch, Options, Roi};
use super::prefetch::EncodeWorker;
use super::presence::PresenceDetector;
use super::roi::RoiPlanner;
use super::runner::{ModelRunner, Runner, StepInput};
use super::{MAX_OBJECTS, Tracker};
use crate::cuda::Shim;
use crate::device;
use crate::gpu::{Gpu, Mode, Upload};
use crate::malloc;
use crate::matte::DeviceEnlarger;
use crate::model::layers::channels_last;
use crate::model::weights::Weights;
use crate::model::{Lite, Matching, Regressor, Resnet50, prepare, zero_init};
use crate::{Error, Result};

/// Bytes of a GPU's memory, for every 512x512 pixels of network size, in which cuDNN may look for its fastest
/// algorithms while the network's features are there twice (see `docs/cuda.md`).
const WORKSPACE: u64 = 256 << 20;

/// Gives back the device's memory when dropped.
pub(super) struct Freed(Option<Shim>);

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(shim) = &self.0 {
            // What fails now fails for whoever uses the device next.
            let _ = shim.empty_cache();
        }
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
            (Roi::Auto, None) => InputSizes::following(&config),
            _ => InputSizes::fixed(&config),
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
        let runner = match config.matching {
            Matching::Affinity => {
                let mut model = zero_init(|| Lite::new(&store.root(), &config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                let prefetcher = match options.frame_threading && on_cpu {
                    true => Some(model.shallow_clone()?),
                    false => None,
                };
                let runner = Runner::new(model, mode);
                Box::new(match prefetcher {
                    Some(model) => runner.with_prefetcher(EncodeWorker::new(
                        move |(image, memory)| model.encode_frame(&image, &memory),
                        prefetch_threads.clone(),
                    )?),
                    None => runner,
                }) as Box<dyn ModelRunner>
            }
            Matching::GlobalConvolution => {
                let mut model = zero_init(|| Resnet50::new(&store.root(), &config))?;
                weights.fill(&store)?;
                prepare(&mut model, device, kind)?;
                Box::new(Runner::new(model, mode))
            }
        };
        store.freeze();
        let mut tracker = Self {
            runner,
            ids: Vec::new(),
            config,
            device,
            kind,
            device_warning,
            roi,
            roi_planner: RoiPlanner::new(shapes.follow()),
            input_sizes: shapes,
            reference_crop: None,
            last_crop: None,
            next_crop: None,
            presence_detector: PresenceDetector::default(),
            distractors: DistractorFilter::default(),
            object_stats: Vec::new(),
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
        if self.runner.retry() || warm.is_err() { self.warm_up() } else { warm }
    }

    /// The first run of a network builds kernels and fills caches; better here than on the first frame. Where
    /// runs are recorded, those of one object are, for every length of the memory.
    /// Returns how long a run takes after that.
    fn warm_up(&mut self) -> Result<Duration> {
        malloc::keep_freed_memory();
        let (height, width) = self.config.size();
        let image = channels_last(&Tensor::f_zeros([1, 3, height, width], (self.kind, self.device))?)?;
        let mask = Tensor::f_zeros([1, 1, height, width], (Kind::Float, self.device))?;
        let view = || (image.shallow_clone(), mask.shallow_clone());
        let memory = self.config.memory;
        let (steps, views): (usize, &[usize]) = match (self.runner.reuses_memory(), self.roi) {
            (false, _) => (2, &[1]),
            (true, Roi::Off) => (memory.frames * memory.every + 3, &[1]),
            (true, _) => (memory.frames * memory.every + 3, &[1, 2]),
        };
        let mut time = Duration::ZERO;
        for &count in views {
            let views: Vec<_> = (0..count).map(|_| view()).collect();
            self.runner.set_reference(&views)?;
            // Only where steps are recorded must the memory fill, for each of its lengths is recorded by itself.
            let times = self.run_on(&image, &mask, steps, self.runner.reuses_memory())?;
            time = times.last().copied().unwrap_or_default();
        }
        self.runner.clear();
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
        self.runner.set_reference(&[(image.shallow_clone(), masks.shallow_clone())])?;
        let times = self.run_on(&image, &masks, runs, true);
        self.runner.clear();
        times
    }

    fn run_on(&mut self, image: &Tensor, masks: &Tensor, runs: usize, seen: bool) -> Result<Vec<Duration>> {
        let seen = vec![seen; masks.size()[0] as usize];
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let begun = Instant::now();
            let found = self.runner.step(StepInput::Image(image.shallow_clone()))?;
            // Waits for the device.
            let _ = found.stats.f_to_device(Device::Cpu)?;
            self.runner.observe(masks, &seen)?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }
}
