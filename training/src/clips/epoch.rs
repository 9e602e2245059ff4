// SPDX-License-Identifier: MPL-2.0

//! Length of an epoch: clips themselves are drawn at random without end.

use super::Mix;
use super::stills::Stills;
use super::video::Video;

impl Mix {
    /// Returns the clips per epoch: the number of annotated frames and stills in all sources with a ratio above 0.
    pub fn epoch(&self) -> u64 {
        let frames: usize = self.video.videos.drawn().map(Video::frames).sum();
        let stills: usize = self.synthetic.stills.drawn().map(Stills::len).sum();
        (frames + stills) as u64
    }
}
