// SPDX-License-Identifier: MPL-2.0

//! Reads `meta.json` of YouTube-VOS, which lists the frames in which each object is annotated.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, LabelMap, Result};

/// File name.
pub const FILE: &str = "meta.json";

/// Contents of the file.
#[derive(Debug, Deserialize)]
pub struct Meta {
    videos: BTreeMap<String, Video>,
}

#[derive(Debug, Deserialize)]
struct Video {
    objects: BTreeMap<String, Object>,
}

/// One object; its category is ignored.
#[derive(Debug, Deserialize)]
struct Object {
    frames: Vec<String>,
}

impl Meta {
    /// Reads the file in the folder `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::dataset(
                &path,
                "no such file; copy it from the data set, or set layout = \"davis\" to take the objects \
                 from the masks",
            ),
            _ => Error::read(&path, source),
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("not a valid meta.json of YouTube-VOS ({error}); download it again");
            Error::dataset(&path, reason)
        })
    }

    /// Returns the objects of a video: the id and the names of the annotated frames.
    pub fn objects(&self, root: &Path, video: &str) -> Result<Vec<(u8, &[String])>> {
        let invalid = |reason: String| Error::dataset(&root.join(FILE), reason);
        let entry = self.videos.get(video).ok_or_else(|| {
            invalid(format!("it does not list the sequence {video}; add it, or leave it out with exclude"))
        })?;
        let object = |(id, object)| {
            let (id, object): (&String, &Object) = (id, object);
            match id.parse() {
                Ok(id) if id != 0 && id != LabelMap::VOID => Ok((id, object.frames.as_slice())),
                _ => Err(invalid(format!("{video} has an object with the id {id:?}; ids must be 1 to 254"))),
            }
        };
        entry.objects.iter().map(object).collect()
    }
}
