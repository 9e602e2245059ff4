// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{Checked, must, not_negative};

/// Data set on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Type of the data.
    pub kind: Kind,
    /// Root folder.
    pub path: PathBuf,
    /// Share of the clips, relative to the sum of all sources' ratios.
    #[serde(default = "one")]
    pub ratio: f64,
    /// Height and width that pictures are shrunk to fit; none = 480x854 for video, 400x640 for stills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[i64; 2]>,
    /// Video: layout of the folder; none = `youtube-vos` if it has a `meta.json`, else `davis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Video: meaning of the ids in the masks.
    #[serde(default)]
    pub objects: Objects,
    /// Video: text file with one sequence per line; none = `ImageSets/**/train.txt` if present, else every folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Video: sequences to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Video: folder of the resolution, such as `1080p`; none = `480p` if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Video: read all frames before the first step and keep them in memory, instead of on demand.
    #[serde(default)]
    pub preload: bool,
}

/// Type of the data of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Annotated video.
    Video,
    /// Still pictures with object masks or region maps.
    Stills,
}

/// Layout of a folder of video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// DAVIS-2016 and DAVIS-2017: the masks alone define the objects.
    Davis,
    /// YouTube-VOS: `meta.json` lists the frames in which each object is annotated.
    YoutubeVos,
}

/// Meaning of the ids in a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objects {
    /// Each id is a separate object; the target of a window is one of them.
    #[default]
    Each,
    /// All ids together are one object, as in DAVIS-2016.
    Union,
}

fn one() -> f64 {
    1.0
}

impl Source {
    pub(crate) fn check(&self, key: &str) -> Checked {
        not_negative(&format!("{key}.ratio"), self.ratio)?;
        let sides = self.size.is_none_or(|size| size.iter().all(|side| (16..=4096).contains(side)));
        must(sides, &format!("{key}.size: must be from 16 to 4096"))?;
        let video_only = self.layout.is_some()
            || self.objects != Objects::Each
            || self.split.is_some()
            || !self.exclude.is_empty()
            || self.resolution.is_some()
            || self.preload;
        let reason = "layout, objects, split, exclude, resolution and preload need kind = \"video\"";
        must(self.kind == Kind::Video || !video_only, &format!("{key}: {reason}"))
    }

    /// Returns the height and width that pictures are shrunk to fit.
    pub fn limit(&self) -> (i64, i64) {
        let default = match self.kind {
            Kind::Video => [480, 854],
            Kind::Stills => [400, 640],
        };
        self.size.unwrap_or(default).into()
    }
}
