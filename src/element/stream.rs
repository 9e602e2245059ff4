// SPDX-License-Identifier: MPL-2.0

//! Processing of buffers on the streaming thread.

use std::path::Path;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::compose::{Composer, Request};
use super::continuity::{self, Continuity};
use super::discont::DiscontTracker;
use super::exit;
use super::frame::{self, Frame};
use super::in_progress::Ticket;
use super::marks::Marks;
use super::pending::PendingFrame;
use super::process_error::ProcessError;
use super::qos::{LateFrame, Times};
use super::quality_tuner::QualityTuner;
use super::reference::{Ask, Change, State};
use super::request::SelectionRequest;
use super::sample;
use super::schedule::{Decision, FrameContext, Schedule};
use super::segmenter::Segmenter;
use super::settings::Settings;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::statistics::{Origin, Recent, Statistics};
use super::{AlphaMode, CAT, LatePolicy, Mode, RefAuto};
use crate::mask::MaskWarning;
use crate::matte::Matte;
use crate::tracker::{Prefetched, Quality, ReferenceEncoder};

/// Maximum number of buffers at which the use of the alpha channel downstream is checked. Elements behind queues
/// negotiate later than this element.
const MAX_ALPHA_CHECKS: u32 = 100;

/// Number of frames whose distances are kept, and the quantile of them that counts as the duration of a frame.
const GAPS: usize = 30;
const SHORT_GAPS: f64 = 0.1;

/// Interface of the element for [`Stream`].
pub trait Host {
    fn settings(&self) -> MutexGuard<'_, Settings>;
    fn shared(&self) -> MutexGuard<'_, Shared>;
    /// The segment of the input.
    fn segment(&self) -> gst::Segment;
    /// Sets controlled properties to their values at the time of a buffer.
    fn sync_properties(&self, times: Times);
    /// Allocates an output buffer with the metas of the input buffer.
    ///
    /// # Errors
    /// Downstream returns an error.
    fn allocate(&self, buffer: &gst::BufferRef) -> Result<gst::Buffer, gst::FlowError>;
    /// Records an output buffer and its processing time.
    fn record_output(&self, origin: Origin, total: Duration);
    fn post_latency(&self);
    /// Whether buffers are discarded, because of a seek or a state change.
    fn is_flushing(&self) -> bool;
    /// Whether upstream is live.
    fn is_live(&self) -> bool;
    /// Posts a change of the network's input size to `size`, width and height.
    fn post_quality(&self, quality: Quality, size: (usize, usize));
    /// Posts the state of the reference, or of one of its objects.
    fn post_reference(&self, state: State, pts: Option<gst::ClockTime>, object: Option<u8>);
    /// Posts warnings about a mask that is probably wrong but used nevertheless.
    fn post_mask_warnings(&self, mask: &Path, warnings: Vec<MaskWarning>);
    fn warn_no_reference(&self);
    /// Warns that the property `object` is none of the `ids` of the reference.
    fn warn_missing_object(&self, object: u32, ids: &[u8]);
    /// Warns that the colours of the output format `format` are not premultiplied.
    fn warn_not_premultiplied(&self, format: gst_video::VideoFormat);
    /// Makes the reference that is selected in the next buffer, `frame`, or in `ref-image`. In live and interactive
    /// pipelines it arrives later, encoded by `encoder`. A correction refines the matte `corrected` of this frame, whose mask has
    /// this number.
    ///
    /// # Errors
    /// The selection fails, and there is no earlier reference.
    fn select(
        &self,
        request: SelectionRequest,
        frame: &Frame,
        corrected: Option<(&Matte, Ask)>,
        encoder: Option<ReferenceEncoder>,
    ) -> crate::Result<()>;
    /// Searches for a person in the next buffer, `frame`, to become the reference. In live pipelines it arrives later,
    /// encoded by `encoder`.
    ///
    /// # Errors
    /// The frame cannot be converted, and errors of libtorch.
    fn find_person(
        &self,
        frame: &Frame,
        encoder: Option<ReferenceEncoder>,
        search: Ticket,
    ) -> crate::Result<()>;
    /// Saves a frame and its mask at `mask-location`, on another thread. `None` if there is no mask.
    fn save(&self, snapshot: crate::Result<Option<Snapshot>>);
    /// Posts a QoS message about a late buffer.
    fn post_late(&self, late: LateFrame, buffer: &gst::BufferRef, times: Times);
}

