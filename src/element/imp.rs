//! Behaviour of the element.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::base_transform::{
    BaseTransformMode, GenerateOutputSuccess, InputBuffer, PrepareOutputBufferSuccess,
};
use gstreamer_base::subclass::prelude::*;
use gstreamer_video as gst_video;

use super::compose::Composer;
use super::continuity::{self, Continuity};
use super::discont::DiscontTracker;
use super::downstream::{self, Fate};
use super::engine::Engine;
use super::latency::Latency;
use super::pending::{self, PendingFrame};
use super::process_error::{self, ProcessError};
use super::qos::{Late, Qos, Times};
use super::reference::{Change, LoadId, Reference, ReferenceSlot, State};
use super::schedule::{Decision, FrameContext, Schedule};
use super::settings::{self, Settings};
use super::signals;
use super::statistics::{Origin, Statistics};
use super::{LatePolicy, Output, allocation, caps, sample};
use crate::device;
use crate::element::frame::Frame;
use crate::mask::{MaskWarning, Reading, ReferenceMask};
use crate::matte::Matte;
use crate::tracker::{Launch, Options, Prefetched};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("fastganseg", gst::DebugColorFlags::empty(), Some("Video object segmentation"))
});

/// Locks are taken one at a time, each for as short as can be. `engine` alone is held while the network
/// runs, and only by the thread that streams, starts or stops.
#[derive(Default)]
pub struct FastGanSeg {
    settings: Mutex<Settings>,
    slot: Mutex<ReferenceSlot>,
    engine: Mutex<Option<Engine>>,
    composer: Mutex<Option<Composer>>,
    active_device: Mutex<Option<String>>,
    /// Downstream understands strides and offsets.
    video_meta: AtomicBool,
    /// The output's colours are the input's.
    keeps_colors: AtomicBool,
    continuity: Mutex<Continuity>,
    schedule: Mutex<Schedule>,
    /// What the network last said; only the streaming thread takes it away for a while.
    matte: Mutex<Option<Matte>>,
    /// Only with frame threading.
    pending: Mutex<Option<PendingFrame>>,
    /// What has become of a buffer that was put out before an event or a query; for the next buffer to return.
    drain_error: Mutex<Option<gst::FlowError>>,
    /// Buffers wait for the next.
    delays: AtomicBool,
    discont: DiscontTracker,
    qos: Mutex<Qos>,
    latency: Mutex<Latency>,
    statistics: Mutex<Statistics>,
    /// It was told that there is no reference.
    warned: AtomicBool,
    /// It was told why these caps cannot be.
    explained: AtomicBool,
    /// How many buffers more may come before it is given up to find out what becomes of the alpha downstream.
    alpha_checks: AtomicU32,
}

