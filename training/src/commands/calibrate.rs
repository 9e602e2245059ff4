use std::path::{Path, PathBuf};

use fastganseg_training::calibration::{Calibration, Judgement, judge};
use fastganseg_training::report::{reliability, save_png};
use fastganseg_training::{Error, Result};

use super::model::Model;
use super::{Data, frame_bar};

/// Compares the region similarity J that the tracker expects of its masks, its confidence, with the true one.
///
/// Confidence is 0 where the mask is nowhere above one half. The expected calibration error is the mean distance
/// between confidence and J over bins, weighted by how many frames they hold; the rank correlation (Spearman's) tells
/// whether worse masks have less confidence.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    #[command(flatten)]
    model: Model,

    /// Width of the bins of confidence
    #[arg(long, value_name = "WIDTH", default_value_t = 0.01)]
    bins: f64,

    /// Also write confidence, likeness, area and J of every object and frame, CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Also draw J over confidence, PNG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Prints the table.
pub fn run(args: &Args) -> Result<()> {
    if !(0.001..=0.5).contains(&args.bins) {
        let reason = format!("bins of width {}: give 0.001 to 0.5", args.bins);
        return Err(gstfastganseg::Error::Config(reason).into());
    }
    let dataset = args.data.open()?;
    let mut tracker = args.model.tracker()?;
    let bar = frame_bar();
    let judgements = judge(&mut tracker, &dataset, &bar);
    bar.finish_and_clear();
    let judgements = judgements?;
    if let Some(path) = &args.csv {
        write_csv(path, &judgements)?;
    }
    let calibration = Calibration::of(&judgements, args.bins);
    if let Some(path) = &args.plot {
        save_png(&reliability::draw(&calibration)?, path)?;
    }
    print!("{}", text(&calibration));
    Ok(())
}

fn text(calibration: &Calibration) -> String {
    let mut lines =
        vec![format!("{:>13} {:>7} {:>9} {:>6} {:>8}", "confidence", "masks", "mean", "J", "J less")];
    for bin in &calibration.bins {
        lines.push(format!(
            "{:>6.3}..{:.3} {:7} {:9.3} {:6.3} {:+8.3}",
            bin.from,
            bin.from + calibration.width,
            bin.count,
            bin.confidence,
            bin.similarity,
            bin.similarity - bin.confidence
        ));
    }
    let rank = |value: Option<f64>| value.map_or("undefined".into(), |value| format!("{value:.2}"));
    let [confidence, likeness] = calibration.rank_correlation;
    let [there, gone] = calibration.silent;
    lines.push(format!(
        "{} masks; expected calibration error {:.3}; rank correlation of J with confidence {}, with likeness {}",
        calibration.masks,
        calibration.error,
        rank(confidence),
        rank(likeness)
    ));
    lines.push(format!("no mask: {there} times though the object was there, {gone} times as it was not"));
    lines.join("\n") + "\n"
}

fn write_csv(path: &Path, judgements: &[Judgement]) -> Result<()> {
    let failed = |source: csv::Error| Error::write(path, std::io::Error::other(source));
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    let header = ["sequence", "frame", "object", "confidence", "likeness", "area", "mask", "there", "J"];
    writer.write_record(header).map_err(failed)?;
    for judgement in judgements {
        let number = |value: f64| format!("{value:.5}");
        writer
            .write_record([
                judgement.sequence.clone(),
                judgement.frame.clone(),
                judgement.object.to_string(),
                number(judgement.confidence),
                number(judgement.likeness),
                number(judgement.area),
                u8::from(judgement.has_mask).to_string(),
                u8::from(judgement.is_there).to_string(),
                number(judgement.similarity),
            ])
            .map_err(failed)?;
    }
    writer.flush().map_err(|source| Error::write(path, source))
}
