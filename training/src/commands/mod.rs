// SPDX-License-Identifier: MPL-2.0

//! Subcommands of `fastganseg-train`, one per file.

pub mod ablate;
pub mod clips;
pub mod eval;
pub mod export;
pub mod info;
pub mod matte;
pub mod model;
pub mod prompt;
pub mod score;
pub mod train;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use fastganseg_training::dataset::{Dataset, Selection};
use fastganseg_training::distributed::{Ranks, launch};
use fastganseg_training::train::TrainConfig;
use fastganseg_training::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Enlargement of the network's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Edges {
    /// The model's refiner refines edges, as in the element by default; bilinear if the model has none
    Refine,
    /// Bilinear interpolation
    Bilinear,
}

impl From<Edges> for gstfastganseg::matte::Edges {
    fn from(edges: Edges) -> Self {
        match edges {
            Edges::Refine => Self::Refine,
            Edges::Bilinear => Self::Bilinear,
        }
    }
}

/// Selection of sequences.
#[derive(Debug, clap::Args)]
pub struct Data {
    /// Folder with JPEGImages/[480p/]SEQUENCE/*.jpg and Annotations/[480p/]SEQUENCE/*.png
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Text file with one sequence per line [default: ImageSets/**/val.txt, otherwise every folder]
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,

    /// Folder of the resolution, such as 1080p [default: 480p if it exists, otherwise none]
    #[arg(long, value_name = "NAME")]
    resolution: Option<String>,
}

impl Data {
    /// Opens the data set and prints a summary to stderr on rank 0.
    fn open(&self, ranks: &Ranks) -> Result<Dataset> {
        let selection = Selection {
            split: self.split.clone(),
            resolution: self.resolution.clone(),
            ..Selection::default()
        };
        let dataset = Dataset::open(&self.data, &selection)?;
        if ranks.is_first() {
            let from = |split: &Path| format!("from {}", split.display());
            let chosen = dataset.split().map_or("every folder".to_string(), from);
            let (count, frames) = (dataset.sequences().len(), dataset.frames());
            eprintln!("{}: {count} sequences, {frames} frames, {chosen}", self.data.display());
        }
        Ok(dataset)
    }
}

/// Configuration of a run.
#[derive(Debug, clap::Args)]
pub struct Recipe {
    /// Configuration of the run, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Override a value of the configuration, such as optimiser.learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Recipe {
    fn open(&self) -> Result<TrainConfig> {
        TrainConfig::open(&self.config, &self.set)
    }
}

/// Number of processes.
#[derive(Debug, clap::Args)]
pub struct Processes {
    /// Start N processes on this machine that share the work. torchrun and srun start them themselves, also on several
    /// machines; see docs/distributed.md
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,
}

impl Processes {
    /// Runs `work` in each process. `settings` returns what must be equal in all of them; by default the arguments of
    /// the command.
    fn run(
        &self,
        settings: impl FnOnce() -> Result<BTreeMap<String, String>>,
        work: impl FnOnce(&Ranks) -> Result<()>,
    ) -> Result<()> {
        if self.ranks > 1 && launch(self.ranks.into())? {
            return Ok(());
        }
        let ranks = Ranks::join(settings()?)?;
        let result = work(&ranks);
        ranks.finish(result)
    }
}

/// The arguments of the command.
fn arguments() -> Result<BTreeMap<String, String>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Ok(BTreeMap::from([("arguments".to_owned(), arguments.join(" "))]))
}

/// Name of stdout in errors.
const STDOUT: &str = "(standard output)";

/// Prints to stdout. If its reader has closed it, as `head` does, the rest is left out: that is no error. The signal SIGPIPE
/// stays ignored, since connections between ranks would raise it, too.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::write(Path::new(STDOUT), error)),
        _ => Ok(()),
    }
}

/// Returns a progress bar that counts frames. It is hidden if stderr is not a terminal, and on ranks above 0.
fn frame_bar(ranks: &Ranks) -> ProgressBar {
    if !ranks.is_first() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{wide_bar} {pos}/{len} frames  {per_sec}  {eta} left  {msg:24!}");
    let bar = ProgressBar::no_length();
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Bytes by which the heap grows beyond a request, to reduce the number of system calls.
const PADDING: i32 = 64 << 20;

/// Keeps freed memory in the process. Without effect on other allocators than glibc's.
///
/// A step allocates and frees gigabytes in large blocks. By default, glibc maps each of them anew and the kernel
/// clears every page, which takes a fifth of a step's time. With these settings, they come from a heap that is
/// never returned.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt sets parameters of glibc's allocator under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, PADDING);
    }
}
