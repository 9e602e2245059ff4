use std::path::{Path, PathBuf};

use fastganseg_training::calibration::{Calibration, Judgement, judge};
use fastganseg_training::report::{reliability, save_png};
use fastganseg_training::{Error, Result};

use super::model::Model;
use super::{Data, frame_bar};

/// Compares the tracker's own certainty of its masks with their true region similarity J.
///
/// Certainty is the mean of the soft mask where it is above one half, 0.5 to 1; 0 where it nowhere is. The expected calibration error is the
/// mean distance between certainty and J over bins, weighted by how many frames they hold; the rank correlation
/// (Spearman's) tells whether worse masks have less certainty.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,

    #[command(flatten)]
    model: Model,

    /// Width of the bins of certainty
    #[arg(long, value_name = "WIDTH", default_value_t = 0.01)]
    bins: f64,

    /// Also write certainty, likeness, area and J of every object and frame, CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Also draw J over certainty, PNG
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
        vec![format!("{:>13} {:>7} {:>9} {:>6} {:>8}", "certainty", "masks", "mean", "J", "J less")];
    for bin in &calibration.bins {
        lines.push(format!(
            "{:>6.3}..{:.3} {:7} {:9.3} {:6.3} {:+8.3}",
            bin.from,
            bin.from + calibration.width,
            bin.count,
            bin.certainty,
            bin.similarity,
            bin.similarity - bin.certainty
        ));
    }
    let rank = |value: Option<f64>| value.map_or("undefined".into(), |value| format!("{value:.2}"));
    let [certainty, likeness] = calibration.rank_correlation;
    let [there, gone] = calibration.silent;
    lines.push(format!(
        "{} masks; expected calibration error {:.3}; rank correlation of J with certainty {}, with likeness {}",
        calibration.masks,
        calibration.error,
        rank(certainty),
        rank(likeness)
    ));
    lines.push(format!("no mask: {there} times though the object was there, {gone} times as it was not"));
    lines.join("\n") + "\n"
}

fn write_csv(path: &Path, judgements: &[Judgement]) -> Result<()> {
    let failed = |source: csv::Error| Error::write(path, std::io::Error::other(source));
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    let header = ["sequence", "frame", "object", "certainty", "likeness", "area", "mask", "there", "J"];
    writer.write_record(header).map_err(failed)?;
    for judgement in judgements {
        let number = |value: f64| format!("{value:.5}");
        writer
            .write_record([
                judgement.sequence.clone(),
                judgement.frame.clone(),
                judgement.object.to_string(),
                number(judgement.certainty),
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