/// State of the streaming thread, from start to stop.
pub struct Stream {
    segmenter: Segmenter,
    /// `None` until caps are set.
    composer: Option<Composer>,
    continuity: Continuity,
    schedule: Schedule,
    /// The matte of the last frame that the network processed.
    matte: Option<Matte>,
    /// The buffer that waits for the next one, with frame threading.
    pub pending: Option<PendingFrame>,
    /// Error of a buffer that was pushed before an event or a query. The next buffer returns it.
    pub drain_error: Option<gst::FlowError>,
    discont: DiscontTracker,
    auto_quality: AutoQuality,
    /// Timestamp of the last frame.
    last_pts: Option<gst::ClockTime>,
    /// Differences between the timestamps of the last frames.
    gaps: Recent<GAPS>,
    /// Whether downstream supports strides and offsets.
    pub video_meta: bool,
    no_reference_reported: bool,
    /// The object that was reported as missing in the reference; 0 = none.
    missing_object: u32,
    not_premultiplied_reported: bool,
    negotiation_explained: bool,
    /// See [`can_wait`](Self::can_wait); unknown after new caps.
    can_wait: Option<bool>,
    /// Remaining buffers at which the use of the alpha channel is checked.
    alpha_checks: u32,
}

/// Selection of the network's input size while playing.
enum AutoQuality {
    Off,
    /// It depends on whether upstream is live.
    Undecided,
    Live(QualityTuner),
}

impl Stream {
    /// `auto_quality` selects the network's input size in live pipelines.
    pub fn new(segmenter: Segmenter, auto_quality: bool) -> Self {
        Self {
            segmenter,
            composer: None,
            continuity: Continuity::default(),
            schedule: Schedule::default(),
            matte: None,
            pending: None,
            drain_error: None,
            discont: DiscontTracker::default(),
            auto_quality: if auto_quality { AutoQuality::Undecided } else { AutoQuality::Off },
            last_pts: None,
            gaps: Recent::default(),
            video_meta: false,
            no_reference_reported: false,
            missing_object: 0,
            not_premultiplied_reported: false,
            negotiation_explained: false,
            can_wait: None,
            alpha_checks: 0,
        }
    }

    /// Whether each buffer waits for the next one.
    pub fn delays(&self) -> bool {
        self.segmenter.tracker().can_prefetch()
    }

    /// Sets the formats of the next buffers.
    pub fn set_composer(&mut self, composer: Composer, mode: Mode) {
        let size = |composer: &Composer| (composer.input().width(), composer.input().height());
        if self.composer.as_ref().is_some_and(|before| size(before) != size(&composer)) {
            // Masks and boxes of another size are not held.
            self.matte = None;
        }
        self.composer = Some(composer);
        self.negotiation_explained = false;
        self.can_wait = None;
        self.alpha_checks = if mode == Mode::Alpha { MAX_ALPHA_CHECKS } else { 0 };
        self.segmenter.forget_format();
    }

    /// Returns true the first time after new caps.
    pub fn explain_negotiation_once(&mut self) -> bool {
        !std::mem::replace(&mut self.negotiation_explained, true)
    }

    /// Whether the use of the alpha channel downstream is still unknown.
    pub fn needs_alpha_check(&self) -> bool {
        self.alpha_checks > 0
    }

    pub fn set_alpha_checked(&mut self, conclusive: bool) {
        self.alpha_checks = if conclusive { 0 } else { self.alpha_checks.saturating_sub(1) };
    }

    /// Discards the pending buffer and marks a discontinuity. Returns the change of the reference that belonged to the
    /// buffer.
    pub fn flush(&mut self) -> Option<Change> {
        self.drain_error = None;
        self.continuity.flush();
        self.last_pts = None;
        self.drop_pending()
    }

    /// Discards the pending buffer. Returns the change of the reference that belonged to it.
    pub fn drop_pending(&mut self) -> Option<Change> {
        let lost = self.pending.take()?;
        self.discont.record_gap();
        lost.change
    }

    /// Removes a DISCONT flag that `GstBaseTransform` set on the wrong buffer.
    pub fn correct_discont(&self, buffer: &mut gst::Buffer) {
        if self.delays() {
            self.discont.correct(buffer);
        }
    }

    fn input(&self) -> Result<gst_video::VideoInfo, gst::FlowError> {
        let composer = self.composer.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
        Ok(composer.input().clone())
    }

