//! What becomes of the alpha downstream.

use glib::translate::FromGlibPtrFull;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{VideoFormat, VideoFormatInfo};

/// Pipelines are not deeper than this; it ends the search in those that go round in circles.
const MAX_DEPTH: u32 = 100;

/// Compressed formats without alpha whose encoders, most of them in hardware, may take raw formats with alpha.
/// VP8 and VP9 say so if they have alpha.
const WITHOUT_ALPHA: [&str; 9] = [
    "image/jpeg",
    "video/mpeg",
    "video/x-av1",
    "video/x-h263",
    "video/x-h264",
    "video/x-h265",
    "video/x-h266",
    "video/x-vp8",
    "video/x-vp9",
];

/// What becomes of the alpha behind a pad.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Not all formats are agreed on yet.
    Unknown,
    /// Something blends with it, stores it, or may do so.
    Used,
    /// Nothing uses it.
    Lost { element: String, reason: String },
}

impl Fate {
    /// One use is enough.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Used, _) | (_, Self::Used) => Self::Used,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (lost, _) => lost,
        }
    }
}

/// What becomes of the alpha in the buffers that leave `pad`.
pub fn alpha_behind(pad: &gst::Pad) -> Fate {
    follow(pad, None, 0)
}

/// The name of the first element behind `pad` that composites.
pub fn compositor_behind(pad: &gst::Pad) -> Option<String> {
    fn find(pad: &gst::Pad, depth: u32) -> Option<String> {
        let peer = pad.peer().filter(|_| depth < MAX_DEPTH)?;
        match peer.parent_element() {
            Some(element) if composites(&element) => Some(element.name().into()),
            _ => linked(&peer)?.iter().find_map(|pad| find(pad, depth + 1)),
        }
    }
    find(pad, 0)
}

/// Follows what leaves `pad`, which is a source pad of `element`, if that is no bin.
fn follow(pad: &gst::Pad, element: Option<&gst::Element>, depth: u32) -> Fate {
    let Some(caps) = pad.current_caps() else { return Fate::Unknown };
    let Some(structure) = caps.structure(0) else { return Fate::Unknown };
    if structure.name() != "video/x-raw" {
        return match element {
            Some(element) if !carries_alpha(structure, element) => Fate::Lost {
                element: element.name().into(),
                reason: format!("writes {}, which has none", structure.name()),
            },
            _ => Fate::Used,
        };
    }
    let format = structure.get::<&str>("format").map_or(VideoFormat::Unknown, VideoFormat::from_string);
    if !VideoFormatInfo::from_format(format).has_alpha() {
        return match element {
            // Several inputs become one, so probably it blends them.
            Some(element) if element.num_sink_pads() > 1 => Fate::Used,
            Some(element) => Fate::Lost {
                element: element.name().into(),
                reason: format!("puts out {format}, which has none"),
            },
            None => Fate::Used,
        };
    }
    let Some(peer) = pad.peer().filter(|_| depth < MAX_DEPTH) else { return Fate::Unknown };
    let element = peer.parent_element().filter(|element| !element.is::<gst::Bin>());
    if let Some(element) = &element {
        if composites(element) {
            return Fate::Used;
        }
        if ignores_alpha(element) {
            return Fate::Lost { element: element.name().into(), reason: "has ignore-alpha=true".into() };
        }
    }
    let Some(next) = linked(&peer) else { return Fate::Unknown };
    let fates = next.iter().map(|pad| follow(pad, element.as_ref(), depth + 1));
    fates.reduce(Fate::or).unwrap_or(Fate::Used)
}

/// The pads at which leaves what comes in at `pad`; nothing if they change at the moment.
fn linked(pad: &gst::Pad) -> Option<Vec<gst::Pad>> {
    // SAFETY: the pad is valid, and the iterator, if there is one, is ours. The safe method takes it for certain that
    // there is one, but pads without a parent and some elements' pads give NULL.
    let iterator = unsafe {
        let iterator = gst::ffi::gst_pad_iterate_internal_links(pad.as_ptr());
        (!iterator.is_null()).then(|| gst::Iterator::<gst::Pad>::from_glib_full(iterator))
    };
    iterator.map_or(Some(Vec::new()), |pads| pads.into_iter().collect::<Result<_, _>>().ok())
}

fn composites(element: &gst::Element) -> bool {
    let class =
        element.factory().and_then(|factory| factory.metadata(gst::ELEMENT_METADATA_KLASS).map(String::from));
    class.is_some_and(|class| class.split('/').any(|part| part == "Compositor"))
}

/// As video sinks that show the colours of transparent pixels.
fn ignores_alpha(element: &gst::Element) -> bool {
    element.find_property("ignore-alpha").is_some_and(|property| property.value_type() == glib::Type::BOOL)
        && element.property::<bool>("ignore-alpha")
}

fn carries_alpha(structure: &gst::StructureRef, encoder: &gst::Element) -> bool {
    let listed = WITHOUT_ALPHA.contains(&structure.name().as_str());
    // The one encoder of H.265 with alpha.
    let exception = encoder.factory().is_some_and(|factory| factory.name().starts_with("vtenc_h265a"));
    !listed || exception || structure.get::<bool>("codec-alpha") == Ok(true)
}
