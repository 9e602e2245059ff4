// SPDX-License-Identifier: MPL-2.0

//! The networks that make references, on a thread of their own.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::exit;
use super::shared::lock;
use crate::device::{self, DeviceChoice, Precision};
use crate::image::OwnedPicture;
use crate::mask::ReferenceMask;
use crate::model::person::{Person, PersonNetwork};
use crate::model::prompt::{Point, Prompt, PromptNetwork, Selection};
use crate::{Error, Result, threads};

/// Time without jobs after which the networks are unloaded.
const IDLE: Duration = Duration::from_secs(60);
/// Interval at which a thread that waits for a job checks whether the element is flushing.
const POLL: Duration = Duration::from_millis(20);

/// Work for the thread.
pub type Job = Box<dyn FnOnce(&mut Networks) + Send>;

/// The networks, loaded when they are first used.
pub struct Networks {
    queue: Arc<Queue>,
    /// Number of the thread.
    worker: u64,
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

impl Task {
    /// What is selected.
    pub fn prompt(&self) -> Option<&Prompt> {
        match self {
            Self::Select(prompt) => Some(prompt),
            Self::Correct { .. } => None,
        }
    }
}

impl Networks {
    fn unload(&mut self) {
        (self.prompt, self.person) = (None, None);
    }

    /// Forgets the networks, because destructors of libtorch may be running.
    fn leak(&mut self) {
        std::mem::forget((self.prompt.take(), self.person.take()));
    }

    /// Loads the network if necessary.
    ///
    /// # Errors
    /// The device is not available, and the element has stopped, which waits for the job.
    fn prompt(&mut self) -> Result<&PromptNetwork> {
        let network = load(&mut self.prompt, self.device, |device, kind| {
            let network = PromptNetwork::load(device, kind)?;
            let (picture, points) = (blank()?, vec![Point { x: 0.5, y: 0.5, positive: true }]);
            network.correct(&picture.as_picture(), &[255; BLANK], &points)?;
            Ok(network)
        })?;
        self.queue.check_running(self.worker)?;
        Ok(network)
    }

    /// As [`prompt`](Self::prompt).
    fn person(&mut self) -> Result<&PersonNetwork> {
        let network = load(&mut self.person, self.device, |device, kind| {
            let network = PersonNetwork::load(device, kind)?;
            network.segment(&blank()?.as_picture())?;
            Ok(network)
        })?;
        self.queue.check_running(self.worker)?;
        Ok(network)
    }

    /// Runs a task. Calls `preliminary` with a first mask if a better one follows.
    ///
    /// # Errors
    /// The device is not available, the task does not fit the picture, the element has stopped, and errors of libtorch.
    pub fn run(
        &mut self,
        task: &Task,
        picture: &OwnedPicture,
        mut preliminary: impl FnMut(Result<ReferenceMask>),
    ) -> Result<ReferenceMask> {
        let (queue, worker) = (Arc::clone(&self.queue), self.worker);
        let network = self.prompt()?;
        let view = picture.as_picture();
        let mask = |alpha: Vec<u8>| ReferenceMask::from_soft(view.width, view.height, alpha);
        match task {
            Task::Select(prompt) => {
                let first = |selection: &Selection| match queue.wants_more(worker) {
                    true => {
                        preliminary(mask(selection.alpha.clone()));
                        ControlFlow::Continue(())
                    }
                    false => ControlFlow::Break(()),
                };
                mask(network.select_in_steps(&view, prompt, first)?.alpha)
            }
            Task::Correct { alpha, points } => {
                let corrected = network.correct(&view, alpha, points)?;
                check_corrected(&corrected)?;
                mask(corrected)
            }
        }
    }

    /// Finds the largest person in front of the camera, if there is one.
    ///
    /// # Errors
    /// The device is not available, and errors of libtorch.
    pub fn find_person(&mut self, picture: &OwnedPicture) -> Result<Option<Person>> {
        self.person()?.find_person(&picture.as_picture())
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

/// Checks the alpha of a corrected mask.
///
/// # Errors
/// There is no object any more.
fn check_corrected(alpha: &[u8]) -> Result<()> {
    match alpha.iter().any(|&value| value > 127) {
        true => Ok(()),
        false => Err(Error::Config("nothing of the object would be left".into())),
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
            let network = network.insert(load(device, kind)?);
            exit::register_handler();
            Ok(network)
        }
    }
}

/// Width of [`blank`].
const BLANK: usize = 16;

/// A narrow picture, with which a network runs once, see [`exit::register_handler`]. It takes less time than a square.
fn blank() -> Result<OwnedPicture> {
    OwnedPicture::from_rgb(BLANK, 1, vec![0; 3 * BLANK])
}

/// Runs jobs on a thread that starts with the first job and ends when it has been idle.
#[derive(Default)]
pub struct Selector(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: Option<Job>,
    thread: Option<JoinHandle<()>>,
    /// Number of the thread that works. Others end.
    worker: u64,
}

impl Selector {
    /// Queues a job in place of one that has not begun.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn queue(&self, job: Job, device: DeviceChoice) -> Result<()> {
        if exit::has_begun() {
            return Err(Error::Config("the process ends".into()));
        }
        let mut state = lock(&self.0.state);
        if state.thread.is_none() {
            state.worker += 1;
            let (queue, worker) = (Arc::clone(&self.0), state.worker);
            let thread = std::thread::Builder::new()
                .name("fastganseg-sel".into())
                .spawn(move || work(&queue, worker, device))
                .map_err(|error| Error::Config(format!("the selection thread cannot be started: {error}")))?;
            state.thread = Some(thread);
        }
        let replaced = state.waiting.replace(job);
        self.0.changed.notify_all();
        drop(state);
        // Jobs lock other state when they are dropped.
        drop(replaced);
        Ok(())
    }

