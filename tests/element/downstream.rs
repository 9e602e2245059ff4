// SPDX-License-Identifier: MPL-2.0

//! Links encoders, sinks and compositors behind the element: the frame is cut out, or a message says why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video::VideoInfo;
use gstreamer_video::prelude::*;

use crate::model;
use crate::util::*;

const WIDTH: u32 = 176;
const HEIGHT: u32 = 144;

/// Elements that are not tested, and why.
const SKIPPED: [(&str, &str); 16] = [
    ("aasink", "writes to the terminal"),
    ("autovideosink", "needs a display"),
    ("cacasink", "writes to the terminal"),
    ("decklinkvideosink", "needs a capture card"),
    ("dfbvideosink", "needs a display"),
    ("fbdevsink", "needs a display"),
    ("fpsdisplaysink", "needs a display"),
    ("gtkwaylandsink", "needs a display"),
    ("kmssink", "needs a display"),
    ("playsink", "needs a display"),
    ("v4l2sink", "needs a device"),
    ("viewfinderbin", "needs a display"),
    ("vulkansink", "needs a display"),
    ("waylandsink", "needs a display"),
    ("xvimagesink", "needs a display"),
    ("ximagesink", "needs a display"),
];

/// Launch line of a red video whose left half is the object.
fn source(mask: &str, input: &str) -> String {
    format!(
        "videotestsrc pattern=red num-buffers=5 ! \
         video/x-raw,format={input},width={WIDTH},height={HEIGHT},framerate=25/1 ! \
         fastganseg name=cut device=cpu roi=off model-file={} ref-mask={mask}",
        model::tiny()
    )
}

fn left_half(files: &Files) -> String {
    let size = (WIDTH as usize, HEIGHT as usize);
    let path = files.mask("mask.png", size, |x, _| if x < 88 { 255 } else { 0 });
    path.to_str().unwrap().to_owned()
}

/// First buffer at a pad, with its caps.
type First = Arc<Mutex<Option<(gst::Buffer, gst::Caps)>>>;

fn first_at(pad: &gst::Pad) -> First {
    let first = First::default();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let first = first.clone();
        move |pad, info| {
            if let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) {
                first.lock().unwrap().get_or_insert_with(|| (buffer.clone(), caps));
            }
            gst::PadProbeReturn::Ok
        }
    });
    first
}

/// What a frame looks like.
#[derive(Debug, PartialEq)]
enum Appearance {
    Nothing,
    /// With alpha, whatever the colours.
    Alpha,
    Composited,
    Uncut,
}

/// Classifies a frame. `None` if it is not raw video.
fn appearance(first: &First) -> Option<Appearance> {
    let first = first.lock().unwrap();
    let Some((buffer, caps)) = &*first else { return Some(Appearance::Nothing) };
    let info = VideoInfo::from_caps(caps).ok()?;
    if caps.structure(0)?.name() != "video/x-raw" {
        return None;
    }
    let out = as_rgba(buffer, &info);
    let map = out.map_readable().unwrap();
    let at = |part: f64| {
        let (width, height) = (info.width() as usize, info.height() as usize);
        let start = 4 * (height / 2 * width + (part * width as f64) as usize);
        <[u8; 4]>::try_from(&map[start..start + 4]).unwrap()
    };
    // Works for grey and two-colour formats, too: the halves must differ, and the right one must be bright.
    let (object, background) = (at(0.25), at(0.75));
    Some(if info.format_info().has_alpha() && object[3] > 200 && background[3] < 50 {
        Appearance::Alpha
    } else if background[..3].iter().all(|&value| value > 180) && object[1] < 150 && background[3] > 200 {
        Appearance::Composited
    } else {
        Appearance::Uncut
    })
}

/// Result of a pipeline.
struct Run {
    /// First frame of the compositor or of the element; `None` if it is not raw video.
    frame: Option<Appearance>,
    encoded: First,
    /// Errors and warnings of the element.
    messages: Vec<String>,
    /// Errors and warnings of other elements.
    other_messages: Vec<String>,
}

