// SPDX-License-Identifier: MPL-2.0

//! Batches of clips, prepared in advance by background threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tch::Tensor;

use super::perturb::perturb;
use super::random::Random;
use super::settings::{MultiObject, Perturbation};
use super::synthetic::SyntheticClips;
use super::window::VideoClips;
use super::{Clip, Size, TRIES};
use crate::{Error, Result};

/// Batches that each thread prepares in advance.
const QUEUE_LENGTH: usize = 3;

/// Clips of one training step; the frame is the first dimension.
#[derive(Debug)]
pub struct Batch {
    /// (2 + K, B, 3, H, W): reference, previous frame, predicted frames; RGB in [0, 1].
    pub images: Tensor,
    /// (2 + K, B, 1, H, W) in [0, 1].
    pub masks: Tensor,
    /// (2 + K, B, 1, H, W), 1 where the ground truth is known; 0 in void pixels and outside the picture.
    pub valid: Tensor,
    /// (B, 1, H, W), perturbed mask of the previous frame, in place of a prediction.
    pub previous: Tensor,
    /// Seed of random numbers for the whole batch, equal on all ranks.
    pub seed: i64,
    /// Seeds of random numbers for each clip.
    pub seeds: Vec<i64>,
    /// Numbers of consecutive clips that are the objects of one window; their sum is B.
    pub objects: Vec<i64>,
}

impl Batch {
    /// Returns the batch with `change` applied to its tensors.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            images: change(&self.images)?,
            masks: change(&self.masks)?,
            valid: change(&self.valid)?,
            previous: change(&self.previous)?,
            seed: self.seed,
            seeds: self.seeds.clone(),
            objects: self.objects.clone(),
        })
    }

    /// Joins what `draw` returns for each clip by its index along dimension `dim`. Before each call, libtorch's
    /// generator is seeded with the clip's seed and `purpose`, so that random numbers do not depend on the
    /// distribution of clips over ranks.
    ///
    /// # Errors
    /// Those of `draw`, and shapes that differ elsewhere than along `dim`.
    pub fn draw(
        &self,
        purpose: i64,
        dim: i64,
        mut draw: impl FnMut(i64) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let parts = self.seeds.iter().zip(0..).map(|(seed, clip)| {
            tch::manual_seed(seed.wrapping_add(purpose));
            draw(clip)
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, dim)?)
    }
}

/// Sources and settings of the training clips.
#[derive(Debug)]
pub struct Mix {
    pub(super) video: VideoClips,
    pub(super) synthetic: SyntheticClips,
    pub(super) perturbation: Perturbation,
    pub(super) multi_object: MultiObject,
    /// Predicted frames per clip, K.
    pub(super) steps: usize,
    /// Clips per batch on all ranks.
    pub(super) clips: usize,
    /// This rank and the number of ranks.
    pub(super) ranks: (usize, usize),
    pub(super) sizes: Vec<Size>,
    /// Seed of all draws, together with the number of the clip.
    pub(super) seed: u64,
}

impl Mix {
    /// Draws whether a clip is made from stills.
    fn is_synthetic(&self, random: &mut Random) -> bool {
        let (video, stills) = (self.video.videos.total(), self.synthetic.stills.total());
        random.chance(stills / (video + stills))
    }

    fn clip(&self, size: Size, random: &mut Random) -> Result<Clip> {
        if self.is_synthetic(random) {
            return self.synthetic.draw(&self.video, self.steps, size, random);
        }
        let (clip, is_covered) = self.video.draw(self.steps, size, random)?;
        let distractor = self.video.augment.distractor;
        // Its place follows the object, and it would lie over the pictures that hide the object.
        if distractor > 0.0 && !is_covered && random.chance(distractor) {
            return self.synthetic.add_distractor(clip, random);
        }
        Ok(clip)
    }

