// SPDX-License-Identifier: MPL-2.0

//! Construction and warm-up of a tracker.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, nn};

use super::input_size::InputSizes;
use super::interruption::Interruptions;
use super::options::{Launch, Options, Roi};
use super::prefetch::EncodeWorker;
use super::runner::{ModelRunner, Runner, StepInput};
use super::{MAX_OBJECTS, Progress, Tracker};
use crate::cuda::Shim;
use crate::device::{self, Precision};
use crate::gpu::{Gpu, Mode, Upload};
use crate::malloc;
use crate::matte::{DeviceEnlarger, refiner_input};
use crate::model::layers::channels_last;
use crate::model::weights::{LARGE, LITE, Weights};
use crate::model::{NetworkVisitor, Prepared, Regressor, Sight, prepare_packed};
use crate::team::TeamGuard;
use crate::{Error, Result};

/// GPU memory in bytes, for every 512x512 pixels of network size, that libtorch may take during the warm-up. cuDNN
/// searches for its fastest algorithms in it while the network's features exist twice (see `docs/cuda.md`).
const WARM_UP_BYTES: u64 = 256 << 20;

/// Returns cached device memory to the driver when dropped.
pub(super) struct CacheReleaseGuard(Option<Shim>);

impl Drop for CacheReleaseGuard {
    fn drop(&mut self) {
        if let Some(shim) = &self.0 {
            // An error cannot be returned here; the next user of the device gets it.
            let _ = shim.empty_cache();
        }
    }
}

/// Makes a network ready to run.
struct ToRunner<'a> {
    weights: &'a Weights,
    store: &'a nn::VarStore,
    device: Device,
    kind: Kind,
    mode: Mode,
    /// Number of threads of the prefetch thread; `None` without prefetching.
    prefetch_threads: Option<Arc<AtomicU32>>,
}

impl NetworkVisitor for ToRunner<'_> {
    type Output = (Box<dyn ModelRunner>, Prepared);

    fn visit<R: Regressor + 'static>(self, mut network: R) -> Result<Self::Output> {
        self.weights.fill(self.store)?;
        let prepared = prepare_packed(&mut network, self.device, self.kind)?;
        let network = Arc::new(network);
        let mut runner = Runner::new(network.clone(), self.mode);
        if let Some(threads) = self.prefetch_threads.filter(|_| R::ENCODES_AHEAD) {
            let encode = move |(image, memory)| {
                let _team = prepared.packed.then(TeamGuard::new);
                network.encode_frame(&image, &memory)
            };
            runner.prefetcher = Some(EncodeWorker::new(encode, threads)?);
        }
        Ok((Box::new(runner), prepared))
    }
}

impl Tracker {
    /// Loads the weights, prepares the network for its device and precision, and runs it once.
    ///
    /// # Errors
    /// The weights file is invalid, the device is not available, or it does not support the precision.
    pub fn new(options: &Options) -> Result<Self> {
        let opened = device::open(options.device)?;
        let default = if opened.0.is_cuda() { LARGE } else { LITE };
        let weights = Weights::of_model(options.model.as_deref().unwrap_or(Path::new(default)))?;
        Self::opened(&weights, options, opened)
    }