    /// Runs a job and waits for its result, or until `is_flushing`. Then the result is `None`: whoever flushes waits for
    /// this thread, possibly on the thread of the jobs.
    ///
    /// # Errors
    /// Those of the job, and of starting the thread.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Networks) -> Result<T> + Send + 'static,
        device: DeviceChoice,
        is_flushing: impl Fn() -> bool,
    ) -> Result<Option<T>> {
        let (sender, receiver) = channel();
        self.queue(Box::new(move |networks| drop(sender.send(job(networks)))), device)?;
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(result) => return result.map(Some),
                Err(_) if is_flushing() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Config("the selection has failed: please report it".into()));
                }
            }
        }
    }

    /// Discards the job that has not begun, and waits until the thread has ended, at most for one step of a selection. A
    /// process that exits while a network runs crashes in the destructors of libtorch.
    pub fn stop(&self) {
        let thread = self.0.close();
        // A message of a job may stop the element.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Selector {
    fn drop(&mut self) {
        // This may be the thread itself, which cannot wait for its end.
        self.0.close();
    }
}

impl Queue {
    fn close(&self) -> Option<JoinHandle<()>> {
        let mut state = lock(&self.state);
        let discarded = state.waiting.take();
        let thread = state.thread.take();
        state.worker += 1;
        self.changed.notify_all();
        drop(state);
        drop(discarded);
        thread
    }

    /// Checks that the element has not stopped since this thread began.
    ///
    /// # Errors
    /// It has.
    fn check_running(&self, worker: u64) -> Result<()> {
        match lock(&self.state).worker == worker {
            true => Ok(()),
            false => Err(Error::Config("the element has stopped".into())),
        }
    }

    /// Whether the job of a thread is still wanted: the element has not stopped, and no other selection waits.
    fn wants_more(&self, worker: u64) -> bool {
        let state = lock(&self.state);
        state.worker == worker && state.waiting.is_none()
    }

    /// Waits for a job. `None` unloads the networks and ends the thread.
    fn next(&self, networks: &mut Networks) -> Option<Job> {
        let worker = networks.worker;
        let waits = |state: &mut QueueState| state.waiting.is_none() && state.worker == worker;
        let state = lock(&self.state);
        let (mut state, _) =
            self.changed.wait_timeout_while(state, IDLE, waits).unwrap_or_else(PoisonError::into_inner);
        let job = if state.worker == worker { state.waiting.take() } else { None };
        if job.is_none() {
            // `stop` waits for this lock.
            match exit::permission() {
                Some(_permission) => networks.unload(),
                None => networks.leak(),
            }
            if state.worker == worker {
                state.thread = None;
            }
        }
        job
    }
}

fn work(queue: &Arc<Queue>, worker: u64, device: DeviceChoice) {
    // The streaming thread needs the other half.
    threads::set_for_this_thread((threads::of_this_thread() / 2).max(1));
    let mut networks = Networks { queue: Arc::clone(queue), worker, device, prompt: None, person: None };
    while let Some(job) = queue.next(&mut networks) {
        let Some(_permission) = exit::permission() else {
            lock(&queue.state).thread = None;
            return networks.leak();
        };
        // The message of a panic is printed by its hook.
        if catch_unwind(AssertUnwindSafe(|| job(&mut networks))).is_err() {
            networks.unload();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::in_progress::InProgress;
    use super::*;

    const CPU: DeviceChoice = DeviceChoice::Cpu;

    /// The message was about a mask that is black, and how to paint it.
    #[test]
    fn a_correction_that_leaves_nothing_is_named() {
        let error = check_corrected(&[0, 12, 127]).unwrap_err().to_string();
        assert!(error.contains("nothing of the object would be left"), "{error}");
        check_corrected(&[0, 128]).unwrap();
    }

    #[test]
    fn a_job_that_panics_ends_and_later_jobs_run() {
        let (selector, running) = (Selector::default(), InProgress::default());
        let ticket = running.begin();
        let failing = move |_: &mut Networks| -> Result<()> {
            let _ticket = ticket;
            panic!("of the test")
        };
        assert!(selector.run(failing, CPU, || false).is_err());
        assert_eq!(selector.run(|_| Ok(7), CPU, || false).unwrap(), Some(7));
        assert!(running.is_empty());
    }

    #[test]
    fn stop_discards_jobs_and_waits_for_the_one_that_runs() {
        let (selector, running) = (Selector::default(), InProgress::default());
        let (begun, has_begun) = channel();
        let (go_on, goes_on) = channel::<()>();
        let (ended, has_ended) = channel();
        let first = move |_: &mut Networks| {
            begun.send(()).unwrap();
            // Until `stop` has discarded the other job.
            let _ = goes_on.recv();
            ended.send(()).unwrap();
        };
        selector.queue(Box::new(first), CPU).unwrap();
        has_begun.recv().unwrap();
        let ticket = running.begin();
        let discarded = move |_: &mut Networks| {
            let (_ticket, _) = (ticket, go_on);
            unreachable!("it is discarded")
        };
        selector.queue(Box::new(discarded), CPU).unwrap();
        selector.stop();
        assert!(has_ended.try_recv().is_ok() && running.is_empty());
        assert_eq!(selector.run(|_| Ok(7), CPU, || false).unwrap(), Some(7), "it starts again");
    }
}
