use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::check::{Checked, must, not_negative};

/// A data set on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it holds.
    pub kind: Kind,
    /// The folder.
    pub path: PathBuf,
    /// Share of the clips that are made of it, by the sum of all sources' ratios.
    #[serde(default = "one")]
    pub ratio: f64,
    /// Height and width that its pictures are shrunk to fit; none = 480x854 of video, 400x640 of
    /// stills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[i64; 2]>,
    /// Video: how the folder is laid out; none = `youtube-vos` where it has a `meta.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Video: what the masks' ids mean.
    #[serde(default)]
    pub objects: Objects,
    /// Video: a text file with one sequence a line; none = `ImageSets/**/train.txt`, else every
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Video: sequences left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Video: the resolution's folder, such as `1080p`; none = `480p` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Video: read all frames before the first step and keep them, rather than as they are needed.
    #[serde(default)]
    pub preload: bool,
}

/// What a source holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Annotated video.
    Video,
    /// Still pictures with masks or maps of regions.
    Stills,
}

/// How a folder of video is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// DAVIS-2016 and DAVIS-2017: the masks alone say which objects there are.
    Davis,
    /// YouTube-VOS: `meta.json` says in which frames each object is annotated.
    YoutubeVos,
}

/// What the ids of a mask mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objects {
    /// Each id is an object of its own; the target of a window is one of them.
    #[default]
    Each,
    /// All ids together are the object, as in DAVIS-2016.
    Union,
}

fn one() -> f64 {
    1.0
}

impl Source {
    pub(super) fn check(&self, key: &str) -> Checked {
        not_negative(&format!("{key}.ratio"), self.ratio)?;
        let sides = self.size.is_none_or(|size| size.iter().all(|side| (16..=4096).contains(side)));
        must(sides, &format!("{key}.size: 16 to 4096"))?;
        let of_video = self.layout.is_some()
            || self.objects != Objects::Each
            || self.split.is_some()
            || !self.exclude.is_empty()
            || self.resolution.is_some()
            || self.preload;
        let reason = "layout, objects, split, exclude, resolution and preload are for kind = \"video\" only";
        must(self.kind == Kind::Video || !of_video, &format!("{key}: {reason}"))
    }

    /// Height and width that its pictures are shrunk to fit.
    pub fn limit(&self) -> (i64, i64) {
        let usual = match self.kind {
            Kind::Video => [480, 854],
            Kind::Stills => [400, 640],
        };
        self.size.unwrap_or(usual).into()
    }
}