    /// Accepts an input buffer. Returns the frame to process now: this one, or the one before with frame threading.
    ///
    /// # Errors
    /// The frame cannot be converted.
    pub fn submit(
        &mut self,
        element: &impl Host,
        buffer: gst::Buffer,
    ) -> Result<Option<PendingFrame>, ProcessError> {
        frame::check_meta(&buffer, &self.input()?)?;
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let request = element.shared().take_request();
        if let Some(request) = request {
            let info = self.input()?;
            let encoder = self.segmenter.tracker().reference_encoder();
            element.select(request, &Frame::from_buffer_ref_readable(&buffer, &info)?, None, encoder)?;
        }
        let (ref_auto, timeout) = {
            let settings = element.settings();
            (settings.ref_auto, settings.ref_auto_timeout())
        };
        if ref_auto == RefAuto::Person {
            let now = Times::of(&buffer, &element.segment()).running.map(Duration::from);
            let search = {
                let mut shared = element.shared();
                let state = shared.slot.state();
                let is_idle = shared.selecting.is_empty() && !shared.has_request();
                is_idle.then(|| shared.auto.begin_search(now, state, timeout)).flatten()
            };
            if let Some(search) = search {
                let info = self.input()?;
                let encoder = self.segmenter.tracker().reference_encoder();
                element.find_person(&Frame::from_buffer_ref_readable(&buffer, &info)?, encoder, search)?;
            }
        }
        if element.is_flushing() {
            // A selection that was waited for may have ended early.
            return Err(gst::FlowError::Flushing.into());
        }
        let (change, reset, is_new_segment) = {
            let mut shared = element.shared();
            let is_new_segment = std::mem::take(&mut shared.new_segment);
            (shared.slot.take_change(), std::mem::take(&mut shared.reset), is_new_segment)
        };
        if reset {
            self.continuity.flush();
        }
        // Without a flush, buffers after a seek need not be flagged.
        let reverse = element.segment().rate() < 0.0;
        let restart = self.continuity.is_break(discont || is_new_segment, buffer.pts(), reverse);
        let mut frame = PendingFrame { buffer, change, restart, prefetched: None };
        if !self.delays() || !self.can_wait(element) {
            return Ok(Some(frame));
        }
        if frame.change.is_none() && !frame.restart {
            frame.prefetched = self.prefetch(element, &frame.buffer)?;
        }
        let time = frame.buffer.pts();
        let before = self.pending.replace(frame);
        let gap = time.zip(before.as_ref().and_then(|before| before.buffer.pts()));
        if let Some(gap) = gap.and_then(|(time, before)| continuity::gap(before, time)) {
            let changed = element.shared().latency.record_gap(gap.into());
            if changed {
                element.post_latency();
            }
        }
        Ok(before)
    }

    /// Whether a frame may wait for the next one, which may not come for long in live video of a variable frame rate.
    fn can_wait(&mut self, element: &impl Host) -> bool {
        let is_variable = self.composer.as_ref().is_some_and(|composer| composer.input().fps().numer() == 0);
        *self.can_wait.get_or_insert_with(|| !is_variable || !element.is_live())
    }

    /// Starts to encode a frame on the prefetch thread, if the network will run on it.
    fn prefetch(
        &mut self,
        element: &impl Host,
        buffer: &gst::BufferRef,
    ) -> Result<Option<Prefetched>, ProcessError> {
        let interval = element.settings().inference_interval;
        let times = Times::of(buffer, &element.segment());
        let late = element.shared().qos.lateness(times.running).is_some();
        if late || !self.schedule.due_after(self.pending.is_some().into(), interval) {
            return Ok(None);
        }
        let info = self.input()?;
        let frame = Frame::from_buffer_ref_readable(buffer, &info)?;
        self.segmenter.prefetch(&frame, &info)
    }

