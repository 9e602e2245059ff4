//! Frames looked at before their turn, on a thread of their own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use crate::{Error, Result, threads};

/// A thread that looks at one image after the other, each given as `I`.
pub struct Lookout<I, S> {
    orders: Option<Sender<Order<I, S>>>,
    thread: Option<JoinHandle<()>>,
}

struct Order<I, S> {
    image: I,
    answer: Sender<Result<S>>,
    wanted: Weak<()>,
}

/// What is or will be known of an image. Nobody looks at it any more once this is dropped.
pub struct Glimpse<S> {
    answer: Receiver<Result<S>>,
    _wanted: Arc<()>,
}

impl<I: Send + 'static, S: Send + 'static> Lookout<I, S> {
    /// Each image is processed with `thread_count` threads of libtorch; 0 leaves the number as it is.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn new(look: impl Fn(I) -> Result<S> + Send + 'static, thread_count: Arc<AtomicU32>) -> Result<Self> {
        let (orders, list) = channel::<Order<I, S>>();
        let work = move || {
            let _no_grad = tch::no_grad_guard();
            for Order { image, answer, wanted } in list {
                if wanted.strong_count() > 0 {
                    threads::set_for_this_thread(thread_count.load(Ordering::Relaxed));
                    let _ = answer.send(look(image));
                }
            }
        };
        let thread = Builder::new().name("fastganseg-ahead".into()).spawn(work).map_err(|error| {
            Error::Config(format!("no thread to look ahead with: {error}. Leave frame-threading off"))
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Has an image looked at, after those before it.
    pub fn look(&self, image: I) -> Glimpse<S> {
        let (sender, answer) = channel();
        let wanted = Arc::new(());
        if let Some(orders) = &self.orders {
            // Without a thread there will be no answer.
            let _ = orders.send(Order { image, answer: sender, wanted: Arc::downgrade(&wanted) });
        }
        Glimpse { answer, _wanted: wanted }
    }
}

impl<S> Glimpse<S> {
    /// Waits for it.
    ///
    /// # Errors
    /// That which looking gave, or [`Error::NoGlimpse`] if its thread is no more.
    pub fn take(self) -> Result<S> {
        self.answer.recv().map_err(|_| Error::NoGlimpse)?
    }
}

impl<I, S> Drop for Lookout<I, S> {
    fn drop(&mut self) {
        drop(self.orders.take());
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
        let lookout =
            Lookout::new(move |image: u8| Ok((std::thread::current().id() != here, image)), Arc::default())
                .unwrap();
        let glimpses: Vec<_> = (0..3).map(|n| lookout.look(n)).collect();
        drop(lookout.look(9));
        let seen: Vec<_> = glimpses.into_iter().map(|glimpse| glimpse.take().unwrap()).collect();
        assert_eq!(seen, [(true, 0), (true, 1), (true, 2)]);
    }

    #[test]
    fn nobody_looks_at_what_is_no_longer_wanted() {
        let (begun, begins) = channel();
        let (go, gone) = channel::<()>();
        let lookout = Lookout::new(
            move |image: u8| {
                begun.send(image).unwrap();
                let _ = gone.recv();
                Ok(image)
            },
            Arc::default(),
        )
        .unwrap();
        let first = lookout.look(0);
        assert_eq!(begins.recv(), Ok(0));
        for image in 1..9 {
            drop(lookout.look(image));
        }
        let last = lookout.look(9);
        drop(go);
        assert_eq!((first.take().unwrap(), last.take().unwrap()), (0, 9));
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_thread_that_is_no_more_is_an_error() {
        let lookout = Lookout::<(), ()>::new(|()| panic!("on purpose"), Arc::default()).unwrap();
        for _ in 0..2 {
            assert!(matches!(lookout.look(()).take(), Err(Error::NoGlimpse)));
        }
    }
}
