// SPDX-License-Identifier: MPL-2.0

//! Encodes frames ahead of time on a thread of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use crate::{Error, Result, threads};

/// Thread that encodes images of type `I` one after the other.
pub struct EncodeWorker<I, S> {
    jobs: Option<Sender<Job<I, S>>>,
    thread: Option<JoinHandle<()>>,
}

struct Job<I, S> {
    image: I,
    answer: Sender<Result<S>>,
    wanted: Weak<()>,
}

/// Result of an encoding that may not be finished. An image whose result is dropped before its turn is not
/// encoded.
pub struct PendingEncoding<S> {
    answer: Receiver<Result<S>>,
    _wanted: Arc<()>,
}

impl<I: Send + 'static, S: Send + 'static> EncodeWorker<I, S> {
    /// Starts the thread. It encodes with `thread_count` threads of libtorch; 0 keeps their number.
    pub fn new(
        encode: impl Fn(I) -> Result<S> + Send + 'static,
        thread_count: Arc<AtomicU32>,
    ) -> Result<Self> {
        let (jobs, queue) = channel::<Job<I, S>>();
        let work = move || {
            let _no_grad = tch::no_grad_guard();
            for Job { image, answer, wanted } in queue {
                if wanted.strong_count() > 0 {
                    threads::set_for_this_thread(thread_count.load(Ordering::Relaxed));
                    let _ = answer.send(encode(image));
                }
            }
        };
        let thread = Builder::new().name("fastganseg-ahead".into()).spawn(work).map_err(|error| {
            Error::Config(format!(
                "cannot start the frame-threading thread: {error}. Turn frame-threading off"
            ))
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues an image for encoding.
    pub fn encode(&self, image: I) -> PendingEncoding<S> {
        let (sender, answer) = channel();
        let wanted = Arc::new(());
        if let Some(jobs) = &self.jobs {
            // If the thread has ended, `take` returns the error.
            let _ = jobs.send(Job { image, answer: sender, wanted: Arc::downgrade(&wanted) });
        }
        PendingEncoding { answer, _wanted: wanted }
    }
}

impl<S> PendingEncoding<S> {
    /// Waits for the result.
    pub fn take(self) -> Result<S> {
        self.answer.recv().map_err(|_| Error::NoPrefetch)?
    }
}

impl<I, S> Drop for EncodeWorker<I, S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic has already been reported on the thread itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_encoded_in_order_on_another_thread() {
        let here = std::thread::current().id();
        let worker = EncodeWorker::new(
            move |image: u8| Ok((std::thread::current().id() != here, image)),
            Arc::default(),
        )
        .unwrap();
        let pending: Vec<_> = (0..3).map(|n| worker.encode(n)).collect();
        drop(worker.encode(9));
        let encoded: Vec<_> = pending.into_iter().map(|pending| pending.take().unwrap()).collect();
        assert_eq!(encoded, [(true, 0), (true, 1), (true, 2)]);
    }

    #[test]
    fn images_whose_result_was_dropped_are_not_encoded() {
        let (started_sender, started) = channel();
        let (release_sender, release) = channel::<()>();
        let worker = EncodeWorker::new(
            move |image: u8| {
                started_sender.send(image).unwrap();
                let _ = release.recv();
                Ok(image)
            },
            Arc::default(),
        )
        .unwrap();
        let first = worker.encode(0);
        assert_eq!(started.recv(), Ok(0));
        for image in 1..9 {
            drop(worker.encode(image));
        }
        let last = worker.encode(9);
        drop(release_sender);
        assert_eq!((first.take().unwrap(), last.take().unwrap()), (0, 9));
        assert_eq!(started.try_iter().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_thread_that_has_ended_is_an_error() {
        let worker = EncodeWorker::<(), ()>::new(|()| panic!("on purpose"), Arc::default()).unwrap();
        for _ in 0..2 {
            assert!(matches!(worker.encode(()).take(), Err(Error::NoPrefetch)));
        }
    }
}