    /// Returns the output buffer of a frame, or `None` if the frame is dropped.
    ///
    /// # Errors
    /// The frame cannot be converted, libtorch fails, or no output buffer is available.
    pub fn process(
        &mut self,
        element: &impl Host,
        frame: PendingFrame,
        begun: Instant,
    ) -> Result<Option<gst::Buffer>, ProcessError> {
        let times = Times::of(&frame.buffer, &element.segment());
        element.sync_properties(times);
        let PendingFrame { buffer, change, restart, prefetched } = frame;
        self.begin_auto_quality(element);
        let pts = buffer.pts();
        let again = change.clone();
        let segmented = self.segment(element, &buffer, (change, restart, prefetched), times);
        if segmented.is_err() {
            // The stream ends with this error, or goes on after a flush.
            let later = self.pending.take().and_then(|pending| pending.change);
            let mut shared = element.shared();
            later.into_iter().for_each(|change| shared.slot.return_change(change));
            again.into_iter().for_each(|change| shared.slot.retry(change));
        }
        let Some((matte, origin)) = segmented? else {
            self.discont.record_gap();
            self.tune_quality(element, None, times, pts);
            return Ok(None);
        };
        if let (Some(matte), Origin::Network(_)) = (&matte, origin) {
            let correction = element.shared().take_correction();
            if let Some((request, mask)) = correction {
                let info = self.input()?;
                let frame = Frame::from_buffer_ref_readable(&buffer, &info)?;
                let encoder = self.segmenter.tracker().reference_encoder();
                element.select(request, &frame, Some((matte, mask)), encoder)?;
            }
        }
        let save_mask = std::mem::take(&mut element.shared().save_mask);
        if save_mask {
            let info = self.input()?;
            let frame = Frame::from_buffer_ref_readable(&buffer, &info)?;
            let snapshot = {
                let _permission = exit::permission().ok_or(gst::FlowError::Flushing)?;
                matte.as_ref().map(|matte| Snapshot::new(&frame, matte)).transpose()
            };
            element.save(snapshot.map(Option::flatten));
        }
        let background = element.shared().background.current().cloned();
        let (request, roi_meta) = {
            let settings = element.settings();
            let request = Request {
                mode: Mode::new(settings.output, background.is_some()),
                // A webcam must not show the room before the person is found.
                hides_all: settings.ref_auto == RefAuto::Person,
                matte: settings.matte(),
                foreground: settings.foreground,
                alpha_mode: settings.alpha_mode,
                background,
            };
            (request, settings.roi_meta)
        };
        // The time that downstream takes to allocate a buffer does not count.
        let mut waited = Duration::ZERO;
        let mut permission = Some(exit::permission().ok_or(gst::FlowError::Flushing)?);
        let allocate = |buffer: &gst::BufferRef| {
            // Downstream may take any time.
            permission = None;
            let begun = Instant::now();
            let allocated = element.allocate(buffer);
            waited = begun.elapsed();
            permission = Some(exit::permission().ok_or(gst::FlowError::Flushing)?);
            allocated
        };
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let composer = self.composer.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
        if request.mode == Mode::Overlay {
            let mut shared = element.shared();
            let busy = !shared.selecting.is_empty();
            let visible = |marks: &mut Marks| marks.are_visible(busy).then(|| marks.clone());
            composer.marks = shared.marks.as_mut().and_then(visible);
        }
        let mut buffer = composer.compose(buffer, matte.as_ref(), &request, self.video_meta, allocate)?;
        // The mask may differ from that of the frame before.
        buffer.make_mut().unset_flags(gst::BufferFlags::GAP);
        drop(permission);
        self.matte = matte;
        if request.alpha_mode == AlphaMode::Premultiplied
            && let Some(format) = composer.straight_format()
            && !std::mem::replace(&mut self.not_premultiplied_reported, true)
        {
            element.warn_not_premultiplied(format);
        }
        if roi_meta {
            attach_regions(buffer.make_mut(), &element.shared().statistics);
            #[cfg(feature = "v1_24")]
            attach_detections(buffer.make_mut(), &element.shared().statistics);
        }
        self.discont.mark(&mut buffer, discont);
        let total = begun.elapsed().saturating_sub(waited);
        element.record_output(origin, total);
        let time = matches!(origin, Origin::Network(_)).then_some(total);
        self.tune_quality(element, time, times, pts);
        Ok(Some(buffer))
    }

    /// Starts the selection of the network's input size at the first frame.
    fn begin_auto_quality(&mut self, element: &impl Host) {
        if matches!(self.auto_quality, AutoQuality::Undecided) {
            self.auto_quality = AutoQuality::Off;
            if element.is_live() {
                self.auto_quality = AutoQuality::Live(QualityTuner::default());
            } else {
                self.set_quality(element, Quality::Fine);
            }
        }
    }

