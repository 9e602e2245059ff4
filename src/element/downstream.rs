// SPDX-License-Identifier: MPL-2.0

//! Finds out whether elements downstream use the alpha channel.

use glib::translate::FromGlibPtrFull;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{VideoFormat, VideoFormatInfo};

/// Maximum number of elements followed, which ends the search in pipelines with loops.
const MAX_DEPTH: u32 = 100;

/// Compressed formats without alpha whose encoders, mostly hardware encoders, may accept raw formats with alpha.
/// VP8 and VP9 with alpha set `codec-alpha` in their caps.
const WITHOUT_ALPHA: [&str; 10] = [
    // The fourth byte of 32-bit BMP is ignored by most readers.
    "image/bmp",
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

/// Use of the alpha channel downstream of a pad.
#[derive(Clone, Debug, PartialEq)]
pub enum AlphaUse {
    /// Not all caps are negotiated yet.
    Unknown,
    /// An element blends with it, stores it, or may do so.
    Used,
    /// `element` drops it.
    Lost { element: String, reason: String },
}

impl AlphaUse {
    /// Combines the results of two branches: one that uses the alpha is enough.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Used, _) | (_, Self::Used) => Self::Used,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (lost, _) => lost,
        }
    }
}

/// Returns the use of the alpha channel downstream of a source pad.
pub fn alpha_use_downstream(pad: &gst::Pad) -> AlphaUse {
    follow(pad, None, 0)
}

/// Returns the name of the first compositor downstream of `pad`.
pub fn compositor_downstream(pad: &gst::Pad) -> Option<String> {
    fn find(pad: &gst::Pad, depth: u32) -> Option<String> {
        let peer = pad.peer().filter(|_| depth < MAX_DEPTH)?;
        match peer.parent_element() {
            Some(element) if is_compositor(&element) => Some(element.name().into()),
            _ => linked(&peer)?.iter().find_map(|pad| find(pad, depth + 1)),
        }
    }
    find(pad, 0)
}

/// Follows the stream from `pad`. `element` is its parent, or `None` for a bin and for the first pad.
fn follow(pad: &gst::Pad, element: Option<&gst::Element>, depth: u32) -> AlphaUse {
    let Some(caps) = pad.current_caps() else { return AlphaUse::Unknown };
    let Some(structure) = caps.structure(0) else { return AlphaUse::Unknown };
    if structure.name() != "video/x-raw" {
        return match element {
            Some(element) if !carries_alpha(structure, element) => AlphaUse::Lost {
                element: element.name().into(),
                reason: format!("writes {}, which has none", structure.name()),
            },
            _ => AlphaUse::Used,
        };
    }
    let format = structure.get::<&str>("format").map_or(VideoFormat::Unknown, VideoFormat::from_string);
    if !VideoFormatInfo::from_format(format).has_alpha() {
        return match element {
            // An element with several inputs probably blends them.
            Some(element) if element.num_sink_pads() > 1 => AlphaUse::Used,
            Some(element) => AlphaUse::Lost {
                element: element.name().into(),
                reason: format!("outputs {format}, which has none"),
            },
            None => AlphaUse::Used,
        };
    }
    let Some(peer) = pad.peer().filter(|_| depth < MAX_DEPTH) else { return AlphaUse::Unknown };
    let element = peer.parent_element().filter(|element| !element.is::<gst::Bin>());
    if let Some(element) = &element {
        if is_compositor(element) {
            return AlphaUse::Used;
        }
        if ignores_alpha(element) {
            return AlphaUse::Lost { element: element.name().into(), reason: "has ignore-alpha=true".into() };
        }
    }
    let Some(next) = linked(&peer) else { return AlphaUse::Unknown };
    let uses = next.iter().map(|pad| follow(pad, element.as_ref(), depth + 1));
    uses.reduce(AlphaUse::or).unwrap_or(AlphaUse::Used)
}

/// Returns the source pads linked internally to the sink pad `pad`, or `None` while they change.
fn linked(pad: &gst::Pad) -> Option<Vec<gst::Pad>> {
    // SAFETY: the pad is valid, and the caller owns the returned iterator. The safe method expects a non-null iterator,
    // but pads without a parent and pads of some elements return NULL.
    let iterator = unsafe {
        let iterator = gst::ffi::gst_pad_iterate_internal_links(pad.as_ptr());
        (!iterator.is_null()).then(|| gst::Iterator::<gst::Pad>::from_glib_full(iterator))
    };
    iterator.map_or(Some(Vec::new()), |pads| pads.into_iter().collect::<Result<_, _>>().ok())
}

fn is_compositor(element: &gst::Element) -> bool {
    let class =
        element.factory().and_then(|factory| factory.metadata(gst::ELEMENT_METADATA_KLASS).map(String::from));
    class.is_some_and(|class| class.split('/').any(|part| part == "Compositor"))
}

/// Returns whether the element has `ignore-alpha=true`, like video sinks that show the colours of transparent pixels.
fn ignores_alpha(element: &gst::Element) -> bool {
    element.find_property("ignore-alpha").is_some_and(|property| property.value_type() == glib::Type::BOOL)
        && element.property::<bool>("ignore-alpha")
}

fn carries_alpha(structure: &gst::StructureRef, encoder: &gst::Element) -> bool {
    let listed = WITHOUT_ALPHA.contains(&structure.name().as_str());
    // The only H.265 encoder with alpha.
    let exception = encoder.factory().is_some_and(|factory| factory.name().starts_with("vtenc_h265a"));
    !listed || exception || structure.get::<bool>("codec-alpha") == Ok(true)
}
