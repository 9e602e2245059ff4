//! Reference masks.

use crate::{Error, Result};

/// One soft plane per object.
#[derive(Clone, Debug)]
pub struct ReferenceMask {
    width: usize,
    height: usize,
    objects: Vec<ObjectMask>,
}

#[derive(Clone, Debug)]
pub struct ObjectMask {
    /// 1 to 254.
    pub id: u8,
    /// height x width, 0 to 255.
    pub alpha: Vec<u8>,
}

impl ReferenceMask {
    pub fn from_soft(width: usize, height: usize, alpha: Vec<u8>) -> Result<Self> {
        Self::new(width, height, vec![ObjectMask { id: 1, alpha }])
    }

    pub fn from_labels(width: usize, height: usize, labels: &[u8]) -> Result<Self> {
        let mut ids: Vec<u8> = labels.iter().copied().filter(|&id| id != 0 && id != 255).collect();
        ids.sort_unstable();
        ids.dedup();
        let plane = |id| labels.iter().map(|&label| if label == id { 255 } else { 0 }).collect();
        Self::new(width, height, ids.iter().map(|&id| ObjectMask { id, alpha: plane(id) }).collect())
    }

    fn new(width: usize, height: usize, objects: Vec<ObjectMask>) -> Result<Self> {
        if objects.is_empty() || objects.iter().any(|object| object.alpha.len() != width * height) {
            return Err(Error::Config("the mask has no object or not its size".into()));
        }
        Ok(Self { width, height, objects })
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    pub fn objects(&self) -> &[ObjectMask] {
        &self.objects
    }
}
