//! Frames looked at before their turn, on a thread of their own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use crate::{Error, Result, threads};

/// A thread that looks at one image after the other, each given as `I`.
pub struct EncodeWorker<I, S> {
    jobs: Option<Sender<Job<I, S>>>,
    thread: Option<JoinHandle<()>>,
}

struct Job<I, S> {
    image: I,
    answer: Sender<Result<S>>,
    wanted: Weak<()>,
}

/// What is or will be known of an image. Nobody looks at it any more once this is dropped.
pub struct PendingEncoding<S> {
    answer: Receiver<Result<S>>,
    _wanted: Arc<()>,
}

impl<I: Send + 'static, S: Send + 'static> EncodeWorker<I, S> {
    /// Each image is processed with `thread_count` threads of libtorch; 0 leaves the number as it is.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn new(
        encode: impl Fn(I) -> Result<S> + Send + 'static,
        thread_count: Arc<AtomicU32>,
    ) -> Result<Self> {
        let (jobs, list) = channel::<Job<I, S>>();
        let work = move || {
            let _no_grad = tch::no_grad_guard();
            for Job { image, answer, wanted } in list {
                if wanted.strong_count() > 0 {
                    threads::set_for_this_thread(thread_count.load(Ordering::Relaxed));
                    let _ = answer.send(encode(image));
                }
            }
        };
        let thread = Builder::new().name("fastganseg-ahead".into()).spawn(work).map_err(|error| {
            Error::Config(format!("no thread to encode ahead with: {error}. Leave frame-threading off"))
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has an image looked at, after those before it.
    pub fn encode(&self, image: I) -> PendingEncoding<S> {
        let (sender, answer) = channel();
        let wanted = Arc::new(());
        if let Some(jobs) = &self.jobs {
            // Without a thread there will be no answer.
            let _ = jobs.send(Job { image, answer: sender, wanted: Arc::downgrade(&wanted) });
        }
        PendingEncoding { answer, _wanted: wanted }
    }
}

impl<S> PendingEncoding<S> {
    /// Waits for it.
    ///
    /// # Errors
    /// That which looking gave, or [`Error::NoPrefetch`] if its thread is no more.
    pub fn take(self) -> Result<S> {
        self.answer.recv().map_err(|_| Error::NoPrefetch)?
    }
}

impl<I, S> Drop for EncodeWorker<I, S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It has said why, if it has panicked.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_looked_at_in_order_and_on_another_thread() {
        let here = std::thread::current().id();
        let prefetcher = EncodeWorker::new(
            move |image: u8| Ok((std::thread::current().id() != here, image)),
            Arc::default(),
        )
        .unwrap();
        let pending: Vec<_> = (0..3).map(|n| prefetcher.encode(n)).collect();
        drop(prefetcher.encode(9));
        let seen: Vec<_> = pending.into_iter().map(|pending| pending.take().unwrap()).collect();
        assert_eq!(seen, [(true, 0), (true, 1), (true, 2)]);
    }

    #[test]
    fn nobody_looks_at_what_is_no_longer_wanted() {
        let (begun, begins) = channel();
        let (go, gone) = channel::<()>();
        let prefetcher = EncodeWorker::new(
            move |image: u8| {
                begun.send(image).unwrap();
                let _ = gone.recv();
                Ok(image)
            },
            Arc::default(),
        )
        .unwrap();
        let first = prefetcher.encode(0);
        assert_eq!(begins.recv(), Ok(0));
        for image in 1..9 {
            drop(prefetcher.encode(image));
        }
        let last = prefetcher.encode(9);
        drop(go);
        assert_eq!((first.take().unwrap(), last.take().unwrap()), (0, 9));
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_thread_that_is_no_more_is_an_error() {
        let prefetcher = EncodeWorker::<(), ()>::new(|()| panic!("on purpose"), Arc::default()).unwrap();
        for _ in 0..2 {
            assert!(matches!(prefetcher.encode(()).take(), Err(Error::NoPrefetch)));
        }
    }
}
