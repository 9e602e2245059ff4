// SPDX-License-Identifier: MPL-2.0

//! Clips of real video: a window of frames and a reference from the same sequence.

use tch::Tensor;

use super::colour::Colour;
use super::picture::Still;
use super::random::{Random, Weighted};
use super::settings::Augment;
use super::transform::{Transforms, place};
use super::video::{Object, Reading, Sequence, Video};
use super::{Clip, MIN_COVERAGE, Size, TRIES, coverage};
use crate::{Error, Result};

/// Error of `absent` with a single sequence.
pub const ABSENT_NEEDS: &str = "data.augment.absent needs two sequences of video; add one, or set it to 0";
/// Share of interruptions that show one colour, if there is another sequence to show.
const ONE_COLOUR: f64 = 0.3;

#[derive(Debug)]
pub struct VideoClips {
    pub videos: Weighted<Video>,
    /// Shared state of reading them.
    pub reading: Reading,
    pub augment: Augment,
}

impl VideoClips {
    /// Draws a clip of `steps` predicted frames, and whether other pictures hide the object in some of them.
    pub fn draw(&self, steps: usize, size: Size, random: &mut Random) -> Result<(Clip, bool)> {
        for _ in 0..TRIES {
            let Some(window) = self.window(steps, size, random) else { break };
            let Some(clip) = window.draw(random)? else { continue };
            if random.chance(self.augment.absent) {
                let other = self.other_sequence(window.sequence, random);
                let other = other.ok_or_else(|| Error::Clips(ABSENT_NEEDS.into()))?;
                let Some(cover) = window.elsewhere(other).draw(random)? else { continue };
                // In half of the cases the previous mask shows a wrong object, which must not be tracked further.
                return Ok((without_object(&clip, &cover, steps + 1, random.chance(0.5))?, true));
            }
            if self.augment.interrupted > 0.0 && random.chance(self.augment.interrupted) {
                let hidden = 1 + usize::from(steps > 1 && random.chance(0.5));
                let other = self.other_sequence(window.sequence, random);
                let covering = other.map_or(window, |other| window.elsewhere(other));
                let Some(mut cover) = covering.draw(random)? else { continue };
                if random.chance(ONE_COLOUR) || other.is_none() {
                    let colour = if random.chance(0.5) { 0.0 } else { random.uniform(0.0, 1.0) };
                    cover.images = cover.images.f_full_like(colour)?;
                    cover.valid = cover.valid.f_ones_like()?;
                }
                return Ok((without_object(&clip, &cover, hidden, false)?, true));
            }
            return Ok((clip, false));
        }
        Err(self.no_window(steps))
    }

    /// Draws the clips of up to `objects` objects of one window of `steps` predicted frames.
    pub fn draw_objects(
        &self,
        steps: usize,
        size: Size,
        objects: usize,
        random: &mut Random,
    ) -> Result<Vec<Clip>> {
        for _ in 0..TRIES {
            let Some(window) = self.window(steps, size, random) else { break };
            if let Some(clips) = window.draw_objects(objects, random)? {
                return Ok(clips);
            }
        }
        Err(self.no_window(steps))
    }

    /// Draws a sequence that is not `sequence`; `None` if there is no other.
    fn other_sequence(&self, sequence: &Sequence, random: &mut Random) -> Option<(&Video, &Sequence)> {
        let mut draw = || {
            let video = self.videos.pick(random)?;
            Some((video, random.pick(&video.sequences)))
        };
        (0..TRIES).find_map(|_| draw().filter(|(_, other)| !std::ptr::eq(sequence, *other)))
    }

    fn window(&self, steps: usize, size: Size, random: &mut Random) -> Option<Window<'_>> {
        let video = self.videos.pick(random)?;
        let sequence = random.pick(&video.sequences);
        let close_up = random.chance(self.augment.close_ups);
        Some(Window { clips: self, video, sequence, steps, size, close_up })
    }

    fn no_window(&self, steps: usize) -> Error {
        Error::Clips(format!(
            "no video sequence has {} consecutive annotated frames and an object that covers {} of the picture; \
             lower data.window or data.augment.least_object, or use other sources",
            steps + 1,
            self.augment.least_object
        ))
    }

    /// Draws a frame as a background; `None` if there is no video or the frame is broken.
    pub fn picture(&self, random: &mut Random) -> Result<Option<Still>> {
        let Some(video) = self.videos.pick(random) else { return Ok(None) };
        let sequence = random.pick(&video.sequences);
        let object = random.pick(&sequence.objects);
        video.still(sequence, *random.pick(&object.seen), object.id, &self.reading)
    }
}

