// SPDX-License-Identifier: MPL-2.0

//! GObject, GstElement and GstBaseTransform implementation.

use std::sync::{LazyLock, Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base as gst_base;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::base_transform::{BaseTransformMode, GenerateOutputSuccess};
use gstreamer_base::subclass::prelude::*;
use gstreamer_video as gst_video;

use super::compose::Composer;
use super::latency::Latency;
use super::process_error::{self, ProcessError};
use super::reference::State;
use super::request::{RequestKind, Source};
use super::segmenter::Segmenter;
use super::selector::Selector;
use super::settings::{self, Settings};
use super::shared::{Shared, lock};
use super::stream::{Host, Stream};
use super::{CAT, Mode, Quality, allocation, caps, frame, pending, signals};
use crate::tracker::{Launch, Options};

/// State of the element behind three locks.
///
/// `settings` and `shared` are held briefly, never both, and never while other elements or the application are
/// called. `stream` is held by the streaming thread while it processes a buffer, and by other threads only during
/// start and stop. It is released before a buffer is pushed.
#[derive(Default)]
pub struct FastGanSeg {
    pub(super) settings: Mutex<Settings>,
    pub(super) shared: Mutex<Shared>,
    stream: Mutex<Option<Stream>>,
    /// It has a lock of its own, held for moments only.
    pub(super) selector: Selector,
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
        // The QoS of GstBaseTransform drops late buffers before this element sees them.
        obj.set_qos(false);
        // Passthrough would push pictures without alpha.
        obj.set_prefer_passthrough(false);
        let weak = obj.downgrade();
        obj.src_pad().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
                && let Some(obj) = weak.upgrade()
                && let Some(stream) = &*obj.imp().stream()
            {
                stream.correct_discont(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings().set(pspec.name(), value);
        match pspec.name() {
            "output" => self.renegotiate(),
            "background" => self.change_background(),
            _ => (),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "active-device" => self.shared().active_device.to_value(),
            "stats" => {
                let shared = self.shared();
                let device = shared.active_device.as_deref();
                shared.statistics.structure(device, shared.slot.state()).to_value()
            }
            name => self.settings().get(name),
        }
    }

    /// Called once per `g_object_set` call, so that a mask and its image are loaded together.
    fn dispatch_properties_changed(&self, pspecs: &[glib::ParamSpec]) {
        self.parent_dispatch_properties_changed(pspecs);
        let is_set = |name: &str| pspecs.iter().any(|pspec| pspec.name() == name);
        let selects_in_image = is_set("ref-image") && self.settings().ref_mask.is_none();
        // An image without a mask file does not replace a mask from a signal.
        if is_set("ref-mask") || (is_set("ref-image") && !selects_in_image) {
            let load = self.shared().slot.begin_load();
            if let Some(load) = load {
                self.load_later(load);
            }
        }
        if is_set("ref-box") || is_set("ref-points") || selects_in_image {
            self.arm_prompt();
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
                "Segments any object in live video from one mask of one frame",
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
                .map(|(name, direction, caps)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                        .expect("the names are valid")
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
        let function = glib::function_name!();
        let (load_before, ask_before, early) = {
            let mut shared = self.shared();
            if shared.selects_with_properties() {
                shared.slot.drop_early();
            }
            (shared.slot.last_load(), shared.slot.ask(), shared.slot.has_early())
        };
        let settings = self.settings().clone();
        let message = |error: crate::Error| process_error::message(&error, function);

        let device = settings.device.parse().map_err(message)?;
        let reference = if early { None } else { self.load(&settings).map_err(message)? };
        let prompt = settings.prompt().map_err(message)?;
        if prompt.is_some() && reference.is_some() {
            self.warn_prompt_unused();
        }
        let prompt = prompt.filter(|_| reference.is_none() && !early);
        if let (Some(prompt), Some(path)) = (&prompt, &settings.ref_image) {
            // The streaming thread must not be the first to find a fault.
            Source::File(path.clone()).open(Some(prompt)).map_err(message)?;
        }
        let options = Options {
            model: settings.model_file.clone(),
            device,
            precision: settings.precision,
            // auto changes the size from the first frame on.
            quality: settings.quality.fixed().unwrap_or_default(),
            network_size: (settings.network_width, settings.network_height),
            roi: settings.roi,
            launch: launch().map_err(message)?,
            frame_threading: settings.frame_threading,
        };
        let mut segmenter = Segmenter::new(&options, settings.threads).map_err(message)?;
        if let Some(reason) = segmenter.tracker_mut().take_graph_warning() {
            gst::debug!(CAT, imp = self, "{reason}");
        }
        let tracker = segmenter.tracker();
        gst::info!(CAT, imp = self, "{tracker:?}");
        if let Some(reason) = tracker.device_warning() {
            self.report_cpu(reason);
        }
        if let Some(reference) = &reference {
            self.post_mask_warnings(reference.mask.origin(), reference.warnings());
        }
        let latency = Latency::new(tracker.warm_step_time());
        let active_device = Some(tracker.active_device());
        self.start_background().map_err(message)?;
        let auto_quality = settings.quality == Quality::Auto
            && (settings.network_width, settings.network_height) == (0, 0)
            && tracker.can_change_quality();
        let network_size = tracker.network_size();
        *self.stream() = Some(Stream::new(segmenter, auto_quality));
        let (armed, load) = {
            let mut shared = self.shared();
            // What the signals requested before the start, or ref-box and ref-points during it.
            let request = shared.request.take().filter(|request| {
                let is_known = request.kind == RequestKind::Property && request.ask <= ask_before;
                !is_known && shared.slot.is_current(request.ask)
            });
            *shared = Shared {
                slot: std::mem::take(&mut shared.slot),
                background: std::mem::take(&mut shared.background),
                active_device,
                device,
                latency,
                frame_size: shared.frame_size,
                keeps_colors: shared.keeps_colors,
                ..Shared::default()
            };
            shared.statistics.set_network_size(network_size);
            // A mask that was set meanwhile is loaded next, as if it were set while playing.
            let changed = shared.slot.last_load() != load_before && !shared.slot.has_early();
            let armed = shared.slot.start(reference);
            // A mask replaces the settings of before, but a request that is still current was made after it.
            if let Some(prompt) = prompt.filter(|_| request.is_none()) {
                shared.request(prompt, RequestKind::Property);
            }
            let load = if changed { shared.slot.begin_load() } else { None };
            if let Some(request) = request {
                shared.request(request.prompt, request.kind);
            }
            (armed, load)
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
        {
            let mut shared = self.shared();
            shared.slot.stop();
            shared.background.stop();
            shared.clear_requests();
        }
        self.selector.stop();
        self.stream().take();
        self.shared().active_device = None;
        self.obj().notify("active-device");
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let result = caps::transform(self.mode(), direction, caps);
        gst::trace!(CAT, imp = self, "{caps} on the {direction:?} pad is transformed to {result}");
        Some(match filter {
            Some(filter) => result.intersect_with_mode(filter, gst::CapsIntersectMode::First),
            None => result,
        })
    }

    fn fixate_caps(&self, direction: gst::PadDirection, caps: &gst::Caps, othercaps: gst::Caps) -> gst::Caps {
        if direction != gst::PadDirection::Sink {
            return self.parent_fixate_caps(direction, caps, othercaps);
        }
        let mode = self.mode();
        let mut result = caps::fixate(mode, caps, &othercaps);
        if result.is_empty() && !self.obj().src_pad().is_linked() {
            // GstBaseTransform gives the input caps then. Whether that is an error is decided upstream.
            result = caps::fixate(mode, caps, &caps::transform(mode, gst::PadDirection::Sink, caps));
        }
        gst::debug!(CAT, imp = self, "{caps} is fixated to {result}");
        result
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = |caps: &gst::Caps| {
            gst_video::VideoInfo::from_caps(caps)
                .map_err(|error| gst::loggable_error!(CAT, "Invalid caps {caps}: {error}"))
        };
        let mode = self.mode();
        let input = info(incaps)?;
        let composer = Composer::new(input.clone(), info(outcaps)?, mode).map_err(|error| {
            gst::loggable_error!(CAT, "{incaps} cannot be converted to {outcaps}: {error}")
        })?;
        let keeps_colors = composer.keeps_colors();
        let delays = {
            let mut stream = self.free_stream().ok_or_else(|| {
                gst::loggable_error!(CAT, "A message handler must not send caps to the element")
            })?;
            let stream = stream.as_mut().ok_or_else(|| gst::loggable_error!(CAT, "Not started"))?;
            stream.set_composer(composer, mode);
            stream.delays()
        };
        let latency_changed = {
            let mut shared = self.shared();
            shared.keeps_colors = keeps_colors;
            shared.qos.set_format(&input);
            shared.frame_size = (input.width(), input.height());
            let frame = shared.qos.frame_duration();
            delays && shared.latency.set_nominal_wait(frame)
        };
        if latency_changed {
            self.post_latency();
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
        let delays = self.free_stream().is_some_and(|stream| stream.as_ref().is_some_and(Stream::delays));
        allocation::propose(query, decide_query, delays);
        Ok(())
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let video_meta = allocation::decide(query)
            .map_err(|error| gst::loggable_error!(CAT, "Cannot configure a pool for the output: {error}"))?;
        if let Some(stream) = self.free_stream().as_deref_mut().and_then(Option::as_mut) {
            stream.video_meta = video_meta;
        }
        self.parent_decide_allocation(query)
    }

    /// Keeps all metas except those about memory, and those about colours if the output has other colours. Sizes and
    /// positions do not change. Called with `stream` locked.
    fn transform_meta<'a>(
        &self,
        _outbuf: &mut gst::BufferRef,
        meta: gst::MetaRef<'a, gst::Meta>,
        _inbuf: &'a gst::BufferRef,
    ) -> bool {
        use gst::meta::tags::{Memory, MemoryReference};
        let of_memory = meta.has_tag::<Memory>() || meta.has_tag::<MemoryReference>();
        let of_colors = meta.has_tag::<gst_video::video_meta::tags::Colorspace>();
        !of_memory && (!of_colors || self.shared().keeps_colors)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        use gst::EventView;
        let (is_caps, is_eos) = (event.type_() == gst::EventType::Caps, event.type_() == gst::EventType::Eos);
        let mut drained = match pending::drains_before(&event) {
            true => self.drain_before(event.type_().name(), is_caps),
            false => Ok(()),
        };
        match event.view() {
            EventView::Caps(_) => {
                // New caps may be accepted.
                self.forget_drain_error(|error| error == gst::FlowError::NotNegotiated);
            }
            EventView::FlushStop(_) => {
                match self.free_stream() {
                    Some(mut stream) => self.flush(stream.as_mut()),
                    None => self.shared().flushed = true,
                }
                self.shared().qos.reset();
            }
            EventView::Segment(_) => {
                self.forget_drain_error(|error| error == gst::FlowError::Eos);
                let mut shared = self.shared();
                shared.new_segment = true;
                shared.qos.reset();
            }
            EventView::Eos(_) => {
                // No buffer follows that could return an error of an earlier one.
                let earlier = self.free_stream().and_then(|mut stream| stream.as_mut()?.drain_error.take());
                drained = earlier.map_or(drained, Err);
                if let Err(error) = drained {
                    self.post_drain_error(error);
                }
                self.warn_nobody_found();
                self.check_alpha();
            }
            EventView::StreamStart(start) => {
                // Whether downstream accepts the new stream is not known.
                self.forget_drain_error(|error| error != gst::FlowError::Error);
                let (armed, ends_correction) = self.shared().start_stream(start.stream_id());
                if ends_correction {
                    self.warn_ended();
                }
                if armed {
                    self.post_reference(State::Armed, None, None);
                }
            }
            _ => (),
        }
        let handled = self.parent_sink_event(event);
        if is_caps && !handled {
            self.explain_negotiation();
        }
        handled && !(is_eos && drained.is_err_and(pending::is_failure))
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Qos(qos) = event.view() {
            let (kind, proportion, diff, timestamp) = qos.get();
            gst::log!(CAT, imp = self, "{kind:?}: {timestamp:?} was late by {diff} ns, {proportion}");
            self.shared().qos.update(proportion, diff, timestamp);
        }
        let interactive = self.settings().interactive;
        if interactive && self.handle_navigation(&event) {
            return true;
        }
        self.parent_src_event(event)
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        // A serialised query is answered after all buffers before it.
        if direction == gst::PadDirection::Sink && query.is_serialized() {
            // The next buffer returns the error.
            let negotiates = query.type_() == gst::QueryType::Allocation;
            let _ = self.drain_before(query.type_().name(), negotiates);
        }
        let answered = BaseTransformImplExt::parent_query(self, direction, query);
        if answered
            && direction == gst::PadDirection::Src
            && let gst::QueryViewMut::Latency(query) = query.view_mut()
        {
            let (live, min, max) = query.result();
            let own = self.shared().latency.report(live);
            gst::debug!(CAT, imp = self, "Upstream latency {min} to {max:?}, live {live}; own latency {own}");
            if live {
                query.set(live, min.saturating_add(own), max.map(|max| max.saturating_add(own)));
            }
        }
        answered
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        mut inbuf: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        frame::remove_field_flags(&mut inbuf);
        let drain_error = self.stream().as_mut().and_then(|stream| stream.drain_error.take());
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
        let mut stream = self.stream();
        let stream = stream.as_mut().ok_or(gst::FlowError::Flushing)?;
        // After an error of the buffer before.
        self.flush_if_requested(stream);
        let output = stream.submit(self, buffer).and_then(|frame| match frame {
            Some(frame) => Ok(match stream.process(self, frame, begun)? {
                Some(buffer) => GenerateOutputSuccess::Buffer(buffer),
                None => GenerateOutputSuccess::Dropped,
            }),
            None => Ok(GenerateOutputSuccess::NoOutput),
        });
        if self.flush_if_requested(stream) {
            return Ok(GenerateOutputSuccess::Dropped);
        }
        output.map_err(|error| {
            // The stream ends with this error, or goes on after a flush.
            if let Some(change) = stream.pending.take().and_then(|pending| pending.change) {
                self.shared().slot.return_change(change);
            }
            self.flow_error(error, glib::function_name!())
        })
    }
}

impl FastGanSeg {
    pub(super) fn mode(&self) -> Mode {
        let output = self.settings().output;
        let has_background = self.shared().background.current().is_some();
        Mode::new(output, has_background)
    }

    /// Negotiates both formats again: the mode may need another input.
    pub(super) fn renegotiate(&self) {
        self.obj().reconfigure_sink();
        self.obj().reconfigure_src();
    }

    pub(super) fn stream(&self) -> MutexGuard<'_, Option<Stream>> {
        lock(&self.stream)
    }

    /// As [`stream`](Self::stream), but `None` while a buffer is processed: handlers of its messages may send events on the
    /// same thread.
    pub(super) fn free_stream(&self) -> Option<MutexGuard<'_, Option<Stream>>> {
        match self.stream.try_lock() {
            Ok(stream) => Some(stream),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Flushes if a handler of a message did so while a buffer was processed. Returns whether it did.
    fn flush_if_requested(&self, stream: &mut Stream) -> bool {
        let flushed = std::mem::take(&mut self.shared().flushed);
        if flushed {
            self.flush(Some(stream));
        }
        flushed
    }

    /// Discards the pending buffer. The change of the reference that belonged to it belongs to the next buffer.
    fn flush(&self, stream: Option<&mut Stream>) {
        if let Some(change) = stream.and_then(Stream::flush) {
            self.shared().slot.return_change(change);
        }
    }

    /// Posts the error of a buffer and returns its flow error. `function` is the caller.
    fn flow_error(&self, error: ProcessError, function: &'static str) -> gst::FlowError {
        match error {
            ProcessError::Flow(error) => error,
            ProcessError::Error(failure) => {
                self.post_error_message(failure.message(function));
                gst::FlowError::Error
            }
        }
    }

    /// Pushes the pending buffer, if any. Called when the buffer that it waits for may not arrive.
    fn drain(&self) -> Result<(), gst::FlowError> {
        let waits = |stream: MutexGuard<Option<Stream>>| {
            stream.as_ref().is_some_and(|stream| stream.pending.is_some())
        };
        if !self.free_stream().is_some_and(waits) {
            return Ok(());
        }
        // GstBaseTransform does this before the buffers that it pushes.
        let is_negotiated = self.obj().reconfigure();
        let output = {
            let Some(mut stream) = self.free_stream() else { return Ok(()) };
            if !is_negotiated {
                let change = stream.as_mut().and_then(Stream::drop_pending);
                change.into_iter().for_each(|change| self.shared().slot.return_change(change));
                let is_flushing = self.obj().src_pad().pad_flags().contains(gst::PadFlags::FLUSHING);
                return Err(if is_flushing {
                    gst::FlowError::Flushing
                } else {
                    gst::FlowError::NotNegotiated
                });
            }
            let Some(stream) = stream.as_mut() else { return Ok(()) };
            let Some(pending) = stream.pending.take() else { return Ok(()) };
            let output = stream.process(self, pending, Instant::now());
            if self.flush_if_requested(stream) {
                return Ok(());
            }
            output
        };
        match output.map_err(|error| self.flow_error(error, glib::function_name!()))? {
            Some(buffer) => self.obj().src_pad().push(buffer).map(drop),
            None => Ok(()),
        }
    }

    /// Drains before an event or a query. If the drained buffer fails, the next buffer returns the error, unless caps that
    /// follow may be accepted (`negotiates`).
    fn drain_before(&self, what: &str, negotiates: bool) -> Result<(), gst::FlowError> {
        let drained = self.drain();
        if let Err(error) = drained {
            gst::debug!(CAT, imp = self, "The last buffer before {what} failed: {error}");
            if negotiates && error == gst::FlowError::NotNegotiated {
                return Ok(());
            }
            if let Some(stream) = self.free_stream().as_deref_mut().and_then(Option::as_mut) {
                stream.drain_error = Some(error);
            }
        }
        drained
    }

    /// Drops the error of a drained buffer if what follows makes it `outdated`.
    fn forget_drain_error(&self, outdated: impl Fn(gst::FlowError) -> bool) {
        if let Some(stream) = self.free_stream().as_deref_mut().and_then(Option::as_mut) {
            stream.drain_error.take_if(|error| outdated(*error));
        }
    }

    /// Handles the signal `reset`.
    pub(super) fn reset(&self) {
        let mut shared = self.shared();
        shared.reset = true;
        shared.slot.forget_other_streams();
    }
}

/// Reads the environment variable `FASTGANSEG_LAUNCH`, which sets how work is submitted to a GPU.
fn launch() -> crate::Result<Launch> {
    std::env::var("FASTGANSEG_LAUNCH").map_or(Ok(Launch::default()), |text| text.parse())
}
