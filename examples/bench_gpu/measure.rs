// SPDX-License-Identifier: MPL-2.0

//! The measurements and checks.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstfastganseg::device::Precision;
use gstfastganseg::image::PlaneMut;
use gstfastganseg::matte::{Guide, MatteSettings, PostProcessor};
use gstfastganseg::torch::model::weights::is_built_in;
use gstfastganseg::tracker::{Launch, Options, Roi, Tracker};
use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::args::Args;
use crate::clips::{I420, VideoClips};
use crate::results::{Line, Results};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Distinct frames of a video.
const FRAMES: usize = 12;

/// Launch modes to compare, with their names.
const LAUNCH_MODES: [(&str, Launch); 2] = [("plain", Launch::Plain), ("graph", Launch::Graph)];

fn open(device: &str, model: &Path, precision: Precision, (launch, roi): (Launch, Roi)) -> Outcome<Tracker> {
    let device = device.parse()?;
    let model = Some(model.into());
    Ok(Tracker::new(&Options { model, device, precision, roi, launch, ..Options::default() })?)
}

/// GPU memory of the tracker and of the process, as far as available.
fn memory(tracker: &Tracker) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let own = tracker.memory().map(|memory| {
        format!(
            "tensors {} MiB, reserved {} MiB, at most {} MiB",
            mib(memory.used),
            mib(memory.reserved),
            mib(memory.peak)
        )
    });
    own.into_iter().chain([process_memory()]).collect::<Vec<_>>().join(", ")
}

/// Memory of this process: on the GPU if nvidia-smi lists it, and on the host.
fn process_memory() -> String {
    let arguments = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
    let listed = Command::new("nvidia-smi").args(arguments).output().ok();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let pid = std::process::id().to_string();
    let on_gpu = listed.as_deref().into_iter().flat_map(str::lines).find_map(|line| {
        let (process, used) = line.split_once(',')?;
        (process.trim() == pid).then(|| format!("process {} MiB on the GPU", used.trim()))
    });
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| {
        let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
        Some(format!("{} MiB on the host", kilobytes >> 10))
    });
    on_gpu.into_iter().chain(resident).collect::<Vec<_>>().join(", ")
}

/// Records a failed measurement as a note, so that the run continues.
fn note_failure(results: &mut Results, line: &Line, outcome: Outcome<()>) -> Outcome<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => Ok(results.note(line, &format!("failed: {error}"))?),
    }
}

