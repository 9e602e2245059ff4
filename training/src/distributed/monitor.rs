// SPDX-License-Identifier: MPL-2.0

//! Detection of ranks that end or stop responding.
//!
//! Every rank counts up a key of the store once a second. Rank 0 observes all counters, the others that of rank 0.
//! A rank that fails publishes the reason. The first failure is that of the whole run.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::shim::Store;

/// Time between two signs of life.
const PERIOD: Duration = Duration::from_secs(1);
/// Time without a sign of life after which a rank counts as ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for this process to end by itself after another rank has. It may be blocked in an operation with that rank.
const GRACE: Duration = Duration::from_secs(10);
/// Key of the first failure.
const FAILED: &str = "failed";
/// Exit status of a rank that ends because another one has.
const EXIT_FAILURE: i32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub rank: usize,
    /// What happened to it, to follow "rank N".
    pub reason: String,
}

impl Failure {
    /// Publishes this failure unless there is an earlier one.
    pub fn publish(&self, store: &Store) -> Result<(), String> {
        store.set_first(FAILED, format!("{}\n{}", self.rank, self.reason).as_bytes())
    }

    /// Returns the first published failure.
    pub fn published(store: &Store) -> Result<Option<Self>, String> {
        let Some(text) = store.get(FAILED)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text).into_owned();
        let (rank, reason) = text.split_once('\n').unwrap_or(("", &text));
        Ok(Some(Self { rank: rank.parse().unwrap_or(0), reason: reason.to_owned() }))
    }
}

#[derive(Debug, Default)]
struct State {
    failure: Mutex<Option<Failure>>,
    changed: Condvar,
    /// This rank is about to end.
    leaving: AtomicBool,
    /// Held while a checkpoint is written.
    saving: Mutex<()>,
}

/// The thread that observes the other ranks.
#[derive(Debug)]
pub struct Monitor {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts the thread with its own connection to the store. `serves`: this process serves the store.
    pub fn start(store: Store, rank: usize, ranks: usize, serves: bool) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || watch(&shared, &store, rank, ranks, serves));
        Self { state, thread: Some(thread) }
    }

    /// Returns the first failure of another rank, waiting for one up to `timeout`.
    pub fn failure(&self, timeout: Duration) -> Option<Failure> {
        let failure = lock(&self.state.failure);
        let waited = self.state.changed.wait_timeout_while(failure, timeout, |failure| failure.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Returns the first failure of another rank. Waits long enough to detect one whose connection has broken.
    pub fn failure_behind_an_error(&self) -> Option<Failure> {
        self.failure(PATIENCE + 3 * PERIOD)
    }

    /// Keeps the process from being ended while the guard exists.
    pub fn saving(&self) -> MutexGuard<'_, ()> {
        lock(&self.state.saving)
    }

    /// Announces that this rank ends by itself.
    pub fn leave(&self) {
        self.state.leaving.store(true, Ordering::Relaxed);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.leave();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps, unless this rank is about to end.
fn sleep(state: &State, time: Duration) {
    let end = Instant::now() + time;
    while !state.leaving.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::park_timeout(left);
    }
}

fn watch(state: &State, store: &Store, rank: usize, ranks: usize, serves: bool) {
    let mut lives: Vec<Life> =
        if rank == 0 { (1..ranks).map(Life::new).collect() } else { vec![Life::new(0)] };
    let mut last = Instant::now();
    let failure = loop {
        if state.leaving.load(Ordering::Relaxed) {
            return;
        }
        // If this process itself was stopped, the others get their time again.
        if last.elapsed() > PATIENCE / 2 {
            lives.iter_mut().for_each(|life| life.seen = Instant::now());
        }
        last = Instant::now();
        match look(store, rank, &mut lives) {
            Ok(None) => sleep(state, PERIOD),
            Ok(Some(failure)) => break failure,
            Err(_) if state.leaving.load(Ordering::Relaxed) => return,
            Err(error) if serves => {
                eprintln!(
                    "rank {rank}: the store of the ranks failed ({error}); failures of ranks are not detected"
                );
                return;
            }
            Err(error) => {
                let reason = format!("or its launcher has ended, or cannot be reached ({error})");
                break Failure { rank: 0, reason };
            }
        }
    };
    // Without effect on an earlier failure, which this may be.
    let _ = failure.publish(store);
    let message = format!("error: rank {rank} ends, since rank {} {}", failure.rank, failure.reason);
    *lock(&state.failure) = Some(failure);
    state.changed.notify_all();
    sleep(state, GRACE);
    if !state.leaving.load(Ordering::Relaxed) {
        let _saving = lock(&state.saving);
        eprintln!("{message}");
        exit_now(EXIT_FAILURE);
    }
}

/// Gives a sign of life, and returns a failure if there is one.
fn look(store: &Store, rank: usize, lives: &mut [Life]) -> Result<Option<Failure>, String> {
    store.add(&alive(rank), 1)?;
    if let Some(failure) = Failure::published(store)? {
        return Ok(Some(failure));
    }
    for life in lives {
        let count = store.get(&alive(life.rank))?;
        // A rank that has not started yet is missed by all others at the start.
        if count != life.count || count.is_none() {
            (life.count, life.seen) = (count, Instant::now());
        } else if life.seen.elapsed() > PATIENCE {
            let reason = format!(
                "has not responded for {} s: it was killed or stopped, or its machine or the network failed",
                PATIENCE.as_secs()
            );
            return Ok(Some(Failure { rank: life.rank, reason }));
        }
    }
    Ok(None)
}

fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}

/// The signs of life of a rank.
#[derive(Debug)]
struct Life {
    rank: usize,
    count: Option<Vec<u8>>,
    seen: Instant,
}

impl Life {
    fn new(rank: usize) -> Self {
        Self { rank, count: None, seen: Instant::now() }
    }
}

/// Ends the process without the destructors of libtorch, which wait for operations with ranks that have ended.
pub fn exit_now(status: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
