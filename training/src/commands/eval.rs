use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use fastganseg_training::Result;
use fastganseg_training::eval::{EvalOptions, evaluate};
use fastganseg_training::method::{Finished, Frozen, Propagation, Propagator, Threaded};
use fastganseg_training::report::{table, write_csv};
use gstfastganseg::matte::{self, MatteSettings};

use super::model::Model;
use super::{Data, frame_bar};

/// Runs a model over a data set, keeps its masks, and scores them.
///
/// Writes OUT/masks/SEQUENCE/FRAME.png, OUT/scores.csv and OUT/sheets/SEQUENCE.png, and prints a
/// table. Frames a second are those of the model alone, without reading and writing files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    /// Folder for masks, measures and contact sheets
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// What carries the first mask through the video
    #[arg(long, value_enum, default_value_t = Method::Model)]
    method: Method,

    #[command(flatten)]
    model: Model,

    /// ImageNet weights of MobileNetV2, .safetensors, for `--method propagation`
    #[arg(long, value_name = "FILE", required_if_eq("method", "propagation"))]
    backbone: Option<PathBuf>,

    /// How masks are enlarged to the annotations' size before they are cut at one half, as in the element
    /// [default: the most probable object of each pixel, evenly enlarged]
    #[arg(long, value_enum)]
    edges: Option<Edges>,

    /// Smoothing of alpha over time, 0 to 1, with `--edges`
    #[arg(long, value_name = "STRENGTH", default_value_t = 0.0, requires = "edges")]
    smoothing: f64,

    /// Looks at each frame where its objects were expected a frame earlier, as the element's frame-threading does
    #[arg(long, conflicts_with_all = ["edges", "scales", "background"])]
    frame_threading: bool,

    /// Runs the network alone, on whole frames, at these parts of its size, and averages the masks; RGMP's
    /// comparison has 0.5,0.75,1. No region of interest, and no stray parts are taken out
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with_all = ["edges", "roi"])]
    scales: Vec<f64>,

    /// Propagates the background as an object too, as RGMP does; runs the network alone, as `--scales` does
    #[arg(long, conflicts_with_all = ["edges", "roi"])]
    background: bool,

    /// Frames on each contact sheet, 0 for no sheets
    #[arg(long, value_name = "N", default_value_t = 12)]
    sheet_frames: usize,

    /// Contact sheets show the masks without the frames, to be published where the videos may not be
    #[arg(long)]
    bare_sheets: bool,
}

/// What can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The trained regressor
    Model,
    /// The first mask, repeated: a floor without training
    Frozen,
    /// Likeness of ImageNet features alone: a floor without training on video
    Propagation,
}

/// Ways to enlarge a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Edges {
    /// Its edges follow those of the picture
    Refine,
    /// Evenly
    Bilinear,
}

impl Args {
    fn propagator(&self) -> Result<Box<dyn Propagator>> {
        if self.method != Method::Model && (self.background || !self.scales.is_empty()) {
            let reason = "--scales and --background go with --method model";
            return Err(gstfastganseg::Error::Config(reason.into()).into());
        }
        match self.method {
            Method::Model if self.background || !self.scales.is_empty() => {
                Ok(Box::new(self.model.multiscale(&self.scales, self.background)?))
            }
            Method::Model => {
                let tracker = self.model.tracker_with(self.frame_threading)?;
                let edges = match self.edges {
                    None if self.frame_threading => return Ok(Box::new(Threaded::new(tracker))),
                    None => return Ok(Box::new(tracker)),
                    Some(Edges::Refine) => matte::Edges::Refine,
                    Some(Edges::Bilinear) => matte::Edges::Bilinear,
                };
                let settings = MatteSettings { edges, smoothing: self.smoothing, ..MatteSettings::default() };
                Ok(Box::new(Finished::new(tracker, settings)))
            }
            Method::Propagation => {
                let backbone = self.backbone.clone().unwrap_or_default();
                eprintln!("features of {}", backbone.display());
                Ok(Box::new(Propagation::new(&backbone)?))
            }
            Method::Frozen => {
                if self.model.model.is_some() {
                    let reason = "--model goes with --method model; frozen has no weights";
                    return Err(gstfastganseg::Error::Config(reason.into()).into());
                }
                eprintln!("the first mask, repeated");
                Ok(Box::new(Frozen::default()))
            }
        }
    }
}

/// Prints the table, writes the files.
pub fn run(args: &Args) -> Result<()> {
    let dataset = args.data.open()?;
    let mut propagator = args.propagator()?;
    let options = EvalOptions {
        out: Some(args.out.clone()),
        sheet_frames: args.sheet_frames,
        bare_sheets: args.bare_sheets,
    };
    let begin = Instant::now();
    let bar = frame_bar();
    let evaluation = evaluate(propagator.as_mut(), &dataset, &options, &bar);
    bar.finish_and_clear();
    let evaluation = evaluation?;
    let csv = args.out.join("scores.csv");
    write_csv(&csv, &evaluation.scores, &evaluation.speed)?;
    eprintln!("done in {:.1} s", begin.elapsed().as_secs_f64());
    print!("{}", table(&evaluation.scores, &evaluation.speed));
    if let Some(flicker) = evaluation.flicker {
        println!("flicker of still pixels near contours: {flicker:.2} of 255");
    }
    eprintln!("masks: {}", args.out.join("masks").display());
    eprintln!("measures: {}", csv.display());
    if args.sheet_frames > 0 {
        eprintln!("contact sheets: {}", args.out.join("sheets").display());
    }
    Ok(())
}
