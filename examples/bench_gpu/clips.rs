// SPDX-License-Identifier: MPL-2.0

//! Clips in memory, drawn by `examples/demo_clip.rs`.

#[path = "../demo_clip.rs"]
#[allow(dead_code)]
mod demo_clip;

use gstfastganseg::Result;
use gstfastganseg::image::{Colors, Component, FrameSource, Picture, PlaneFormat, Planes, Region};
use gstfastganseg::mask::ReferenceMask;

/// Frames of a clip in packed RGB, and the mask of the first frame.
pub struct VideoClips {
    pub width: usize,
    pub height: usize,
    frames: Vec<Vec<u8>>,
    mask: Vec<u8>,
}

impl VideoClips {
    /// Draws `count` frames at a lower resolution and enlarges them by a whole factor.
    pub fn new(width: usize, height: usize, count: usize) -> Self {
        let factor = (height / 180).max(1);
        let clip = demo_clip::Clip {
            width: width / factor,
            height: height / factor,
            frames: count.max(60),
            rate: 30,
        };
        let scene = demo_clip::Scene::new(clip);
        let (width, height) = (factor * clip.width, factor * clip.height);
        let mut mask = Vec::new();
        let frames = (0..count)
            .map(|frame| {
                let (picture, cover) = scene.draw(frame);
                if frame == 0 {
                    mask = enlarge(&cover, clip.width, factor, 1);
                }
                enlarge(&picture, clip.width, factor, 3)
            })
            .collect();
        Self { width, height, frames, mask }
    }

    /// Returns a frame; the clip plays forwards and backwards in an endless loop.
    pub fn frame(&self, index: usize) -> Picture<'_> {
        let turn = 2 * (self.frames.len() - 1).max(1);
        let place = index % turn;
        let place = if place < self.frames.len() { place } else { turn - place };
        Picture { data: &self.frames[place], width: self.width, height: self.height, stride: 3 * self.width }
    }

    /// Mask of the object, or of `objects` vertical strips.
    pub fn mask(&self, objects: usize) -> Result<ReferenceMask> {
        if objects == 1 {
            return ReferenceMask::from_soft(self.width, self.height, self.mask.clone());
        }
        let label = |i: usize| (1 + i % self.width * objects / self.width) as u8;
        let labels =
            (0..self.mask.len()).map(|i| if (i / self.width).is_multiple_of(3) { 0 } else { label(i) });
        ReferenceMask::from_labels(self.width, self.height, &labels.collect::<Vec<_>>())
    }

    /// Mask of the object, 0 to 255.
    pub fn mask_bytes(&self) -> &[u8] {
        &self.mask
    }

    /// Converts a frame to I420, BT.709, without padding.
    pub fn i420(&self, index: usize) -> Vec<u8> {
        let picture = self.frame(index);
        let (w, h) = (self.width, self.height);
        let pixel = |x: usize, y: usize| {
            let at = 3 * (y.min(h - 1) * w + x.min(w - 1));
            [0, 1, 2].map(|c| f64::from(picture.data[at + c]) / 255.0)
        };
        let luma = |[r, g, b]: [f64; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let mut data: Vec<u8> =
            (0..w * h).map(|i| (16.5 + 219.0 * luma(pixel(i % w, i / w))) as u8).collect();
        for (channel, scale) in [(2, 1.8556), (0, 1.5748)] {
            let (columns, rows) = (w.div_ceil(2), h.div_ceil(2));
            data.extend((0..columns * rows).map(|i| {
                let rgb = pixel(2 * (i % columns), 2 * (i / columns));
                (128.5 + 224.0 * (rgb[channel] - luma(rgb)) / scale) as u8
            }));
        }
        data
    }
}

fn enlarge(pixels: &[u8], width: usize, factor: usize, bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(pixels.len() * factor * factor);
    for row in pixels.chunks_exact(width * bytes) {
        let wide: Vec<u8> = row.chunks_exact(bytes).flat_map(|pixel| pixel.repeat(factor)).collect();
        (0..factor).for_each(|_| all.extend_from_slice(&wide));
    }
    all
}

/// An I420 frame, and the RGB frame from which it was converted.
pub struct I420<'a> {
    pub data: &'a [u8],
    pub picture: Picture<'a>,
}

impl FrameSource for I420<'_> {
    fn size(&self) -> (usize, usize) {
        self.picture.size()
    }

    fn crop(&mut self, region: Region, size: (usize, usize)) -> Result<Picture<'_>> {
        self.picture.crop(region, size)
    }

    fn planes(&self) -> Option<Planes<'_>> {
        let (width, height) = (self.picture.width, self.picture.height);
        let (columns, rows) = (width.div_ceil(2), height.div_ceil(2));
        let plane = |plane, shift| Component {
            plane,
            stride: if shift == 0 { width } else { columns },
            step: 1,
            subsampling: (shift, shift),
            cosited: (shift > 0, false),
            ..Component::default()
        };
        let (luma, chroma) = self.data.split_at(width * height);
        let (blue, red) = chroma.split_at(columns * rows);
        let format = PlaneFormat {
            width,
            height,
            components: [plane(0, 0), plane(1, 1), plane(2, 1)],
            colors: Colors::new([16.0, 128.0, 128.0], [219.0, 224.0, 224.0], Some((0.2126, 0.0722))),
        };
        Some(Planes { data: vec![luma, blue, red], format })
    }
}
