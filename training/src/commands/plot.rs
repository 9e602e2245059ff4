use std::path::PathBuf;

use fastganseg_training::Result;
use fastganseg_training::report::trade_off;

/// Draws methods by accuracy and speed, as the paper's figure 3 does.
///
/// FILE is CSV with the columns name, ms (a frame) or fps, J&F (per cent), and group if methods are to be
/// coloured by it. Lines that begin with # are skipped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The methods, CSV
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The picture, PNG
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// What is written above it
    #[arg(long, value_name = "TEXT", default_value = "")]
    title: String,
}

/// Reads, draws, saves.
pub fn run(args: &Args) -> Result<()> {
    let picture = trade_off::draw(&trade_off::read(&args.file)?, &args.title)?;
    fastganseg_training::report::save_png(&picture, &args.out)?;
    eprintln!("chart: {}", args.out.display());
    Ok(())
}
