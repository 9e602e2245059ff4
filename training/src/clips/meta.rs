//! `meta.json` of YouTube-VOS: in which frames each object is annotated.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, LabelMap, Result};

/// The file's name.
pub const FILE: &str = "meta.json";

/// The whole file.
#[derive(Debug, Deserialize)]
pub struct Meta {
    videos: BTreeMap<String, Video>,
}

#[derive(Debug, Deserialize)]
struct Video {
    objects: BTreeMap<String, Object>,
}

/// One object; its category is of no use here.
#[derive(Debug, Deserialize)]
struct Object {
    frames: Vec<String>,
}

impl Meta {
    /// Reads the file in the folder `root`.
    ///
    /// # Errors
    /// When it is missing or not of this form.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::dataset(
                &path,
                "there is no such file; put the data set's own there, or set layout = \"davis\" to \
                 take the objects from the masks",
            ),
            _ => Error::read(&path, source),
        })?;
        serde_json::from_str(&text).map_err(|error| {
            let reason =
                format!("not the list of videos and objects of YouTube-VOS ({error}); download it again");
            Error::dataset(&path, reason)
        })
    }

    /// The objects of a video by id, each with the names of its frames.
    ///
    /// # Errors
    /// When the video is not in the file, or an object's id is no id.
    pub fn objects(&self, root: &Path, video: &str) -> Result<Vec<(u8, &[String])>> {
        let fault = |reason: String| Error::dataset(&root.join(FILE), reason);
        let found = self.videos.get(video).ok_or_else(|| {
            fault(format!("it does not have {video}; leave this sequence out with exclude, or add it"))
        })?;
        let object = |(id, object)| {
            let (id, object): (&String, &Object) = (id, object);
            match id.parse() {
                Ok(id) if id != 0 && id != LabelMap::VOID => Ok((id, object.frames.as_slice())),
                _ => Err(fault(format!("{video} has an object {id:?}; ids are 1 to 254"))),
            }
        };
        found.objects.iter().map(object).collect()
    }
}