/// Elements downstream agree on formats when the first buffers come to them, behind queues later than here.
const ALPHA_CHECKS: u32 = 100;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for FastGanSeg {
    const NAME: &'static str = "GstFastGanSeg";
    type Type = super::FastGanSeg;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for FastGanSeg {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn signals() -> &'static [Signal] {
        signals::signals()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // BaseTransform would drop late buffers before anyone has seen them.
        obj.set_qos(false);
        // Otherwise it would rather let pictures through without alpha.
        obj.set_prefer_passthrough(false);
        let weak = obj.downgrade();
        obj.src_pad().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
                && let Some(obj) = weak.upgrade()
                && obj.imp().delays.load(Ordering::Relaxed)
            {
                obj.imp().discont.correct(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
        if pspec.name() == "output" {
            self.obj().reconfigure_src();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "active-device" => lock(&self.active_device).to_value(),
            "stats" => self.stats().to_value(),
            name => lock(&self.settings).get(name),
        }
    }

    /// Comes once after all properties of one call were set, so that a mask and its image go together.
    fn dispatch_properties_changed(&self, pspecs: &[glib::ParamSpec]) {
        self.parent_dispatch_properties_changed(pspecs);
        let set = |name: &str| pspecs.iter().any(|pspec| pspec.name() == name);
        // An image without a mask file would take away what a signal gave.
        if set("ref-mask") || (set("ref-image") && lock(&self.settings).ref_mask.is_some()) {
            let load = lock(&self.slot).begin_load();
            if let Some(load) = load {
                self.load_later(load);
            }
        }
    }
}

impl GstObjectImpl for FastGanSeg {}

impl ElementImpl for FastGanSeg {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Video object cut-out",
                "Filter/Effect/Video",
                "Cuts any object out of live video from one mask in one frame",
                "The fastganseg authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            use gst::PadDirection::{Sink, Src};
            [("sink", Sink, caps::sink_template()), ("src", Src, caps::src_template())]
                .into_iter()
                .filter_map(|(name, direction, caps)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for FastGanSeg {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let (before, early) = {
            let slot = lock(&self.slot);
            (slot.loads(), slot.has_early())
        };
        let settings = lock(&self.settings).clone();
        let function = glib::function_name!();

        let device = settings.device.parse().map_err(|error| process_error::message(&error, function))?;
        let reference = match early {
            true => None,
            false => self.load(&settings).map_err(|error| process_error::message(&error, function))?,
        };
        let options = Options {
            model: settings.model_file.clone(),
            device,
            precision: settings.precision.into(),
            network_size: (settings.network_width, settings.network_height),
            roi: settings.roi.into(),
            launch: launch().map_err(|error| process_error::message(&error, function))?,
            frame_threading: settings.frame_threading,
        };
        let mut engine = Engine::new(&options, settings.threads)
            .map_err(|error| process_error::message(&error, function))?;
        if let Some(reason) = engine.take_launch_warning() {
            gst::debug!(CAT, imp = self, "{reason}");
        }
        let tracker = engine.tracker();
        gst::info!(CAT, imp = self, "{tracker:?}");
        if let Some(reason) = tracker.device_warning() {
            if device::has_nvidia_gpu(Path::new("/")) {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::NotFound,
                    ("No CUDA device: {reason}. Running on the CPU; device=cpu asks for that")
                );
            } else {
                gst::info!(CAT, imp = self, "No NVIDIA GPU, running on the CPU: {reason}");
            }
        }

        let expected = tracker.expected_time();
        *lock(&self.active_device) = Some(tracker.active_device());
        self.delays.store(engine.can_prefetch(), Ordering::Relaxed);
        *lock(&self.engine) = Some(engine);
        lock(&self.pending).take();
        lock(&self.drain_error).take();
        *lock(&self.continuity) = Continuity::default();
        *lock(&self.schedule) = Schedule::default();
        lock(&self.matte).take();
        *lock(&self.qos) = Qos::default();
        *lock(&self.latency) = Latency::new(expected);
        *lock(&self.statistics) = Statistics::default();
        self.warned.store(false, Ordering::Relaxed);
        self.explained.store(false, Ordering::Relaxed);
        if let Some(reference) = &reference {
            self.post_mask_warnings(reference.mask.origin(), reference.warnings());
        }
        // Set while this loaded: the other mask comes after it, as if set while playing.
        let (armed, load) = {
            let mut slot = lock(&self.slot);
            let changed = slot.loads() != before && !slot.has_early();
            let armed = slot.start(reference);
            (armed, changed.then(|| slot.begin_load()).flatten())
        };
        if let Some(load) = load {
            self.load_later(load);
        }
        if armed {
            self.post_reference(State::Armed, None, None);
        }
        self.obj().notify("active-device");
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        lock(&self.slot).stop();
        // The engine last: with it goes the device's memory.
        lock(&self.pending).take();
        lock(&self.matte).take();
        lock(&self.composer).take();
        lock(&self.engine).take();
        lock(&self.active_device).take();
        self.obj().notify("active-device");
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let output = lock(&self.settings).output;
        let result = caps::transform(output, direction, caps);
        gst::trace!(CAT, imp = self, "{caps} on the {direction:?} pad becomes {result}");
        Some(match filter {
            Some(filter) => result.intersect_with_mode(filter, gst::CapsIntersectMode::First),
            None => result,
        })
    }

    fn fixate_caps(&self, direction: gst::PadDirection, caps: &gst::Caps, othercaps: gst::Caps) -> gst::Caps {
        if direction != gst::PadDirection::Sink {
            return self.parent_fixate_caps(direction, caps, othercaps);
        }
        let output = lock(&self.settings).output;
        let result = caps::fixate(output, caps, &othercaps);
        gst::debug!(CAT, imp = self, "{caps} becomes {result}");
        result
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = |caps: &gst::Caps| {
            gst_video::VideoInfo::from_caps(caps)
                .map_err(|error| gst::loggable_error!(CAT, "Bad caps {caps}: {error}"))
        };
        let output = lock(&self.settings).output;
        let input = info(incaps)?;
        let frame = {
            let mut qos = lock(&self.qos);
            qos.set_format(&input);
            qos.frame()
        };
        if self.delays.load(Ordering::Relaxed) && lock(&self.latency).wait(frame) {
            self.post_latency();
        }
        let composer = Composer::new(input, info(outcaps)?, output)
            .map_err(|error| gst::loggable_error!(CAT, "{incaps} cannot become {outcaps}: {error}"))?;
        self.keeps_colors.store(composer.keeps_colors(), Ordering::Relaxed);
        *lock(&self.composer) = Some(composer);
        self.explained.store(false, Ordering::Relaxed);
        let checks = if output == Output::Alpha { ALPHA_CHECKS } else { 0 };
        self.alpha_checks.store(checks, Ordering::Relaxed);
        if let Some(engine) = &mut *lock(&self.engine) {
            engine.forget_format();
        }
        Ok(())
    }

    fn unit_size(&self, caps: &gst::Caps) -> Option<usize> {
        gst_video::VideoInfo::from_caps(caps).ok().map(|info| info.size())
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        self.parent_propose_allocation(decide_query, query)?;
        allocation::propose(query, self.delays.load(Ordering::Relaxed));
        Ok(())
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let video_meta = allocation::decide(query)
            .map_err(|error| gst::loggable_error!(CAT, "No buffers for the output: {error}"))?;
        self.video_meta.store(video_meta, Ordering::Relaxed);
        self.parent_decide_allocation(query)
    }

    /// Neither size nor place of anything changes, so all stays true but what speaks of the memory, or of colours
    /// that the output does not have. Called with `composer` locked.
    fn transform_meta<'a>(
        &self,
        _outbuf: &mut gst::BufferRef,
        meta: gst::MetaRef<'a, gst::Meta>,
        _inbuf: &'a gst::BufferRef,
    ) -> bool {
        use gst::meta::tags::{Memory, MemoryReference};
        let of_memory = meta.has_tag::<Memory>() || meta.has_tag::<MemoryReference>();
        let of_colors = meta.has_tag::<gst_video::video_meta::tags::Colorspace>();
        !of_memory && (!of_colors || self.keeps_colors.load(Ordering::Relaxed))
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        let (is_caps, is_eos) = (event.type_() == gst::EventType::Caps, event.type_() == gst::EventType::Eos);
        let drained = match pending::goes_before(&event) {
            true => self.drain_before(event.type_().name()),
            false => Ok(()),
        };
        match event.view() {
            EventView::FlushStop(_) => {
                lock(&self.drain_error).take();
                let lost = lock(&self.pending).take();
                if lost.is_some() {
                    self.discont.miss();
                }
                if let Some(change) = lost.and_then(|lost| lost.change) {
                    lock(&self.slot).give_back(change);
                }
                lock(&self.continuity).flush();
                lock(&self.qos).reset();
            }
            EventView::Segment(_) => lock(&self.qos).reset(),
            EventView::Eos(_) => {
                if let Err(error) = drained {
                    self.post_drain_error(error);
                }
            }
            EventView::StreamStart(start) => {
                let armed = lock(&self.slot).stream(start.stream_id());
                if armed {
                    self.post_reference(State::Armed, None, None);
                }
            }
            _ => (),
        }
        if event.type_() == gst::EventType::Eos {
            self.check_alpha();
        }
        let handled = self.parent_sink_event(event);
        if is_caps && !handled {
            self.explain_negotiation();
        }
        handled && !(is_eos && drained.is_err_and(|error| error != gst::FlowError::Eos))
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Qos(qos) = event.view() {
            let (kind, proportion, diff, timestamp) = qos.get();
            gst::log!(CAT, imp = self, "{kind:?}: {timestamp:?} was late by {diff} ns, {proportion}");
            lock(&self.qos).update(proportion, diff, timestamp);
        }
        self.parent_src_event(event)
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        // Whoever asks wants all buffers from before out, or back.
        if direction == gst::PadDirection::Sink && query.is_serialized() {
            // The error is for the next buffer.
            let _ = self.drain_before(query.type_().name());
        }
        let answered = BaseTransformImplExt::parent_query(self, direction, query);
        if answered
            && direction == gst::PadDirection::Src
            && let gst::QueryViewMut::Latency(query) = query.view_mut()
        {
            let (live, min, max) = query.result();
            let ours = lock(&self.latency).tell(live);
            gst::debug!(CAT, imp = self, "Latency {min} to {max:?}, live {live}, and {ours} here");
            if live {
                query.set(live, min.saturating_add(ours), max.map(|max| max.saturating_add(ours)));
            }
        }
        answered
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        inbuf: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let drain_error = lock(&self.drain_error).take();
        if let Some(error) = drain_error {
            return Err(error);
        }
        let result = self.parent_submit_input_buffer(is_discont, inbuf);
        if result == Err(gst::FlowError::NotNegotiated) {
            self.explain_negotiation();
        }
        result
    }

    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(buffer) = self.take_queued_buffer() else {
            return Ok(GenerateOutputSuccess::NoOutput);
        };
        self.check_alpha();
        let begun = Instant::now();
        let function = glib::function_name!();
        let come = self.receive(buffer);
        let decision = if self.delays.load(Ordering::Relaxed) {
            match self.exchange_pending(come).map_err(|fault| self.flow(fault, function))? {
                Some(before) => before,
                None => return Ok(GenerateOutputSuccess::NoOutput),
            }
        } else {
            come
        };
        match self.process(decision, begun) {
            Ok(Some(buffer)) => Ok(GenerateOutputSuccess::Buffer(buffer)),
            Ok(None) => Ok(GenerateOutputSuccess::Dropped),
            Err(fault) => {
                // The stream ends here.
                lock(&self.pending).take();
                Err(self.flow(fault, function))
            }
        }
    }
}