    /// Changes the network's input size according to the processing time of a frame, `None` if the network did not run.
    fn tune_quality(
        &mut self,
        element: &impl Host,
        time: Option<Duration>,
        times: Times,
        pts: Option<gst::ClockTime>,
    ) {
        let before = std::mem::replace(&mut self.last_pts, pts);
        let AutoQuality::Live(tuner) = &mut self.auto_quality else { return };
        if let Some(gap) = pts.zip(before).and_then(|(pts, before)| pts.checked_sub(before)) {
            self.gaps.add(gap.into());
        }
        let (nominal, late) = {
            let shared = element.shared();
            (shared.qos.frame_duration(), shared.qos.lateness(times.running).is_some())
        };
        if time.is_none() && !late {
            return;
        }
        // Of a variable frame rate, short gaps: a slow element lengthens the others itself.
        let variable = || self.gaps.quantile(SHORT_GAPS).unwrap_or_default();
        let duration = if nominal.is_zero() { variable() } else { nominal };
        let interval = element.settings().inference_interval;
        if let Some(quality) = tuner.record(time, duration * interval, late) {
            self.set_quality(element, quality);
        }
    }

    /// Changes the network's input size. If the model does not support it, the size stays.
    fn set_quality(&mut self, element: &impl Host, quality: Quality) {
        if let Err(error) = self.segmenter.tracker_mut().set_quality(quality) {
            gst::warning!(CAT, "quality=auto keeps its size: {error}");
            self.auto_quality = AutoQuality::Off;
            return;
        }
        let size = self.segmenter.tracker().network_size();
        element.shared().statistics.set_network_size(size);
        element.post_quality(quality, size);
    }

    /// Returns the matte of a frame and its origin, or `None` if the frame is dropped. Without a reference there is no
    /// matte.
    fn segment(
        &mut self,
        element: &impl Host,
        buffer: &gst::BufferRef,
        (change, restart, prefetched): (Option<Change>, bool, Option<Prefetched>),
        times: Times,
    ) -> Result<Option<(Option<Matte>, Origin)>, ProcessError> {
        let info = self.input()?;
        if change.is_some() {
            element.shared().slot.change_applied();
        }
        let held = self.matte.take();
        match self.decide(element, change.is_some() || restart || held.is_none(), buffer, times) {
            Decision::Run => (),
            Decision::Hold | Decision::HoldLate(_) => return Ok(Some((held, Origin::Held))),
            Decision::Drop => {
                self.matte = held;
                return Ok(None);
            }
        }

        let (armed, resumed) = match &change {
            Some(Change::Arm(references) | Change::Add(references)) => (references.clone(), Vec::new()),
            Some(Change::Resume(references)) => (Vec::new(), references.clone()),
            _ => Default::default(),
        };
        for reference in armed.iter().chain(&resumed) {
            let warning = reference.frame_warning(&info);
            element.post_mask_warnings(reference.mask.origin(), warning.into_iter().collect());
        }
        let frame = Frame::from_buffer_ref_readable(buffer, &info)?;
        let threads = self.segmenter.threads();
        let mut result = self.segmenter.process_frame((&frame, prefetched), &info, change, restart)?;
        if let Some(reason) = self.segmenter.tracker_mut().take_graph_warning() {
            gst::debug!(CAT, "{reason}");
        }
        for reference in armed.into_iter().chain(resumed) {
            let needed = element.shared().slot.needs_picture(&reference);
            if needed {
                match sample::reference_picture(&frame) {
                    Ok(Ok(picture)) => element.shared().slot.keep_seed_frame(&reference, picture),
                    // It is needed only if the stream comes back.
                    error => gst::warning!(CAT, "the frame of the reference is not kept: {error:?}"),
                }
            }
        }
        let (changed_objects, states): (_, Vec<State>) = {
            let mut shared = element.shared();
            shared.statistics.set_confidence(result.confidence);
            shared.statistics.set_threads(threads);
            let objects = std::mem::take(&mut result.objects);
            let changed = shared.statistics.update_objects(objects, result.seeded);
            (changed, shared.slot.update(result.seeded, result.presence).collect())
        };
        let (seeded, others): (Vec<State>, Vec<State>) =
            states.into_iter().partition(|state| *state == State::Seeded);
        for state in seeded {
            element.post_reference(state, buffer.pts(), None);
        }
        for object in changed_objects {
            let state = if object.present { State::Recovered } else { State::Lost };
            element.post_reference(state, buffer.pts(), Some(object.id));
        }
        for state in others {
            element.post_reference(state, buffer.pts(), None);
        }
        let object = element.settings().object;
        let ids = self.segmenter.tracker().object_ids();
        let is_missing = object != 0 && !ids.is_empty() && !ids.iter().any(|&id| u32::from(id) == object);
        let missing_object = if is_missing { object } else { 0 };
        if is_missing && self.missing_object != object {
            element.warn_missing_object(object, ids);
        }
        self.missing_object = missing_object;
        let can_select = {
            let settings = element.settings();
            settings.interactive || settings.ref_auto != RefAuto::None
        };
        let expects_reference = can_select || {
            let shared = element.shared();
            !shared.selecting.is_empty() || shared.slot.state() != State::None
        };
        if result.matte.is_none()
            && !expects_reference
            && !std::mem::replace(&mut self.no_reference_reported, true)
        {
            element.warn_no_reference();
        }
        Ok(Some((result.matte, result.time.map_or(Origin::NoMask, Origin::Network))))
    }

