//! Separate threads for work on JSON Schemas, so that no such work occupies a thread that serves requests. A namespace
//! has one place at a time; later requests wait, with a time limit.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::limits::WAITING;
use crate::Error;

/// Number of threads: two, so that one namespace leaves one to the others.
pub(crate) const THREADS: usize = 2;
/// Stack of a thread, enough for the deepest schema on the deepest document; memory is allocated as it
/// is used.
pub(super) const STACK: usize = 64 * 1024 * 1024;
/// The longest wait for a place.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// So many of a namespace may wait, however many others do.
const ALWAYS: usize = 16;

/// The threads, and who waits for them.
pub(super) struct Pool {
    jobs: std::sync::mpsc::Sender<Job>,
    threads: Arc<Semaphore>,
    namespaces: Mutex<HashMap<String, Weak<Place>>>,
}

/// The place of a namespace.
struct Place {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One that waits, until it is dropped.
struct Waits(Arc<Place>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Starts the threads; they end with the pool.
    pub(super) fn start() -> Pool {
        let (jobs, inbox) = std::sync::mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..THREADS {
            let inbox = Arc::clone(&inbox);
            let work = move || {
                loop {
                    let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match job {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            };
            let thread =
                std::thread::Builder::new().name(format!("schemas-{number}")).stack_size(STACK);
            if let Err(error) = thread.spawn(work) {
                tracing::error!(%error, "a thread for JSON Schemas could not be started");
            }
        }
        Pool { jobs, threads: Arc::new(Semaphore::new(THREADS)), namespaces: Mutex::default() }
    }

    /// Runs `work` on one of the threads once `namespace` has a place. `None` when the work panicked.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many of the namespace wait, or the wait was too long.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let waits = self.wait(namespace)?;
        let own = Arc::clone(&waits.0.free);
        let places = async {
            let own = own.acquire_owned().await;
            (own, Arc::clone(&self.threads).acquire_owned().await)
        };
        let places = tokio::time::timeout(WAIT, places).await.map_err(|_| Error::Busy)?;
        let (done, result) = oneshot::channel();
        let place = Arc::clone(&waits.0);
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(work)).ok();
            // The places are kept until here, even if nobody waits for the result any more.
            drop((places, place));
            let _ = done.send(result);
        };
        self.jobs.send(Box::new(job)).map_err(|_| Error::Busy)?;
        result.await.map_err(|_| Error::Busy)
    }

    /// Begins to wait. Of each namespace as many may as its share is of all that may, and a few in any case.
    fn wait(&self, namespace: &str) -> Result<Waits, Error> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match namespaces.get(namespace).and_then(Weak::upgrade) {
            Some(place) => place,
            None => {
                namespaces.retain(|_, place| place.strong_count() > 0);
                let free = Arc::new(Semaphore::new(1));
                let place = Arc::new(Place { free, waiting: AtomicUsize::new(0) });
                namespaces.insert(namespace.to_owned(), Arc::downgrade(&place));
                place
            }
        };
        if place.waiting.load(Ordering::Relaxed) >= ALWAYS {
            let all = namespaces.values().filter(|place| place.strong_count() > 0).count();
            if place.waiting.load(Ordering::Relaxed) >= (WAITING / all.max(1)).max(ALWAYS) {
                return Err(Error::Busy);
            }
        }
        place.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Waits(place))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_namespace_that_works_leaves_a_thread_to_the_others() {
        let pool = Arc::new(Pool::start());
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let busy = Arc::clone(&pool);
        let slow = tokio::spawn(async move {
            busy.run("alpha", move || wait.lock().unwrap().recv().is_ok()).await.unwrap()
        });
        let second = Arc::clone(&pool);
        let queued = tokio::spawn(async move { second.run("alpha", || 2).await.unwrap() });
        assert_eq!(pool.run("beta", || 1).await.unwrap(), Some(1));
        assert!(!queued.is_finished());
        go.send(()).unwrap();
        assert_eq!((slow.await.unwrap(), queued.await.unwrap()), (Some(true), Some(2)));
    }

    #[test]
    fn who_floods_the_threads_leaves_others_their_share_of_places_to_wait_at() {
        let pool = Pool::start();
        let all = |namespace| -> Vec<Waits> {
            std::iter::from_fn(|| pool.wait(namespace).ok()).take(2 * WAITING).collect()
        };
        let flood = all("alpha");
        assert_eq!(flood.len(), WAITING, "one alone has all");
        let calm = all("beta");
        assert_eq!(calm.len(), WAITING / 2);
        assert!(pool.wait("alpha").is_err());
        drop(flood);
        drop(calm);
        assert_eq!(all("alpha").len(), WAITING);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_thread_goes_on() {
        let pool = Pool::start();
        for _ in 0..THREADS + 1 {
            assert_eq!(pool.run("alpha", || -> u8 { panic!("on purpose") }).await.unwrap(), None);
        }
        assert_eq!(pool.run("alpha", || 1).await.unwrap(), Some(1));
        assert_eq!(pool.namespaces.lock().unwrap().len(), 1);
    }
}
