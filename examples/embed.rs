// SPDX-License-Identifier: MPL-2.0

//! An application with the element linked in: plays a clip, changes the mask while playing, and prints the element's
//! messages.
//!
//! ```sh
//! cargo run --release --example embed -- in.mp4 first-mask.png second-mask.png
//! ```
//!
//! The second mask is set two seconds into the clip and applies to the next frame. No plugin path is needed: the
//! application registers the element.

use std::error::Error;

use gst::prelude::*;
use gstreamer as gst;

fn run(clip: &str, first: &str, second: Option<&str>) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gstfastganseg::element::register_static()?;

    let pipeline = gst::parse::launch(
        "filesrc name=file ! decodebin ! fastganseg name=cut ! compositor background=checker \
         ! videoconvert ! autovideosink",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| "not a pipeline")?;
    let by_name = |name: &str| pipeline.by_name(name).ok_or("no such element");
    by_name("file")?.set_property("location", clip);
    let cut = by_name("cut")?;
    cut.set_property("ref-mask", first);

    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    // An error is reported on the bus, with its cause.
    let _ = pipeline.set_state(gst::State::Playing);
    let mut next = second;
    let result = loop {
        // A graphical application would call `bus.add_watch` and use its main loop.
        let message = bus.timed_pop(gst::ClockTime::from_mseconds(50));
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Eos(_)) => break Ok(()),
            Some(gst::MessageView::Error(e)) => break Err(e.error().to_string().into()),
            Some(gst::MessageView::Warning(w)) => eprintln!("warning: {}", w.error()),
            Some(gst::MessageView::Element(e)) => {
                if let Some(s) = e.structure().filter(|s| s.has_name("fastganseg-reference")) {
                    println!("reference: {s}");
                }
            }
            // In live pipelines, when the latency of an element changes.
            Some(gst::MessageView::Latency(_)) => pipeline.recalculate_latency()?,
            Some(gst::MessageView::AsyncDone(_)) => {
                println!(
                    "running on {}",
                    cut.property::<Option<String>>("active-device").unwrap_or_default()
                );
            }
            _ => {}
        }
        let position = pipeline.query_position::<gst::ClockTime>();
        if position.is_some_and(|p| p >= gst::ClockTime::from_seconds(2))
            && let Some(mask) = next.take()
        {
            // Properties that are changeable in PLAYING may be set at any time from any thread. A bad file
            // gives a warning on the bus, and the element keeps the old reference.
            cut.set_property("ref-mask", mask);
        }
    };
    pipeline.set_state(gst::State::Null)?;
    result
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match &args[..] {
        [clip, first] => run(clip, first, None),
        [clip, first, second] => run(clip, first, Some(second)),
        _ => {
            eprintln!("usage: embed IN.mp4 MASK.png [SECOND_MASK.png]");
            std::process::exit(2);
        }
    };
    if let Err(e) = result {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
