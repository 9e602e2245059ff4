// SPDX-License-Identifier: MPL-2.0

//! The networks that make references, on a thread of their own.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::shared::lock;
use crate::device::{self, DeviceChoice, Precision};
use crate::image::OwnedPicture;
use crate::mask::ReferenceMask;
use crate::model::person::{Person, PersonNetwork};
use crate::model::prompt::{Point, Prompt, PromptNetwork, Selection};
use crate::{Error, Result, threads};

/// Time without jobs after which the networks are unloaded.
const IDLE: Duration = Duration::from_secs(60);

/// Work for the thread.
pub type Job = Box<dyn FnOnce(&mut Networks) + Send>;

/// The networks, loaded when they are first used.
pub struct Networks {
    device: DeviceChoice,
    prompt: Option<PromptNetwork>,
    person: Option<PersonNetwork>,
}

/// What to do with a picture.
#[derive(Debug)]
pub enum Task {
    Select(Prompt),
    /// Correct a mask, alpha from 0 to 255 at the size of the picture.
    Correct {
        alpha: Vec<u8>,
        points: Vec<Point>,
    },
}

impl Networks {
    fn prompt(&mut self) -> Result<&PromptNetwork> {
        let device = self.device;
        load(&mut self.prompt, device, PromptNetwork::load)
    }

    /// Runs a task. Calls `preliminary` with a first mask if a better one follows.
    ///
    /// # Errors
    /// The device is not available, the task does not fit the picture, and errors of libtorch.
    pub fn run(
        &mut self,
        task: &Task,
        picture: &OwnedPicture,
        mut preliminary: impl FnMut(Result<ReferenceMask>),
    ) -> Result<ReferenceMask> {
        let network = self.prompt()?;
        let view = picture.as_picture();
        let mask = |alpha: Vec<u8>| ReferenceMask::from_soft(view.width, view.height, alpha);
        match task {
            Task::Select(prompt) => {
                let first = |selection: Selection| preliminary(mask(selection.alpha));
                mask(network.select_in_steps(&view, prompt, first)?.alpha)
            }
            Task::Correct { alpha, points } => mask(network.correct(&view, alpha, points)?),
        }
    }

    /// Finds the largest person in front of the camera, if there is one.
    ///
    /// # Errors
    /// The device is not available, and errors of libtorch.
    pub fn find_person(&mut self, picture: &OwnedPicture) -> Result<Option<Person>> {
        let device = self.device;
        load(&mut self.person, device, PersonNetwork::load)?.find_person(&picture.as_picture())
    }

    /// Returns the mask of a person, with better edges.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn refine_person(&mut self, picture: &OwnedPicture, person: &Person) -> Result<ReferenceMask> {
        let view = picture.as_picture();
        let alpha = self.prompt()?.refine(&view, &person.alpha, person.region)?;
        ReferenceMask::from_soft(view.width, view.height, alpha)
    }
}

fn load<T>(
    network: &mut Option<T>,
    choice: DeviceChoice,
    load: impl FnOnce(tch::Device, tch::Kind) -> Result<T>,
) -> Result<&T> {
    match network {
        Some(network) => Ok(network),
        None => {
            let device = device::open(choice)?.0;
            let kind = Precision::Auto.kind(device)?;
            Ok(network.insert(load(device, kind)?))
        }
    }
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

    /// Runs a job and waits for its result.
    ///
    /// # Errors
    /// Those of the job, and of starting the thread.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Networks) -> Result<T> + Send + 'static,
        device: DeviceChoice,
    ) -> Result<T> {
        let (sender, receiver) = channel();
        self.queue(Box::new(move |networks| drop(sender.send(job(networks)))), device)?;
        let ended = |_| Error::Config("the selection thread has ended: please report it".into());
        receiver.recv().map_err(ended)?
    }
}

fn work(jobs: &Receiver<Job>, device: DeviceChoice) {
    // The streaming thread needs the other half.
    threads::set_for_this_thread((threads::of_this_thread() / 2).max(1));
    let mut networks = Networks { device, prompt: None, person: None };
    while let Ok(job) = jobs.recv_timeout(IDLE) {
        job(&mut networks);
    }
}
