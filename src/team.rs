// SPDX-License-Identifier: MPL-2.0

//! Threads that help with the layers of a network while a frame is processed.
//!
//! A frame has some forty loops that are worth several threads, of a few hundred microseconds each. Waking a sleeping thread
//! for each of them would take a large part of that. The helpers therefore wait for the next loop actively, and go back to
//! their pool after the frame. The calling thread never waits for a helper that has not begun, so that a busy machine costs
//! little.

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::threads::{can_set_for_one_thread, of_this_thread, set_for_this_thread};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// Threads that libtorch may use, given to the layers of a network instead. While it exists, libtorch has one thread for
/// work of the calling thread, if its number can be set for one thread: OpenMP's threads would wait for their next work
/// actively, too.
#[must_use]
#[derive(Debug)]
pub struct TeamGuard {
    team: Option<Arc<Team>>,
    limits_libtorch: bool,
    _not_send: PhantomData<*const ()>,
}

impl TeamGuard {
    /// Gives the calling thread a team. Does nothing if it already has one, or if libtorch has one thread.
    pub fn new() -> Self {
        let count = of_this_thread();
        let has_team = CURRENT.with_borrow(Option::is_some);
        let team = (count > 1 && !has_team).then(|| Arc::new(Team::new(count)));
        let limits_libtorch = team.is_some() && can_set_for_one_thread();
        if limits_libtorch {
            set_for_this_thread(1);
        }
        if let Some(team) = &team {
            Team::gather(team);
            CURRENT.set(Some(Arc::clone(team)));
        }
        Self { team, limits_libtorch, _not_send: PhantomData }
    }
}

impl Drop for TeamGuard {
    fn drop(&mut self) {
        if let Some(team) = &self.team {
            team.ended.store(true, Ordering::Release);
            CURRENT.set(None);
            if self.limits_libtorch {
                set_for_this_thread(team.size);
            }
        }
    }
}

/// Returns how many threads the layers of a network use for work of the calling thread.
pub fn size() -> usize {
    CURRENT.with_borrow(|team| team.as_ref().map_or_else(of_this_thread, |team| team.size)) as usize
}

/// Calls `work` for every item, on this thread and those of its team. Panics if `work` does.
pub fn in_parallel<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    let items: Vec<Mutex<Option<T>>> = items.map(|item| Mutex::new(Some(item))).collect();
    let work = |index: usize| {
        let item = items[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        item.into_iter().for_each(&work);
    };
    if items.len() <= 1 || size() <= 1 {
        return (0..items.len()).for_each(work);
    }
    let _guard = TeamGuard::new();
    // A loop inside of `work` has no team.
    let Some(team) = CURRENT.take() else { return (0..items.len()).for_each(work) };
    let _restored = Restored(&team);
    Team::run(&team, &work, items.len());
}

/// Gives a thread its team back when dropped.
struct Restored<'a>(&'a Arc<Team>);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        CURRENT.set(Some(Arc::clone(self.0)));
    }
}

/// Returns the threads that helpers run on; `None` if they cannot be started. They are not those of rayon's global pool, which
/// may be the application's.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceCell<Option<ThreadPool>> = OnceCell::new();
    let start = || {
        let builder = ThreadPoolBuilder::new().thread_name(|index| format!("fastganseg-{index}"));
        builder.build().ok()
    };
    POOL.get_or_init(start).as_ref()
}

/// A loop over indices.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// A thread and its helpers.
struct Team {
    /// Number of threads.
    size: u32,
    /// The present loop. Only valid for those that have [claimed](Self::claim) one of its indices.
    work: UnsafeCell<Option<&'static Work<'static>>>,
    /// Number of the loop (upper half), number of its indices, and next index (lower quarter).
    state: AtomicU64,
    /// Indices that are done.
    done: AtomicUsize,
    /// Helpers that are waiting, working or about to begin.
    helpers: AtomicUsize,
    /// Panic in a loop.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    ended: AtomicBool,
}

// SAFETY: `work` is written only by the thread that has the guard, while no index of a loop is claimed and not done; it is
// read only by those that have claimed an index.
unsafe impl Sync for Team {}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Team").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Maximum number of indices of a loop.
const MAX_INDICES: usize = u16::MAX as usize;

/// Time after which a helper that has nothing to do goes back to the pool.
const PATIENCE: Duration = Duration::from_millis(1);
/// Interval at which the calling thread checks, after that time, whether the helpers are done.
const PAUSE: Duration = Duration::from_micros(100);

impl Team {
    fn new(size: u32) -> Self {
        Self {
            size,
            work: UnsafeCell::new(None),
            state: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
            panic: Mutex::new(None),
            ended: AtomicBool::new(false),
        }
    }

    /// Starts the helpers that are missing.
    fn gather(team: &Arc<Self>) {
        if let Some(pool) = pool() {
            for _ in team.helpers.load(Ordering::Acquire)..team.size as usize - 1 {
                team.helpers.fetch_add(1, Ordering::AcqRel);
                let team = Arc::clone(team);
                pool.spawn(move || team.help());
            }
        }
    }

