// SPDX-License-Identifier: MPL-2.0

//! Opens the sources of the section `[data]` of a configuration.

use indicatif::{ProgressBar, ProgressStyle};

use super::Mix;
use super::broken::Broken;
use super::cache::Cache;
use super::settings::{Data, Kind};
use super::stills::Stills;
use super::synthetic::SyntheticClips;
use super::video::{Reading, Video};
use super::weighted::Weighted;
use super::window::VideoClips;
use crate::Result;

impl Mix {
    /// Opens all sources and reads those that are kept in memory. Prints a summary of each on stderr if `report` is
    /// set.
    ///
    /// # Errors
    /// If a source is missing or unreadable, or if there are more broken files than the limit; the message names
    /// the file or folder.
    pub fn open(data: &Data, seed: u64, report: bool) -> Result<Self> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} remaining");
        let bar = if report { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let reading = Reading {
            cache: Cache::new(data.cache.saturating_mul(1 << 20)),
            broken: Broken::new(data.broken_limit),
        };
        let (mut videos, mut stills) = (Weighted::default(), Weighted::default());
        for (index, (name, source)) in data.sources.iter().enumerate() {
            let summary = match source.kind {
                Kind::Video => {
                    let video = Video::open(index, source, data.augment.least_object, &reading, &bar)?;
                    let sequences = video.sequences().len();
                    let summary = format!(
                        "{sequences} sequences, {} objects, {} frames",
                        video.objects(),
                        video.frames()
                    );
                    videos.push(source.ratio, video);
                    summary
                }
                Kind::Stills => {
                    let pictures = Stills::read(source, &reading.broken, &bar)?;
                    let summary = format!("{} stills", pictures.len());
                    stills.push(source.ratio, pictures);
                    summary
                }
            };
            if report {
                bar.suspend(|| eprintln!("{name}: {summary}"));
            }
        }
        bar.finish_and_clear();
        Ok(Self {
            video: VideoClips { videos, reading, augment: data.augment.clone() },
            synthetic: SyntheticClips { stills, settings: data.synthetic },
            perturbation: data.perturbation,
            multi_object: data.multi_object,
            steps: data.window,
            clips: data.batch,
            ranks: (0, 1),
            sizes: data.sizes(),
            seed,
        })
    }
}
