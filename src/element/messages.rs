// SPDX-License-Identifier: MPL-2.0

//! Messages, warnings and errors that the element posts, and its implementation of [`Host`].

use std::path::Path;
use std::sync::MutexGuard;
use std::time::Duration;

use glib::subclass::prelude::*;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::base_transform::{InputBuffer, PrepareOutputBufferSuccess};
use gstreamer_base::subclass::prelude::*;
use gstreamer_video::VideoFormat;

use super::downstream::{self, AlphaUse};
use super::frame::Frame;
use super::imp::FastGanSeg;
use super::in_progress::Ticket;
use super::qos::{LateFrame, Times};
use super::reference::{Ask, State};
use super::request::{RequestKind, SelectionRequest};
use super::settings::Settings;
use super::shared::{Shared, lock};
use super::snapshot::Snapshot;
use super::statistics::Origin;
use super::stream::{Host, Stream};
use super::{CAT, Mode, RefAuto, caps, pending};
use crate::device;
use crate::mask::MaskWarning;
use crate::matte::Matte;
use crate::tracker::{Quality, ReferenceEncoder};

const ALPHA_FORMATS: &str = "a format with alpha (A420, AYUV, RGBA, ...)";

impl Host for FastGanSeg {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    fn segment(&self) -> gst::Segment {
        self.obj().segment()
    }

    fn sync_properties(&self, times: Times) {
        if let Some(time) = times.stream
            && let Err(error) = self.obj().sync_values(time)
        {
            gst::warning!(CAT, imp = self, "Cannot set controlled properties: {error}");
        }
    }

    fn allocate(&self, buffer: &gst::BufferRef) -> Result<gst::Buffer, gst::FlowError> {
        match self.parent_prepare_output_buffer(InputBuffer::Readable(buffer))? {
            PrepareOutputBufferSuccess::Buffer(buffer) => Ok(buffer),
            PrepareOutputBufferSuccess::InputBuffer => Err(gst::FlowError::Error),
        }
    }

    fn record_output(&self, origin: Origin, total: Duration) {
        let latency_changed = {
            let mut shared = self.shared();
            shared.statistics.count_output(origin, total);
            matches!(origin, Origin::Network(_)) && shared.latency.add(total)
        };
        if latency_changed {
            self.post_latency();
        }
    }

    fn post_latency(&self) {
        gst::info!(CAT, imp = self, "The latency has changed");
        self.post(gst::message::Latency::builder().src(&*self.obj()).build());
    }

    fn post_reference(&self, state: State, pts: Option<gst::ClockTime>, object: Option<u8>) {
        let structure = gst::Structure::builder("fastganseg-reference")
            .field("state", state.name())
            .field_if_some("object", object.map(u32::from))
            .field_if_some("pts", pts)
            .build();
        gst::info!(CAT, imp = self, "{structure}");
        self.post(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }

    fn is_flushing(&self) -> bool {
        self.obj().sink_pad().pad_flags().contains(gst::PadFlags::FLUSHING)
    }

    fn is_live(&self) -> bool {
        self.upstream_is_live()
    }

    fn post_quality(&self, quality: Quality, (width, height): (usize, usize)) {
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        let structure = gst::Structure::builder("fastganseg-quality")
            .field("quality", quality.name())
            .field("network-width", side(width))
            .field("network-height", side(height))
            .build();
        gst::info!(CAT, imp = self, "{structure}");
        self.post(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }

    fn find_person(
        &self,
        frame: &Frame,
        encoder: Option<ReferenceEncoder>,
        search: Ticket,
    ) -> crate::Result<()> {
        self.try_find_person(frame, encoder, search)
    }

    fn save(&self, snapshot: crate::Result<Option<Snapshot>>) {
        let location = self.settings().mask_location.clone();
        match (snapshot, location) {
            (Ok(Some(snapshot)), Some(path)) => self.obj().call_async(move |obj| {
                let element = obj.imp();
                match snapshot.save(&path) {
                    Ok(frame) => {
                        let structure = gst::Structure::builder("fastganseg-saved")
                            .field("mask", path.display().to_string())
                            .field("frame", frame.display().to_string())
                            .build();
                        element.post(gst::message::Element::builder(structure).src(obj).build());
                    }
                    Err(error) => {
                        gst::element_imp_warning!(
                            element,
                            gst::ResourceError::Write,
                            ("The mask is not saved: {error}. Set mask-location to a file in a writable folder")
                        );
                    }
                }
            }),
            (Err(error), _) => gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("The mask is not saved: {error}")
            ),
            _ => gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("The mask is not saved, because no object is visible: select one, or wait until it is found again")
            ),
        }
    }

    fn post_mask_warnings(&self, mask: &Path, warnings: Vec<MaskWarning>) {
        for warning in warnings {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("mask {}: {warning}", mask.display())
            );
        }
    }

    fn warn_no_reference(&self) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("There is no reference, so frames are output opaque: set ref-mask to a PNG of the object, or ref-box to a box around it")
        );
    }

    fn warn_missing_object(&self, object: u32, ids: &[u8]) {
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("The reference has no object {object}, so that the output shows none: set object to one of {ids:?}, or to 0 for \
                 all")
        );
    }

    fn warn_not_premultiplied(&self, format: VideoFormat) {
        gst::element_imp_warning!(
            self,
            gst::CoreError::Negotiation,
            ("alpha-mode=premultiplied needs an RGB format, but the output is {format}, so its colours are not multiplied \
                 with alpha: put video/x-raw,format=RGBA behind this element, or set alpha-mode=straight")
        );
    }

    fn select(
        &self,
        request: SelectionRequest,
        frame: &Frame,
        corrected: Option<(&Matte, Ask)>,
        encoder: Option<ReferenceEncoder>,
    ) -> crate::Result<()> {
        // Without its properties, a pipeline that was started with them would go on without the object.
        let is_selected_later = request.kind != RequestKind::Property || self.settings().interactive;
        let keeps_on = is_selected_later || {
            let shared = self.shared();
            shared.slot.state() != State::None || shared.statistics.counts().0 > 0
        };
        match self.try_select(request, frame, corrected, encoder) {
            Err(error) if keeps_on => {
                self.warn_selection(&error);
                Ok(())
            }
            result => result,
        }
    }

    fn post_late(&self, late: LateFrame, buffer: &gst::BufferRef, times: Times) {
        self.post(late.message(&*self.obj(), buffer, times));
    }
}

