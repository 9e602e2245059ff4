// SPDX-License-Identifier: MPL-2.0

//! The element between two test pads, which record its output.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::{VideoFrameRef, VideoInfo};

use crate::util;

/// Recorded output of the element.
#[derive(Default)]
pub struct Seen {
    pub buffers: usize,
    /// Descriptions of invalid buffers.
    pub faults: Vec<String>,
    /// Error messages on the bus.
    pub errors: Vec<String>,
    /// Number of upstream events.
    pub upstream: usize,
}

pub struct Rig {
    pub element: gst::Element,
    pub src: gst::Pad,
    seen: Arc<Mutex<Seen>>,
    /// Error that downstream returns for further buffers.
    pub refusal: Arc<Mutex<Option<gst::FlowError>>>,
    // Keep the bus and its handler alive, and the sink pad linked.
    _bus: gst::Bus,
    _sink: gst::Pad,
}

impl Rig {
    pub fn new(element: gst::Element) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let refusal = Arc::<Mutex<Option<gst::FlowError>>>::default();
        let bus = util::bus(&element);
        bus.set_sync_handler({
            let seen = seen.clone();
            move |_, message| {
                if let gst::MessageView::Error(error) = message.view() {
                    seen.lock().unwrap().errors.push(format!("{} {:?}", error.error(), error.debug()));
                }
                gst::BusSyncReply::Drop
            }
        });
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .event_function({
                let seen = seen.clone();
                move |_, _, _| {
                    seen.lock().unwrap().upstream += 1;
                    true
                }
            })
            .build();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function({
                let (seen, refusal) = (seen.clone(), refusal.clone());
                move |pad, _, buffer| {
                    let fault = fault(pad, &buffer);
                    let mut seen = seen.lock().unwrap();
                    seen.buffers += 1;
                    seen.faults.extend(fault);
                    refusal.lock().unwrap().map_or(Ok(gst::FlowSuccess::Ok), Err)
                }
            })
            .event_function(|_, _, _| true)
            // Accept any caps: by default a pad accepts only its current ones.
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Caps(caps) => {
                    let any = gst::Caps::new_any();
                    let result = caps.filter_owned().unwrap_or(any);
                    caps.set_result(&result);
                    true
                }
                gst::QueryViewMut::AcceptCaps(caps) => {
                    caps.set_result(true);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        src.set_active(true).unwrap();
        sink.set_active(true).unwrap();
        src.link(&element.static_pad("sink").unwrap()).unwrap();
        element.static_pad("src").unwrap().link(&sink).unwrap();
        Self { element, src, seen, refusal, _bus: bus, _sink: sink }
    }

    /// Begins a stream, as upstream does after each state change.
    pub fn begin(&self, id: &str, info: &VideoInfo) {
        self.src.push_event(gst::event::StreamStart::new(id));
        self.src.push_event(gst::event::Caps::new(&info.to_caps().unwrap()));
        self.src.push_event(segment());
    }

    pub fn flush(&self) {
        self.src.push_event(gst::event::FlushStart::new());
        self.src.push_event(gst::event::FlushStop::new(true));
    }

    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Asserts that there were no faults and errors. Returns the number of buffers since the last call.
    #[track_caller]
    pub fn assert_no_errors(&self, what: &str) -> usize {
        let seen = self.take();
        assert!(seen.faults.is_empty(), "{what}: {:?}", seen.faults);
        assert!(seen.errors.is_empty(), "{what}: {:?}", seen.errors);
        seen.buffers
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
        self.element.set_bus(None);
    }
}

pub fn segment() -> gst::Event {
    gst::event::Segment::new(gst::FormattedSegment::<gst::ClockTime>::new().upcast_ref())
}

/// Describes why a buffer does not match the caps of its pad; `None` if it does.
pub fn fault(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<String> {
    let Some(caps) = pad.current_caps() else {
        // A pad that is deactivated loses its caps while the last buffer is in flight.
        let stopping = pad.pad_flags().contains(gst::PadFlags::FLUSHING);
        return (!stopping).then(|| "a buffer before caps".into());
    };
    let info = match VideoInfo::from_caps(&caps) {
        Ok(info) => info,
        Err(error) => return Some(format!("{caps}: {error}")),
    };
    // Every plane must be complete.
    let complete = VideoFrameRef::from_buffer_ref_readable(buffer, &info).is_ok_and(|frame| {
        (0..info.n_planes()).all(|plane| frame.plane_data(plane).is_ok_and(|data| !data.is_empty()))
    });
    (!complete || buffer.size() < info.size()).then(|| {
        format!(
            "{} bytes are too few for {}x{} {:?}",
            buffer.size(),
            info.width(),
            info.height(),
            info.format()
        )
    })
}