/// Plays `launch` and records the first buffers at the source pads of the elements `observed` and `encoder`.
fn run(launch: &str, observed: &str, encoder: Option<&str>) -> Result<Run, String> {
    let pipeline = gst::parse::launch(launch).map_err(|error| error.to_string())?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let frame = first_at(&pipeline.by_name(observed).unwrap().static_pad("src").unwrap());
    let encoded = encoder.map(|name| first_at(&pipeline.by_name(name).unwrap().static_pad("src").unwrap()));
    let bus = pipeline.bus().unwrap();
    let cut = pipeline.by_name("cut").unwrap();
    let (mut messages, mut other_messages) = (Vec::new(), Vec::new());
    let mut add = |source: Option<&gst::Object>, text: String| {
        let ours = source.is_some_and(|source| source == cut.upcast_ref::<gst::Object>());
        if ours { messages.push(text) } else { other_messages.push(text) }
    };
    let started = pipeline.set_state(gst::State::Playing);
    let wait = gst::ClockTime::from_seconds(if started.is_ok() { 8 } else { 0 });
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Warning];
    let mut ended = started.is_err();
    while let Some(message) = bus.timed_pop_filtered(if ended { gst::ClockTime::ZERO } else { wait }, &kinds)
    {
        match message.view() {
            gst::MessageView::Error(error) => {
                ended = true;
                add(error.src(), error.error().to_string());
            }
            gst::MessageView::Warning(warning) => add(warning.src(), warning.error().to_string()),
            _ => ended = true,
        }
    }
    if !ended {
        other_messages.push("the pipeline hangs".into());
    }
    pipeline.set_state(gst::State::Null).map_err(|error| error.to_string())?;
    let frame = appearance(&frame);
    Ok(Run { frame, encoded: encoded.unwrap_or_default(), messages, other_messages })
}

/// Whether decoding the encoded buffer restores alpha; `None` without a decoder.
fn decodes_to_alpha(encoded: &First) -> Option<bool> {
    let (buffer, caps) = encoded.lock().unwrap().clone()?;
    let pipeline = gst::parse::launch("appsrc name=in ! decodebin ! fakesink name=out").unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let decoded = first_at(&pipeline.by_name("out").unwrap().static_pad("sink").unwrap());
    let source = pipeline.by_name("in").unwrap().downcast::<gstreamer_app::AppSrc>().unwrap();
    source.set_caps(Some(&caps));
    source.set_format(gst::Format::Time);
    let _ = pipeline.set_state(gst::State::Playing);
    let mut buffer = buffer.copy();
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
    let _ = source.push_buffer(buffer);
    let _ = source.end_of_stream();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    match appearance(&decoded)? {
        Appearance::Nothing => None,
        frame => Some(frame == Appearance::Alpha),
    }
}