    /// Like [`new`](Self::new), with weights in memory.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn from_weights(weights: &Weights, options: &Options) -> Result<Self> {
        Self::opened(weights, options, device::open(options.device)?)
    }

    fn opened(weights: &Weights, options: &Options, opened: (Device, Option<String>)) -> Result<Self> {
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
        let model = weights.config().clone();
        let config = options.config(&model)?;
        let computed = precision.kind(device)?;
        let mut launch_warning = None;
        let shim = match device {
            Device::Cuda(_) => Shim::load().inspect_err(|reason| {
                if launch == Launch::Graph {
                    launch_warning = Some(format!("CUDA graphs are not available: {reason}"));
                }
            }),
            _ => Err(String::new()),
        };
        let shim = shim.ok();
        let mode = match (launch, device, &shim) {
            (Launch::Graph, Device::Cuda(_), Some(shim)) => Mode::Graphs(shim.clone()),
            (Launch::Graph, Device::Cuda(_), None) | (Launch::Plain | Launch::Eager, ..) => Mode::Direct,
            (Launch::Graph | Launch::Fixed, ..) => Mode::Fixed,
        };
        let gpu = if launch == Launch::Plain { None } else { Some(Gpu::new(device, mode.clone())?) };
        let on_cpu = device == Device::Cpu && gpu.is_none();
        let input_sizes = match roi {
            Roi::Auto if on_cpu => InputSizes::following(&config, &model),
            _ => InputSizes::fixed(&config),
        };
        let upload = gpu.as_ref().map(|_| Upload::new(device, mode.clone()));
        let _current = gpu.as_ref().map_or(Ok(None), |gpu| gpu.enter())?;
        if let Device::Cuda(_) = device {
            // Input sizes do not change from frame to frame.
            tch::Cuda::cudnn_set_benchmark(true);
        }
        let prefetch_threads = Arc::new(AtomicU32::new(0));
        let mut store = nn::VarStore::new(Device::Cpu);
        let to_runner = ToRunner {
            weights,
            store: &store,
            device,
            kind: computed,
            mode,
            prefetch_threads: (options.frame_threading && on_cpu).then(|| prefetch_threads.clone()),
        };
        let (runner, Prepared { kind, packed }) = crate::model::build(&store.root(), &config, to_runner)?;
        store.freeze();
        let mut tracker = Self {
            runner,
            network: Arc::default(),
            ids: Vec::new(),
            model,
            config,
            device,
            kind,
            packed,
            precision: Precision::of(computed),
            device_warning,
            roi,
            input_sizes,
            reference_crop: None,
            progress: Progress::default(),
            interruptions: Interruptions::default(),
            warm: Duration::ZERO,
            gpu,
            upload,
            shim: shim.clone(),
            launch_warning,
            prefetch_threads,
            _cache_release: CacheReleaseGuard(shim),
        };
        tracker.warm = tracker.warm_up_with_limited_memory()?;
        Ok(tracker)
    }

    /// Warms up with limited memory for cuDNN's search, and again without a limit if that is too little.
    fn warm_up_with_limited_memory(&mut self) -> Result<Duration> {
        let (Some(shim), Device::Cuda(index)) = (self.shim.clone(), self.device) else {
            return self.warm_up();
        };
        let area: i64 = self.config.network_size.iter().product();
        shim.limit(index, Some(WARM_UP_BYTES * (area as u64).div_ceil(512 * 512)))?;
        let warm = self.warm_up();
        shim.limit(index, None)?;
        if self.runner.retry() || warm.is_err() { self.warm_up() } else { warm }
    }

    /// Runs the network on an empty picture, so that kernels are built and caches filled before the first frame.
    ///
    /// If steps are recorded, this records those of one object for every length of the memory. Returns the
    /// duration of the last step.
    fn warm_up(&mut self) -> Result<Duration> {
        let _team = self.packed.then(TeamGuard::new);
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
            self.runner.set_reference((self.runner.reference_encoder())(&views)?)?;
            // Each length of the memory is recorded separately, so recorded steps need the memory to fill.
            let times = self.run_on(&image, &mask, steps, self.runner.reuses_memory())?;
            time = times.last().copied().unwrap_or_default();
        }
        if let Some(refiner) = self.runner.refiner() {
            let (input, tiles) = refiner_input(height as usize, width as usize)?;
            let _ = refiner.corrections(&input, &tiles)?;
        }
        self.runner.clear();
        Ok(time)
    }

    /// Measures the network alone: runs it `runs` times on an empty picture and waits for the device each time. `objects`
    /// rectangles are spread evenly and cover a quarter of it. Clears the reference.
    ///
    /// # Errors
    /// [`Error::Config`] for no objects or more than [`MAX_OBJECTS`], and errors of libtorch.
    pub fn time_network(&mut self, objects: usize, runs: usize) -> Result<Vec<Duration>> {
        if !(1..=MAX_OBJECTS).contains(&objects) {
            return Err(Error::Config(format!("{objects} objects: use 1 to {MAX_OBJECTS}")));
        }
        let _no_grad = tch::no_grad_guard();
        let _current = self.enter()?;
        self.clear();
        let (height, width) = self.config.size();
        let image = channels_last(&Tensor::f_zeros([1, 3, height, width], (self.kind, self.device))?)?;
        let masks = Tensor::f_zeros([objects as i64, 1, height, width], (Kind::Float, self.device))?;
        let columns = (objects as f64).sqrt().ceil() as i64;
        let (h, w) = (height / ((objects as i64 + columns - 1) / columns), width / columns);
        for object in 0..objects as i64 {
            let rows = masks.f_get(object)?.f_narrow(1, object / columns * h + h / 4, h / 2)?;
            let _ = rows.f_narrow(2, object % columns * w + w / 4, w / 2)?.f_fill_(1.0)?;
        }
        let views = [(image.shallow_clone(), masks.shallow_clone())];
        self.runner.set_reference((self.runner.reference_encoder())(&views)?)?;
        let times = self.run_on(&image, &masks, runs, true);
        self.runner.clear();
        times
    }

    fn run_on(&mut self, image: &Tensor, masks: &Tensor, runs: usize, seen: bool) -> Result<Vec<Duration>> {
        let sight = if seen { Sight::Clear } else { Sight::Absent };
        let sights = vec![sight; masks.size()[0] as usize];
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            let output = self.runner.step(StepInput::Image(image.shallow_clone()))?;
            // Waits for the device.
            let _ = output.stats.f_to_device(Device::Cpu)?;
            self.runner.observe(masks, &sights)?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}
