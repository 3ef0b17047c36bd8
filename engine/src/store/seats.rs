//! Seats at the connections of a pool. A namespace has a few of them at most; its other requests wait in line, lines
//! take turns, and a request that waits too long is refused as busy. So a namespace that floods delays only itself.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;

use super::pool::Pool;
use crate::Error;

/// Number of seats, and time that one may be waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The seats.
    pub(crate) total: usize,
    /// The most seats of a namespace.
    pub(crate) each: usize,
    /// The most of a namespace that wait.
    pub(crate) waiting: usize,
    /// Time that a seat is waited for.
    pub(crate) wait: Duration,
}

/// The seats at the connections of a pool.
#[derive(Debug)]
pub(crate) struct Seats {
    bounds: Bounds,
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    by_holder: HashMap<Arc<str>, usize>,
    /// The namespaces with waiting requests, in turn.
    turns: VecDeque<Arc<str>>,
    lines: HashMap<Arc<str>, VecDeque<oneshot::Sender<Seat>>>,
}

/// A seat, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Option<Arc<Seats>>,
    holder: Arc<str>,
}

impl State {
    fn held_by(&self, holder: &str) -> usize {
        self.by_holder.get(holder).copied().unwrap_or(0)
    }

    fn take(&mut self, holder: &Arc<str>) {
        self.taken += 1;
        *self.by_holder.entry(Arc::clone(holder)).or_insert(0) += 1;
    }

    fn give_back(&mut self, holder: &str) {
        self.taken -= 1;
        if let Some(held) = self.by_holder.get_mut(holder) {
            *held -= 1;
            if *held == 0 {
                self.by_holder.remove(holder);
            }
        }
    }

    /// Takes a free seat for the next in turn whose namespace may have one.
    fn next(&mut self, bounds: &Bounds) -> Option<(Arc<str>, oneshot::Sender<Seat>)> {
        if self.taken >= bounds.total {
            return None;
        }
        for _ in 0..self.turns.len() {
            let holder = self.turns.pop_front()?;
            let may = self.held_by(&holder) < bounds.each;
            let line = self.lines.get_mut(&holder)?;
            let waiter = if may { line.pop_front() } else { None };
            if line.is_empty() {
                self.lines.remove(&holder);
            } else {
                self.turns.push_back(Arc::clone(&holder));
            }
            if let Some(waiter) = waiter {
                self.take(&holder);
                return Some((holder, waiter));
            }
        }
        None
    }
}

impl Seats {
    pub(crate) fn new(bounds: Bounds) -> Arc<Seats> {
        Arc::new(Seats { bounds, state: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// Waits for a seat for `namespace`.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many of the namespace wait already, or for too long.
    pub(crate) async fn take(self: &Arc<Seats>, namespace: &str) -> Result<Seat, Error> {
        let waits = {
            let mut state = self.lock();
            let free = state.taken < self.bounds.total;
            if free && state.held_by(namespace) < self.bounds.each {
                let holder: Arc<str> = namespace.into();
                state.take(&holder);
                return Ok(Seat { seats: Some(Arc::clone(self)), holder });
            }
            let (send, waits) = oneshot::channel();
            match state.lines.get_mut(namespace) {
                Some(line) => {
                    if line.len() >= self.bounds.waiting {
                        line.retain(|waiter| !waiter.is_closed());
                    }
                    if line.len() >= self.bounds.waiting {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        return Err(Error::Busy);
                    }
                    line.push_back(send);
                }
                None => {
                    let holder: Arc<str> = namespace.into();
                    state.turns.push_back(Arc::clone(&holder));
                    state.lines.insert(holder, VecDeque::from([send]));
                }
            }
            waits
        };
        match tokio::time::timeout(self.bounds.wait, waits).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Error::Busy)
            }
        }
    }

    /// Returns the number of callers that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the number of callers that wait.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.lock();
        let waiting = state.lines.values().flatten().filter(|waiter| !waiter.is_closed());
        waiting.count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(seats) = self.seats.take() else { return };
        seats.lock().give_back(&self.holder);
        loop {
            let next = seats.lock().next(&seats.bounds);
            let Some((holder, waiter)) = next else { return };
            let seat = Seat { seats: Some(Arc::clone(&seats)), holder };
            if let Err(mut seat) = waiter.send(seat) {
                // The waiting caller has given up. The next gets it here and not by its drop.
                seat.seats = None;
                seats.lock().give_back(&seat.holder);
            }
        }
    }
}

/// A connection of a pool, with the seat at it. The seat is free once the connection is, even if the caller has given
/// up in the middle of a statement.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: PoolConnection<Postgres>,
    seat: Option<Seat>,
}

impl Reader {
    /// Waits for a seat for `namespace`, then for a connection.
    ///
    /// # Errors
    /// [`Error::Busy`] when a seat is waited for too long; as [`Pool::acquire`].
    pub(crate) async fn of(
        pool: &Pool,
        seats: &Arc<Seats>,
        namespace: &str,
    ) -> Result<Reader, Error> {
        let seat = seats.take(namespace).await?;
        Ok(Reader { connection: pool.acquire().await?, seat: Some(seat) })
    }
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let returned = self.connection.return_to_pool();
        let seat = self.seat.take();
        tokio::spawn(async move {
            returned.await;
            drop(seat);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn seats(total: usize, each: usize, waiting: usize) -> Arc<Seats> {
        Seats::new(Bounds { total, each, waiting, wait: Duration::from_secs(60) })
    }

    #[tokio::test]
    async fn a_namespace_has_its_seats_only_and_another_finds_one_at_once() {
        let seats = seats(3, 2, 100);
        let held = [seats.take("flood").await.unwrap(), seats.take("flood").await.unwrap()];
        let mut third = Box::pin(seats.take("flood"));
        assert!((&mut third).now_or_never().is_none());
        let calm = seats.take("calm").now_or_never().expect("there is a seat").unwrap();
        drop(calm);
        assert!((&mut third).now_or_never().is_none(), "its share is taken");
        drop(held);
        third.now_or_never().expect("its turn has come").unwrap();
        assert_eq!(seats.lock().taken, 0);
    }

    #[tokio::test]
    async fn lines_take_turns() {
        let seats = seats(1, 1, 100);
        let held = seats.take("flood").await.unwrap();
        let mut flood: Vec<_> = (0..50).map(|_| Box::pin(seats.take("flood"))).collect();
        flood.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        let mut calm = Box::pin(seats.take("calm"));
        assert!((&mut calm).now_or_never().is_none());
        drop(held);
        // The flood came first; the one after it is the other's.
        let first = (&mut flood[0]).now_or_never().expect("its turn").unwrap();
        assert!((&mut calm).now_or_never().is_none());
        drop(first);
        calm.now_or_never().expect("after one of the flood").unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_seat_and_too_many_are_turned_away() {
        let seats = seats(1, 1, 2);
        let held = seats.take("a").await.unwrap();
        let mut gone = Box::pin(seats.take("a"));
        let mut waits = Box::pin(seats.take("a"));
        assert!((&mut gone).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        assert!(matches!(seats.take("a").await, Err(Error::Busy)));
        drop(gone);
        let mut last = Box::pin(seats.take("a"));
        assert!((&mut last).now_or_never().is_none(), "there is a place in line again");
        drop(held);
        drop(waits.now_or_never().expect("its turn").unwrap());
        drop(last.now_or_never().expect("its turn").unwrap());
        let state = seats.lock();
        assert_eq!((state.taken, state.lines.len(), state.by_holder.len()), (0, 0, 0));
        assert_eq!(seats.refused.load(Ordering::Relaxed), 1);
    }
}
