//! Follows the objects of a reference mask from picture to picture: what the element and evaluation
//! both drive.

mod engine;
mod evidence;
mod focus;
mod matte;
mod presence;
mod scene;
mod stray;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor, nn};

pub use self::evidence::Evidence;
pub use self::matte::Matte;
pub use self::presence::Presence;
pub use self::scene::{Region, Scene};
use crate::device::{self, DeviceChoice, Precision};
use crate::heap;
use crate::mask::ReferenceMask;
use crate::model::layers::{Part, channels_last};
use crate::model::weights::Weights;
use crate::model::{Architecture, Config, Lite, Regressor, Resnet50, blank, prepare};
use crate::{Error, Result};
use engine::{Engine, Running};
use focus::{Bounds, Focus};
use presence::Watch;
use stray::Stray;

/// Objects followed at the same time at the most.
pub const MAX_OBJECTS: usize = 16;

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
    /// Whether to look closely at the objects' surroundings.
    pub roi: Roi,
}

/// Where the network looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roi {
    /// At the objects' surroundings where that shows more of them.
    #[default]
    Auto,
    /// Always at the whole picture.
    Off,
}

/// A regressor with its reference and recurrent state.
pub struct Tracker {
    engine: Box<dyn Engine>,
    ids: Vec<u8>,
    config: Config,
    device: Device,
    kind: Kind,
    device_warning: Option<String>,
    roi: Roi,
    focus: Focus,
    /// Of the reference, and of the frame to come.
    home: Option<Gaze>,
    gaze: Option<Gaze>,
    watch: Watch,
    stray: Stray,
    evidence: Vec<Evidence>,
    warm: Duration,
}

/// Where the network looks in frames of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gaze {
    region: Region,
    frame: (usize, usize),
}

impl Gaze {
    /// The same part of frames of another size.
    fn of(self, frame: (usize, usize)) -> Self {
        Self { region: self.region.scaled(self.frame, frame), frame }
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
        let Options { device, precision, roi, .. } = *options;
        let _no_grad = tch::no_grad_guard();
        let config = weights.config().clone();
        let (device, device_warning) = device::open(device)?;
        let kind = precision.kind(device)?;
        let mut store = nn::VarStore::new(Device::Cpu);
        let engine = match config.architecture {
            Architecture::Lite => {
                let model = blank(|| Lite::new(&store.root(), &config))?;
                weights.fill(&store)?;
                engine(model, device, kind)?
            }
            Architecture::Resnet50 => {
                let model = blank(|| Resnet50::new(&store.root(), &config))?;
                weights.fill(&store)?;
                engine(model, device, kind)?
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
            focus: Focus::default(),
            home: None,
            gaze: None,
            watch: Watch::default(),
            stray: Stray::default(),
            evidence: Vec::new(),
            warm: Duration::ZERO,
        };
        tracker.warm = tracker.warm_up()?;
        Ok(tracker)
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

    /// How long a step took on an empty picture, before there was any other.
    pub fn expected_time(&self) -> Duration {
        self.warm
    }

    /// Width and height in pixels at which pictures enter the network; those of that very size are not
    /// resized.
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
            Roi::Auto => self.focus.begin(bounds, frame),
            Roi::Off => Region::whole(frame),
        };
        let mut regions = vec![region];
        if region != Region::whole(frame) {
            // What is outside of the region now may come into it later, and is no object.
            regions.push(Region::whole(frame));
        }
        let (height, width) = self.config.size();
        let mut views = Vec::with_capacity(regions.len());
        for region in regions {
            let part = region.scaled(frame, drawn_on);
            let masks = masks.f_narrow(2, part.y as i64, part.height as i64)?.f_narrow(
                3,
                part.x as i64,
                part.width as i64,
            )?;
            let masks = matte::shrink(&masks, height, width)?.f_to_device(self.device)?;
            views.push((self.look(scene, region)?, masks));
        }
        self.engine.set_reference(&views)?;
        self.ids = objects.iter().map(|object| object.id).collect();
        self.home = Some(Gaze { region, frame });
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
        self.gaze = self.home;
        self.focus = Focus::default();
        self.watch = Watch::new(self.ids.len());
        self.stray = Stray::new(self.ids.len());
    }

