//! Clips of real video: a window of frames, and a reference from the same sequence.

use tch::Tensor;

use super::colour::Colour;
use super::picture::Still;
use super::random::Random;
use super::settings::Augment;
use super::transform::{Transforms, place};
use super::video::{Reading, Sequence, Video};
use super::weighted::Weighted;
use super::{Clip, Size, TRIES, coverage};
use crate::{Error, Result};

/// Least share of the clip that the object has in the reference.
const LEAST_REFERENCE: f64 = 0.004;

/// What clips of real video are made of.
#[derive(Debug)]
pub struct VideoClips {
    /// The sources.
    pub videos: Weighted<Video>,
    /// What is read of them.
    pub reading: Reading,
    /// How windows are varied.
    pub augment: Augment,
}

impl VideoClips {
    /// A clip of `steps` predicted frames.
    pub fn draw(&self, steps: usize, size: Size, random: &mut Random) -> Result<Clip> {
        for _ in 0..TRIES {
            let Some(video) = self.videos.pick(random) else { break };
            let sequence = random.pick(video.sequences());
            let close_up = random.chance(self.augment.close_ups);
            let window = Window { clips: self, video, sequence, steps, size, close_up };
            let Some(mut clip) = window.draw(random)? else { continue };
            if random.chance(self.augment.absent) {
                let Some(video) = self.videos.pick(random) else { break };
                let other = random.pick(video.sequences());
                if std::ptr::eq(sequence, other) {
                    continue;
                }
                let Some(elsewhere) = (Window { video, sequence: other, ..window }).draw(random)? else {
                    continue;
                };
                // At times what went before was taken for the object: a wrong mask must not feed itself.
                clip = gone(&clip, &elsewhere, random.chance(0.5))?;
            }
            return Ok(clip);
        }
        Err(Error::Clips(format!(
            "no sequence of video has {} frames in a row and an object of {} of the picture; lower \
             data.window or data.augment.least_object, or give other sources",
            steps + 1,
            self.augment.least_object
        )))
    }

    /// Any frame, as a background; nothing if its files are broken.
    pub fn picture(&self, random: &mut Random) -> Result<Option<Still>> {
        let Some(video) = self.videos.pick(random) else { return Ok(None) };
        let sequence = random.pick(video.sequences());
        let object = random.pick(sequence.objects());
        video.still(sequence, *random.pick(&object.seen), object.id, &self.reading)
    }
}

/// The reference of `clip`, then the frames of `elsewhere`, in which its object is not.
fn gone(clip: &Clip, elsewhere: &Clip, mistaken: bool) -> Result<Clip> {
    let rest = clip.masks.size()[0] - 1;
    let joined = |clip: &Tensor, elsewhere: &Tensor| -> Result<Tensor> {
        Ok(Tensor::f_cat(&[clip.f_narrow(0, 0, 1)?, elsewhere.f_narrow(0, 1, rest)?], 0)?)
    };
    let empty = elsewhere.masks.f_zeros_like()?;
    let mut masks = joined(&clip.masks, &empty)?;
    if mistaken {
        let before = elsewhere.masks.f_narrow(0, 1, 1)?;
        let after = empty.f_narrow(0, 2, rest - 1)?;
        masks = Tensor::f_cat(&[&clip.masks.f_narrow(0, 0, 1)?, &before, &after], 0)?;
    }
    Ok(Clip {
        images: joined(&clip.images, &elsewhere.images)?,
        masks,
        valid: joined(&clip.valid, &elsewhere.valid)?,
    })
}

/// Where and how a window is drawn.
#[derive(Clone, Copy)]
struct Window<'a> {
    clips: &'a VideoClips,
    video: &'a Video,
    sequence: &'a Sequence,
    steps: usize,
    size: Size,
    close_up: bool,
}

impl Window<'_> {
    /// A clip of one object, nothing if the draw was unlucky.
    fn draw(&self, random: &mut Random) -> Result<Option<Clip>> {
        let Self { clips: VideoClips { reading, augment, .. }, size, .. } = *self;
        let object = random.pick(self.sequence.objects());
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
        let reference = match random.chance(augment.first_reference) {
            true => object.seen[0],
            false => *random.pick(&object.seen),
        };

        let still = |frame: usize| self.video.still(self.sequence, frame, object.id, reading);
        let Some(reference) = still(reference)? else { return Ok(None) };
        if reference.coverage() < augment.least_object {
            return Ok(None);
        }
        let window: Option<Vec<Still>> = window.into_iter().map(still).collect::<Result<_>>()?;
        let Some(window) = window else { return Ok(None) };

        let transforms = Transforms::draw(&window[0], &reference, size, augment, self.close_up, random);
        let colour = Colour::draw(augment.colour, random);
        let contrast = 1.0 + augment.colour * random.uniform(-0.05, 0.05);
        let of_reference = colour.with_contrast(contrast);
        let mut frames = vec![place(&reference, size, &transforms.reference, &of_reference, augment)?];
        if coverage(&frames[0].mask)? < LEAST_REFERENCE {
            frames[0] = place(&reference, size, &transforms.whole, &of_reference, augment)?;
        }
        for still in &window {
            frames.push(place(still, size, &transforms.window, &colour, augment)?);
        }
        Ok(Some(Clip::from_frames(&frames)?))
    }
}
