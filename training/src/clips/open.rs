//! From the section `[data]` of a configuration to what clips are made of.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::settings::{Data, Kind};
use super::{Footage, Mix, Shares, Stills};
use crate::Result;

impl Mix {
    /// Reads all that clips are made of.
    ///
    /// # Errors
    /// A source that cannot be found or read; the message names it.
    pub fn open(data: &Data, seed: u64) -> Result<Self> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {eta} to go");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut footage = None::<Footage>;
        for source in data.sources.values().filter(|source| source.kind == Kind::Video) {
            let read = Footage::read(&source.path, &source.exclude, source.limit(), &bar)?;
            match &mut footage {
                Some(footage) => footage.extend(read),
                None => footage = Some(read),
            }
        }
        let of_stills = || data.sources.values().filter(|source| source.kind == Kind::Stills);
        let folders: Vec<PathBuf> = of_stills().map(|source| source.path.clone()).collect();
        let stills = if folders.is_empty() { None } else { Some(Stills::read(&folders, &bar)?) };
        bar.finish_and_clear();
        eprintln!(
            "{} sequences with {} frames, {} stills",
            footage.as_ref().map_or(0, |footage| footage.sequences().len()),
            footage.as_ref().map_or(0, Footage::frames),
            stills.as_ref().map_or(0, Stills::len),
        );
        let total: f64 = data.sources.values().map(|source| source.ratio).sum();
        Ok(Self {
            footage,
            stills,
            synthetic: of_stills().map(|source| source.ratio).sum::<f64>() / total,
            shares: Shares { close_ups: data.augment.close_ups, absent: data.augment.absent },
            steps: data.window,
            clips: data.batch,
            size: data.size.into(),
            seed,
        })
    }
}