impl FastGanSeg {
    /// What a fault is to the caller, `function`, which an error is posted for.
    fn flow(&self, fault: ProcessError, function: &'static str) -> gst::FlowError {
        match fault {
            ProcessError::Flow(error) => error,
            ProcessError::Error(failure) => {
                self.post_error_message(failure.message(function));
                gst::FlowError::Error
            }
        }
    }

    /// Puts out the buffer that waits, if one does: none will come for it to wait for, or not soon.
    fn drain(&self) -> Result<(), gst::FlowError> {
        let pending = lock(&self.pending).take();
        let Some(pending) = pending else { return Ok(()) };
        let processed = self.process(pending, Instant::now());
        match processed.map_err(|fault| self.flow(fault, glib::function_name!()))? {
            Some(buffer) => self.obj().src_pad().push(buffer).map(drop),
            None => Ok(()),
        }
    }

    /// Drains before what is no buffer. Whoever sends the next buffer is told what has become of this one.
    fn drain_before(&self, what: &str) -> Result<(), gst::FlowError> {
        let drained = self.drain();
        if let Err(error) = drained {
            gst::debug!(CAT, imp = self, "The last buffer before {what}: {error}");
            *lock(&self.drain_error) = Some(error);
        }
        drained
    }

    /// No buffer comes after the end of the stream that could return what has become of the last one.
    fn post_drain_error(&self, error: gst::FlowError) {
        if !matches!(error, gst::FlowError::Eos | gst::FlowError::Flushing) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("The last frame of the stream was not taken: {error}"),
                ["streaming stopped, reason {error}"]
            );
        }
    }

    /// What is to happen with a buffer that has come is settled by what was asked for before it came.
    fn receive(&self, buffer: gst::Buffer) -> PendingFrame {
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let restart = lock(&self.continuity).breaks_at(discont, buffer.pts());
        let change = lock(&self.slot).take_change();
        PendingFrame { buffer, change, restart, prefetched: None }
    }

    /// Has a buffer that has come wait for the next; the one that waited, whose turn it is now.
    fn exchange_pending(&self, mut come: PendingFrame) -> Result<Option<PendingFrame>, ProcessError> {
        if come.change.is_none() && !come.restart {
            come.prefetched = self.prefetch(&come.buffer)?;
        }
        let time = come.buffer.pts();
        let before = lock(&self.pending).replace(come);
        let gap = time.zip(before.as_ref().and_then(|before| before.buffer.pts()));
        if let Some(gap) = gap.and_then(|(time, before)| continuity::gap(before, time))
            && lock(&self.latency).waited(gap.into())
        {
            self.post_latency();
        }
        Ok(before)
    }

    /// Starts encoding a buffer whose turn comes after the pending one, if the network will run on it.
    fn prefetch(&self, buffer: &gst::BufferRef) -> Result<Option<Prefetched>, ProcessError> {
        let interval = lock(&self.settings).inference_interval;
        let before = u32::from(lock(&self.pending).is_some());
        let late = lock(&self.qos).lateness(Times::of(buffer, &self.obj().segment()).running).is_some();
        if late || !lock(&self.schedule).due_after(before, interval) {
            return Ok(None);
        }
        let info = self.input()?;
        let frame = Frame::from_buffer_ref_readable(buffer, &info)?;
        let mut engine = lock(&self.engine);
        engine.as_mut().ok_or(gst::FlowError::Flushing)?.prefetch(&frame, &info)
    }

    fn input(&self) -> Result<gst_video::VideoInfo, gst::FlowError> {
        lock(&self.composer)
            .as_ref()
            .map(|composer| composer.input().clone())
            .ok_or(gst::FlowError::NotNegotiated)
    }

    /// The buffer to be put out, or none if it is dropped.
    fn process(&self, decision: PendingFrame, begun: Instant) -> Result<Option<gst::Buffer>, ProcessError> {
        let times = Times::of(&decision.buffer, &self.obj().segment());
        self.sync_properties(times);
        let PendingFrame { buffer, change, restart, prefetched } = decision;
        let Some((matte, origin)) = self.process_frame(&buffer, change, restart, prefetched, times)? else {
            self.discont.miss();
            return Ok(None);
        };
        let (output, look) = {
            let settings = lock(&self.settings);
            (settings.output, settings.matte())
        };
        // What downstream makes us wait for a buffer is none of our time.
        let mut waited = Duration::ZERO;
        let allocate = |buffer: &gst::BufferRef| {
            let begun = Instant::now();
            let allocated = self.allocate(buffer);
            waited = begun.elapsed();
            allocated
        };
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let mut buffer = {
            let mut composer = lock(&self.composer);
            let composer = composer.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
            let video_meta = self.video_meta.load(Ordering::Relaxed);
            composer.compose(buffer, matte.as_ref(), (output, look), video_meta, allocate)?
        };
        *lock(&self.matte) = matte;
        self.discont.mark(&mut buffer, discont);
        self.account(origin, begun.elapsed().saturating_sub(waited));
        Ok(Some(buffer))
    }

    fn sync_properties(&self, times: Times) {
        if let Some(time) = times.stream
            && let Err(error) = self.obj().sync_values(time)
        {
            gst::warning!(CAT, imp = self, "Cannot set controlled properties: {error}");
        }
    }

    /// The matte for a buffer, and where it is from; nothing if the buffer is dropped. There is no matte as
    /// long as there is no reference.
    fn process_frame(
        &self,
        buffer: &gst::BufferRef,
        change: Option<Change>,
        restart: bool,
        prefetched: Option<Prefetched>,
        times: Times,
    ) -> Result<Option<(Option<Matte>, Origin)>, ProcessError> {
        let info = self.input()?;
        if change.is_some() {
            lock(&self.slot).arrive();
        }
        let armed = match &change {
            Some(Change::Arm(reference)) => Some(Arc::clone(reference)),
            _ => None,
        };
        let mut held = lock(&self.matte).take();
        if let Some(held) = &mut held {
            held.set_held();
        }
        match self.decision(change.is_some() || restart || held.is_none(), buffer, times) {
            Decision::Run => (),
            Decision::Hold | Decision::HoldLate(_) => return Ok(Some((held, Origin::Held))),
            Decision::Drop => {
                *lock(&self.matte) = held;
                return Ok(None);
            }
        }

        if let Some(Change::Arm(reference)) = &change {
            self.post_mask_warnings(reference.mask.origin(), reference.frame_warning(&info));
        }
        let frame = Frame::from_buffer_ref_readable(buffer, &info)?;
        let (mut result, threads) = {
            let mut engine = lock(&self.engine);
            let engine = engine.as_mut().ok_or(gst::FlowError::Flushing)?;
            let threads = engine.threads();
            let result = engine.process_frame((&frame, prefetched), &info, change, restart)?;
            if let Some(reason) = engine.take_launch_warning() {
                gst::debug!(CAT, imp = self, "{reason}");
            }
            (result, threads)
        };
        if let Some(reference) = armed.filter(|reference| lock(&self.slot).needs_picture(reference)) {
            let picture = sample::reference_picture(&frame)??;
            lock(&self.slot).seeded(&reference, picture);
        }
        let changes = {
            let mut statistics = lock(&self.statistics);
            statistics.expect(result.confidence);
            statistics.set_threads(threads);
            statistics.update_objects(std::mem::take(&mut result.objects), result.seeded)
        };
        let news: Vec<State> = lock(&self.slot).update(&result).collect();
        let (seeded, rest): (Vec<State>, Vec<State>) =
            news.into_iter().partition(|state| *state == State::Seeded);
        for state in seeded {
            self.post_reference(state, buffer.pts(), None);
        }
        for object in changes {
            let state = if object.present { State::Recovered } else { State::Lost };
            self.post_reference(state, buffer.pts(), Some(object.id));
        }
        for state in rest {
            self.post_reference(state, buffer.pts(), None);
        }
        if result.matte.is_none() && !self.warned.swap(true, Ordering::Relaxed) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("There is no reference yet, so frames pass opaque: set ref-mask to a PNG of the object")
            );
        }
        Ok(Some((result.matte, result.time.map_or(Origin::Nowhere, Origin::Network))))
    }

    /// Decides whether the network runs on a buffer, and says so if it should but cannot.
    fn decision(&self, must_run: bool, buffer: &gst::BufferRef, times: Times) -> Decision {
        let (jitter, proportion) = {
            let qos = lock(&self.qos);
            (qos.lateness(times.running), qos.proportion())
        };
        let (interval, policy) = {
            let settings = lock(&self.settings);
            (settings.inference_interval, settings.late_policy)
        };
        let cost = lock(&self.statistics).inference_time();
        let decision = lock(&self.schedule).decide(&FrameContext {
            must_run,
            interval,
            late: jitter.is_some(),
            drops: policy == LatePolicy::Drop,
            running_time: times.running,
            cost,
        });
        gst::trace!(CAT, imp = self, "{decision:?} at {:?}, late by {jitter:?}", times.running);
        let held = match decision {
            Decision::Run | Decision::Hold => return decision,
            Decision::HoldLate(count) => Some(count),
            Decision::Drop => None,
        };
        let counts = {
            let mut statistics = lock(&self.statistics);
            if held.is_none() {
                statistics.drop_one();
            }
            statistics.counts()
        };
        let late = Late { jitter: jitter.unwrap_or_default(), proportion, held, counts };
        self.post(late.message(&*self.obj(), buffer, times));
        decision
    }

    /// Takes note of a buffer that is put out, and of the time that it took.
    fn account(&self, origin: Origin, total: Duration) {
        lock(&self.statistics).put_out(origin, total);
        if matches!(origin, Origin::Network(_)) && lock(&self.latency).add(total) {
            self.post_latency();
        }
    }

    fn post_latency(&self) {
        gst::info!(CAT, imp = self, "The latency has changed");
        self.post(gst::message::Latency::builder().src(&*self.obj()).build());
    }

    /// Not every element has a bus, and none has to.
    fn post(&self, message: gst::Message) {
        if self.obj().post_message(message).is_err() {
            gst::debug!(CAT, imp = self, "There is no bus for the message");
        }
    }

    fn stats(&self) -> gst::Structure {
        let device = lock(&self.active_device).clone();
        let state = lock(&self.slot).state();
        lock(&self.statistics).structure(device.as_deref(), state)
    }

    /// The signal `set-reference`: whether the mask was accepted.
    pub(super) fn give_reference(&self, mask: Option<gst::Sample>, image: Option<gst::Sample>) -> bool {
        let Some(mask) = mask else {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("set-reference was called without a mask: give a sample of raw video")
            );
            return false;
        };
        match Reference::from_samples(&mask, image.as_deref()) {
            Ok(reference) => {
                self.log_reading(&reference.mask);
                self.post_mask_warnings(reference.mask.origin(), reference.warnings());
                let armed = lock(&self.slot).give(reference);
                if armed {
                    self.post_reference(State::Armed, None, None);
                }
                true
            }
            Err(error) => {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("set-reference: {error}. The reference from before, if any, stays in force")
                );
                false
            }
        }
    }

    /// The signal `reset`.
    pub(super) fn reset(&self) {
        lock(&self.continuity).flush();
        lock(&self.slot).forget_other_streams();
    }

    fn allocate(&self, buffer: &gst::BufferRef) -> Result<gst::Buffer, gst::FlowError> {
        match self.parent_prepare_output_buffer(InputBuffer::Readable(buffer))? {
            PrepareOutputBufferSuccess::Buffer(buffer) => Ok(buffer),
            PrepareOutputBufferSuccess::InputBuffer => Err(gst::FlowError::Error),
        }
    }

    fn load(&self, settings: &Settings) -> crate::Result<Option<Reference>> {
        let Some(mask) = &settings.ref_mask else { return Ok(None) };
        let reference = Reference::open(mask, settings.ref_image.as_deref())?;
        self.log_reading(&reference.mask);
        Ok(Some(reference))
    }

    fn log_reading(&self, mask: &ReferenceMask) {
        if mask.reading() == Reading::GreyIds {
            gst::info!(
                CAT,
                imp = self,
                "{}: no value but 255 is larger than 16, so they are read as object ids, 255 being void",
                mask.origin().display()
            );
        }
    }

    /// The mask is used all the same.
    fn post_mask_warnings(&self, mask: &Path, warnings: impl IntoIterator<Item = MaskWarning>) {
        for warning in warnings {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("mask {}: {warning}", mask.display())
            );
        }
    }

    /// Each load takes the settings of its own start or newer: were they read when its thread runs, a bad
    /// file that was set right after a good one would be loaded twice, and the good one never.
    fn load_later(&self, load: LoadId) {
        let settings = lock(&self.settings).clone();
        self.obj().call_async(move |obj| obj.imp().load_while_running(load, &settings));
    }

    fn load_while_running(&self, load: LoadId, settings: &Settings) {
        match self.load(settings) {
            Ok(reference) => {
                let armed = reference.is_some();
                let (origin, warnings) = reference
                    .as_ref()
                    .map(|reference| (reference.mask.origin().to_owned(), reference.warnings()))
                    .unwrap_or_default();
                let current = lock(&self.slot).finish_load(load, reference);
                if current && armed {
                    self.post_mask_warnings(&origin, warnings);
                    self.post_reference(State::Armed, None, None);
                }
            }
            Err(error) if lock(&self.slot).is_current(load) => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Read,
                    ("{error}. The reference from before, if any, stays in force")
                );
            }
            Err(_) => (),
        }
    }

    /// Tells the application what has become of the reference, or of one object of it.
    fn post_reference(&self, state: State, pts: Option<gst::ClockTime>, object: Option<u8>) {
        let state = state.name();
        let structure = gst::Structure::builder("fastganseg-reference")
            .field("state", state)
            .field_if_some("object", object.map(u32::from))
            .field_if_some("pts", pts)
            .build();
        gst::info!(CAT, imp = self, "{structure}");
        self.post(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }

    /// Warns if nothing downstream uses the alpha, for then the picture comes out whole.
    fn check_alpha(&self) {
        let left = self.alpha_checks.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        let fate = downstream::alpha_behind(self.obj().src_pad());
        self.alpha_checks.store(if fate == Fate::Unknown { left - 1 } else { 0 }, Ordering::Relaxed);
        if let Fate::Lost { element, reason } = fate {
            gst::element_imp_warning!(
                self,
                gst::CoreError::Negotiation,
                ("{element} drops the alpha channel (it {reason}), so the picture is not cut out. Put a compositor \
                     before it to lay the object over a background, use an element that keeps alpha (avenc_ffv1, \
                     avenc_prores_ks or pngenc write it), or set output=mask for the mask alone or \
                     output=overlay for a look")
            );
        }
    }

    /// Says what to do when downstream takes nothing that the chosen output can be.
    fn explain_negotiation(&self) {
        let obj = self.obj();
        let pad = obj.src_pad();
        if pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            return;
        }
        let output = lock(&self.settings).output;
        let accepted = pad.peer_query_caps(None);
        if caps::takes(output, &accepted) || self.explained.swap(true, Ordering::Relaxed) {
            return;
        }
        let neighbour = pad.peer().and_then(|peer| peer.parent_element()).map(|element| element.name());
        let neighbour = neighbour.as_deref().unwrap_or("downstream");
        let compositor = downstream::compositor_behind(pad);
        let (needed, remedy) = match (output, compositor) {
            // Compositors take alpha only if what follows them takes it, too.
            (Output::Alpha, Some(compositor)) => (
                ALPHA_FORMATS,
                format!("Put a videoconvert behind {compositor}, for without one {compositor} takes no alpha either"),
            ),
            (Output::Alpha, None) => (
                ALPHA_FORMATS,
                "Put a compositor and a videoconvert there to lay the picture over something, or set output=mask \
                 for the mask alone or output=overlay for a look"
                    .into(),
            ),
            (Output::Mask | Output::Labels, _) => ("GRAY8", "Put a videoconvert in between".into()),
            (Output::Overlay, _) => ("the format of the input", "Put a videoconvert in between".into()),
        };
        gst::element_imp_error!(
            self,
            gst::CoreError::Negotiation,
            ("{} puts out {needed}, which {neighbour} does not take. {remedy}", output_name(output)),
            ["{neighbour} takes {accepted}"]
        );
    }
}

const ALPHA_FORMATS: &str = "a format with alpha (A420, AYUV, RGBA, ...)";

/// How work is handed to a GPU, for comparison and for machines where graphs make trouble.
fn launch() -> crate::Result<Launch> {
    std::env::var("FASTGANSEG_LAUNCH").map_or(Ok(Launch::Auto), |text| text.parse())
}

fn output_name(output: Output) -> &'static str {
    match output {
        Output::Alpha => "output=alpha",
        Output::Mask => "output=mask",
        Output::Labels => "output=labels",
        Output::Overlay => "output=overlay",
    }
}