    /// The masks of the next picture. A change of size is no matter.
    ///
    /// # Errors
    /// [`Error::NoReference`] before [`set_reference`](Self::set_reference).
    pub fn step(&mut self, scene: &mut dyn Scene) -> Result<Matte> {
        let _no_grad = tch::no_grad_guard();
        let frame = scene.size();
        let Some(gaze) = self.gaze.map(|gaze| gaze.of(frame)) else { return Err(Error::NoReference) };
        let image = self.look(scene, gaze.region)?;
        let logits = self.engine.step(&image)?;
        let masks = normalise(&logits)?;
        let likeness = self.engine.likeness()?;
        let masks = match self.stray.sift(&masks, &likeness, gaze)? {
            None => masks,
            Some(keep) => masks.f_mul(&keep)?,
        };
        self.evidence = evidence::gather(&masks, &likeness)?;
        let masks = match self.watch.judge(&mut self.evidence) {
            None => masks,
            Some(seen) => {
                let seen = Tensor::f_from_slice(&seen)?.f_reshape([-1, 1, 1, 1])?;
                masks.f_mul(&seen.f_to_device(self.device)?)?
            }
        };
        self.engine.observe(&masks)?;
        self.look_on(scene, gaze)?;
        Matte::new(&masks, &self.ids, gaze.region, frame)
    }

    /// Whether the objects are to be seen, as far as the last [`step`](Self::step) tells.
    pub fn presence(&self) -> Presence {
        self.watch.presence()
    }

    /// What the last [`step`](Self::step) found of each object, in the order of
    /// [`object_ids`](Self::object_ids).
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Chooses where to look in the next picture, and looks there in this one if that is elsewhere, so that
    /// the next can be compared with it.
    fn look_on(&mut self, scene: &mut dyn Scene, gaze: Gaze) -> Result<()> {
        let region = match self.roi {
            Roi::Auto => {
                let bounds = bounds(&self.evidence).map(|bounds| bounds.of_frame(gaze.region, gaze.frame));
                self.focus.next(gaze.region, bounds, gaze.frame)
            }
            Roi::Off => Region::whole(gaze.frame),
        };
        if region != gaze.region {
            let image = self.look(scene, region)?;
            self.engine.reframe(&image, gaze.part(region))?;
        }
        self.gaze = Some(Gaze { region, ..gaze });
        Ok(())
    }

    fn look(&self, scene: &mut dyn Scene, region: Region) -> Result<Tensor> {
        let picture = scene.view(region)?;
        self.image(&picture)
    }

    /// (1, 3, H, W) at network size, RGB in [0, 1], in the network's kind, channels last.
    fn image(&self, picture: &Picture) -> Result<Tensor> {
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
        let (height, width) = self.config.size();
        channels_last(&matte::shrink(&image, height, width)?.f_to_kind(self.kind)?)
    }

    /// The first run of a network builds kernels and fills caches; better here than on the first frame.
    /// Returns how long a run takes after that.
    fn warm_up(&mut self) -> Result<Duration> {
        heap::keep_freed_memory();
        let (height, width) = self.config.size();
        let image = channels_last(&Tensor::f_zeros([1, 3, height, width], (self.kind, self.device))?)?;
        let mask = Tensor::f_zeros([1, 1, height, width], (Kind::Float, self.device))?;
        self.engine.set_reference(&[(image.shallow_clone(), mask.shallow_clone())])?;
        let mut time = Duration::ZERO;
        for _ in 0..2 {
            let begun = Instant::now();
            let logits = self.engine.step(&image)?;
            // Waits for the device.
            let _ = logits.f_to_device(Device::Cpu)?;
            self.engine.observe(&mask)?;
            time = begun.elapsed();
        }
        self.engine.clear();
        Ok(time)
    }
}

fn engine<R: Regressor + 'static>(mut model: R, device: Device, kind: Kind) -> Result<Box<dyn Engine>> {
    prepare(&mut model, device, kind)?;
    Ok(Box::new(Running::new(model)))
}

/// Where the objects are that are seen.
fn bounds(evidence: &[Evidence]) -> Option<Bounds> {
    evidence.iter().filter_map(|evidence| evidence.bounds).reduce(Bounds::join)
}

/// Soft masks from logits, both (N, 1, H, W). Several objects are normalised against each other and
/// against the background, ∏(1 − pᵢ); one object alone would only be sharpened by that.
fn normalise(logits: &Tensor) -> Result<Tensor> {
    let single = logits.f_sigmoid()?;
    if logits.size()[0] == 1 {
        return Ok(single);
    }
    let background = single.f_neg()?.f_add_scalar(1.0)?.f_prod_dim_int(0, true, None::<Kind>)?;
    let odds = Tensor::f_cat(&[background, single], 0)?.f_clamp(1e-7, 1.0 - 1e-7)?.f_logit(None)?;
    let shares = odds.f_softmax(0, None::<Kind>)?;
    Ok(shares.f_narrow(0, 1, logits.size()[0])?)
}