/// Times the network alone.
pub fn network(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<()> {
    for &precision in &args.precisions {
        for (way, launch) in LAUNCH_MODES {
            for &objects in args.objects() {
                let detail = format!("{objects} objects");
                let line = Line { what: "network", model, precision: precision.to_string(), way, detail };
                let mut measure = || -> Outcome<()> {
                    let mut tracker = open(&args.device, path, precision, (launch, Roi::Off))?;
                    let runs = if objects == 1 { args.runs } else { args.runs.div_ceil(4) };
                    tracker.time_network(objects, 30.min(runs))?;
                    let times = tracker.time_network(objects, runs)?;
                    let note = [tracker.take_graph_warning().unwrap_or_default(), memory(&tracker)];
                    Ok(results.times(&line, &times, note.join(" ").trim())?)
                };
                let outcome = measure();
                note_failure(results, &line, outcome)?;
            }
        }
    }
    Ok(())
}

/// Times the tracker without GStreamer, from frames in memory to alpha in memory.
pub fn tracker(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<()> {
    for &(name, width, height) in args.sizes() {
        let clips = VideoClips::new(width, height, FRAMES);
        let frames: Vec<Vec<u8>> = (0..FRAMES).map(|index| clips.i420(index)).collect();
        for &precision in &args.precisions {
            for (way, launch) in LAUNCH_MODES {
                for &objects in args.objects() {
                    let detail = format!("{name} {objects} objects");
                    let line = Line { what: "tracker", model, precision: precision.to_string(), way, detail };
                    let mut measure = || -> Outcome<()> {
                        let mut tracker = open(&args.device, path, precision, (launch, Roi::Auto))?;
                        let runs = if objects == 1 { args.runs } else { args.runs.div_ceil(6) };
                        let times = time_steps(&mut tracker, &clips, &frames, objects, runs)?;
                        Ok(results.times(&line, &times, &memory(&tracker))?)
                    };
                    let outcome = measure();
                    note_failure(results, &line, outcome)?;
                }
            }
        }
    }
    Ok(())
}

fn time_steps(
    tracker: &mut Tracker,
    clips: &VideoClips,
    frames: &[Vec<u8>],
    objects: usize,
    runs: usize,
) -> Outcome<Vec<Duration>> {
    let (width, height) = (clips.width, clips.height);
    tracker.set_reference(&mut clips.frame(0), &clips.mask(objects)?)?;
    let (mut post_processor, mut alpha) = (PostProcessor::default(), vec![0; width * height]);
    let warm = 30.min(runs);
    let mut times = Vec::new();
    for run in 0..warm + runs {
        let index = run % frames.len();
        let mut scene = I420 { data: &frames[index], picture: clips.frame(index) };
        let begun = Instant::now();
        let matte = tracker.step(&mut scene)?;
        let guide = Guide::bytes(&frames[index], (width, height), width, 1);
        let plane = &mut PlaneMut { data: &mut alpha, width, height, stride: width };
        post_processor.write_alpha(&MatteSettings::default(), Some(&matte), guide.as_ref(), plane)?;
        if run >= warm {
            times.push(begun.elapsed());
        }
    }
    Ok(times)
}

/// Times the element in a pipeline.
pub fn pipeline(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<()> {
    for &(name, width, height) in args.sizes() {
        let clips = VideoClips::new(width, height, FRAMES);
        let mask = args.out.join("mask.png");
        let size = (clips.width as u32, clips.height as u32);
        image::save_buffer(&mask, clips.mask_bytes(), size.0, size.1, image::ColorType::L8)?;
        let frames: Vec<Vec<u8>> = (0..FRAMES).map(|index| clips.i420(index)).collect();
        for &precision in &args.precisions {
            for (way, _) in LAUNCH_MODES {
                let line = Line {
                    what: "pipeline",
                    model,
                    precision: precision.to_string(),
                    way,
                    detail: format!("{name} 1 objects"),
                };
                // SAFETY: no other thread uses the environment: the previous pipeline has ended.
                unsafe { std::env::set_var("FASTGANSEG_LAUNCH", way) };
                let mut measure = || -> Outcome<()> {
                    let description = format!(
                        "appsrc name=frames format=time block=true max-buffers=4 ! queue max-size-buffers=3 \
                         ! fastganseg name=cut device={} precision={precision} ref-mask={mask:?} model-file={path:?} \
                         ! video/x-raw,format=A420 ! fakesink name=sink sync=false",
                        args.device,
                    );
                    let (times, note) = play(&description, size, &frames, args.runs + 40)?;
                    Ok(results.times(&line, &times[times.len().min(39)..], &note)?)
                };
                let outcome = measure();
                note_failure(results, &line, outcome)?;
            }
        }
    }
    Ok(())
}

/// Plays a pipeline. Returns the times between output frames and the element's statistics.
fn play(
    description: &str,
    (width, height): (u32, u32),
    frames: &[Vec<u8>],
    runs: usize,
) -> Outcome<(Vec<Duration>, String)> {
    let pipeline = gst::parse::launch(description)?.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    let by_name = |name: &str| pipeline.by_name(name).ok_or("no such element");
    let source = by_name("frames")?.downcast::<gst_app::AppSrc>().map_err(|_| "not an appsrc")?;
    let caps =
        format!("video/x-raw,format=I420,width={width},height={height},framerate=1000/1,colorimetry=bt709");
    let caps: gst::Caps = caps.parse()?;
    source.set_caps(Some(&caps));
    let info = gstreamer_video::VideoInfo::from_caps(&caps)?;
    if info.size() != frames[0].len() {
        return Err(format!("{width}x{height} has padding, which is not measured").into());
    }
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&arrivals);
    let pad = by_name("sink")?.static_pad("sink").ok_or("no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if let Ok(mut times) = times.lock() {
            times.push(Instant::now());
        }
        gst::PadProbeReturn::Ok
    });
    let bus = pipeline.bus().ok_or("no bus")?;
    // An error is reported on the bus, with its cause.
    let _ = pipeline.set_state(gst::State::Playing);
    let buffers: Vec<gst::Buffer> =
        frames.iter().map(|frame| gst::Buffer::from_slice(frame.clone())).collect();
    for run in 0..runs {
        let mut buffer = buffers[run % buffers.len()].copy();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_mseconds(run as u64));
        }
        if source.push_buffer(buffer).is_err()
            || bus.peek().is_some_and(|message| message.type_() == gst::MessageType::Error)
        {
            break;
        }
    }
    let _ = source.end_of_stream();
    let message = bus.timed_pop_filtered(None, &[gst::MessageType::Eos, gst::MessageType::Error]);
    let stats = by_name("cut")?.property::<gst::Structure>("stats").to_string();
    pipeline.set_state(gst::State::Null)?;
    if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
        return Err(error.error().to_string().into());
    }
    let arrivals = arrivals.lock().map_err(|_| "no times")?;
    Ok((arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect(), stats))
}

