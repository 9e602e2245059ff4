// SPDX-License-Identifier: MPL-2.0

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use fastganseg_training::confidence::{calibration_error, rank_correlation, write_confidence};
use fastganseg_training::distributed::Ranks;
use fastganseg_training::eval::{EvalOptions, evaluate};
use fastganseg_training::method::{Frozen, PostProcessed, Propagator, Threaded};
use fastganseg_training::occlusion::{Case, Cover, MAX_FRAMES_TO_FIND, measure};
use fastganseg_training::report::{check_output, table, write_csv};
use fastganseg_training::simulated_user::FirstMask;
use fastganseg_training::{Error, Result};
use gstfastganseg::matte::MatteSettings;

use super::model::Model;
use super::{Data, Edges, Processes, arguments, frame_bar, print};

/// Runs a model on a data set, writes its masks, and scores them.
///
/// Writes OUT/masks/SEQUENCE/FRAME.png, OUT/scores.csv and OUT/sheets/SEQUENCE.png, and prints a table. Frames per
/// second are measured without reading and writing files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    /// Folder for masks, scores and contact sheets
    #[arg(long, value_name = "DIR", required_unless_present = "cover")]
    out: Option<PathBuf>,

    /// Method that propagates the first mask
    #[arg(long, value_enum, default_value_t = Method::Model)]
    method: Method,

    #[command(flatten)]
    model: Model,

    /// Enlarge masks to the size of the annotations like the element, then threshold them
    /// [default: bilinear, then the most probable object of each pixel]
    #[arg(long, value_enum)]
    edges: Option<Edges>,

    /// Prefetch each frame, like the element with frame-threading
    #[arg(long, conflicts_with = "edges")]
    frame_threading: bool,

    /// Play each sequence forwards and backwards until N frames are tracked. The column J-Decay of the table then
    /// measures the drift in long videos. 0 = once forwards
    #[arg(long = "loop", value_name = "N", default_value_t = 0, value_parser = loop_frames)]
    loop_frames: usize,

    /// What a simulated user gives in the first frame of each sequence: the true mask, the bounding box of each object, or
    /// N clicks on each object. The prompt network makes the masks
    #[arg(long, value_name = "mask|box|points:N", default_value = "mask")]
    first: FirstMask,

    /// Weights of the network that turns boxes and clicks into masks, for --first and --corrections [default: the built-in
    /// ones]
    #[arg(long, value_name = "FILE", conflicts_with = "cover")]
    prompt_weights: Option<PathBuf>,

    /// Corrections of each sequence by a simulated user, at even intervals: one click on the worst frame so far, whose mask
    /// becomes another reference
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["loop_frames", "cover"])]
    corrections: usize,

    /// Also write confidence and region similarity of every object in every scored frame, CSV
    #[arg(long, value_name = "FILE")]
    confidence: Option<PathBuf>,

    /// Instead of scoring, cover frames in the middle of every sequence and report how the tracker recovers. Only
    /// the first frame needs an annotation
    #[arg(long, value_enum, value_name = "COVER,...", value_delimiter = ',', conflicts_with_all = ["out", "edges", "frame_threading", "loop_frames", "confidence", "first", "sheet_frames", "bare_sheets"])]
    cover: Vec<Cover>,

    /// Numbers of covered frames, one run for each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 5, 15, 60], requires = "cover", value_parser = cover_length)]
    cover_length: Vec<usize>,

    /// Frames on each contact sheet, 0 for no sheets
    #[arg(long, value_name = "N", default_value_t = 12)]
    sheet_frames: usize,

    /// Contact sheets without the frames, for data sets whose frames may not be published
    #[arg(long)]
    bare_sheets: bool,

    #[command(flatten)]
    processes: Processes,
}

/// Evaluated methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The trained model
    Model,
    /// The first mask, repeated, as a lower bound
    Frozen,
}

fn loop_frames(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(frames) if frames != 1 && frames != 2 => Ok(frames),
        _ => Err("give 0, or at least 3: the first and the last frame are not scored".into()),
    }
}

fn cover_length(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&frames| frames > 0).ok_or_else(|| "give at least 1 frame".into())
}

impl Args {
    fn propagator(&self, ranks: &Ranks) -> Result<Box<dyn Propagator>> {
        if self.method == Method::Frozen {
            let unused = [
                (self.edges.is_some(), "--edges"),
                (self.frame_threading, "--frame-threading"),
                (self.confidence.is_some(), "--confidence"),
                (self.corrections > 0, "--corrections"),
            ];
            let unused = unused.into_iter().find_map(|(is_set, option)| is_set.then_some(option));
            if let Some(option) = self.model.first_set().or(unused) {
                let reason = format!("{option} needs --method model: frozen has no network");
                return Err(gstfastganseg::Error::Config(reason).into());
            }
            if ranks.is_first() {
                eprintln!("method: the first mask, repeated");
            }
            return Ok(Box::new(Frozen::default()));
        }
        let tracker = self.model.tracker(self.frame_threading, ranks)?;
        let edges = match self.edges {
            None if self.frame_threading => return Ok(Box::new(Threaded::new(tracker))),
            None => return Ok(Box::new(tracker)),
            Some(edges) => edges.into(),
        };
        let settings = MatteSettings { edges, ..MatteSettings::default() };
        Ok(Box::new(PostProcessed::new(tracker, settings)))
    }
}