    /// Runs a loop over `count` indices. Only the thread that has the guard calls this, and `work` does not.
    fn run(team: &Arc<Self>, work: &Work, count: usize) {
        assert!(count <= MAX_INDICES, "{count} parts");
        Self::gather(team);
        // SAFETY: this function does not return before all indices are done, and nobody uses `work` afterwards. No index of
        // an earlier loop is claimed and not done.
        unsafe { *team.work.get() = Some(std::mem::transmute::<&Work, &'static Work<'static>>(work)) };
        team.done.store(0, Ordering::Relaxed);
        let number = (team.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        team.state.store(number << 32 | (count as u64) << 16, Ordering::Release);
        while team.work_once() {}
        let mut spins = Spins::default();
        while team.done.load(Ordering::Acquire) < count {
            // A helper of a lower scheduling class does not run while this thread only yields.
            if spins.wait() > PATIENCE {
                std::thread::sleep(PAUSE);
            }
        }
        let panic = team.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Works on loops until the guard is dropped or there has been none for a while.
    fn help(&self) {
        let mut spins = Spins::default();
        while !self.ended.load(Ordering::Acquire) {
            if self.work_once() {
                spins = Spins::default();
            } else if spins.wait() > PATIENCE {
                break;
            }
        }
        self.helpers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Claims the next index of the present loop.
    fn claim(&self) -> Option<usize> {
        let next = |state: u64| {
            let (count, index) = (state >> 16 & 0xffff, state & 0xffff);
            (index < count).then_some(state + 1)
        };
        let state = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        Some((state & 0xffff) as usize)
    }

    /// Does one index of the present loop. Returns whether there was one.
    fn work_once(&self) -> bool {
        let Some(index) = self.claim() else { return false };
        // SAFETY: the index is claimed, and the loop does not end before it is done.
        let work = unsafe { *self.work.get() };
        // A loop ends before its thread unwinds, because others may still use its data.
        if let Some(work) = work
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(index)))
        {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }
}

/// Active waiting that lets other threads run now and then.
struct Spins {
    count: u32,
    start: Instant,
}

impl Default for Spins {
    fn default() -> Self {
        Self { count: 0, start: Instant::now() }
    }
}

impl Spins {
    /// Waits for a moment. Returns the time since the beginning now and then, otherwise zero.
    fn wait(&mut self) -> Duration {
        self.count = self.count.wrapping_add(1);
        if self.count.is_multiple_of(64) {
            std::thread::yield_now();
            self.start.elapsed()
        } else {
            std::hint::spin_loop();
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::with_threads;

    #[test]
    fn every_item_is_done_once() {
        for threads in [1, 2, 5] {
            with_threads(threads, || {
                let guard = TeamGuard::new();
                assert_eq!(size(), threads as usize);
                for length in [0, 1, 2, 7, 100] {
                    for _ in 0..100 {
                        let mut values = vec![0; length];
                        in_parallel(values.iter_mut().enumerate(), |(index, value)| *value += index + 1);
                        assert!(values.into_iter().eq(1..=length));
                    }
                }
                drop(guard);
                let mut values = [0; 10];
                in_parallel(values.iter_mut(), |value| *value += 1);
                assert_eq!(values, [1; 10], "without a guard");
            });
        }
    }

    #[test]
    fn a_team_has_the_threads_of_libtorch() {
        with_threads(3, || {
            let numbers = || (size(), tch::get_num_threads());
            let outer = TeamGuard::new();
            assert_eq!(numbers(), (3, 1));
            drop(TeamGuard::new());
            assert_eq!(numbers(), (3, 1), "the outer one still exists");
            drop(outer);
            assert_eq!(numbers(), (3, 3));
        });
    }

    #[test]
    fn a_loop_in_a_loop_is_done() {
        with_threads(3, || {
            let _guard = TeamGuard::new();
            let sum = AtomicUsize::new(0);
            in_parallel(0..10, |outer| {
                in_parallel(0..10, |inner| {
                    sum.fetch_add(10 * outer + inner, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), (0..100).sum::<usize>());
            assert_eq!(size(), 3, "the team is back");
        });
    }

    #[test]
    fn helpers_that_left_are_replaced() {
        with_threads(2, || {
            let _guard = TeamGuard::new();
            for _ in 0..3 {
                let arrived = AtomicUsize::new(0);
                let end = Instant::now() + Duration::from_secs(20);
                in_parallel(0..2, |_| {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    // Each thread waits for the other.
                    while arrived.load(Ordering::Acquire) < 2 && Instant::now() < end {
                        std::thread::yield_now();
                    }
                });
                assert!(Instant::now() < end, "one thread did both");
                std::thread::sleep(20 * PATIENCE);
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_items() {
        with_threads(4, || {
            let _guard = TeamGuard::new();
            for bad in [0, 5, 19] {
                let done = AtomicUsize::new(0);
                let run = || {
                    in_parallel(0..20, |index| {
                        assert_ne!(index, bad, "expected");
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                };
                assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
                assert_eq!(done.into_inner(), 19);
            }
        });
    }
}
