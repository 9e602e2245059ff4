//! What an epoch is, where clips are drawn at random without end.

use super::Mix;
use super::stills::Stills;
use super::video::Video;

impl Mix {
    /// Clips of an epoch: as many as there are annotated frames and stills in the sources that are drawn from.
    pub fn epoch(&self) -> u64 {
        let frames: usize = self.video.videos.drawn().map(Video::frames).sum();
        let stills: usize = self.synthetic.stills.drawn().map(Stills::len).sum();
        (frames + stills) as u64
    }
}
