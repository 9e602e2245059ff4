// SPDX-License-Identifier: MPL-2.0

//! Synthetic clips, rendered from still pictures: an object moves, rotates and bends over a moving background,
//! optionally with a second object in front of it or behind it, and with lighting changes.

use tch::Tensor;

use super::colour::Colour;
use super::distractor::{add_distractor, add_object};
use super::drift::{Drift, draw_bends, exposed_motion, walk};
use super::geometry::{Grid, Placement, blur, motion_blur};
use super::lighting::Lighting;
use super::moving_object::{Entrance, Layer, MovingObject};
use super::picture::Still;
use super::random::{Random, Weighted};
use super::settings::{Border, Synthetic};
use super::spline::Spline;
use super::stills::Stills;
use super::window::VideoClips;
use super::{Clip, Size, TRIES, is_visible};
use crate::{Error, Result};

/// Probability that an object consists of two regions of a region map.
const PAIRS: f64 = 0.3;
/// Standard deviation of the blur of a frame out of focus, pixels.
const DEFOCUS: f64 = 1.1;

#[derive(Debug)]
pub struct SyntheticClips {
    /// Objects and backgrounds.
    pub stills: Weighted<Stills>,
    pub settings: Synthetic,
}

impl SyntheticClips {
    /// Draws a clip of `steps` predicted frames. Backgrounds come from the stills and from `video`.
    pub fn draw(&self, video: &VideoClips, steps: usize, size: Size, random: &mut Random) -> Result<Clip> {
        for _ in 0..TRIES {
            let Some(scene) = self.scene(video, steps + 2, size, random)? else { continue };
            let mut frames = Vec::with_capacity(steps + 2);
            for frame in 0..steps + 2 {
                let mut made = scene.frame(frame, size)?;
                if frame > 0 && random.chance(self.settings.defocus) {
                    made.images = blur(&made.images, DEFOCUS)?;
                }
                frames.push(made);
            }
            if !is_visible(&frames[0].masks, &frames[1].masks)? {
                continue;
            }
            // Drawn last, so that the masks do not depend on the lighting settings.
            let lighting = Lighting::draw(frames.len(), &self.settings, random);
            for (number, frame) in frames.iter_mut().enumerate() {
                frame.images = lighting.apply(&frame.images, number)?;
            }
            return Clip::join(&frames);
        }
        Err(Error::Clips("the objects of the stills are too small for a clip; use other stills".into()))
    }

    /// Adds a distractor to a clip of real video.
    pub fn add_distractor(&self, clip: Clip, random: &mut Random) -> Result<Clip> {
        add_distractor(clip, &self.still(random)?, &self.settings, random)
    }

    /// Adds an object to those of a window: a copy of the first one, with the probability `look_alike`, or a cut-out of a
    /// still, if there are any. `None` if an object is too small then.
    pub fn add_object(
        &self,
        clips: &[Clip],
        look_alike: f64,
        random: &mut Random,
    ) -> Result<Option<Vec<Clip>>> {
        let is_copy = random.chance(look_alike) || self.stills.total() == 0.0;
        let still = match clips.first() {
            Some(clip) if is_copy => {
                Still::new(&clip.images.f_narrow(0, 0, 1)?, &clip.masks.f_narrow(0, 0, 1)?)?
            }
            _ => self.still(random)?,
        };
        add_object(clips, &still, &self.settings, random)
    }

    fn still(&self, random: &mut Random) -> Result<Still> {
        match self.stills.pick(random) {
            Some(stills) => stills.draw(PAIRS, random),
            None => Err(Error::Clips("there are no stills; add a source with kind = \"stills\"".into())),
        }
    }

    fn background(&self, video: &VideoClips, random: &mut Random) -> Result<Tensor> {
        if random.chance(self.settings.video_background)
            && let Some(still) = video.picture(random)?
        {
            return still.image();
        }
        self.still(random)?.image()
    }

