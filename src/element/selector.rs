// SPDX-License-Identifier: MPL-2.0

//! Masks from boxes and clicks, made by the prompt network on a thread of its own.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::shared::lock;
use crate::device::{self, DeviceChoice, Precision};
use crate::image::OwnedPicture;
use crate::mask::ReferenceMask;
use crate::model::prompt::{Point, Prompt, PromptNetwork, Selection};
use crate::{Error, Result};

/// Time without jobs after which the network is unloaded.
const IDLE: Duration = Duration::from_secs(60);

/// What to do with a picture.
pub enum Task {
    Select(Prompt),
    /// Correct a mask, alpha from 0 to 255 at the size of the picture.
    Correct {
        alpha: Vec<u8>,
        points: Vec<Point>,
    },
}

/// A picture and what to select in it.
pub struct Job {
    pub picture: OwnedPicture,
    pub task: Task,
    /// Called with each mask on the thread of the selector: with a preliminary one if it takes long, and with the last.
    pub done: Box<dyn FnMut(Result<ReferenceMask>, &OwnedPicture, Step) + Send>,
}

/// Step of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A better mask follows.
    Preliminary,
    Last,
}

/// Queue of a thread that starts with the first job and ends when it has been idle.
#[derive(Default)]
pub struct Selector(Mutex<Option<Sender<Job>>>);

impl Selector {
    /// Queues a job.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn queue(&self, job: Job, device: DeviceChoice) -> Result<()> {
        let mut jobs = lock(&self.0);
        let job = match jobs.as_ref() {
            Some(jobs) => match jobs.send(job) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None => job,
        };
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("fastganseg-sel".into())
            .spawn(move || work(&receiver, device))
            .map_err(|error| Error::Config(format!("the selection thread cannot be started: {error}")))?;
        // The new thread waits for it.
        let _ = sender.send(job);
        *jobs = Some(sender);
        Ok(())
    }

    /// Selects and waits for the mask.
    ///
    /// # Errors
    /// Those of the network, and of starting the thread.
    pub fn select(
        &self,
        picture: OwnedPicture,
        task: Task,
        device: DeviceChoice,
    ) -> Result<(ReferenceMask, OwnedPicture)> {
        let (sender, receiver) = channel();
        let done = Box::new(move |mask, picture: &OwnedPicture, step| {
            if step == Step::Last {
                // The caller waits.
                let _ = sender.send((mask, picture.clone()));
            }
        });
        self.queue(Job { picture, task, done }, device)?;
        let ended = |_| Error::Config("the selection thread has ended: please report it".into());
        let (mask, picture) = receiver.recv().map_err(ended)?;
        Ok((mask?, picture))
    }
}

fn work(jobs: &Receiver<Job>, device: DeviceChoice) {
    let mut network = None;
    while let Ok(Job { picture, task, mut done }) = jobs.recv_timeout(IDLE) {
        let mask = run(&mut network, device, &picture, &task, &mut |mask| {
            done(mask, &picture, Step::Preliminary);
        });
        done(mask, &picture, Step::Last);
    }
}

fn run(
    network: &mut Option<PromptNetwork>,
    device: DeviceChoice,
    picture: &OwnedPicture,
    task: &Task,
    preliminary: &mut dyn FnMut(Result<ReferenceMask>),
) -> Result<ReferenceMask> {
    let network = match network {
        Some(network) => network,
        None => {
            let device = device::open(device)?.0;
            let kind = Precision::Auto.kind(device)?;
            network.insert(PromptNetwork::load(device, kind)?)
        }
    };
    let view = picture.as_picture();
    let mask = |selection: Selection| ReferenceMask::from_soft(view.width, view.height, selection.alpha);
    match task {
        Task::Select(prompt) => {
            mask(network.select_in_steps(&view, prompt, |selection| preliminary(mask(selection)))?)
        }
        Task::Correct { alpha, points } => {
            ReferenceMask::from_soft(view.width, view.height, network.correct(&view, alpha, points)?)
        }
    }
}
