// SPDX-License-Identifier: MPL-2.0

//! Input frames with alpha.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoInfo};

use crate::model;
use crate::util::*;

/// Alpha of a frame in any format, 8 bits per pixel.
fn alpha_of(buffer: &gst::Buffer, info: &VideoInfo) -> Vec<u8> {
    if info.format() == VideoFormat::Av12 { plane(buffer, info, 3, 1) } else { alpha(buffer, info) }
}

fn product(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) * f64::from(b) / 255.0).round() as u8).collect()
}

/// Largest difference; `None` if it is a rounding error.
fn difference(a: &[u8], b: &[u8]) -> Option<u8> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b)).max().filter(|&most| most > 1)
}

/// Regression: the input's alpha was overwritten, so that its transparent parts became visible.
#[test]
fn alpha_of_the_input_is_multiplied_with_the_matte_in_every_format() {
    init();
    let files = Files::new();
    let (mut count, mut errors) = (0, Vec::new());
    for format in VideoFormat::iter_raw().filter(|&format| has_alpha(format)) {
        let info = info(format, 64, 48);
        let input = frame(&info, 0);
        let input_alpha = alpha_of(&input, &info);
        assert!(
            input_alpha.iter().any(|&value| value != input_alpha[0]),
            "{format:?}: the input alpha is constant"
        );
        for wanted in ["", "AV12", "A420", "AYUV", "RGBA", "ARGB64", "A444_10LE", "GRAY8"] {
            // GStreamer 1.22 does not list AV12 as a format with alpha, so the element does not offer it there.
            if wanted == "AV12"
                && !gstreamer_video::VideoFormatInfo::from_format(VideoFormat::Av12).has_alpha()
            {
                continue;
            }
            for masked in [true, false] {
                let element = element();
                element.set_property("model-file", model::tiny());
                if wanted == "GRAY8" {
                    element.set_property_from_str("output", "mask");
                }
                let mut expected = input_alpha.clone();
                if masked {
                    element
                        .set_property("ref-mask", files.mask("mask.png", (64, 48), ramp).to_str().unwrap());
                    expected = product(&input_alpha, &pixels(ramp));
                }
                let mut harness = gstreamer_check::Harness::with_element(&element, Some("sink"), Some("src"));
                if !wanted.is_empty() {
                    harness.set_sink_caps_str(&format!("video/x-raw,format={wanted}"));
                }
                harness.set_src_caps(info.to_caps().unwrap());
                harness.push(input.copy_deep().unwrap()).unwrap();
                let buffer = harness.pull().unwrap();
                let out = src_info(&harness);
                let what = format!("{format:?} as {wanted} {:?}, mask: {masked}", out.format());
                let found = match wanted {
                    "GRAY8" => plane(&buffer, &out, 0, 1),
                    _ => alpha_of(&buffer, &out),
                };
                if let Some(difference) = difference(&found, &expected) {
                    errors.push(format!("{what}: {difference}"));
                }
                // Without a mask the alpha is unchanged.
                if !masked && out.format() == format {
                    assert_eq!(found, input_alpha, "{what}");
                }
            }
        }
        count += 1;
    }
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(count >= 20, "only {count} formats");
}

#[test]
fn labels_do_not_depend_on_the_input_alpha() {
    let (_files, element) = masked(|x, y| disc(x, y) / 255);
    element.set_property("model-file", model::tiny());
    element.set_property_from_str("output", "labels");
    let (mut harness, info) = small(&element, VideoFormat::Rgba);
    let mut clear = gst::Buffer::from_mut_slice(vec![0u8; info.size()]);
    stamp(&mut clear, 0);
    let expected: Vec<u8> = pixels(disc).iter().map(|value| value / 255).collect();
    assert_eq!(values(&mut harness, clear), expected);
}