    fn scene(
        &self,
        video: &VideoClips,
        frames: usize,
        size: Size,
        random: &mut Random,
    ) -> Result<Option<Scene>> {
        let settings = &self.settings;
        let still = self.still(random)?;
        // In its own photo, the object remains in its place as a distractor.
        let own = random.chance(settings.own_background);
        let background = if own { still.image()? } else { self.background(video, random)? };

        // The reference is displaced from the other frames by an additional step.
        let mut path = walk(frames, settings.motion * random.uniform(0.3, 1.5), random);
        for (value, step) in path[0].iter_mut().zip([0.08, 0.08, 0.06, 0.1, 0.08]) {
            *value += random.normal() * step * settings.motion;
        }
        let mut drift = walk(frames, settings.motion * random.uniform(0.0, 0.7), random);
        for value in &mut drift[0] {
            *value += random.normal() * 0.05 * settings.motion;
        }

        let jump = match settings.jump > 0.0 && random.chance(settings.jump) {
            true => (random.uniform(-0.5, 0.5), random.uniform(-0.4, 0.4)),
            false => (0.0, 0.0),
        };
        let entrance = Entrance {
            share: random.uniform(0.25, 0.9),
            shift: (random.uniform(-0.3, 0.3), random.uniform(-0.2, 0.2)),
            jump,
        };
        let Some(object) = MovingObject::draw(&still, size, entrance, path, settings, random)? else {
            return Ok(None);
        };
        let second = match random.chance(settings.second_object) {
            true => self.second(frames, size, random)?,
            false => None,
        };
        let late_distractor = settings.late_distractor > 0.0 && random.chance(settings.late_distractor);
        let colour = Colour::draw(settings.colour, random);
        let same_colour = random.chance(0.5);
        let (height, width) = (background.size()[2] as f64, background.size()[3] as f64);
        let cover = (size.0 as f64 / height).max(size.1 as f64 / width);
        Ok(Some(Scene {
            object,
            second,
            late_distractor,
            in_front: random.chance(0.5),
            background,
            cover: cover * random.uniform(1.05, 1.5),
            drift,
            bends: draw_bends(frames, settings, random)?,
            colour,
            scene_colour: if same_colour { colour } else { Colour::draw(settings.colour, random) },
            soft_truth: settings.soft_truth,
            shutter: match random.chance(settings.motion_blur) {
                true => random.uniform(settings.shutter[0], settings.shutter[1]),
                false => 0.0,
            },
        }))
    }

    fn second(&self, frames: usize, size: Size, random: &mut Random) -> Result<Option<MovingObject>> {
        let still = self.still(random)?;
        let drift = walk(frames, self.settings.motion * random.uniform(0.3, 1.5), random);
        let entrance = Entrance {
            share: random.uniform(0.3, 0.7),
            shift: (random.uniform(-0.4, 0.4), random.uniform(-0.4, 0.4)),
            jump: (0.0, 0.0),
        };
        MovingObject::draw(&still, size, entrance, drift, &self.settings, random)
    }
}

#[derive(Debug)]
struct Scene {
    object: MovingObject,
    second: Option<MovingObject>,
    /// Whether the second object is absent from the reference.
    late_distractor: bool,
    /// Whether the second object is in front of the first.
    in_front: bool,
    /// (1, 3, h, w).
    background: Tensor,
    /// Output pixels per pixel of the background.
    cover: f64,
    drift: Vec<Drift>,
    bends: Option<Vec<Spline>>,
    colour: Colour,
    scene_colour: Colour,
    /// Exposure time as a fraction of the frame interval.
    shutter: f64,
    /// Whether the true mask is the object's alpha.
    soft_truth: bool,
}

impl Scene {
    fn frame(&self, frame: usize, size: Size) -> Result<Clip> {
        let mut image = self.backdrop(frame, size)?;
        let second = match &self.second {
            Some(object) if frame > 0 || !self.late_distractor => {
                Some(Layer::new(object, None, frame, size, self.shutter)?)
            }
            _ => None,
        };
        if let (false, Some(layer)) = (self.in_front, &second) {
            image = layer.over(&image)?;
        }
        let layer = Layer::new(&self.object, Some(&self.colour), frame, size, self.shutter)?;
        image = layer.over(&self.scene_colour.apply(&image)?)?;
        let mut mask = if self.soft_truth { layer.alpha } else { layer.mask };
        if let (true, Some(layer)) = (self.in_front, &second) {
            image = layer.over(&image)?;
            mask = layer.hide(&mask)?;
        }
        Ok(Clip { images: image, valid: mask.f_ones_like()?, masks: mask })
    }

    fn backdrop(&self, frame: usize, size: Size) -> Result<Tensor> {
        let [x, y, scale, _, rotation] = self.drift[frame];
        let placement =
            Placement { rotation, shift: (x, y), ..Placement::scaled(self.cover * (1.0 + scale)) };
        let extent = (self.background.size()[2], self.background.size()[3]);
        let mut grid = Grid::new(extent, size, &placement, None)?;
        if let Some(bends) = &self.bends {
            grid = grid.bent(&bends[frame])?;
        }
        let image = grid.sample(&self.background, Border::Reflect)?;
        motion_blur(&image, exposed_motion(&self.drift, frame, size, self.shutter))
    }
}