/// Similarity of the mattes of two trackers in one frame.
struct Similarity {
    /// Intersection over union of opaque pixels.
    iou: f64,
    /// Mean absolute difference of alpha, in levels of 255.
    difference: f64,
    /// Opaque share of the first matte, 0 to 1.
    opaque: f64,
}

/// Compares two trackers frame by frame.
fn compare(
    first: &mut Tracker,
    second: &mut Tracker,
    clips: &VideoClips,
    frames: usize,
) -> Outcome<Vec<Similarity>> {
    let mask = clips.mask(1)?;
    first.set_reference(&mut clips.frame(0), &mask)?;
    second.set_reference(&mut clips.frame(0), &mask)?;
    let size = (clips.width, clips.height);
    let alpha =
        |tracker: &mut Tracker, post_processor: &mut PostProcessor, index: usize| -> Outcome<Vec<u8>> {
            let picture = clips.frame(index);
            let matte = tracker.step(&mut { picture })?;
            let mut data = vec![0; size.0 * size.1];
            let plane = &mut PlaneMut { data: &mut data, width: size.0, height: size.1, stride: size.0 };
            post_processor.write_alpha(
                &MatteSettings::default(),
                Some(&matte),
                Guide::from_picture(&picture).as_ref(),
                plane,
            )?;
            Ok(data)
        };
    let mut post_processors = [PostProcessor::default(), PostProcessor::default()];
    let [one, other] = &mut post_processors;
    (1..=frames)
        .map(|index| {
            let (a, b) = (alpha(first, one, index)?, alpha(second, other, index)?);
            let pairs = || a.iter().zip(&b).map(|(&a, &b)| (a > 127, b > 127));
            let both = pairs().filter(|&(a, b)| a && b).count() as f64;
            let any = pairs().filter(|&(a, b)| a || b).count() as f64;
            let difference: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            let pixels = a.len() as f64;
            Ok(Similarity {
                iou: if any > 0.0 { both / any } else { 1.0 },
                difference: difference / pixels,
                opaque: a.iter().filter(|&&value| value > 127).count() as f64 / pixels,
            })
        })
        .collect()
}

fn mean(all: &[Similarity], value: impl Fn(&Similarity) -> f64) -> f64 {
    all.iter().map(value).sum::<f64>() / all.len().max(1) as f64
}

/// Minimum opaque share on average: two empty masks would count as equal.
const MIN_OPAQUE: f64 = 0.005;

/// Compares one precision and launch mode with the CPU in float32. Returns whether they agree, and a note. Masks of
/// random weights are chaotic over time, so for those only the mean difference over three whole frames counts.
fn compare_with_cpu(
    args: &Args,
    path: &Path,
    precision: Precision,
    launch: Launch,
    frames: usize,
) -> Outcome<(bool, String)> {
    let clips = VideoClips::new(640, 360, frames.min(100));
    let roi = if is_built_in(path) { Roi::Frame } else { Roi::Off };
    let mut cpu = open("cpu", path, Precision::Float32, (Launch::Plain, roi))?;
    let mut other = open(&args.device, path, precision, (launch, roi))?;
    let all = compare(&mut cpu, &mut other, &clips, frames)?;
    let (iou, difference) = (mean(&all, |one| one.iou), mean(&all, |one| one.difference));
    let opaque = mean(&all, |one| one.opaque);
    let worst = all.iter().map(|one| one.iou).fold(1.0, f64::min);
    let good = if is_built_in(path) { iou >= 0.99 && opaque > MIN_OPAQUE } else { difference < 4.0 };
    let warning = other.take_graph_warning();
    // Without a GPU there are no graphs.
    let good = good && (warning.is_none() || args.device == "cpu");
    let warning = warning.map(|reason| format!("; {reason}")).unwrap_or_default();
    let note = format!(
        "{}: IoU {iou:.4} on average, {worst:.4} at worst, alpha differs by {difference:.3} levels, {:.1} % \
         opaque{warning}",
        if good { "right" } else { "wrong" },
        100.0 * opaque
    );
    Ok((good, note))
}

/// Frames of [`check`].
const CHECKED_FRAMES: usize = 9;