/// Evaluates, prints the table, and writes the files.
pub fn run(args: &Args) -> Result<()> {
    args.processes.run(arguments, |ranks| match args.cover.is_empty() {
        true => eval(args, ranks),
        false => cover(args, ranks),
    })
}

fn eval(args: &Args, ranks: &Ranks) -> Result<()> {
    if args.prompt_weights.is_some() && args.first == FirstMask::Mask && args.corrections == 0 {
        let reason =
            "--prompt-weights needs --first box, --first points:N or --corrections: nothing else uses them";
        return Err(gstfastganseg::Error::Config(reason.into()).into());
    }
    let dataset = args.data.open(ranks)?;
    if let Some(path) = args.confidence.as_ref().filter(|_| ranks.is_first()) {
        check_output(path)?;
    }
    let mut propagator = args.propagator(ranks)?;
    let options = EvalOptions {
        out: args.out.clone(),
        sheet_frames: args.sheet_frames,
        bare_sheets: args.bare_sheets,
        loop_frames: args.loop_frames,
        first: args.first,
        prompt_weights: args.prompt_weights.clone(),
        corrections: args.corrections,
    };
    let begin = Instant::now();
    let bar = frame_bar(ranks);
    let evaluation = evaluate(propagator.as_mut(), &dataset, &options, &bar, ranks);
    bar.finish_and_clear();
    let evaluation = evaluation?;
    if !ranks.is_first() {
        return Ok(());
    }
    let out = args.out.clone().unwrap_or_default();
    let csv = out.join("scores.csv");
    write_csv(&csv, &evaluation.scores, &evaluation.speed)?;
    if let Some(path) = &args.confidence {
        write_confidence(path, &evaluation.confidence)?;
    }
    eprintln!("done in {:.1} s", begin.elapsed().as_secs_f64());
    let mut text = table(&evaluation.scores, &evaluation.speed);
    if args.first != FirstMask::Mask {
        let _ = writeln!(text, "first masks: mean intersection over union {:.3}", evaluation.first_mask);
    }
    if let Some(flicker) = evaluation.flicker {
        let _ = writeln!(text, "flicker of still pixels near contours: {flicker:.2} of 255");
    }
    if args.confidence.is_some() {
        let correlation = rank_correlation(&evaluation.confidence);
        let _ = writeln!(
            text,
            "confidence: expected calibration error {:.3}, rank correlation with J {}",
            calibration_error(&evaluation.confidence),
            correlation.map_or("none".into(), |value| format!("{value:.2}")),
        );
    }
    print(&text)?;
    eprintln!("masks: {}", out.join("masks").display());
    eprintln!("scores: {}", csv.display());
    if args.sheet_frames > 0 {
        eprintln!("contact sheets: {}", out.join("sheets").display());
    }
    Ok(())
}

/// Evaluates with covers. Prints a line for each sequence, cover and length, and the means.
fn cover(args: &Args, ranks: &Ranks) -> Result<()> {
    if args.method != Method::Model {
        return Err(Error::from(gstfastganseg::Error::Config("--cover needs --method model".into())));
    }
    let dataset = args.data.open(ranks)?;
    let mut tracker = args.model.tracker(false, ranks)?;
    let bar = frame_bar(ranks);
    let cases = measure(&mut tracker, &dataset, &args.cover, &args.cover_length, &bar, ranks);
    bar.finish_and_clear();
    let cases = cases?;
    if !ranks.is_first() {
        return Ok(());
    }
    let mut text = format!(
        "{:24} {:12} {:>6} {:>6} {:>10} {:>6} {:>8} {:>8}\n",
        "sequence", "cover", "frames", "lost", "false mask", "found", "second", "deficit"
    );
    let frames = |count: Option<usize>| count.map_or("never".into(), |count| count.to_string());
    for case in &cases {
        let _ = writeln!(
            text,
            "{:24} {:12} {:6} {:>6} {:9.0}% {:>6} {:8.3} {:8.3}",
            case.sequence,
            case.cover.name(),
            case.length,
            frames(case.lost_after),
            100.0 * case.hallucinated,
            frames(case.found_after()),
            case.after.get(MAX_FRAMES_TO_FIND - 1).map_or(0.0, |(with, without)| without - with),
            case.deficit(),
        );
    }
    for &cover in &args.cover {
        text += &means(&cover.name(), cases.iter().filter(|case| case.cover == cover));
    }
    for &length in &args.cover_length {
        text += &means(&format!("{length} frames"), cases.iter().filter(|case| case.length == length));
    }
    text += &means("all", cases.iter());
    print(&text)
}

fn means<'a>(name: &str, cases: impl Iterator<Item = &'a Case>) -> String {
    let cases: Vec<&Case> = cases.collect();
    let mean = |of: &dyn Fn(&Case) -> f64| {
        cases.iter().map(|case| of(case)).sum::<f64>() / cases.len().max(1) as f64
    };
    format!(
        "{name}: {} cases, frames with a false mask {:.1} %, found within {MAX_FRAMES_TO_FIND} frames {:.1} %, ever {:.1} %, \
         mean loss of region similarity after that {:.3}\n",
        cases.len(),
        100.0 * mean(&|case| case.hallucinated),
        100.0
            * mean(&|case| f64::from(case.found_after().is_some_and(|frames| frames <= MAX_FRAMES_TO_FIND))),
        100.0 * mean(&|case| f64::from(case.found_after().is_some())),
        mean(&Case::deficit),
    )
}