impl FastGanSeg {
    /// Posts a message, if the element has a bus.
    fn post(&self, message: gst::Message) {
        if self.obj().post_message(message).is_err() {
            gst::debug!(CAT, imp = self, "No bus for the message");
        }
    }

    /// Reports why the CPU is used: as a warning if the machine has an NVIDIA GPU or driver, otherwise in the log.
    pub(super) fn report_cpu(&self, reason: &str) {
        if device::has_nvidia_gpu(Path::new("/")) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NotFound,
                ("No CUDA device: {reason}. Running on the CPU; set device=cpu to avoid this warning")
            );
        } else {
            gst::info!(CAT, imp = self, "No NVIDIA GPU, running on the CPU: {reason}");
        }
    }

    /// Warns at the end of a stream in which `ref-auto` has found nobody.
    pub(super) fn warn_nobody_found(&self) {
        let shared = self.shared();
        let statistics = &shared.statistics;
        let nobody =
            shared.slot.state() == State::None && statistics.counts().0 > 0 && !statistics.has_inferences();
        drop(shared);
        let searches = self.settings().ref_auto != RefAuto::None;
        if nobody && searches {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NotFound,
                ("ref-auto has found no person, so that all frames were output without a mask: set ref-mask to a PNG of the \
                     object, or ref-box to a box around it")
            );
        }
    }

    /// Posts the flow error of the last buffer of a stream, because no buffer follows that could return it.
    pub(super) fn post_drain_error(&self, error: gst::FlowError) {
        // Whoever returns `Error` has posted it.
        if pending::is_failure(error) && !matches!(error, gst::FlowError::Flushing | gst::FlowError::Error) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("The last frame of the stream could not be pushed: {error}"),
                ["streaming stopped, reason {error}"]
            );
        }
    }

    /// Warns if no element downstream uses the alpha channel.
    pub(super) fn check_alpha(&self) {
        let needs_check =
            |stream: MutexGuard<Option<Stream>>| stream.as_ref().is_some_and(Stream::needs_alpha_check);
        if !self.free_stream().is_some_and(needs_check) {
            return;
        }
        let alpha_use = downstream::alpha_use_downstream(self.obj().src_pad());
        if let Some(stream) = self.free_stream().as_deref_mut().and_then(Option::as_mut) {
            stream.set_alpha_checked(alpha_use != AlphaUse::Unknown);
        }
        if let AlphaUse::Lost { element, reason } = alpha_use {
            gst::element_imp_warning!(
                self,
                gst::CoreError::Negotiation,
                ("{element} drops the alpha channel (it {reason}), so the picture is not cut out. Set background to lay \
                     the object over one, put a compositor before {element} to blend it there, use an encoder that stores alpha (avenc_ffv1, \
                     avenc_prores_ks, pngenc) with no videoconvert before it or with the caps of a format with alpha between them, or set output=mask for the mask or output=overlay for a preview")
            );
        }
    }

    /// Posts an error with a remedy if downstream accepts no format of the chosen output.
    pub(super) fn explain_negotiation(&self) {
        let obj = self.obj();
        let pad = obj.src_pad();
        if pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            return;
        }
        let mode = self.mode();
        let accepted = pad.peer_query_caps(None);
        if caps::accepts(mode, obj.sink_pad().current_caps().as_ref(), &accepted) {
            return;
        }
        let first = self
            .free_stream()
            .is_some_and(|mut stream| stream.as_mut().is_some_and(Stream::explain_negotiation_once));
        if !first {
            return;
        }
        let neighbour = pad.peer().and_then(|peer| peer.parent_element()).map(|element| element.name());
        let neighbour = neighbour.as_deref().unwrap_or("downstream");
        let compositor = downstream::compositor_downstream(pad);
        let (needed, remedy) = match (mode, compositor) {
            // A compositor accepts alpha only if the element behind it does.
            (Mode::Alpha, Some(compositor)) => (
                ALPHA_FORMATS,
                format!("Put a videoconvert behind {compositor}; without one, {compositor} does not accept alpha"),
            ),
            (Mode::Alpha, None) => (
                ALPHA_FORMATS,
                "Set background to lay the object over a colour, a picture or the blurred picture; or put a compositor \
                 and a videoconvert there; or set output=mask for the mask or output=overlay for a preview"
                    .into(),
            ),
            (Mode::Mask | Mode::Labels, _) => ("GRAY8", "Put a videoconvert in between".into()),
            (Mode::Overlay | Mode::Background, _) => {
                ("the format of the input", "Put a videoconvert in between".into())
            }
        };
        let property = match mode {
            Mode::Alpha => "output=alpha",
            Mode::Mask => "output=mask",
            Mode::Labels => "output=labels",
            Mode::Overlay => "output=overlay",
            Mode::Background => "background",
        };
        gst::element_imp_error!(
            self,
            gst::CoreError::Negotiation,
            ("{property} needs {needed}, which {neighbour} does not accept. {remedy}"),
            ["{neighbour} accepts {accepted}"]
        );
    }
}