/// Names of all elements of the given types that accept raw video.
fn factories(kinds: &[gst::ElementFactoryType]) -> Vec<String> {
    init();
    let raw = gst::Caps::builder("video/x-raw").build();
    let mut names: Vec<String> = kinds
        .iter()
        .flat_map(|kind| gst::ElementFactory::factories_with_type(*kind, gst::Rank::NONE))
        .filter(|factory| {
            factory.static_pad_templates().iter().any(|template| {
                let caps = template.caps();
                template.direction() == gst::PadDirection::Sink && (caps.is_any() || caps.can_intersect(&raw))
            })
        })
        .map(|factory| factory.name().into())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn skip(name: &str) -> bool {
    match SKIPPED.iter().find(|(skipped, _)| *skipped == name) {
        Some((_, reason)) => println!("{name}: skipped, it {reason}"),
        None => return false,
    }
    true
}

/// Whether a message of the element names the problem and a remedy.
fn is_clear(messages: &[String]) -> bool {
    messages
        .iter()
        .any(|text| text.contains("alpha") && (text.contains("compositor") || text.contains("videoconvert")))
}

#[test]
fn every_encoder_keeps_the_cut_out_or_the_user_is_told() {
    let files = Files::new();
    let source = source(&left_half(&files), "I420");
    let mut counts = BTreeMap::<&str, Vec<String>>::new();
    let mut wrong = Vec::new();
    for name in factories(&[gst::ElementFactoryType::VIDEO_ENCODER]) {
        if skip(&name) {
            continue;
        }
        for (place, observed) in [("", "cut"), ("compositor name=mix background=white ! ", "mix")] {
            let what = format!("{place}{name}");
            let line = format!("{source} ! {place}{name} name=encoder ! fakesink");
            let run = match run(&line, observed, Some("encoder")) {
                Ok(run) => run,
                Err(error) => {
                    counts.entry("not built").or_default().push(format!("{what} ({error})"));
                    continue;
                }
            };
            let clear = is_clear(&run.messages);
            let outcome = match (&run.frame, clear) {
                (_, true) => {
                    // Whether the fourth byte of a BMP is read as alpha depends on the reader.
                    let ambiguous = name == "avenc_bmp";
                    if !ambiguous && decodes_to_alpha(&run.encoded) == Some(true) {
                        wrong.push(format!("{what} keeps alpha, but: {:?}", run.messages));
                    }
                    "message"
                }
                (Some(Appearance::Composited), _) => "composited",
                (Some(Appearance::Alpha), _) if run.encoded.lock().unwrap().is_some() => {
                    match decodes_to_alpha(&run.encoded) {
                        Some(true) => "alpha kept",
                        Some(false) => {
                            wrong.push(format!("{what} drops alpha: {:?}", encoded_caps(&run)));
                            "wrong"
                        }
                        None => "no decoder",
                    }
                }
                _ if !run.other_messages.is_empty() => "fails by itself",
                _ => {
                    wrong.push(format!("{what}: {:?} {:?}", run.frame, run.messages));
                    "wrong"
                }
            };
            counts
                .entry(outcome)
                .or_default()
                .push(format!("{what} {:?} {:?}", run.messages, run.other_messages));
        }
    }
    for (outcome, cases) in &counts {
        println!("{outcome}: {}\n  {}", cases.len(), cases.join("\n  "));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count = |outcome: &str| counts.get(outcome).map_or(0, Vec::len);
    let exercised = count("message") + count("composited") + count("alpha kept");
    assert!(exercised >= 60, "only {exercised} encoders were tried");
}

fn encoded_caps(run: &Run) -> Option<gst::Caps> {
    run.encoded.lock().unwrap().as_ref().map(|(_, caps)| caps.clone())
}

#[test]
fn every_sink_gets_the_cut_out_or_the_user_is_told() {
    let files = Files::new();
    let source = source(&left_half(&files), "NV12");
    let mut wrong = Vec::new();
    let mut count = 0;
    for name in factories(&[gst::ElementFactoryType::SINK | gst::ElementFactoryType::MEDIA_VIDEO]) {
        if skip(&name) {
            continue;
        }
        for (place, observed) in [("", "cut"), ("compositor name=mix background=white ! ", "mix")] {
            let what = format!("{place}{name}");
            let run = match run(&format!("{source} ! {place}{name}"), observed, None) {
                Ok(run) => run,
                Err(error) => {
                    println!("{what}: {error}");
                    continue;
                }
            };
            println!("{what}: {:?} {:?} {:?}", run.frame, run.messages, run.other_messages);
            let good = matches!(run.frame, Some(Appearance::Alpha | Appearance::Composited));
            if good || is_clear(&run.messages) {
                count += 1;
            } else if run.other_messages.is_empty() {
                wrong.push(what);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 4, "only {count} sinks were tried");
}

#[test]
fn whatever_follows_a_compositor_gets_the_cut_out_or_the_user_is_told() {
    let files = Files::new();
    let mask = left_half(&files);
    init();
    let compositors: Vec<String> = gst::Registry::get()
        .features(gst::ElementFactory::static_type())
        .into_iter()
        .filter_map(|feature| feature.downcast::<gst::ElementFactory>().ok())
        .filter(|factory| {
            factory.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|class| class.contains("Compositor"))
        })
        .map(|factory| factory.name().into())
        .collect();
    assert!(compositors.iter().any(|name| name == "compositor"), "{compositors:?}");
    let mut wrong = Vec::new();
    let mut count = 0;
    for compositor in &compositors {
        for input in ["I420", "NV12", "YUY2", "RGB"] {
            for output in ["I420", "NV12", "YUY2", "BGRx", "GRAY8", "AYUV", "RGBA", "AV12"] {
                let line = format!(
                    "{} ! {compositor} name=mix background=white ! video/x-raw,format={output} ! fakesink",
                    source(&mask, input)
                );
                let Ok(run) = run(&line, "mix", None) else { continue };
                let what = format!("{input} into {compositor} as {output}");
                println!("{what}: {:?} {:?} {:?}", run.frame, run.messages, run.other_messages);
                if run.frame == Some(Appearance::Composited) || is_clear(&run.messages) {
                    count += 1;
                } else if run.other_messages.is_empty() || run.frame == Some(Appearance::Uncut) {
                    wrong.push(what);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 24, "only {count} outcomes were clear");
}

/// Warnings about dropped alpha with `tail` behind the element.
fn warnings(tail: &str) -> Vec<String> {
    let files = Files::new();
    let outcome = play(&format!("{} ! {tail}", source(&left_half(&files), "I420"))).ok();
    outcome.warnings.into_iter().filter(|text| text.contains("drops the alpha channel")).collect()
}

#[test]
fn a_converter_that_drops_alpha_gives_a_warning() {
    let [warning] = &warnings("videoconvert name=plain ! video/x-raw,format=I420 ! fakesink")[..] else {
        panic!("one warning")
    };
    assert!(
        warning.contains("plain") && warning.contains("I420") && warning.contains("compositor"),
        "{warning}"
    );
}

/// It was an error of the negotiation, which a tee does not tolerate.
#[test]
fn without_a_link_downstream_other_branches_go_on() {
    let files = Files::new();
    let element = source(&left_half(&files), "I420");
    let (input, element) = element.rsplit_once("! fastganseg").unwrap();
    for threading in [false, true] {
        play(&format!(
            "{input} ! tee allow-not-linked=true name=t ! queue ! fakesink \
             t. ! fastganseg frame-threading={threading} {element}"
        ))
        .ok();
    }
}

/// The input that the element had before does not suit the other output.
#[test]
fn another_output_gets_another_input() {
    let files = Files::new();
    let pipeline = Pipeline::new(&format!(
        "{} ! capsfilter caps=video/x-raw,format={{A420,NV12}} ! fakesink name=sink signal-handoffs=true",
        source(&left_half(&files), "I420")
            .replace("! fastganseg", "! videoconvert ! fastganseg")
            .replace("num-buffers=5", "")
    ));
    let sink = pipeline.by_name("sink").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let cut = pipeline.by_name("cut").unwrap();
    sink.connect("handoff", false, move |values| {
        let pad = values[2].get::<gst::Pad>().unwrap();
        let _ = sender.send(VideoInfo::from_caps(&pad.current_caps().unwrap()).unwrap().format());
        None
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let next = || receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(next(), gstreamer_video::VideoFormat::A420);
    cut.set_property_from_str("output", "overlay");
    while next() != gstreamer_video::VideoFormat::Nv12 {}
    assert!(pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn a_converter_in_a_bin_that_drops_alpha_gives_a_warning() {
    let files = Files::new();
    let pipeline = Pipeline::new(&format!(
        "{} ! queue name=last  fakesink name=sink",
        source(&left_half(&files), "I420")
    ));
    let bin =
        gst::parse::bin_from_description("videoconvert ! capsfilter caps=video/x-raw,format=BGRx", true)
            .unwrap();
    pipeline.add(&bin).unwrap();
    pipeline.by_name("last").unwrap().link(&bin).unwrap();
    bin.link(&pipeline.by_name("sink").unwrap()).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Warning, gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(WAIT, &kinds).unwrap();
    let gst::MessageView::Warning(warning) = message.view() else { panic!("{message:?}") };
    assert!(warning.error().to_string().contains("drops the alpha channel"), "{warning:?}");
}

#[test]
fn alpha_that_is_used_gives_no_warning() {
    for tail in [
        "fakesink",
        "videoconvert ! video/x-raw,format=RGBA ! fakesink",
        "queue ! compositor ! videoconvert ! video/x-raw,format=I420 ! fakesink",
        "avenc_ffv1 ! fakesink",
        "pngenc ! fakesink",
        "tee name=t t. ! queue ! videoconvert ! video/x-raw,format=I420 ! fakesink t. ! queue ! fakesink",
    ] {
        assert_eq!(warnings(tail), [""; 0], "{tail}");
    }
}

#[test]
fn an_error_behind_a_compositor_names_the_missing_converter() {
    let files = Files::new();
    let line = format!(
        "{} ! queue ! compositor name=mix ! video/x-raw,format=NV12 ! fakesink",
        source(&left_half(&files), "NV12")
    );
    let (error, _) = play(&line).error.unwrap();
    assert!(error.matches(gst::CoreError::Negotiation), "{error:?}");
    assert!(error.to_string().contains("videoconvert behind mix"), "{error}");
}