    /// Decides whether the network runs on a frame, and posts a QoS message if it does not because the frame is late.
    fn decide(
        &mut self,
        element: &impl Host,
        must_run: bool,
        buffer: &gst::BufferRef,
        times: Times,
    ) -> Decision {
        let (interval, policy) = {
            let settings = element.settings();
            (settings.inference_interval, settings.late_policy)
        };
        let mut shared = element.shared();
        let (jitter, proportion) = (shared.qos.lateness(times.running), shared.qos.proportion());
        let decision = self.schedule.decide(&FrameContext {
            must_run,
            interval,
            late: jitter.is_some(),
            drops: policy == LatePolicy::Drop,
            running_time: times.running,
            cost: shared.statistics.inference_time(),
        });
        gst::trace!(CAT, "{decision:?} at {:?}, late by {jitter:?}", times.running);
        let held = match decision {
            Decision::Run | Decision::Hold => return decision,
            Decision::HoldLate(count) => Some(count),
            Decision::Drop => None,
        };
        if held.is_none() {
            shared.statistics.count_drop();
        }
        let counts = shared.statistics.counts();
        drop(shared);
        let late = LateFrame { jitter: jitter.unwrap_or_default(), proportion, held, counts };
        element.post_late(late, buffer, times);
        decision
    }
}

/// Attaches the bounding box of each present object.
fn attach_regions(buffer: &mut gst::BufferRef, statistics: &Statistics) {
    for object in statistics.objects().iter().filter(|object| object.present) {
        let Some(region) = object.region else { continue };
        let [x, y, width, height] = [region.x, region.y, region.width, region.height]
            .map(|length| u32::try_from(length).unwrap_or(u32::MAX));
        let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer, "fastganseg", (x, y, width, height));
        meta.set_id(i32::from(object.id));
        meta.add_param(
            gst::Structure::builder("object")
                .field("id", u32::from(object.id))
                .field("confidence", object.confidence)
                .build(),
        );
    }
}

/// Attaches an object detection of GstAnalytics for each object that is present, to the relation meta of the buffer if
/// it has one.
#[cfg(feature = "v1_24")]
fn attach_detections(buffer: &mut gst::BufferRef, statistics: &Statistics) {
    use gstreamer_analytics::{AnalyticsRelationMeta, AnalyticsRelationMetaODExt};

    let detections: Vec<_> = (statistics.objects().iter().filter(|object| object.present))
        .filter_map(|object| Some((object.id, object.region?, object.confidence)))
        .collect();
    if detections.is_empty() {
        return;
    }
    if buffer.meta::<AnalyticsRelationMeta>().is_none() {
        AnalyticsRelationMeta::add(buffer);
    }
    let Some(mut meta) = buffer.meta_mut::<AnalyticsRelationMeta>() else { return };
    for (id, region, confidence) in detections {
        let [x, y, width, height] = [region.x, region.y, region.width, region.height]
            .map(|length| i32::try_from(length).unwrap_or(i32::MAX));
        let kind = glib::Quark::from_str(format!("object-{id}"));
        if let Err(error) = meta.add_od_mtd(kind, x, y, width, height, confidence as f32) {
            gst::warning!(CAT, "the detection of object {id} is not attached: {error}");
        }
    }
}