    /// Draws the clips of the objects of one window.
    fn window(&self, size: Size, random: &mut Random) -> Result<Vec<Clip>> {
        let MultiObject { objects, look_alike, .. } = self.multi_object;
        'window: for _ in 0..TRIES {
            let mut clips = match self.is_synthetic(random) {
                true => vec![self.synthetic.draw(&self.video, self.steps, size, random)?],
                false => self.video.draw_objects(self.steps, size, objects, random)?,
            };
            while clips.len() < objects {
                let Some(more) = self.synthetic.add_object(&clips, look_alike, random)? else {
                    continue 'window;
                };
                clips = more;
            }
            return Ok(clips);
        }
        Err(Error::Clips(
            "the objects of the sources are too small for windows of several; use others".into(),
        ))
    }

    /// Restricts the batches to the clips of `rank` of `ranks`. The number of clips must be a multiple of the ranks times
    /// the clips that are drawn together.
    pub fn for_rank(self, rank: usize, ranks: usize) -> Self {
        Self { ranks: (rank, ranks), ..self }
    }

    /// Returns the batch of a step, which depends on the settings, the step and the rank only. The batches of all
    /// ranks together are that of a single process.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let _no_grad = tch::no_grad_guard();
        let (mut all, mut previous) = (vec![], vec![]);
        // A separate generator keeps the clips' draws independent of the sizes.
        let mut random = Random::new(!self.seed, step);
        let size = *random.pick(&self.sizes);
        let seed = random.seed();
        let mut seeds = vec![];
        let (rank, ranks) = self.ranks;
        let clips = self.clips / ranks;
        let mut objects = vec![];
        let together = self.multi_object.clips();
        let mut index = rank * clips;
        while index < (rank + 1) * clips {
            let mut random = Random::new(self.seed, step * self.clips as u64 + index as u64);
            let may_be_several = together > 1 && index.is_multiple_of(together);
            let drawn = match may_be_several && random.chance(self.multi_object.probability) {
                true => self.window(size, &mut random)?,
                false => vec![self.clip(size, &mut random)?],
            };
            objects.push(drawn.len() as i64);
            index += drawn.len();
            for clip in drawn {
                previous.push(perturb(&clip.masks.f_narrow(0, 1, 1)?, &self.perturbation, &mut random)?);
                seeds.push(random.seed());
                all.push(clip);
            }
        }
        let stack =
            |part: fn(&Clip) -> &Tensor| Tensor::f_stack(&all.iter().map(part).collect::<Vec<_>>(), 1);
        Ok(Batch {
            images: stack(|clip| &clip.images)?,
            masks: stack(|clip| &clip.masks)?,
            valid: stack(|clip| &clip.valid)?,
            previous: Tensor::f_cat(&previous, 0)?,
            seed,
            seeds,
            objects,
        })
    }
}

/// Queue of batches in order, for any number of threads.
#[derive(Debug)]
pub struct Loader {
    queues: Vec<Receiver<Result<Batch>>>,
    next: usize,
}

impl Loader {
    /// Starts the threads. The first batch is that of step `first`.
    pub fn start(mix: Mix, threads: usize, first: u64) -> Self {
        let mix = Arc::new(mix);
        let threads = threads.max(1);
        let queues = (0..threads)
            .map(|thread| {
                let (sender, receiver) = sync_channel(QUEUE_LENGTH);
                let mix = Arc::clone(&mix);
                thread::spawn(move || produce(&mix, first + thread as u64, threads as u64, &sender));
                receiver
            })
            .collect();
        Self { queues, next: 0 }
    }

    /// Returns the next batch, waiting for it if necessary.
    ///
    /// # Errors
    /// Any error that occurred while the batch was made.
    pub fn batch(&mut self) -> Result<Batch> {
        let queue = self.next;
        self.next = (self.next + 1) % self.queues.len();
        self.queues[queue].recv().unwrap_or_else(|_| Err(Error::Clips("a loader thread has stopped".into())))
    }
}

fn produce(mix: &Mix, first: u64, stride: u64, queue: &SyncSender<Result<Batch>>) {
    // One libtorch thread per loader thread: the parallelism is over batches.
    tch::set_num_threads(1);
    let mut step = first;
    while queue.send(mix.batch(step)).is_ok() {
        step += stride;
    }
}