/// Returns `clip` with `hidden` frames after the reference taken from `cover`, which does not show the object. If
/// `wrong_object`, the previous mask is that of the cover's object, else it is empty.
fn without_object(clip: &Clip, cover: &Clip, hidden: usize, wrong_object: bool) -> Result<Clip> {
    let hidden = hidden as i64;
    let rest = clip.masks.size()[0] - 1 - hidden;
    let mut cover = cover.frames(1, hidden)?;
    let empty = cover.masks.f_zeros_like()?;
    cover.masks = match wrong_object {
        true => Tensor::f_cat(&[cover.masks.f_narrow(0, 0, 1)?, empty.f_narrow(0, 1, hidden - 1)?], 0)?,
        false => empty,
    };
    Clip::join(&[clip.frames(0, 1)?, cover, clip.frames(1 + hidden, rest)?])
}

/// Parameters of the draw of a window.
#[derive(Clone, Copy)]
struct Window<'a> {
    clips: &'a VideoClips,
    video: &'a Video,
    sequence: &'a Sequence,
    steps: usize,
    size: Size,
    close_up: bool,
}

impl<'a> Window<'a> {
    /// Returns the same parameters for another sequence.
    fn elsewhere(&self, (video, sequence): (&'a Video, &'a Sequence)) -> Self {
        Self { video, sequence, ..*self }
    }

    /// Draws a clip of one object; `None` if the draw is not usable.
    fn draw(&self, random: &mut Random) -> Result<Option<Clip>> {
        Ok(self.draw_objects(1, random)?.and_then(|mut clips| clips.pop()))
    }

    /// Draws the clips of an object and of others that the reference shows, up to `objects`; `None` if the draw is not
    /// usable.
    fn draw_objects(&self, objects: usize, random: &mut Random) -> Result<Option<Vec<Clip>>> {
        let Self { clips: VideoClips { reading, augment, .. }, size, .. } = *self;
        let object = random.pick(&self.sequence.objects);
        let mut step = *random.pick(&augment.frame_steps);
        let mut starts = object.windows(self.steps + 1, step);
        if starts.is_empty() {
            step = 1;
            starts = object.windows(self.steps + 1, step);
        }
        if starts.is_empty() {
            return Ok(None);
        }
        let first = *random.pick(&starts);
        let mut window: Vec<usize> = (0..=self.steps).map(|frame| first + frame * step).collect();
        if random.chance(augment.reversed) {
            window.reverse();
        }
        let mut jump = false;
        if augment.jump > 0.0 && random.chance(augment.jump) {
            let others: Vec<usize> =
                object.known.iter().copied().filter(|frame| !window.contains(frame)).collect();
            jump = !others.is_empty();
            if jump {
                window[0] = *random.pick(&others);
            }
        }
        let reference_frame = match random.chance(augment.first_reference) {
            true => object.seen[0],
            false => *random.pick(&object.seen),
        };

        let still = |frame: usize| self.video.still(self.sequence, frame, object.id, reading);
        let Some(reference) = still(reference_frame)? else { return Ok(None) };
        if reference.coverage() < augment.least_object {
            return Ok(None);
        }
        let stills: Option<Vec<Still>> = window.iter().copied().map(still).collect::<Result<_>>()?;
        let Some(stills) = stills else { return Ok(None) };

        let mut transforms =
            Transforms::draw(&stills[usize::from(jump)], &reference, size, augment, self.close_up, random);
        let colour = Colour::draw(augment.colour, random);
        let contrast = 1.0 + augment.colour * random.uniform(-0.05, 0.05);
        let reference_colour = colour.with_contrast(contrast);
        let mut shown = place(&reference, size, &transforms.reference, &reference_colour, augment)?;
        if coverage(&shown.masks)? < MIN_COVERAGE[0] {
            transforms.reference = transforms.whole;
            shown = place(&reference, size, &transforms.reference, &reference_colour, augment)?;
        }
        let in_window = |shown: Clip, stills: &[Still]| -> Result<Clip> {
            let mut frames = vec![shown];
            for still in stills {
                frames.push(place(still, size, &transforms.window, &colour, augment)?);
            }
            Clip::join(&frames)
        };
        let mut clips = vec![in_window(shown, &stills)?];
        let is_usable = |other: &&Object| {
            let known = window.iter().all(|frame| other.known.contains(frame));
            other.id != object.id && other.seen.contains(&reference_frame) && known
        };
        let mut others: Vec<&Object> = self.sequence.objects.iter().filter(is_usable).collect();
        while clips.len() < objects && !others.is_empty() {
            let other = others.swap_remove(random.below(others.len()));
            let still = |frame: usize| self.video.still(self.sequence, frame, other.id, reading);
            let Some(reference) = still(reference_frame)? else { return Ok(None) };
            let shown = place(&reference, size, &transforms.reference, &reference_colour, augment)?;
            if coverage(&shown.masks)? < MIN_COVERAGE[0] {
                continue;
            }
            let stills: Option<Vec<Still>> = window.iter().copied().map(still).collect::<Result<_>>()?;
            let Some(stills) = stills else { return Ok(None) };
            clips.push(in_window(shown, &stills)?);
        }
        Ok(Some(clips))
    }
}
