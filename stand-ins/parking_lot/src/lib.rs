//! The locks of sled 0.34, which asks for parking_lot 0.11: those of the release that is maintained, and a [`Condvar`] of
//! its own.
//!
//! Each write of sled goes through a pool of seven threads, and all seven are woken for it: one works, six look and sleep
//! again. That was a third of the CPU time of a lone commit. Here a write wakes one.
//!
//! Not parking_lot for anybody else: what sled 0.34.7 names. Another release of sled may not compile with it, or may rest
//! on what [`Condvar::notify_all`] does elsewhere; take the line under `[patch.crates-io]` out of the root Cargo.toml then,
//! and this folder with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, WaitTimeoutResult};

/// A condition variable. One that is waited on with a point in time is a queue of work: whoever comes takes a piece, looks
/// for more before it waits again, and any of those that wait will do.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: parking_lot::Condvar,
    /// Of the pool: the one place in sled that calls [`Condvar::wait_until`].
    is_queue: AtomicBool,
}

impl Condvar {
    pub const fn new() -> Self {
        Self { inner: parking_lot::Condvar::new(), is_queue: AtomicBool::new(false) }
    }

    /// Wakes one of those that wait for work, or all that wait for anything else.
    pub fn notify_all(&self) -> usize {
        if self.is_queue.load(Ordering::Relaxed) {
            usize::from(self.inner.notify_one())
        } else {
            self.inner.notify_all()
        }
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.inner.wait(guard);
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
        self.inner.wait_for(guard, timeout)
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, at: Instant) -> WaitTimeoutResult {
        // The guard orders it: who notifies has held the lock since, or finds nobody here.
        self.is_queue.store(true, Ordering::Relaxed);
        self.inner.wait_until(guard, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: usize = 4;

    /// Waiters, counted under the lock that a wait gives back: whoever sees all of them there sees all of them asleep.
    #[derive(Default)]
    struct Room {
        waiting: Mutex<usize>,
        called: Condvar,
    }

    impl Room {
        fn enter(&self, wait: impl Fn(&Condvar, &mut MutexGuard<'_, usize>)) {
            let mut waiting = self.waiting.lock();
            *waiting += 1;
            wait(&self.called, &mut waiting);
            *waiting -= 1;
        }

        /// Calls until nobody waits any more; answers how many each call woke, with nobody coming back meanwhile.
        fn empty(&self) -> Vec<usize> {
            while *self.waiting.lock() < THREADS {
                std::thread::yield_now();
            }
            let mut woken = Vec::new();
            while woken.iter().sum::<usize>() < THREADS {
                woken.push(self.called.notify_all());
            }
            woken
        }
    }

    fn woken_by_call(wait: impl Fn(&Condvar, &mut MutexGuard<'_, usize>) + Sync) -> Vec<usize> {
        let room = Room::default();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| room.enter(&wait));
            }
            room.empty()
        })
    }

    #[test]
    fn a_write_wakes_one_thread_of_the_pool() {
        let later = Instant::now() + Duration::from_secs(3_600);
        let woken = woken_by_call(|called, waiting| {
            called.wait_until(waiting, later);
        });
        assert_eq!(woken, [1; THREADS]);
    }

    #[test]
    fn a_flush_wakes_all_that_wait_for_it() {
        assert_eq!(woken_by_call(|called, waiting| called.wait(waiting)), [THREADS]);
    }
}