/// Runs a few frames in each launch mode, enough for the graphs of the network and of the enlargement to be recorded
/// and replayed.
///
/// # Errors
/// At the first failure or wrong result.
pub fn check(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<()> {
    for (way, launch) in LAUNCH_MODES {
        let precision = args.precisions[0];
        let line = Line {
            what: "check",
            model,
            precision: precision.to_string(),
            way,
            detail: format!("{CHECKED_FRAMES} frames"),
        };
        match compare_with_cpu(args, path, precision, launch, CHECKED_FRAMES) {
            Ok((true, note)) => results.note(&line, &note)?,
            Ok((false, note)) => {
                results.note(&line, &note)?;
                return Err(format!("{model} {way}: {note}").into());
            }
            Err(error) => {
                results.note(&line, &format!("failed: {error}"))?;
                return Err(format!("{model} {way}: {error}").into());
            }
        }
    }
    Ok(())
}

/// Compares each precision and launch mode with the CPU in float32.
pub fn correctness(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<bool> {
    let frames = if is_built_in(path) { args.frames } else { 3 };
    let mut right = true;
    for &precision in &args.precisions {
        for (way, launch) in LAUNCH_MODES {
            let detail = format!("{frames} frames");
            let line = Line { what: "correct", model, precision: precision.to_string(), way, detail };
            match compare_with_cpu(args, path, precision, launch, frames) {
                Ok((good, note)) => {
                    right &= good;
                    results.note(&line, &note)?;
                }
                Err(error) => {
                    right = false;
                    note_failure(results, &line, Err(error))?;
                }
            }
        }
    }
    Ok(right)
}

/// Starts and stops a pipeline until it has changed its state 1,000 times, six times a round, and compares the memory
/// of the process at NULL after the first round and after the last.
pub fn state_changes(args: &Args, results: &mut Results) -> Outcome<()> {
    let rounds = if args.tiny { 2 } else { 1000_usize.div_ceil(6) };
    for (way, _) in LAUNCH_MODES {
        let detail = format!("{} changes", 6 * rounds);
        let line =
            Line { what: "states", model: "lite", precision: args.precisions[0].to_string(), way, detail };
        // SAFETY: no other thread uses the environment: the previous pipeline has ended.
        unsafe { std::env::set_var("FASTGANSEG_LAUNCH", way) };
        let mut measure = || -> Outcome<()> {
            let pipeline = gst::parse::launch(&format!(
                "videotestsrc ! video/x-raw,width=640,height=360 ! fastganseg device={} precision={} \
                 ref-mask={:?} ! fakesink",
                args.device,
                args.precisions[0],
                args.out.join("mask.png")
            ))?;
            let (mut first, mut times) = (None, Vec::new());
            let change = |state| -> Outcome<()> {
                pipeline.set_state(state)?;
                match pipeline.state(gst::ClockTime::from_seconds(60)).0? {
                    gst::StateChangeSuccess::Async => Err(format!("{state:?} takes more than 60 s").into()),
                    _ => Ok(()),
                }
            };
            for _ in 0..rounds {
                let begun = Instant::now();
                let played = change(gst::State::Playing);
                change(gst::State::Null)?;
                played?;
                times.push(begun.elapsed());
                first.get_or_insert_with(process_memory);
            }
            let note = format!(
                "at NULL: {} after the first round, {} after the last",
                first.unwrap_or_default(),
                process_memory()
            );
            Ok(results.times(&line, &times, &note)?)
        };
        let outcome = measure();
        note_failure(results, &line, outcome)?;
    }
    Ok(())
}

/// Compares half precision with float32 on the same device over many frames: errors must not accumulate. Only for
/// trained weights: masks of random ones are chaotic in any precision.
pub fn drift(args: &Args, results: &mut Results, model: &str, path: &Path) -> Outcome<bool> {
    if !is_built_in(path) {
        return Ok(true);
    }
    let clips = VideoClips::new(640, 360, args.long.min(100));
    let mut right = true;
    for &precision in
        args.precisions.iter().filter(|&&precision| precision != Precision::Float32 || args.tiny)
    {
        let detail = format!("{} frames", args.long);
        let line = Line { what: "drift", model, precision: precision.to_string(), way: "-", detail };
        let mut measure = || -> Outcome<()> {
            let mut exact = open(&args.device, path, Precision::Float32, (Launch::Plain, Roi::Frame))?;
            let mut half = open(&args.device, path, precision, (Launch::Graph, Roi::Frame))?;
            let all = compare(&mut exact, &mut half, &clips, args.long)?;
            let part = args.long.min(100);
            let of = |all: &[Similarity]| (mean(all, |one| one.iou), mean(all, |one| one.difference));
            let (early, late) = (of(&all[..part]), of(&all[all.len() - part..]));
            let good = late.0 >= early.0 - 0.01 && mean(&all, |one| one.opaque) > MIN_OPAQUE;
            right &= good;
            let word = if good { "right" } else { "wrong" };
            let note = format!(
                "{word}: IoU {:.4} in the first {part} frames, {:.4} in the last; alpha differs by {:.3} and {:.3}",
                early.0, late.0, early.1, late.1
            );
            Ok(results.note(&line, &note)?)
        };
        let outcome = measure();
        right &= outcome.is_ok();
        note_failure(results, &line, outcome)?;
    }
    Ok(right)
}
