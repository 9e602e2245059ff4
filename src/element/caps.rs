// SPDX-License-Identifier: MPL-2.0

//! Input and output caps.

use std::sync::LazyLock;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry, VideoFormat, VideoFormatInfo};

use super::Mode;
use crate::element::frame::{appended_planes, colors_in_place, has_plain_alpha};

/// Formats offered to upstream first: common with decoders and cameras, and cheapest for this element.
const PREFERRED: [VideoFormat; 19] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Yv12,
    VideoFormat::A420,
    VideoFormat::Rgbx,
    VideoFormat::Bgrx,
    VideoFormat::Xrgb,
    VideoFormat::Xbgr,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
    VideoFormat::Argb,
    VideoFormat::Abgr,
    VideoFormat::Ayuv,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Y42b,
    VideoFormat::Y444,
];

/// Fields that a conversion between colour models invalidates.
const COLOR_FIELDS: [&str; 2] = ["colorimetry", "chroma-site"];

/// All raw formats, the preferred ones first.
fn input_formats() -> &'static [VideoFormat] {
    static FORMATS: LazyLock<Vec<VideoFormat>> = LazyLock::new(|| {
        let others = VideoFormat::iter_raw().filter(|format| !PREFERRED.contains(format));
        PREFERRED.into_iter().chain(others).collect()
    });
    &FORMATS
}

/// All formats with an alpha channel that can be written and that GStreamer flags as alpha.
fn alpha_formats() -> &'static [VideoFormat] {
    static FORMATS: LazyLock<Vec<VideoFormat>> =
        LazyLock::new(|| input_formats().iter().copied().filter(|&format| has_alpha(format)).collect());
    &FORMATS
}

/// Returns whether `mode` supports the output format `format` for the input format `input`.
pub fn allows(mode: Mode, input: VideoFormat, format: VideoFormat) -> bool {
    match mode {
        Mode::Alpha => has_alpha(format),
        Mode::Mask | Mode::Labels => format == VideoFormat::Gray8,
        Mode::Overlay | Mode::Background => format == input,
    }
}

pub fn sink_template() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(input_formats().iter().copied()).build()
}

/// All formats as on the sink pad, because `output=overlay` and `background` keep the format.
pub fn src_template() -> gst::Caps {
    sink_template()
}

/// Returns the caps on the other pad for `caps` on the pad of `direction`.
///
/// Formats that `mode` does not support come last. They let the pads link, so that [`fixate`] is called and the
/// element can post the reason.
pub fn transform(mode: Mode, direction: gst::PadDirection, caps: &gst::Caps) -> gst::Caps {
    if matches!(mode, Mode::Overlay | Mode::Background) {
        return caps.clone();
    }
    let mut result = gst::Caps::new_empty();
    let out = result.make_mut();
    let structures = || {
        caps.iter_with_features()
            .filter(|(_, features)| features.is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref()))
            .map(|(structure, _)| structure)
    };
    for structure in structures() {
        match (direction, mode) {
            (gst::PadDirection::Src, _) => {
                push(out, structure, input_formats(), &COLOR_FIELDS);
            }
            (_, Mode::Alpha) => push_alpha(out, structure),
            _ => push(out, structure, &[VideoFormat::Gray8], &COLOR_FIELDS),
        }
    }
    if direction != gst::PadDirection::Src {
        for structure in structures() {
            push(out, structure, input_formats(), &COLOR_FIELDS);
        }
    }
    result
}

/// Appends the alpha formats for `structure`. If its format is fixed, the colour fields are kept for the formats with
/// the same colour model.
fn push_alpha(out: &mut gst::CapsRef, structure: &gst::StructureRef) {
    if let Some(input) = format_of(structure) {
        let info = VideoFormatInfo::from_format(input);
        let group = |wanted: fn(&VideoFormatInfo, &VideoFormatInfo) -> bool| -> Vec<VideoFormat> {
            let mut formats: Vec<VideoFormat> = alpha_formats()
                .iter()
                .copied()
                .filter(|&format| wanted(&info, &VideoFormatInfo::from_format(format)))
                .collect();
            formats.sort_by_key(|&format| distance(input, format));
            formats
        };
        push(out, structure, &group(same_sampling), &[]);
        push(out, structure, &group(same_colors), &["chroma-site"]);
        if info.is_yuv()
            && let Some(colorimetry) = rgb_colorimetry(structure)
        {
            let mut structure = structure.to_owned();
            structure.set("colorimetry", colorimetry.to_string());
            let rgb = group(|_, format| format.is_rgb());
            push(out, &structure, &rgb, &["chroma-site"]);
        }
    }
    push(out, structure, alpha_formats(), &COLOR_FIELDS);
}

