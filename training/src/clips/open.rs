// SPDX-License-Identifier: MPL-2.0

//! Opens the sources of the section `[data]` of a configuration.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};

use super::picture::Still;
use super::random::{Random, Weighted};
use super::settings::{Data, Kind, Source};
use super::stills::Stills;
use super::synthetic::SyntheticClips;
use super::video::{Reading, Video};
use super::window::{ABSENT_NEEDS, VideoClips};
use super::{Mix, TRIES};
use crate::{Error, Result};

#[derive(Debug)]
pub struct Sources {
    pub(super) videos: Weighted<Video>,
    pub(super) stills: Weighted<Stills>,
    pub(super) reading: Reading,
}

impl Sources {
    /// Opens all sources and reads those that are kept in memory. Frames of a video in which an object covers less than
    /// the share `min_share` are not drawn for it, except in sources with `meta.json`. Prints a summary of each on stderr
    /// if `report` is set.
    pub fn open(
        sources: &BTreeMap<String, Source>,
        min_share: f64,
        reading: Reading,
        report: bool,
    ) -> Result<Self> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} remaining");
        let bar = if report { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let (mut videos, mut stills) = (Weighted::default(), Weighted::default());
        for (index, (name, source)) in sources.iter().enumerate() {
            let summary = match source.kind {
                Kind::Video => {
                    let video = Video::open(index, source, min_share, &reading, &bar)?;
                    let sequences = video.sequences.len();
                    let summary = format!(
                        "{sequences} sequences, {} objects, {} frames{}",
                        video.objects(),
                        video.frames(),
                        video.note()
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
        Ok(Self { videos, stills, reading })
    }

    /// Draws a picture with one of its objects, by the ratios of the sources.
    pub fn draw(&self, random: &mut Random) -> Result<Still> {
        let (videos, stills) = (self.videos.total(), self.stills.total());
        if random.chance(stills / (videos + stills))
            && let Some(stills) = self.stills.pick(random)
        {
            return stills.draw(0.0, random);
        }
        for _ in 0..TRIES {
            let Some(video) = self.videos.pick(random) else { break };
            let sequence = random.pick(&video.sequences);
            let object = random.pick(&sequence.objects);
            if object.seen.is_empty() {
                continue;
            }
            let frame = *random.pick(&object.seen);
            if let Some(still) = video.still(sequence, frame, object.id, &self.reading)? {
                return Ok(still);
            }
        }
        Err(Error::Clips("no frame of a video shows an object; check the sources".into()))
    }
}

impl Mix {
    /// Opens all sources and reads those that are kept in memory. Prints a summary of each on stderr if `report` is set.
    ///
    /// # Errors
    /// If a source is missing or unreadable, or if there are more broken files than the limit; the message names
    /// the file or folder. [`Error::Clips`] if an augmentation needs further sources.
    pub fn open(data: &Data, seed: u64, report: bool) -> Result<Self> {
        let reading = Reading::new(data.cache, data.broken_limit);
        let Sources { videos, stills, reading } =
            Sources::open(&data.sources, data.augment.least_object, reading, report)?;
        let mix = Self {
            video: VideoClips { videos, reading, augment: data.augment.clone() },
            synthetic: SyntheticClips { stills, settings: data.synthetic },
            perturbation: data.perturbation,
            multi_object: data.multi_object,
            steps: data.window,
            clips: data.batch,
            ranks: (0, 1),
            sizes: data.sizes(),
            seed,
        };
        mix.check()?;
        Ok(mix)
    }

    /// Returns the clips per epoch: the number of annotated frames and stills in all sources with a ratio above 0. Clips
    /// themselves are drawn at random without end.
    pub fn epoch(&self) -> u64 {
        let frames: usize = self.video.videos.drawn().map(Video::frames).sum();
        let stills: usize = self.synthetic.stills.drawn().map(Stills::len).sum();
        (frames + stills) as u64
    }

    /// Checks that the sources suffice for the augmentation of video. A rare one would otherwise fail in the middle of a
    /// run.
    fn check(&self) -> Result<()> {
        let VideoClips { videos, augment, .. } = &self.video;
        if videos.total() == 0.0 {
            return Ok(());
        }
        let sequences: usize = videos.drawn().map(|video| video.sequences.len()).sum();
        if augment.absent > 0.0 && sequences < 2 {
            return Err(Error::Clips(ABSENT_NEEDS.into()));
        }
        if augment.distractor > 0.0 && self.synthetic.stills.is_empty() {
            let reason =
                "data.augment.distractor needs a source with kind = \"stills\"; add one, or set it to 0";
            return Err(Error::Clips(reason.into()));
        }
        Ok(())
    }
}