/// Colorimetry of RGB converted from a YUV format: the same transfer function and primaries.
fn rgb_colorimetry(structure: &gst::StructureRef) -> Option<VideoColorimetry> {
    let yuv: VideoColorimetry = structure.get::<&str>("colorimetry").ok()?.parse().ok()?;
    let (range, matrix) = (VideoColorRange::Range0_255, VideoColorMatrix::Rgb);
    Some(VideoColorimetry::new(range, matrix, yuv.transfer(), yuv.primaries()))
}

fn push(out: &mut gst::CapsRef, structure: &gst::StructureRef, formats: &[VideoFormat], without: &[&str]) {
    if formats.is_empty() {
        return;
    }
    let mut structure = structure.to_owned();
    structure.remove_fields(without.iter().copied());
    match formats {
        [format] => structure.set("format", format.to_str()),
        _ => structure.set("format", gst::List::new(formats.iter().map(|format| format.to_str()))),
    }
    out.append_structure(structure);
}

/// Chooses the best of the output caps that downstream accepts. Returns empty caps if `mode` supports none of
/// them.
pub fn fixate(mode: Mode, input: &gst::Caps, caps: &gst::Caps) -> gst::Caps {
    let Some(input) = input.structure(0) else { return gst::Caps::new_empty() };
    let Some(format) = format_of(input) else { return gst::Caps::new_empty() };
    let colorimetry = |structure: &gst::StructureRef| structure.get::<String>("colorimetry").ok();
    let wanted_colorimetry = colorimetry(input);

    let best = caps
        .iter()
        .flat_map(|structure| formats_of(structure).into_iter().map(move |format| (structure, format)))
        .filter(|&(_, candidate)| allows(mode, format, candidate))
        .min_by_key(|&(structure, candidate)| {
            (distance(format, candidate), colorimetry(structure) != wanted_colorimetry)
        });
    let Some((structure, chosen)) = best else { return gst::Caps::new_empty() };
    let mut structure = structure.to_owned();
    structure.set("format", chosen.to_str());
    // The least of a range would be taken.
    if structure.has_field("pixel-aspect-ratio") && !input.has_field("pixel-aspect-ratio") {
        structure.fixate_field_nearest_fraction("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    }
    structure.fixate();
    gst::Caps::from(structure)
}

/// Returns whether any format of `caps` is supported by `mode`. `input` are the input caps, if they are known.
pub fn accepts(mode: Mode, input: Option<&gst::Caps>, caps: &gst::Caps) -> bool {
    let input = input.and_then(|input| format_of(input.structure(0)?));
    caps.is_any()
        || caps.iter_with_features().any(|(structure, features)| {
            let any_format = !structure.has_field("format");
            let fits = |&format: &VideoFormat| allows(mode, input.unwrap_or(format), format);
            // In the memory of the CPU.
            (features.is_any() || features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY))
                && (any_format || formats_of(structure).iter().any(fits))
        })
}

fn format_of(structure: &gst::StructureRef) -> Option<VideoFormat> {
    structure.get::<&str>("format").ok().map(VideoFormat::from_string)
}

fn formats_of(structure: &gst::StructureRef) -> Vec<VideoFormat> {
    if let Ok(list) = structure.get::<gst::List>("format") {
        list.iter().filter_map(|value| value.get::<&str>().ok()).map(VideoFormat::from_string).collect()
    } else {
        format_of(structure).into_iter().collect()
    }
}

fn has_alpha(format: VideoFormat) -> bool {
    let info = VideoFormatInfo::from_format(format);
    // GStreamer 1.22 does not flag AV12 as alpha, and its compositor treats it as opaque.
    has_plain_alpha(&info) && info.has_alpha()
}

fn same_colors(a: &VideoFormatInfo, b: &VideoFormatInfo) -> bool {
    (a.is_yuv() && b.is_yuv()) || (a.is_rgb() && b.is_rgb())
}

fn same_sampling(a: &VideoFormatInfo, b: &VideoFormatInfo) -> bool {
    same_colors(a, b) && sampling(a) == sampling(b)
}

/// Chroma subsampling, horizontal and vertical, as powers of two. Grey counts as 4:2:0.
fn sampling(info: &VideoFormatInfo) -> (u32, u32) {
    match (info.w_sub(), info.h_sub()) {
        ([_, x, ..], [_, y, ..]) => (*x, *y),
        _ => (1, 1),
    }
}

/// Cost of a conversion in quality and time, 0 for equal formats.
fn distance(from: VideoFormat, to: VideoFormat) -> u32 {
    if from == to {
        return 0;
    }
    let (a, b) = (VideoFormatInfo::from_format(from), VideoFormatInfo::from_format(to));
    if colors_in_place(&a, &b) {
        return 1;
    }
    if appended_planes(&a, &b).is_some() {
        return 2;
    }
    let depth = |info: &VideoFormatInfo| info.depth()[0];
    let saved = |info: &VideoFormatInfo| sampling(info).0 + sampling(info).1;
    // A conversion from grey to YUV keeps the luma.
    let foreign = !(same_colors(&a, &b) || a.is_gray() && b.is_yuv());
    4 + 400 * u32::from(foreign)
        + 40 * depth(&a).saturating_sub(depth(&b))
        + 2 * depth(&b).saturating_sub(depth(&a))
        + 30 * saved(&b).saturating_sub(saved(&a))
        + 2 * saved(&a).saturating_sub(saved(&b))
        + u32::from(a.n_planes() != b.n_planes().saturating_sub(u32::from(b.n_planes() > 1)))
        + u32::from(b.is_tiled() || b.is_complex())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was 1/2147483647 in front of a videoscale.
    #[test]
    fn an_unknown_pixel_aspect_ratio_becomes_square() {
        gst::init().unwrap();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        let input = caps("video/x-raw,format=I420,width=8,height=8,framerate=30/1");
        let downstream = caps(
            "video/x-raw,format={A420,RGBA},width=8,height=8,framerate=30/1,\
             pixel-aspect-ratio=[1/2147483647,2147483647/1]",
        );
        let fixed = fixate(Mode::Alpha, &input, &downstream);
        let ratio = fixed.structure(0).unwrap().get::<gst::Fraction>("pixel-aspect-ratio").unwrap();
        assert_eq!(ratio, gst::Fraction::new(1, 1), "{fixed}");
    }

    fn nearest(input: VideoFormat) -> VideoFormat {
        let input = gst_video::VideoInfo::builder(input, 8, 8).build().unwrap().to_caps().unwrap();
        let caps = transform(Mode::Alpha, gst::PadDirection::Sink, &input);
        let chosen = fixate(Mode::Alpha, &input, &caps);
        gst_video::VideoInfo::from_caps(&chosen).unwrap().format()
    }

    #[test]
    fn nearest_alpha_format() {
        gst::init().unwrap();
        let av12_is_alpha = VideoFormatInfo::from_format(VideoFormat::Av12).has_alpha();
        let for_nv12 = if av12_is_alpha { VideoFormat::Av12 } else { VideoFormat::A420 };
        // GStreamer 1.24 added planar formats with alpha.
        let newer = |name: &str| match VideoFormat::from_string(name) {
            VideoFormat::Unknown => VideoFormat::Ayuv,
            format => format,
        };
        for (input, expected) in [
            (VideoFormat::I420, VideoFormat::A420),
            (VideoFormat::Yv12, VideoFormat::A420),
            (VideoFormat::Nv12, for_nv12),
            (VideoFormat::A420, VideoFormat::A420),
            (VideoFormat::Rgbx, VideoFormat::Rgba),
            (VideoFormat::Bgrx, VideoFormat::Bgra),
            (VideoFormat::Xrgb, VideoFormat::Argb),
            (VideoFormat::Xbgr, VideoFormat::Abgr),
            (VideoFormat::Bgra, VideoFormat::Bgra),
            (VideoFormat::Yuy2, newer("A422")),
            (VideoFormat::Y444, newer("A444")),
            (VideoFormat::Gbr, VideoFormat::Gbra),
            (VideoFormat::I42010le, VideoFormat::A42010le),
            (VideoFormat::P01010le, VideoFormat::A42010le),
            (VideoFormat::I42210le, VideoFormat::A42210le),
        ] {
            assert_eq!(nearest(input), expected, "for {input:?}");
        }
        for input in [VideoFormat::Rgb, VideoFormat::Bgr] {
            let format = VideoFormatInfo::from_format(nearest(input));
            assert!(format.is_rgb() && format.bits() == 8, "{input:?} becomes {format:?}");
        }
    }

    #[test]
    fn alpha_output_uses_only_formats_flagged_as_alpha() {
        gst::init().unwrap();
        for format in VideoFormat::iter_raw() {
            let known = VideoFormatInfo::from_format(format).has_alpha();
            assert!(known || !allows(Mode::Alpha, VideoFormat::Nv12, format), "{format:?}");
        }
        let nv12 = gst_video::VideoInfo::builder(VideoFormat::Nv12, 8, 8).build().unwrap().to_caps().unwrap();
        let offered = transform(Mode::Alpha, gst::PadDirection::Sink, &nv12);
        let alpha = |structure: &gst::StructureRef| {
            formats_of(structure).into_iter().filter(|&format| has_alpha(format)).count()
        };
        assert!(offered.iter().map(alpha).sum::<usize>() > 15);
    }

    #[test]
    fn every_format_has_an_alpha_format() {
        gst::init().unwrap();
        for &input in input_formats() {
            assert!(has_alpha(nearest(input)), "{input:?}");
        }
    }

    #[test]
    fn colour_fields_are_kept_if_the_colours_do_not_change() {
        gst::init().unwrap();
        let input = gst_video::VideoInfo::builder(VideoFormat::I420, 8, 8)
            .colorimetry(&"bt709".parse().unwrap())
            .chroma_site(gst_video::VideoChromaSite::MPEG2)
            .par(gst::Fraction::new(4, 3))
            .fps(gst::Fraction::new(25, 1))
            .build()
            .unwrap()
            .to_caps()
            .unwrap();
        let fields = |caps: &gst::Caps| {
            let structure = caps.structure(0).unwrap();
            let text = |name: &str| structure.get::<String>(name).ok();
            (text("format").unwrap(), text("colorimetry"), text("chroma-site"))
        };
        let only = |format: VideoFormat| {
            let downstream = gst_video::VideoCapsBuilder::new().format(format).build();
            let caps = transform(Mode::Alpha, gst::PadDirection::Sink, &input);
            fixate(Mode::Alpha, &input, &downstream.intersect(&caps))
        };
        let bt709 = || Some("bt709".to_owned());
        assert_eq!(fields(&only(VideoFormat::A420)), ("A420".into(), bt709(), Some("mpeg2".into())));
        assert_eq!(fields(&only(VideoFormat::Ayuv)), ("AYUV".into(), bt709(), None));
        assert_eq!(fields(&only(VideoFormat::Rgba)), ("RGBA".into(), Some("1:1:5:1".into()), None));
        let info = gst_video::VideoInfo::from_caps(&only(VideoFormat::Rgba)).unwrap();
        assert_eq!((info.par(), info.fps()), (gst::Fraction::new(4, 3), gst::Fraction::new(25, 1)));
    }

    #[test]
    fn downstream_without_alpha_gives_empty_caps() {
        gst::init().unwrap();
        let input =
            gst_video::VideoInfo::builder(VideoFormat::I420, 8, 8).build().unwrap().to_caps().unwrap();
        let downstream = gst_video::VideoCapsBuilder::new().format(VideoFormat::I420).build();
        let caps = transform(Mode::Alpha, gst::PadDirection::Sink, &input).intersect(&downstream);
        assert!(!caps.is_empty(), "the pads must link, so that the error is posted");
        assert!(fixate(Mode::Alpha, &input, &caps).is_empty());
        assert!(!accepts(Mode::Alpha, None, &downstream));
        assert!(accepts(Mode::Alpha, None, &gst::Caps::new_any()));
        assert!(accepts(Mode::Background, Some(&input), &downstream));
        let rgb = gst_video::VideoCapsBuilder::new().format(VideoFormat::Rgb).build();
        assert!(!accepts(Mode::Background, Some(&input), &rgb) && accepts(Mode::Background, None, &rgb));
    }
}
